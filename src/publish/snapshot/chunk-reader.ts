/** Low mark, read, high mark: one chunk of a snapshot, up to where the stream says what becomes of it. */
import { randomUUID } from 'node:crypto';
import pg from 'pg';
import { type TableShape, tableName } from '../../connector/shape.ts';
import { TidemarkError } from '../../platform/errors.ts';
import { failpoint } from '../../platform/failpoint.ts';
import type { Logger } from '../../platform/log.ts';
import type { SourceConfig } from '../../platform/resolved-config.ts';
import { type CatalogueTable, quoted } from '../../replicate/catalogue.ts';
import type { Relation } from '../../replicate/pgoutput.ts';
import { writeMark } from '../../replicate/snapshot/marks.ts';
import { readChunk } from '../../replicate/snapshot/read-chunk.ts';
import {
  describeScan,
  estimateRows,
  keysQuery,
  rangeQuery,
  requireCondition,
} from '../../replicate/snapshot/table-scan.ts';
import { sourceError } from '../../replicate/source.ts';
import type { SnapshotState } from '../progress.ts';
import type { TableEncoder } from '../table-encoder.ts';
import { readsBinary } from '../types/reader-codecs.ts';
import { Chunk, type ChunkOutcome } from './chunk.ts';
import type { SnapshotJob } from './snapshot-job.ts';
import type { SnapshotRequests } from './snapshot-requests.ts';
import type { TableSnapshots } from './table-snapshots.ts';

export interface ChunkReaderOptions {
  source: SourceConfig;
  requests: SnapshotRequests;
  snapshots: TableSnapshots;
  /**
   * Topic and schemas of a table that the stream may not have met yet, and the topic that the rows go to.
   * @param destination whom they are for; null: all
   */
  prepare(relation: Relation, destination: string | null): Promise<{ encoder: TableEncoder; into: string }>;
  log: Logger;
}

/** Keys that are read again in one chunk. */
const keysPerChunk = 100;

export class ChunkReader {
  readonly #options: ChunkReaderOptions;
  /** Between their low mark and the end. */
  readonly #pending = new Set<Chunk>();

  constructor(options: ChunkReaderOptions) {
    this.#options = options;
  }

  /** Nobody waits for the chunks that are under way any more. */
  cancel(): void {
    for (const chunk of this.#pending) chunk.settle({ kind: 'void', reason: 'cancelled' });
  }

  async prepare(job: SnapshotJob, client: pg.Client): Promise<void> {
    const { source, requests, log } = this.#options;
    const { id, table, condition, destination, estimatedRows } = job.request;
    const scan = await describeScan(client, source, table, readsBinary);
    if (condition) await requireCondition(client, scan, condition);
    const { encoder, into } = await this.#options.prepare(scan.relation, destination);
    requirePlainKey(encoder.shape);
    const order = scan.key.map(({ name, type, collation }) => [name, type, collation]);
    const key = JSON.stringify([scan.table.oid, order]);
    this.#options.snapshots.describe(job.topic, id, key);
    job.encoder = encoder;
    job.into = into;
    job.scan = scan;
    const estimate = estimatedRows ?? (await estimateRows(client, scan, condition));
    await requests.started(id, estimate);
    log.info(`the snapshot of ${table} goes on`, { estimatedRows: estimate });
  }

  /**
   * @param settled waits for what the stream says
   * @returns null where a transaction that must be visible is not yet, so that reading made no sense
   */
  async read(
    job: SnapshotJob,
    client: pg.Client,
    state: Readonly<SnapshotState>,
    settled: (chunk: Chunk) => Promise<ChunkOutcome>,
  ): Promise<ChunkOutcome | null> {
    const { source, snapshots } = this.#options;
    const scan = job.scan!;
    const { limit } = job;
    const keys = state.read ? state.again.slice(0, Math.min(keysPerChunk, limit)) : null;
    const query = keys ? keysQuery(scan, keys) : rangeQuery(scan, state.cursor, job.request.condition, limit);
    const { topic, into } = job;
    const chunk = new Chunk({ id: randomUUID(), topic, into, snapshotId: state.id, keys });
    const mark = { sourceId: source.id, chunk: chunk.id };
    snapshots.expect(chunk);
    this.#pending.add(chunk);
    try {
      await writeMark(client, { ...mark, kind: 'low' });
      await failpoint('before-chunk-read');
      let visible = true;
      const read = await readChunk(client, scan, query, source.snapshot.chunkBytes, (snapshot) => {
        snapshots.watch.observe(snapshot);
        visible = snapshots.watch.suspects(snapshot) === 0;
        return visible;
      });
      if (!read) return visible ? { kind: 'void', reason: 'shape' } : null;
      const { rows } = read;
      if (keys && read.cut) {
        job.limit = Math.max(1, rows.count);
        return { kind: 'void', reason: 'large' };
      }
      chunk.content = {
        rows,
        snapshot: read.snapshot,
        encoder: job.encoder!,
        last: keys !== null || (!read.cut && rows.count < limit),
      };
      await failpoint('chunk-read');
      await writeMark(client, { ...mark, kind: 'high' });
      await failpoint('after-high-mark');
      const outcome = await settled(chunk);
      if (!keys && rows.count > 0) job.resize(rows.count, rows.bytes, limit, source);
      return outcome;
    } finally {
      snapshots.abandon(chunk);
      this.#pending.delete(chunk);
    }
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
