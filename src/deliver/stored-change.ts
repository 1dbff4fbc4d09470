/** A Change in the window store: what goes in, what comes out, and how DuckDB's columns carry it. */
import {
  BIGINT,
  BLOB,
  BOOLEAN,
  type DuckDBBlobValue,
  type DuckDBConnection,
  type DuckDBValue,
  INTEGER,
  VARCHAR,
} from '@duckdb/node-api';
import type { Position } from '../connector/position.ts';
import { storeError } from './window-store.ts';

interface ChangeHead {
  /** Index of the topic, as the Unit numbers its topics. */
  topic: number;
  position: Position;
  /** Id of the value's schema in the registry. */
  schemaId: number;
  truncate: boolean;
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
  /** Some columns are unchanged: the body alone does not say what the row is. */
  partial: boolean;
  /** Size of the body. */
  bytes: number;
  /** Reads the body from its file. */
  load(): ChangeBody;
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

/** Columns that UnitStore.storedChange needs, in this order. */
export const changeColumns =
  'topic, position, schema_id, truncate, partial, key, old_key, file, place, value_bytes, header_bytes';
/** Of a table's columns: those above and old_key_end. */
export const columnTypes = [
  INTEGER,
  VARCHAR,
  INTEGER,
  BOOLEAN,
  BOOLEAN,
  BLOB,
  BLOB,
  INTEGER,
  BIGINT,
  INTEGER,
  INTEGER,
  VARCHAR,
];
export const tableColumns = `topic integer, position varchar, schema_id integer, truncate boolean, partial boolean, key blob,
  old_key blob, file integer, place bigint, value_bytes integer, header_bytes integer, old_key_end varchar`;

/** `changeColumns` of an alias. */
export function changeColumnsOf(alias: string): string {
  return changeColumns.replaceAll(/\w+/g, (name) => `${alias}.${name}`);
}

/** Streams a query's rows in chunks of at most 2,048. @throws TidemarkError TM406 */
export async function* streamRows<T>(
  connection: DuckDBConnection,
  sql: string,
  read: (columns: DuckDBValue[][], row: number) => T,
): AsyncIterable<T[]> {
  let failed = true;
  try {
    const result = await connection.stream(sql);
    for (;;) {
      const chunk = await result.fetchChunk();
      if (!chunk || chunk.rowCount === 0) return;
      const values = chunk.getColumns();
      const rows: T[] = new Array(chunk.rowCount);
      for (let i = 0; i < rows.length; i++) rows[i] = read(values, i);
      // Its strings live outside the heap, where no collection sees how large they are.
      chunk.reset();
      failed = false;
      yield rows;
      failed = true;
    }
  } catch (error) {
    throw failed ? storeError(error) : error;
  }
}

/** A BLOB cell's bytes. */
export function blob(value: DuckDBValue): Buffer | null {
  if (value === null) return null;
  const { bytes } = value as DuckDBBlobValue;
  return Buffer.isBuffer(bytes) ? bytes : Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}
