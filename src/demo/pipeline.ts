/** Reader, delivery and workload of the demo in this process, and what is counted of them. */
import { setTimeout as sleep } from 'node:timers/promises';
import { formatPosition, type Position, parsePosition } from '../connector/position.ts';
import type { SinkKind } from '../connector/sink.ts';
import { type Delivery, startDelivery } from '../deliver/delivery.ts';
import type { DeliveredWindow } from '../deliver/unit-worker.ts';
import { type ErrorCode, errorCatalogue, TidemarkError } from '../platform/errors.ts';
import type { Logger } from '../platform/log.ts';
import { clientConfig, endpointFromUrl } from '../platform/postgres-endpoint.ts';
import type { ResolvedConfig } from '../platform/resolved-config.ts';
import type { Progress } from '../publish/progress.ts';
import type { PublisherStats } from '../publish/publisher.ts';
import { type Reader, startReader } from '../publish/reader.ts';
import { type RunningRetention, startRetention } from '../retain/service.ts';
import { runWorkload, type WorkloadOptions, type WorkloadTotals } from '../sample/workload.ts';
import { allowToAge } from './aging.ts';
import { CommitLatency } from './latency.ts';
import { withClient } from './with-client.ts';

export interface Failure {
  code: string;
  message: string;
  remedy: string;
}

export interface UnitState {
  unit: string;
  mark: Position | null;
  /** Milliseconds since 1970. */
  markMs: number | null;
  /** Records in Kafka beyond the mark. */
  backlog: number;
}

export interface DestinationState {
  name: string;
  /** `connector.class` */
  kind: string;
  cadenceMs: number;
  windows: number;
  rows: number;
  bytes: number;
  units: UnitState[];
  receipt: { position: Position; rows: number; commitId: string; atMs: number } | null;
  error: Failure | null;
  latency: CommitLatency;
}

export interface PipelineOptions {
  config: ResolvedConfig;
  sinkKinds: ReadonlyMap<string, SinkKind>;
  log: Logger;
  /** The application's own connection. */
  sourceUrl: string;
  signal: AbortSignal;
  /** What the tables hold before the slot is there. */
  earlierRows: number;
  /** Rejects when something outside ended that the pipeline needs. */
  outside: Promise<never>;
}

/** Idle Windows move marks without an event; they are seen this often. */
const sampleMs = 50;

export class DemoPipeline {
  readonly destinations: DestinationState[];
  /** Committed by the workload. */
  readonly source = { transactions: 0, rows: 0 };
  /** Published since the start; bytes are encoded ones, headers included. */
  readonly kafka = { records: 0, bytes: 0, topics: 0 };
  /** Rows that left the source on proof; null: none may. */
  evicted: number | null = null;
  progress: Progress | null = null;
  /** Rows that snapshots brought into Kafka, by topic. */
  readonly #snapshotRows = new Map<string, number>();
  /** Rejects when the pipeline cannot go on. */
  readonly failed: Promise<never>;
  readonly #options: PipelineOptions;
  readonly #reader: Reader;
  #delivery: Delivery | null = null;
  #retention: RunningRetention | null = null;
  #sampler: NodeJS.Timeout | undefined;
  readonly #stopping = new AbortController();
  readonly #working = new Set<Promise<unknown>>();
  #stats: PublisherStats | null = null;
  /** Latency is of transactions beyond it. */
  #measuredFrom: Position | null = null;

  /** Starts the reader; `deliver` starts the rest. */
  constructor(options: PipelineOptions) {
    this.#options = options;
    const { config, log } = options;
    const fastestFirst = config.destinations.toSorted((a, b) => a.cadenceMs - b.cadenceMs);
    this.destinations = fastestFirst.map(({ name, kind, cadenceMs }) => ({
      name,
      kind,
      cadenceMs,
      windows: 0,
      rows: 0,
      bytes: 0,
      units: [],
      receipt: null,
      error: null,
      latency: new CommitLatency(),
    }));
    this.#reader = startReader({
      config,
      log: log.child({ role: 'replicate' }),
      onProgress: (progress, stats) => this.#published(progress, stats),
    });
    this.failed = Promise.race([
      options.outside,
      // It resolves when it was asked to stop, and nothing waits for this any more.
      this.#reader.finished.then(() => new Promise<never>(() => {})),
    ]);
    this.failed.catch(() => {});
  }

  /** How much of what was there before is in Kafka; null when it is all. */
  get snapshot(): { rows: number; total: number } | null {
    if (this.progress && Object.keys(this.progress.snapshots).length === 0) return null;
    const rows = [...this.#snapshotRows.values()].reduce((sum, count) => sum + count, 0);
    return { rows, total: Math.max(rows, this.#options.earlierRows) };
  }

  /** Resolves when the slot is read, Progress is written and delivery was started over it. */
  async deliver(timeoutMs: number): Promise<void> {
    const { config, sinkKinds, log } = this.#options;
    // Before it there are no topics, and consumers would begin with an error.
    await this.until('the reader to write Progress', timeoutMs, () => this.progress !== null);
    this.#delivery = await startDelivery({
      config,
      sinkKinds,
      log,
      onDelivery: (window) => this.#delivered(window),
    });
    this.#sampler = setInterval(() => this.#sample(), sampleMs);
  }

  /** Rows that are too old leave the source from now on, in the background. */
  async letGo(): Promise<void> {
    const { config, sinkKinds, log, sourceUrl } = this.#options;
    await allowToAge(sourceUrl);
    this.evicted = 0;
    this.#retention = startRetention({
      config: { ...config, retain: config.retain! },
      sinkKinds,
      log: log.child({ role: 'retain' }),
      onRound: (rounds) => {
        for (const { evicted } of rounds) this.evicted! += evicted;
      },
    });
  }

  /** Runs the sample application; its commits are counted. */
  async work(options: Omit<WorkloadOptions, 'onCommit'> & { signal: AbortSignal }): Promise<WorkloadTotals> {
    const endpoint = await endpointFromUrl(this.#options.sourceUrl);
    const running = runWorkload(clientConfig(endpoint, { applicationName: 'sample application' }), {
      ...options,
      signal: AbortSignal.any([options.signal, this.#stopping.signal]),
      onCommit: ({ tables }) => {
        this.source.transactions++;
        for (const { inserts, updates, deletes } of Object.values(tables))
          this.source.rows += inserts + updates + deletes;
      },
    });
    this.#working.add(running.catch(() => {}));
    return Promise.race([running, this.failed]);
  }

  /** A Position behind everything that has committed so far. */
  async now(): Promise<Position> {
    const lsn = await withClient(this.#options.sourceUrl, async (client) => {
      const { rows } = await client.query(
        `select (pg_current_wal_insert_lsn() - '0/0'::pg_lsn)::text as lsn`,
      );
      return BigInt(rows[0].lsn);
    });
    const epoch = this.progress ? parsePosition(this.progress.position).epoch : 1;
    return formatPosition({ epoch, lsn, ordinal: 0 });
  }

  /** From here on latency is measured, of transactions after `position`. */
  measureFrom(position: Position): void {
    this.#measuredFrom = position;
  }

  /** Waits until these destinations have everything up to `position`; a lasting error of one of them is thrown. */
  async reached(position: Position, timeoutMs: number, names?: readonly string[]): Promise<void> {
    const waiting = this.destinations.filter(({ name }) => names?.includes(name) ?? true);
    await this.until(`${waiting.map(({ name }) => name).join(' and ')} to catch up`, timeoutMs, () =>
      waiting.every((destination) => {
        const mark = commonMark(destination);
        return mark !== null && mark >= position;
      }),
    );
  }

  /** @throws what made the pipeline fail, the signal's reason, or TM408 after `timeoutMs` */
  async until(what: string, timeoutMs: number, isSo: () => boolean): Promise<void> {
    const { signal } = this.#options;
    const giveUpAt = Date.now() + timeoutMs;
    while (!isSo()) {
      signal.throwIfAborted();
      const late = Date.now() > giveUpAt;
      for (const { name, error } of this.destinations) {
        if (error && (late || !passes(error.code))) throw failureOf(name, error);
      }
      if (late) throw new TidemarkError('TM408', `waited ${timeoutMs / 1000} s in vain for ${what}`);
      await Promise.race([sleep(sampleMs), this.failed]);
    }
  }

  /** The workload first, so that nothing writes any more; then reader and delivery side by side. */
  async stop(): Promise<void> {
    this.#stopping.abort();
    await Promise.all(this.#working);
    clearInterval(this.#sampler);
    await Promise.all([this.#retention?.stop(), this.#delivery?.stop(), this.#reader.stop()]);
  }

  #published(progress: Progress, stats: PublisherStats): void {
    // A reader that started over counts from zero again.
    const last = this.#stats && stats.changes >= this.#stats.changes ? this.#stats : null;
    this.progress = progress;
    for (const [topic, { rows }] of Object.entries(progress.snapshots))
      this.#snapshotRows.set(topic, Number(rows));
    this.kafka.records += stats.records - (last?.records ?? 0);
    this.kafka.bytes += stats.bytes - (last?.bytes ?? 0);
    this.kafka.topics = Object.keys(progress.endOffsets).length;
    const transactions = stats.transactions - (last?.transactions ?? 0);
    this.#stats = { ...stats };
    const measured = this.#measuredFrom !== null && progress.position > this.#measuredFrom;
    for (const { latency } of this.destinations)
      latency.published(progress.position, Number(progress.commitTimeUs) / 1000, measured ? transactions : 0);
  }

  #delivered({ destination, rows, bytes, receipt, deliveredAtUs }: DeliveredWindow): void {
    const state = this.destinations.find(({ name }) => name === destination);
    if (!state) return;
    state.windows++;
    state.rows += rows;
    state.bytes += bytes;
    const { position, commitId } = receipt;
    state.receipt = { position, rows, commitId, atMs: Number(deliveredAtUs) / 1000 };
    this.#sample();
  }

  #sample(): void {
    const nowMs = Date.now();
    for (const { destination, units, error } of this.#delivery?.snapshot().destinations ?? []) {
      const state = this.destinations.find(({ name }) => name === destination);
      if (!state) continue;
      state.error = error ?? units.find(({ lastError }) => lastError)?.lastError ?? null;
      state.units = units.map(({ unit, mark, commitTimeUs, backlogRecords }) => ({
        unit,
        mark: mark as Position | null,
        markMs: commitTimeUs === null ? null : Number(commitTimeUs) / 1000,
        backlog: backlogRecords,
      }));
      const mark = commonMark(state);
      if (mark) state.latency.readable(mark, nowMs);
    }
  }
}

/** Up to here everything is readable in the destination; null while a Unit has no mark. */
export function commonMark({ units }: DestinationState): Position | null {
  let lowest: Position | null = null;
  for (const { mark } of units) {
    if (mark === null) return null;
    if (lowest === null || mark < lowest) lowest = mark;
  }
  return lowest;
}

function passes(code: string): boolean {
  return isKnown(code) && errorCatalogue[code].retry === 'transient';
}

function isKnown(code: string): code is ErrorCode {
  return Object.hasOwn(errorCatalogue, code);
}

function failureOf(name: string, { code, message, remedy }: Failure): TidemarkError {
  return new TidemarkError(isKnown(code) ? code : 'TM901', `${name}: ${message}`, {
    remedy,
    retry: 'operator',
  });
}
