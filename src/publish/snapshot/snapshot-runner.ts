/**
 * Reads the requested snapshots chunk by chunk, beside the stream: low mark, read, high mark, and then the stream
 * itself says what becomes of the chunk (table-snapshots.ts). Nothing here is lost with the process: the cursor is in
 * Progress, the wish in the control database.
 */
import { randomUUID } from 'node:crypto';
import { setTimeout as sleep } from 'node:timers/promises';
import type pg from 'pg';
import type { Position } from '../../connector/position.ts';
import { type TableShape, tableName } from '../../connector/shape.ts';
import { asTidemarkError, TidemarkError } from '../../platform/errors.ts';
import { failpoint } from '../../platform/failpoint.ts';
import { errorFields, type Logger } from '../../platform/log.ts';
import type { SourceConfig } from '../../platform/resolved-config.ts';
import { type CatalogueTable, ruleFor } from '../../replicate/catalogue.ts';
import type { Relation } from '../../replicate/pgoutput.ts';
import { writeMark } from '../../replicate/snapshot/marks.ts';
import { readChunk, scanSession } from '../../replicate/snapshot/read-chunk.ts';
import {
  describeScan,
  estimateRows,
  keyless,
  keysQuery,
  rangeQuery,
  requireCondition,
  type TableScan,
} from '../../replicate/snapshot/table-scan.ts';
import { connectSource, sourceError } from '../../replicate/source.ts';
import { newSnapshot, type Progress, type SnapshotState } from '../progress.ts';
import type { TableEncoder } from '../table-encoder.ts';
import { readsBinary } from '../types/reader-codecs.ts';
import { Chunk, type ChunkOutcome, type VoidReason } from './chunk.ts';
import { beginWatch, holdsNoEarlierRow } from './invisible-commits.ts';
import type { SnapshotRequest, SnapshotRequests } from './snapshot-requests.ts';
import { isComplete, type TableSnapshots } from './table-snapshots.ts';

export interface SnapshotRunnerOptions {
  source: SourceConfig;
  requests: SnapshotRequests;
  snapshots: TableSnapshots;
  topicOf(table: string): string;
  /** Up to where the stream was encoded. */
  position(): Position;
  /**
   * Topic and schemas of a table that the stream may not have met yet, and the topic that the rows go to.
   * @param destination whom they are for; null: all
   */
  prepare(relation: Relation, destination: string | null): Promise<{ encoder: TableEncoder; into: string }>;
  log: Logger;
}

/** Requests are looked for this often. */
const pollMs = 1000;
/** Tables that are read at the same time, each over a connection of its own. */
const tablesAtOnce = 2;
/** Keys that are read again in one chunk. */
const keysPerChunk = 100;
/** The first chunk says how large rows are. */
const firstRows = 1000;
const retryMs = 100;
const longestRetryMs = 2000;

class Job {
  request: SnapshotRequest;
  readonly topic: string;
  scan: TableScan | null = null;
  encoder: TableEncoder | null = null;
  into = '';
  limit: number;
  rereads = 0;
  waitsFor: string | null = null;
  delayMs = 0;
  notBefore = 0;
  reportedAt = 0;

  constructor(request: SnapshotRequest, topic: string, chunkRows: number) {
    this.request = request;
    this.topic = topic;
    this.limit = Math.min(firstRows, chunkRows);
  }
}

export class SnapshotRunner {
  readonly #options: SnapshotRunnerOptions;
  readonly #jobs = new Map<string, Job>();
  /** Between their low mark and the end. */
  readonly #pending = new Set<Chunk>();
  readonly #clients: (pg.Client | null)[] = new Array(tablesAtOnce).fill(null);
  #committed: Record<string, SnapshotState>;
  #watching = false;
  #polledAt = 0;
  #turn = 0;
  readonly #stopping = new AbortController();
  #running: Promise<void> | null = null;

  /** @param resumed snapshots as the last Progress has them */
  constructor(options: SnapshotRunnerOptions, resumed: Readonly<Record<string, SnapshotState>>) {
    this.#options = options;
    this.#committed = { ...resumed };
  }

  /**
   * Before the slot is read: asks for initial snapshots where there was none, and makes the stream watch every table
   * whose snapshot is open.
   */
  async load(client: pg.Client, epoch: number, tables: readonly CatalogueTable[]): Promise<void> {
    const { source, requests, topicOf, log } = this.#options;
    const standby = await isStandby(client);
    const wanted = tables.filter((table) => snapshotMode(source, table) === 'initial').map(tableName);
    await requests.requestInitial(epoch, wanted);
    for (const request of await requests.open()) {
      const table = tables.find((each) => tableName(each) === request.table);
      const topic = topicOf(request.table);
      const done = this.#committed[topic];
      if (done?.id === request.id && isComplete(done)) {
        await requests.finished(request.id, done.rows);
        continue;
      }
      // On a standby they all fail, for another reason.
      if (standby) continue;
      if (request.kind !== 'initial' || !table || hasKey(table)) continue;
      // Without a key there are no chunks, and the slot's own snapshot is gone. Where the table was empty until now
      // everything comes through the stream.
      if (await holdsNoEarlierRow(client, table)) await requests.finished(request.id, 0n);
      else {
        const error = keyless(request.table);
        log.warn(error.message, errorFields(error));
        await requests.failed(request.id, error);
      }
    }
    await this.#poll();
  }

  start(): void {
    this.#running = this.#run();
  }

  /** At once, whatever is being read or waited for: the next start reads that chunk again. */
  async stop(): Promise<void> {
    this.#stopping.abort();
    for (const chunk of this.#pending) chunk.settle({ kind: 'void', reason: 'cancelled' });
    this.#disconnect();
    await this.#running?.catch(() => {});
  }

  /** A Progress is in Kafka. */
  progressed({ snapshots }: Progress): void {
    this.#committed = snapshots;
  }

  async #run(): Promise<void> {
    const { signal } = this.#stopping;
    try {
      while (!signal.aborted) {
        try {
          await this.#pass();
        } catch (caught) {
          const error = asTidemarkError(caught);
          this.#options.log.debug('snapshots wait', errorFields(error));
          this.#disconnect();
          await pause(pollMs, signal);
        }
      }
    } finally {
      this.#disconnect();
    }
  }

  /** One chunk of each table whose turn it is. */
  async #pass(): Promise<void> {
    const { signal } = this.#stopping;
    if (Date.now() - this.#polledAt >= pollMs) await this.#poll();
    const active = [...this.#jobs.values()].filter(({ request }) => request.state !== 'paused');
    if (active.length === 0) {
      this.#disconnect();
      return pause(pollMs, signal);
    }
    const now = Date.now();
    const due = active.filter(({ notBefore }) => notBefore <= now);
    if (due.length === 0) return pause(retryMs / 4, signal);
    if (!this.#watching && !(await this.#beginWatch())) return;
    const chosen = Array.from(
      { length: Math.min(tablesAtOnce, due.length) },
      (_, i) => due[(this.#turn + i) % due.length]!,
    );
    this.#turn += chosen.length;
    await Promise.all(chosen.map((job, place) => this.#attempt(job, place)));
  }

  async #poll(): Promise<void> {
    const { source, requests, snapshots, topicOf, position } = this.#options;
    const open = await requests.open();
    this.#polledAt = Date.now();
    for (const job of this.#jobs.values())
      if (!open.some(({ id }) => id === job.request.id)) this.#forget(job);
    for (const request of open) {
      const known = this.#jobs.get(request.id);
      if (known) {
        known.request = request;
        continue;
      }
      const topic = topicOf(request.table);
      const committed = this.#committed[topic];
      const state =
        committed?.id === request.id
          ? committed
          : newSnapshot(request.id, {
              since: request.condition === null ? position() : null,
              destination: request.destination,
            });
      snapshots.track(topic, state);
      this.#jobs.set(request.id, new Job(request, topic, source.snapshot.chunkRows));
    }
  }

  #forget(job: Job): void {
    this.#jobs.delete(job.request.id);
    if (this.#options.snapshots.state(job.topic)?.id === job.request.id)
      this.#options.snapshots.untrack(job.topic);
  }

  /** @returns false where the source takes no marks; the snapshots have failed then */
  async #beginWatch(): Promise<boolean> {
    const { snapshots, requests, log } = this.#options;
    const client = await this.#client(0);
    if (await isStandby(client)) {
      const error = new TidemarkError('TM222', 'the source is a standby: it takes no marks into its WAL');
      log.error('snapshots ended', errorFields(error));
      for (const job of this.#jobs.values()) {
        await requests.failed(job.request.id, error);
        this.#forget(job);
      }
      return false;
    }
    await beginWatch(client, snapshots.watch);
    this.#watching = true;
    return true;
  }

  async #attempt(job: Job, place: number): Promise<void> {
    const { requests, log } = this.#options;
    const { id, table } = job.request;
    try {
      await this.#advance(job, place);
      const rows = this.#options.snapshots.state(job.topic)?.rows;
      if (rows !== undefined && Date.now() - job.reportedAt >= pollMs) {
        job.reportedAt = Date.now();
        const { rereads } = job;
        job.rereads = 0;
        await requests.progressed(id, rows, rereads, job.waitsFor);
      }
    } catch (caught) {
      if (this.#stopping.signal.aborted) return;
      const error = readError(caught);
      // Not known how far the connection got.
      this.#drop(place);
      if (error.retry === 'transient') {
        job.waitsFor = `${error.code}: ${error.message}`;
        delay(job);
        return;
      }
      log.error(`the snapshot of ${table} ended`, errorFields(error));
      await requests.failed(id, error);
      this.#forget(job);
    }
  }

  /** The next chunk, or the end. */
  async #advance(job: Job, place: number): Promise<void> {
    const { snapshots, requests, log } = this.#options;
    const { request, topic } = job;
    const state = snapshots.state(topic);
    if (state?.id !== request.id) return;
    if (isComplete(state)) {
      const committed = this.#committed[topic];
      if (committed?.id !== request.id || !isComplete(committed)) {
        job.notBefore = Date.now() + retryMs / 4;
        return;
      }
      await requests.finished(request.id, state.rows);
      log.info(`the snapshot of ${request.table} is complete`, { rows: Number(state.rows) });
      this.#forget(job);
      return;
    }
    const client = await this.#client(place);
    if (!job.scan || !job.encoder) await this.#prepare(job, client);
    const outcome = await this.#readChunk(job, client, state);
    if (outcome?.kind === 'published') {
      job.delayMs = 0;
      job.waitsFor = null;
    } else if (outcome?.kind === 'stopped') throw outcome.error;
    else this.#again(job, outcome?.reason ?? null);
  }

  async #prepare(job: Job, client: pg.Client): Promise<void> {
    const { source, requests, log } = this.#options;
    const { id, table, condition, destination, estimatedRows } = job.request;
    const scan = await describeScan(client, source, table, readsBinary);
    if (condition) await requireCondition(client, scan, condition);
    const { encoder, into } = await this.#options.prepare(scan.relation, destination);
    requirePlainKey(encoder.shape);
    const key = JSON.stringify([scan.table.oid, scan.key.map(({ name, type }) => [name, type])]);
    this.#options.snapshots.describe(job.topic, id, key);
    job.encoder = encoder;
    job.into = into;
    job.scan = scan;
    const estimate = estimatedRows ?? (await estimateRows(client, scan, condition));
    await requests.started(id, estimate);
    log.info(`the snapshot of ${table} goes on`, { estimatedRows: estimate });
  }

  /** @returns null where a transaction that must be visible is not yet, so that reading made no sense */
  async #readChunk(
    job: Job,
    client: pg.Client,
    state: Readonly<SnapshotState>,
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
      const outcome = await this.#settled(job, chunk);
      if (!keys && rows.count > 0) job.limit = nextLimit(rows.count, rows.bytes, limit, source);
      return outcome;
    } finally {
      snapshots.abandon(chunk);
      this.#pending.delete(chunk);
    }
  }

  /** The stream gets to the high mark when it gets there; requests are looked at meanwhile. */
  async #settled(job: Job, chunk: Chunk): Promise<ChunkOutcome> {
    let timer: NodeJS.Timeout | undefined;
    for (;;) {
      const late = new Promise<null>((resolve) => {
        timer = setTimeout(() => resolve(null), pollMs);
      });
      const outcome = await Promise.race([chunk.settled, late]);
      clearTimeout(timer);
      if (outcome) return outcome;
      await this.#poll();
      if (!this.#jobs.has(job.request.id)) return { kind: 'void', reason: 'cancelled' };
    }
  }

  #again(job: Job, reason: VoidReason | null): void {
    job.rereads++;
    if (reason === 'shape') {
      job.scan = null;
      job.encoder = null;
    }
    if (reason === 'crowded') this.#watching = false;
    if (reason === null || reason === 'unseen')
      job.waitsFor = 'transactions that are committed or open, but not visible yet';
    this.#options.log.debug(`a chunk of ${job.request.table} is read again`, {
      reason: reason ?? 'not visible',
    });
    delay(job);
  }

  async #client(place: number): Promise<pg.Client> {
    const known = this.#clients[place];
    if (known) return known;
    const client = await connectSource(this.#options.source, 'tidemark/snapshot');
    await client.query(scanSession);
    if (this.#stopping.signal.aborted) closeNow(client);
    this.#clients[place] = client;
    return client;
  }

  #drop(place: number): void {
    const client = this.#clients[place];
    this.#clients[place] = null;
    if (client) closeNow(client);
  }

  #disconnect(): void {
    this.#options.snapshots.watch.end();
    this.#watching = false;
    for (let place = 0; place < tablesAtOnce; place++) this.#drop(place);
  }
}

/** As many rows as the bytes allow, going by the last chunk. */
function nextLimit(rows: number, bytes: number, limit: number, { snapshot }: SourceConfig): number {
  const fitting = Math.floor((snapshot.chunkBytes * rows) / Math.max(1, bytes));
  return Math.max(1, Math.min(snapshot.chunkRows, fitting, limit * 4));
}

function delay(job: Job): void {
  job.delayMs = Math.min(longestRetryMs, Math.max(retryMs, job.delayMs * 2));
  job.notBefore = Date.now() + job.delayMs;
}

/** Whether rows can be told apart in the stream and in a scan alike. */
export function hasKey(table: CatalogueTable): boolean {
  if (table.replicaIdentity === 'nothing') return false;
  return table.columns.some(({ identity }) => identity);
}

export function snapshotMode(source: SourceConfig, table: CatalogueTable): 'initial' | 'never' {
  return ruleFor(source.tables, table)?.snapshotMode ?? source.snapshot.mode;
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
function readError(error: unknown): TidemarkError {
  if (error instanceof TidemarkError) return error;
  const { code } = error as { code?: string };
  if (code?.startsWith('22')) {
    return new TidemarkError('TM224', `the condition fails on some row (SQLSTATE ${code})`, { cause: error });
  }
  return sourceError(error);
}

/** Not politely: it may be waiting for a lock, or be in the middle of a COPY. */
function closeNow(client: pg.Client): void {
  client.connection?.stream?.destroy();
}

async function isStandby(client: pg.Client): Promise<boolean> {
  const { rows } = await client.query('select pg_is_in_recovery() as standby');
  return rows[0].standby;
}

async function pause(milliseconds: number, signal: AbortSignal): Promise<void> {
  await sleep(milliseconds, undefined, { signal }).catch(() => {});
}
