/** One snapshot as the reader works on it: what it reads, how large its next chunk is, and when it is its turn. */
import type { ChunkRead } from '../../replicate/snapshot/read-chunk.ts';
import type { TableScan } from '../../replicate/snapshot/table-scan.ts';
import type { TableEncoder } from '../table-encoder.ts';
import type { Chunk } from './chunk.ts';
import type { ScanOrder } from './scan-order.ts';
import type { SnapshotRequest } from './snapshot-requests.ts';

/** Keys that are read again in one chunk. */
export const keysPerChunk = 100;
export const retryMs = 100;
const longestRetryMs = 2000;

/** A chunk that was read, until the stream has said what becomes of it. */
export interface ChunkUnderWay {
  chunk: Chunk;
  /** Whether its high mark is written. */
  closed: boolean;
  /** The cursor where the next one begins. */
  next: string[] | null;
}

export class SnapshotJob {
  request: SnapshotRequest;
  /** The table's. */
  readonly topic: string;
  scan: TableScan | null = null;
  order: ScanOrder | null = null;
  encoder: TableEncoder | null = null;
  /** The topic that its rows go to. */
  into = '';
  /** Of the next chunk of keys. */
  keysAtOnce = keysPerChunk;
  /** Since they were reported. */
  rereads = 0;
  waitsFor: string | null = null;
  notBefore = 0;
  reportedAt = 0;
  /** In the scan's order. */
  underWay: ChunkUnderWay[] = [];
  #delayMs = 0;

  constructor(request: SnapshotRequest, topic: string) {
    this.request = request;
    this.topic = topic;
  }

  /** @returns false where some of the keys' rows did not fit: fewer are read next time */
  readKeys({ rows, cut }: ChunkRead): boolean {
    this.keysAtOnce = cut ? Math.max(1, rows.count) : Math.min(keysPerChunk, this.keysAtOnce * 2);
    return !cut;
  }

  went(): void {
    this.#delayMs = 0;
    this.waitsFor = null;
  }

  delay(): void {
    this.#delayMs = Math.min(longestRetryMs, Math.max(retryMs, this.#delayMs * 2));
    this.notBefore = Date.now() + this.#delayMs;
  }
}
