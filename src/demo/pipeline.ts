/** Reader, delivery and workload of the demo in this process, and what was counted of them. */
import type { SinkKind } from '../connector/sink.ts';
import { type Delivery, startDelivery } from '../deliver/delivery.ts';
import type { DeliveredWindow } from '../deliver/unit-worker.ts';
import { TidemarkError } from '../platform/errors.ts';
import type { Logger } from '../platform/log.ts';
import { clientConfig, endpointFromUrl } from '../platform/postgres-endpoint.ts';
import type { ResolvedConfig } from '../platform/resolved-config.ts';
import type { Progress } from '../publish/progress.ts';
import type { PublisherStats } from '../publish/publisher.ts';
import { type Reader, startReader } from '../publish/reader.ts';
import { runWorkload, type WorkloadOptions, type WorkloadTotals } from '../sample/workload.ts';
import { CommitLatency } from './latency.ts';

export interface DestinationCounts {
  name: string;
  windows: number;
  rows: number;
  bytes: number;
  /** Time that every Unit's mark has reached, milliseconds since 1970; null before the first. */
  markMs: number | null;
  lastReceipt: { position: string; rows: number; commitId: string } | null;
  error: { code: string; message: string; remedy: string } | null;
  latency: CommitLatency;
}

export interface PipelineOptions {
  config: ResolvedConfig;
  sinkKinds: ReadonlyMap<string, SinkKind>;
  log: Logger;
  /** The application's own connection. */
  sourceUrl: string;
}

const sampleMs = 50;

export class DemoPipeline {
  readonly destinations: DestinationCounts[];
  transactions = 0;
  rows = 0;
  progress: Progress | null = null;
  stats: PublisherStats | null = null;
  peakRssBytes = 0;
  readonly reader: Reader;
  readonly #options: PipelineOptions;
  readonly #delivery: Promise<Delivery>;
  readonly #sampler: NodeJS.Timeout;
  #current: Delivery | null = null;
  #first: () => void = () => {};
  readonly #started: Promise<void>;

  constructor(options: PipelineOptions) {
    this.#options = options;
    const { config, log, sinkKinds } = options;
    this.destinations = config.destinations.map(({ name }) => ({
      name,
      windows: 0,
      rows: 0,
      bytes: 0,
      markMs: null,
      lastReceipt: null,
      error: null,
      latency: new CommitLatency(),
    }));
    this.#started = new Promise((resolve) => {
      this.#first = resolve;
    });
    this.reader = startReader({
      config,
      log,
      onProgress: (progress, stats) => {
        this.progress = progress;
        this.stats = stats;
        this.#first();
      },
    });
    this.#delivery = startDelivery({
      config,
      sinkKinds,
      log,
      onDelivery: (delivery) => this.#delivered(delivery),
    });
    this.#delivery.then(
      (delivery) => {
        this.#current = delivery;
      },
      () => {},
    );
    this.#sampler = setInterval(() => this.#sample(), sampleMs);
  }

  /** Resolves when the slot is read and the first Progress written. */
  async ready(timeoutMs: number): Promise<void> {
    let timer: NodeJS.Timeout | undefined;
    const late = new Promise<never>((_, reject) => {
      timer = setTimeout(
        () => reject(new TidemarkError('TM301', `the reader wrote no Progress within ${timeoutMs / 1000} s`)),
        timeoutMs,
      );
    });
    try {
      await Promise.race([this.#started, this.reader.finished, late]);
    } finally {
      clearTimeout(timer);
    }
  }

  async work(options: Omit<WorkloadOptions, 'onCommit'>): Promise<WorkloadTotals> {
    const endpoint = await endpointFromUrl(this.#options.sourceUrl);
    return runWorkload(clientConfig(endpoint, { applicationName: 'demo/workload' }), {
      ...options,
      wall: Date.now,
      onCommit: ({ tables }) => {
        this.transactions++;
        for (const { inserts, updates, deletes } of Object.values(tables))
          this.rows += inserts + updates + deletes;
        const now = Date.now();
        for (const { latency } of this.destinations) latency.committed(now);
      },
    });
  }

  /** Waits until every destination has everything that committed up to `untilMs`. */
  async delivered(untilMs: number, timeoutMs: number): Promise<void> {
    const giveUpAt = Date.now() + timeoutMs;
    while (this.destinations.some(({ markMs }) => markMs === null || markMs < untilMs)) {
      await Promise.race([new Promise((resolve) => setTimeout(resolve, sampleMs)), this.reader.finished]);
      if (Date.now() < giveUpAt) continue;
      const late = this.destinations.filter(({ markMs }) => markMs === null || markMs < untilMs);
      const { error, name } = late[0]!;
      if (error)
        throw new TidemarkError('TM408', `${name}: ${error.code}: ${error.message}`, {
          remedy: error.remedy,
        });
      throw new TidemarkError('TM408', `${name} did not receive everything within ${timeoutMs / 1000} s`);
    }
  }

  async stop(): Promise<void> {
    clearInterval(this.#sampler);
    await this.reader.stop();
    await (await this.#delivery.catch(() => null))?.stop();
  }

  #delivered({ destination, rows, bytes, receipt }: DeliveredWindow): void {
    const counts = this.destinations.find(({ name }) => name === destination);
    if (!counts) return;
    counts.windows++;
    counts.rows += rows;
    counts.bytes += bytes;
    counts.lastReceipt = { position: receipt.position, rows, commitId: receipt.commitId };
    this.#sample();
  }

  #sample(): void {
    this.peakRssBytes = Math.max(this.peakRssBytes, process.memoryUsage.rss());
    const now = Date.now();
    for (const { destination, units, error } of this.#current?.snapshot().destinations ?? []) {
      const counts = this.destinations.find(({ name }) => name === destination);
      if (!counts) continue;
      counts.error = error ?? units.find(({ lastError }) => lastError)?.lastError ?? null;
      if (units.length === 0 || units.some(({ commitTimeUs }) => commitTimeUs === null)) continue;
      counts.markMs = Math.min(...units.map(({ commitTimeUs }) => Number(commitTimeUs) / 1000));
      counts.latency.readable(counts.markMs, now);
    }
  }
}
