/**
 * Reads the requested snapshots chunk by chunk, beside the stream: low mark, read, high mark, and then the stream
 * itself says what becomes of the chunk (table-snapshots.ts). Nothing here is lost with the process: the cursor is in
 * Progress, the wish in the control database.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import type { Position } from '../../connector/position.ts';
import { asTidemarkError, TidemarkError } from '../../platform/errors.ts';
import { errorFields } from '../../platform/log.ts';
import type { CatalogueTable } from '../../replicate/catalogue.ts';
import type { CopyClient } from '../../replicate/snapshot/copy-client.ts';
import { newSnapshot, type Progress, type SnapshotState } from '../progress.ts';
import type { Chunk, ChunkOutcome, VoidReason } from './chunk.ts';
import { ChunkReader, type ChunkReaderOptions, readError } from './chunk-reader.ts';
import { type InitialSnapshotsOptions, requestInitialSnapshots } from './initial-snapshots.ts';
import { beginWatch } from './invisible-commits.ts';
import { isStandby, ScanConnections } from './scan-connections.ts';
import { type ChunkUnderWay, retryMs, SnapshotJob } from './snapshot-job.ts';
import { isComplete } from './table-snapshots.ts';
import type { WholeTables } from './whole-tables.ts';

export interface SnapshotRunnerOptions extends ChunkReaderOptions, InitialSnapshotsOptions {
  /** Up to where the stream was encoded. */
  position(): Position;
  /** Where tables without a key are read, whole. */
  whole: Pick<WholeTables, 'take' | 'has'>;
}

/** Requests are looked for this often. */
const pollMs = 1000;
/** Tables that are read at the same time, each over a connection of its own. */
const tablesAtOnce = 2;
/** Of one table: while the stream comes to one chunk's high mark, the next one is read. */
const chunksAhead = 3;

export class SnapshotRunner {
  readonly #options: SnapshotRunnerOptions;
  readonly #jobs = new Map<string, SnapshotJob>();
  readonly #reader: ChunkReader;
  readonly #connections: ScanConnections;
  #committed: Record<string, SnapshotState>;
  #watching = false;
  #polledAt = 0;
  #turn = 0;
  readonly #stopping = new AbortController();
  #running: Promise<void> | null = null;

  /** @param resumed snapshots as the last Progress has them */
  constructor(options: SnapshotRunnerOptions, resumed: Readonly<Record<string, SnapshotState>>) {
    this.#options = options;
    this.#reader = new ChunkReader(options);
    this.#connections = new ScanConnections(options.source, tablesAtOnce, this.#stopping.signal);
    this.#committed = { ...resumed };
  }

  /**
   * Before the slot is read: asks for initial snapshots where there was none, and makes the stream watch every table
   * whose snapshot is open.
   */
  async load(epoch: number, tables: readonly CatalogueTable[]): Promise<void> {
    await requestInitialSnapshots(this.#options, epoch, tables, this.#committed);
    await this.look();
  }

  start(): void {
    this.#running = this.#run();
  }

  /** At once, whatever is being read or waited for: the next start reads that chunk again. */
  async stop(): Promise<void> {
    this.#stopping.abort();
    this.#reader.cancel();
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
    if (Date.now() - this.#polledAt >= pollMs) await this.look();
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

  /** At the requests as they are now. */
  async look(): Promise<void> {
    const { requests, snapshots, topicOf, position, whole } = this.#options;
    const open = await requests.open();
    this.#polledAt = Date.now();
    for (const job of this.#jobs.values())
      if (!open.some(({ id }) => id === job.request.id)) this.#forget(job);
    for (const request of open) {
      if (whole.has(request.id)) continue;
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
      this.#jobs.set(request.id, new SnapshotJob(request, topic));
    }
  }

  #forget(job: SnapshotJob): void {
    this.#abandon(job);
    this.#jobs.delete(job.request.id);
    if (this.#options.snapshots.state(job.topic)?.id === job.request.id)
      this.#options.snapshots.untrack(job.topic);
  }

  /** @returns false where the source takes no marks; the snapshots have failed then */
  async #beginWatch(): Promise<boolean> {
    const { snapshots, requests, log } = this.#options;
    const client = await this.#connections.at(0);
    if (await isStandby(client)) {
      const error = new TidemarkError('TM222', 'the source is a standby: it takes no marks into its WAL');
      log.error('snapshots ended', errorFields(error));
      for (const job of this.#jobs.values()) {
        await requests.failed(job.request.id, error);
        this.#forget(job);
      }
      return false;
    }
    // What a chunk had to see is counted from the begin of the watch under which it was read.
    this.#abandonAll();
    await beginWatch(client, snapshots.watch);
    this.#watching = true;
    return true;
  }

  async #attempt(job: SnapshotJob, place: number): Promise<void> {
    const { requests, whole, log } = this.#options;
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
      const error = readError(caught, job.scan?.table, this.#options.source);
      this.#abandon(job);
      if (error.code === 'TM221') {
        // Its topic stays tracked.
        this.#jobs.delete(id);
        whole.take(job.request);
        return;
      }
      // Not known how far the connection got.
      this.#connections.drop(place);
      if (error.retry === 'transient') {
        job.waitsFor = `${error.code}: ${error.message}`;
        // The table may have gone, or have another name: the next attempt looks.
        job.scan = null;
        job.encoder = null;
        job.delay();
        return;
      }
      log.error(`the snapshot of ${table} ended`, errorFields(error));
      await requests.failed(id, error);
      this.#forget(job);
    }
  }

  /** The next chunk, or the end. */
  async #advance(job: SnapshotJob, place: number): Promise<void> {
    const { snapshots, requests, log } = this.#options;
    const { request, topic } = job;
    const state = snapshots.state(topic);
    if (state?.id !== request.id) return;
    if (job.underWay.length === 0 && isComplete(state)) {
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
    const client = await this.#connections.at(place);
    if (job.order && job.order.description !== state.key) {
      // It did not do: too many rows were to be read again.
      this.#abandon(job);
      job.scan = null;
    }
    if (!job.scan || !job.encoder) {
      const settled = (chunk: Chunk) => this.#settled(job, chunk);
      if (!(await this.#reader.prepare(job, client, settled))) return this.#again(job, 'shape');
    }
    const { underWay } = job;
    while (underWay[0]?.chunk.outcome) if (!(await this.#conclude(job))) return;
    const newest = underWay.at(-1) ?? null;
    if (newest && (isLast(newest) || underWay.length >= chunksAhead)) {
      await this.#reader.close(newest, client);
      await this.#conclude(job);
      return;
    }
    await this.#readNext(job, client, newest);
  }

  async #readNext(job: SnapshotJob, client: CopyClient, newest: ChunkUnderWay | null): Promise<void> {
    // Preparing may have changed it.
    const state = this.#options.snapshots.state(job.topic)!;
    const from = newest ? { ...state, cursor: newest.next } : state;
    const read = await this.#reader.read(job, client, from, newest);
    if (read && 'chunk' in read) {
      job.underWay.push(read);
      return;
    }
    // Where the server refused the read, the high mark before it may be missing.
    if (read?.reason === 'shape') this.#abandon(job);
    while (job.underWay.length > 0) if (!(await this.#conclude(job))) return;
    this.#again(job, read?.reason ?? null);
  }

  /** Waits for what becomes of the oldest chunk. @returns false where those after it are gone, too */
  async #conclude(job: SnapshotJob): Promise<boolean> {
    const { chunk } = job.underWay[0]!;
    const outcome = await this.#settled(job, chunk);
    if (outcome.kind === 'published') {
      this.#reader.release(chunk);
      job.underWay.shift();
      job.went();
      return true;
    }
    this.#abandon(job);
    if (outcome.kind === 'stopped') throw outcome.error;
    this.#again(job, outcome.reason);
    return false;
  }

  /** Its chunks under way are read again. */
  #abandon(job: SnapshotJob): void {
    for (const { chunk } of job.underWay.splice(0)) this.#reader.release(chunk);
  }

  /** The stream gets to the high mark when it gets there; requests are looked at meanwhile. */
  async #settled(job: SnapshotJob, chunk: Chunk): Promise<ChunkOutcome> {
    let timer: NodeJS.Timeout | undefined;
    for (;;) {
      const late = new Promise<null>((resolve) => {
        timer = setTimeout(() => resolve(null), pollMs);
      });
      const outcome = await Promise.race([chunk.settled, late]);
      clearTimeout(timer);
      if (outcome) return outcome;
      await this.look();
      if (!this.#jobs.has(job.request.id)) return { kind: 'void', reason: 'cancelled' };
    }
  }

  #again(job: SnapshotJob, reason: VoidReason | null): void {
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
    job.delay();
  }

  #abandonAll(): void {
    for (const job of this.#jobs.values()) this.#abandon(job);
  }

  #disconnect(): void {
    this.#abandonAll();
    this.#options.snapshots.watch.end();
    this.#watching = false;
    this.#connections.dropAll();
  }
}

/** Nothing comes after it in the scan's order. */
function isLast({ chunk }: ChunkUnderWay): boolean {
  return chunk.content!.last;
}

async function pause(milliseconds: number, signal: AbortSignal): Promise<void> {
  await sleep(milliseconds, undefined, { signal }).catch(() => {});
}
