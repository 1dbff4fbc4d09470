/** A Change in the window store: what goes in, and what comes out. */
import type { Position } from '../connector/position.ts';

interface ChangeHead {
  /** Index of the topic, as the Unit numbers its topics. */
  topic: number;
  position: Position;
  /** Id of the value's schema in the registry. */
  schemaId: number;
  truncate: boolean;
  /** The source let go of the row. */
  eviction?: boolean;
  /** Record key without its registry header; null for keyless tables and truncates. */
  key: Buffer | null;
  /** The key the row had before, without registry header: set on the create half of a key change. */
  oldKey: Buffer | null;
}

export interface ChangeBody {
  /** The whole record value. */
  value: Buffer;
  /** Headers as they came. */
  unchanged: string | null;
  exact: string | null;
  /** A snapshot has yet to bring the row that the unchanged columns are in. */
  pending?: boolean;
}

/** A record of a change topic that is not a null record. */
export interface IncomingChange extends ChangeHead, ChangeBody {
  /** Position of the delete half, where oldKey is set. */
  oldKeyEnd: Position | null;
}

export interface StoredChange extends ChangeHead {
  /** Of a table without a key, or a truncate. */
  keyless: boolean;
  /** Some columns are unchanged: the body alone does not say what the row is. */
  partial: boolean;
  /** Size of the body. */
  bytes: number;
  /** Reads the body from where it is kept. */
  load(): ChangeBody;
  /** The value where it is, if no header says more. */
  view(): BodyView | null;
  /** Of a Change of the same topic. */
  hasKeyOf(other: StoredChange): boolean;
}

/** A value within other bytes. */
export interface BodyView {
  bytes: Buffer;
  start: number;
  end: number;
}

/** A range of Positions: exclusive, inclusive. */
export interface Range {
  from: Position;
  to: Position;
}

/** What a Window holds of one topic between two changes of its schema: all of it, nearly always. */
export interface TopicContent {
  topic: number;
  /** The part of the Window, by Position. */
  range: Range;
  changes: number;
  /** Position of the last truncate, or null. */
  truncatedAt: Position | null;
  /** Schema of every Change. */
  schemaId: number;
  /** Some create half of a key change leaves columns unchanged: old keys must be looked up. */
  borrows: boolean;
}

/** A row that is withheld from the destination (Quarantine), for a stretch of Positions. */
export interface WithheldKey {
  topic: number;
  /** Record key without its registry header. */
  key: Buffer;
  /** Inclusive; null: from the beginning. */
  from: Position | null;
  /** Exclusive; null: to the end. */
  until: Position | null;
}
