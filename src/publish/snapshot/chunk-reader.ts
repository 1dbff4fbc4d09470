/**
 * Low mark, read, high mark: one chunk of a snapshot, up to where the stream says what becomes of it. One chunk's high mark
 * is written with the next one's read: once it is, the stream brings it, and its rows are encoded while the server reads.
 */
import { randomUUID } from 'node:crypto';
import pg from 'pg';
import { type TableShape, tableName } from '../../connector/shape.ts';
import { TidemarkError } from '../../platform/errors.ts';
import { failpoint } from '../../platform/failpoint.ts';
import type { Logger } from '../../platform/log.ts';
import type { SourceConfig } from '../../platform/resolved-config.ts';
import { type CatalogueTable, quoted } from '../../replicate/catalogue.ts';
import type { Relation } from '../../replicate/pgoutput.ts';
import { CopyRows } from '../../replicate/snapshot/copy-binary.ts';
import type { CopyClient } from '../../replicate/snapshot/copy-client.ts';
import { type Mark, markStatement, writeMark } from '../../replicate/snapshot/marks.ts';
import { isStillUnchanged, readChunk } from '../../replicate/snapshot/read-chunk.ts';
import {
  describeScan,
  estimateRows,
  keysQuery,
  requireCondition,
} from '../../replicate/snapshot/table-scan.ts';
import { sourceError } from '../../replicate/source.ts';
import type { SnapshotState } from '../progress.ts';
import type { TableEncoder } from '../table-encoder.ts';
import { readsBinary } from '../types/reader-codecs.ts';
import { Chunk, type ChunkOutcome } from './chunk.ts';
import { scanOrder } from './scan-order.ts';
import { type ChunkUnderWay, keysPerChunk, type SnapshotJob } from './snapshot-job.ts';
import type { SnapshotRequests } from './snapshot-requests.ts';
import type { TableSnapshots } from './table-snapshots.ts';

export interface ChunkReaderOptions {
  source: SourceConfig;
  requests: SnapshotRequests;
  snapshots: TableSnapshots;
  /**
   * Topic and schemas of a table that the stream may not have met yet, and the topic that the rows go to.
   * @param destination whom they are for; null: all
   * @param current asked before anything is registered; where it says no, the table is not prepared
   */
  prepare(
    relation: Relation,
    destination: string | null,
    current: () => Promise<boolean>,
  ): Promise<{ encoder: TableEncoder; into: string } | null>;
  log: Logger;
}

/** One for each chunk that may be under way, of two tables. */
const mostSpaces = 6;

export class ChunkReader {
  readonly #options: ChunkReaderOptions;
  /** Of rows that are published: what a chunk takes anew, the system clears and the garbage collector is told of. */
  readonly #spaces: Buffer[] = [];
  /** Between their low mark and the end. */
  readonly #pending = new Set<Chunk>();

  constructor(options: ChunkReaderOptions) {
    this.#options = options;
  }

  /** Nobody waits for the chunks that are under way any more. */
  cancel(): void {
    for (const chunk of this.#pending) chunk.settle({ kind: 'void', reason: 'cancelled' });
  }

  /**
   * The catalogue may be ahead of the stream. A shape is registered once the stream is past everything that led to it, and
   * before it can meet a later one.
   * @param settled waits for what the stream says
   * @returns false where the table has another shape by then
   */
  async prepare(
    job: SnapshotJob,
    client: pg.Client,
    settled: (chunk: Chunk) => Promise<ChunkOutcome>,
  ): Promise<boolean> {
    const { source, requests, log } = this.#options;
    const { id, table, condition, destination, estimatedRows } = job.request;
    const scan = await describeScan(client, source, table, readsBinary);
    if (condition) await requireCondition(client, scan, condition);
    if (!(await this.#passes(job, client, settled))) return false;
    const current = () =>
      isStillUnchanged(client, scan).catch((error: unknown) => {
        throw readError(error, scan.table, source);
      });
    const prepared = await this.#options.prepare(scan.relation, destination, current);
    if (!prepared) return false;
    const { encoder, into } = prepared;
    requirePlainKey(encoder.shape);
    const { snapshots } = this.#options;
    const order = scanOrder(scan, condition, source, snapshots.state(job.topic)?.key ?? null);
    snapshots.describe(job.topic, id, order.description);
    job.order = order;
    job.encoder = encoder;
    job.into = into;
    job.scan = scan;
    const estimate = estimatedRows ?? (await estimateRows(client, scan, condition));
    await requests.started(id, estimate);
    log.info(`the snapshot of ${table} goes on`, { estimatedRows: estimate, order: order.name });
    return true;
  }

  /** Waits until the stream is where the WAL ends now: for the high mark of a chunk without rows. */
  async #passes(
    job: SnapshotJob,
    client: pg.Client,
    settled: (chunk: Chunk) => Promise<ChunkOutcome>,
  ): Promise<boolean> {
    const { topic, request } = job;
    const chunk = this.#expect({ topic, into: topic, snapshotId: request.id, keys: null, from: null });
    try {
      await writeMark(client, this.#mark(chunk, 'high'));
      const outcome = await settled(chunk);
      return outcome.kind === 'void' && outcome.reason !== 'cancelled';
    } finally {
      this.release(chunk);
    }
  }

  /**
   * @param from where the scan stands, or will once the chunks under way are published
   * @param before the chunk before it, if it is not closed: it is then
   * @returns a chunk, which must be closed and released; or why there is none, null where a transaction that must be
   *   visible is not yet
   */
  async read(
    job: SnapshotJob,
    client: CopyClient,
    from: Readonly<Pick<SnapshotState, 'id' | 'cursor' | 'read' | 'again'>>,
    before: ChunkUnderWay | null,
  ): Promise<ChunkUnderWay | (ChunkOutcome & { kind: 'void' }) | null> {
    const { source, snapshots } = this.#options;
    const scan = job.scan!;
    const { topic, into } = job;
    // Also in between: with too many of them the scan would start over.
    const keys = from.read || from.again.length >= keysPerChunk ? from.again.slice(0, job.keysAtOnce) : null;
    const range = keys ? null : job.order!.plan(from.cursor);
    const query = range?.query ?? keysQuery(scan, keys!);
    const chunk = this.#expect({
      topic,
      into,
      snapshotId: from.id,
      keys,
      from: keys ? null : from.cursor,
    });
    let underWay: ChunkUnderWay | null = null;
    try {
      await failpoint('before-chunk-read');
      const { watch } = snapshots;
      const rows = new CopyRows(scan.relation.columns.length, scan.text, this.#spaces.pop());
      chunk.rows = rows;
      chunk.sight = watch.expect();
      const marks = [...(before ? [this.#mark(before.chunk, 'high')] : []), this.#mark(chunk, 'low')];
      const read = await readChunk(client, scan, query, rows, {
        first: marks.map(markStatement),
        maxBytes: source.snapshot.chunkBytes,
      });
      if (before) await this.#closed(before);
      if (!read) return { kind: 'void', reason: 'shape' };
      watch.hold(chunk.sight, read.snapshot);
      chunk.snapshot = read.snapshot;
      if (watch.suspects(read.snapshot) > 0) return null;
      const encoder = job.encoder!;
      // Of keys nothing is read ahead: which are left is known once these are published.
      const after = range
        ? range.after(read, encoder)
        : job.readKeys(read)
          ? { next: null, last: true }
          : null;
      if (!after) return { kind: 'void', reason: 'large' };
      const { next } = after;
      chunk.content = { encoder, ...after };
      await failpoint('chunk-read');
      underWay = { chunk, next, closed: false };
      return underWay;
    } finally {
      if (!underWay) this.release(chunk);
    }
  }

  /** Where no other chunk follows whose reading does it. */
  async close(underWay: ChunkUnderWay, client: pg.Client): Promise<void> {
    if (underWay.closed) return;
    await writeMark(client, this.#mark(underWay.chunk, 'high'));
    await this.#closed(underWay);
  }

  async #closed(underWay: ChunkUnderWay): Promise<void> {
    underWay.closed = true;
    await failpoint('after-high-mark');
  }

  #mark(chunk: Chunk, kind: Mark['kind']): Mark {
    return { sourceId: this.#options.source.id, chunk: chunk.id, kind };
  }

  /** A chunk whose marks the stream is to look for, until `release`. */
  #expect(options: Omit<ConstructorParameters<typeof Chunk>[0], 'id'>): Chunk {
    const chunk = new Chunk({ ...options, id: randomUUID() });
    this.#options.snapshots.expect(chunk);
    this.#pending.add(chunk);
    return chunk;
  }

  /** Nobody waits for the chunk any more; what the stream says of it from now on changes nothing. */
  release(chunk: Chunk): void {
    const { snapshots } = this.#options;
    snapshots.abandon(chunk);
    if (chunk.sight) snapshots.watch.release(chunk.sight);
    this.#pending.delete(chunk);
    const space = chunk.rows?.leave();
    // What one very large row needed is not kept.
    const fits = space && space.length <= 2 * this.#options.source.snapshot.chunkBytes;
    if (fits && this.#spaces.length < mostSpaces) this.#spaces.push(space);
  }
}

/** Where the scan stands is in Kafka, as the key's own values. @throws TidemarkError TM225 */
function requirePlainKey(shape: TableShape): void {
  const hashed = shape.keyColumns.map((i) => shape.columns[i]!).find(({ protection }) => protection);
  if (!hashed) return;
  throw new TidemarkError(
    'TM225',
    `${tableName(shape)} cannot be read in chunks: its key column ${hashed.name} leaves Postgres hashed, and the place that a snapshot has reached is a key`,
  );
}

/** Class 22: a condition divided by zero, or met a value it cannot read. */
export function readError(
  error: unknown,
  table: CatalogueTable | undefined,
  source: SourceConfig,
): TidemarkError {
  if (error instanceof TidemarkError) return error;
  const { code } = error as { code?: string };
  if (code === '42501' && table) {
    const role = pg.escapeIdentifier(source.endpoint.user);
    return new TidemarkError('TM202', `this role may not read ${tableName(table)}`, {
      cause: error,
      remedy: `grant usage on schema ${pg.escapeIdentifier(table.schema)} to ${role}; grant select on ${quoted(table)} to ${role}; -- then: tidemark snapshot start ${tableName(table)}`,
    });
  }
  if (code?.startsWith('22')) {
    return new TidemarkError('TM224', `the condition fails on some row (SQLSTATE ${code})`, { cause: error });
  }
  return sourceError(error);
}
