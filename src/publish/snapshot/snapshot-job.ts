/** One snapshot as the reader works on it: what it reads, how large its next chunk is, and when it is its turn. */
import type { SourceConfig } from '../../platform/resolved-config.ts';
import type { TableScan } from '../../replicate/snapshot/table-scan.ts';
import type { TableEncoder } from '../table-encoder.ts';
import type { Chunk } from './chunk.ts';
import type { SnapshotRequest } from './snapshot-requests.ts';

/** The first chunk says how large rows are. */
const firstRows = 1000;
export const retryMs = 100;
const longestRetryMs = 2000;

/** A chunk between its high mark and what the stream says of it. */
export interface ChunkUnderWay {
  chunk: Chunk;
  /** The key after which the next one begins. */
  next: string[] | null;
}

export class SnapshotJob {
  request: SnapshotRequest;
  /** The table's. */
  readonly topic: string;
  scan: TableScan | null = null;
  encoder: TableEncoder | null = null;
  /** The topic that its rows go to. */
  into = '';
  /** Rows of the next chunk at most. */
  limit: number;
  /** Since they were reported. */
  rereads = 0;
  waitsFor: string | null = null;
  notBefore = 0;
  reportedAt = 0;
  /** In the key's order. */
  underWay: ChunkUnderWay[] = [];
  #delayMs = 0;

  constructor(request: SnapshotRequest, topic: string, chunkRows: number) {
    this.request = request;
    this.topic = topic;
    this.limit = Math.min(firstRows, chunkRows);
  }

  went(): void {
    this.#delayMs = 0;
    this.waitsFor = null;
  }

  delay(): void {
    this.#delayMs = Math.min(longestRetryMs, Math.max(retryMs, this.#delayMs * 2));
    this.notBefore = Date.now() + this.#delayMs;
  }

  /** As many rows as the bytes allow, going by the last chunk. @param limit of that chunk */
  resize(rows: number, bytes: number, limit: number, { snapshot }: SourceConfig): void {
    const fitting = Math.floor((snapshot.chunkBytes * rows) / Math.max(1, bytes));
    this.limit = Math.max(1, Math.min(snapshot.chunkRows, fitting, limit * 4));
  }
}
