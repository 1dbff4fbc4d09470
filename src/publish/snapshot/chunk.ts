/** One attempt at one chunk of a table's snapshot, between its reader (snapshot-runner.ts) and the encoder. */
import type { TidemarkError } from '../../platform/errors.ts';
import type { CopyRows } from '../../replicate/snapshot/copy-binary.ts';
import type { PgSnapshot, Sight } from '../../replicate/snapshot/visibility.ts';
import type { TableEncoder } from '../table-encoder.ts';

/** Why a chunk is read again. */
export type VoidReason =
  /** A transaction streamed before the low mark was not visible. */
  | 'unseen'
  /** More transactions than fit into memory were not visible. */
  | 'crowded'
  /** The table was truncated between the marks. */
  | 'truncated'
  /** Its columns changed. */
  | 'shape'
  /** More keys changed between the marks than fit into memory. */
  | 'busy'
  /** The rows of the keys that were asked for are too large for one chunk. */
  | 'large'
  /** The scan does not stand where it was read from: the chunk before it was not published. */
  | 'detached'
  /** Nobody wants it any more. */
  | 'cancelled';

export type ChunkOutcome =
  /** In the batch that the publisher sends next. */
  | { kind: 'published'; rows: number; dropped: number }
  | { kind: 'void'; reason: VoidReason }
  /** The table cannot be snapshotted as it is. */
  | { kind: 'stopped'; error: TidemarkError };

/** What else is known once the rows are read. */
export interface ChunkContent {
  encoder: TableEncoder;
  /** Of a range: the cursor after it. */
  next: string[] | null;
  /** Nothing comes after it in the scan's order. */
  last: boolean;
}

export class Chunk {
  readonly id: string;
  /** The table's. */
  readonly topic: string;
  /** Where its rows go: the table's topic, or one for a single destination. */
  readonly into: string;
  /** Of the snapshot it belongs to. */
  readonly snapshotId: string;
  /** The keys that were asked for, where this is no range of the table. */
  readonly keys: readonly (readonly string[])[] | null;
  /** The cursor where a range begins; null: at the start. */
  readonly from: string[] | null;
  /** What its rows show, until it is released. */
  sight: Sight | null = null;
  snapshot: PgSnapshot | null = null;
  /** As far as they are read. */
  rows: CopyRows | null = null;
  content: ChunkContent | null = null;
  readonly settled: Promise<ChunkOutcome>;
  /** Of `settled`, once it is known. */
  outcome: ChunkOutcome | null = null;
  #settle: (outcome: ChunkOutcome) => void = () => {};

  constructor(options: Pick<Chunk, 'id' | 'topic' | 'into' | 'snapshotId' | 'keys' | 'from'>) {
    this.id = options.id;
    this.topic = options.topic;
    this.into = options.into;
    this.snapshotId = options.snapshotId;
    this.keys = options.keys;
    this.from = options.from;
    this.settled = new Promise((resolve) => {
      this.#settle = resolve;
    });
  }

  settle(outcome: ChunkOutcome): void {
    this.outcome ??= outcome;
    this.#settle(outcome);
  }
}
