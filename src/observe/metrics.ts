/** Prometheus metrics of this process, on a listen address of their own. Labels never hold tenant data. */
import { createServer } from 'node:http';
import { Counter, collectDefaultMetrics, Gauge, Histogram, Registry } from 'prom-client';
import { TidemarkError } from '../platform/errors.ts';
import type { ResolvedConfig } from '../platform/resolved-config.ts';
import type { Progress } from '../publish/progress.ts';
import type { PublisherStats } from '../publish/publisher.ts';
import type { SlotState } from '../replicate/source.ts';
import { type RetentionRound, retentionMetrics } from './retention-metrics.ts';

/** One Window that a destination acknowledged. */
export interface DeliveryEvent {
  destination: string;
  unit: string;
  rows: number;
  bytes: number;
  commitTimeUs: bigint;
  deliveredAtUs: bigint;
}

export interface DestinationState {
  destination: string;
  paused: unknown;
  /** Of all of it, and of a Unit: null, or what keeps it from delivering. */
  error: unknown;
  units: readonly { unit: string; commitTimeUs: bigint | null; backlogRecords: number; lastError: unknown }[];
}

export interface Metrics {
  onProgress(progress: Progress, stats: PublisherStats): void;
  onSlot(slot: SlotState): void;
  onDelivery(event: DeliveryEvent): void;
  onRound(rounds: readonly RetentionRound[]): void;
  /** Where destinations stand, asked for with each scrape: a mark moves on without a Window while the source is idle. */
  watch(destinations: () => readonly DestinationState[]): void;
  stop(): Promise<void>;
}

export async function startMetrics(config: ResolvedConfig): Promise<Metrics> {
  const registry = new Registry();
  registry.setDefaultLabels({ source: config.source.id });
  // The lag of the event loop is looked at by a timer: a hundred times a second it was half of what an idle process costs.
  collectDefaultMetrics({ register: registry, eventLoopMonitoringPrecision: 100 });
  const registers = [registry];
  const changes = new Counter({
    name: 'tidemark_reader_changes_total',
    help: 'Changes published to Kafka.',
    registers,
  });
  const transactions = new Counter({
    name: 'tidemark_reader_transactions_total',
    help: 'Transactions read from the slot.',
    registers,
  });
  const bytes = new Counter({
    name: 'tidemark_reader_encoded_bytes_total',
    help: 'Encoded bytes, headers included.',
    registers,
  });
  const behind = new Gauge({
    name: 'tidemark_reader_progress_timestamp_seconds',
    help: 'Commit time that Progress has reached, seconds since 1970.',
    registers,
  });
  const confirmed = new Gauge({
    name: 'tidemark_reader_ack_lsn_bytes',
    help: 'First WAL byte that the slot still has to keep.',
    registers,
  });
  const parked = new Gauge({
    name: 'tidemark_reader_parked_tables',
    help: 'Tables whose changes go to the parked topic.',
    registers,
  });
  const retained = new Gauge({
    name: 'tidemark_reader_slot_retained_wal_bytes',
    help: 'WAL that the slot keeps on the source.',
    registers,
  });
  const budget = new Gauge({
    name: 'tidemark_reader_wal_budget_bytes',
    help: 'source.wal.budget.bytes; absent without a budget.',
    // Only where there is one: a gauge without a value still shows as 0.
    registers: config.source.walBudget ? registers : [],
  });
  if (config.source.walBudget) budget.set(config.source.walBudget.bytes);
  const snapshots = new Gauge({
    name: 'tidemark_reader_open_snapshots',
    help: 'Tables whose snapshot is not complete.',
    registers,
  });
  const snapshotRows = new Gauge({
    name: 'tidemark_reader_snapshot_rows',
    help: 'Rows that an open snapshot has brought into Kafka so far.',
    labelNames: ['topic'] as const,
    registers,
  });
  const labelNames = ['destination', 'unit'] as const;
  const rows = new Counter({
    name: 'tidemark_delivery_rows_total',
    help: 'Rows that destinations acknowledged.',
    labelNames,
    registers,
  });
  const delivered = new Counter({
    name: 'tidemark_delivery_bytes_total',
    help: 'Bytes that destinations acknowledged.',
    labelNames,
    registers,
  });
  const windows = new Counter({
    name: 'tidemark_delivery_windows_total',
    help: 'Windows that destinations acknowledged.',
    labelNames,
    registers,
  });
  const mark = new Gauge({
    name: 'tidemark_delivery_mark_timestamp_seconds',
    help: 'Commit time of the high-water mark, seconds since 1970; it moves on while the source is idle.',
    labelNames,
    registers,
  });
  const backlog = new Gauge({
    name: 'tidemark_delivery_backlog_records',
    help: 'Records in Kafka beyond the high-water mark.',
    labelNames,
    registers,
  });
  const failing = new Gauge({
    name: 'tidemark_delivery_failing',
    help: '1 while something keeps the Unit from being delivered; `tidemark status` says what.',
    labelNames,
    registers,
  });
  const paused = new Gauge({
    name: 'tidemark_delivery_paused',
    help: '1 while the destination is paused.',
    labelNames: ['destination'] as const,
    registers,
  });
  const latency = new Histogram({
    name: 'tidemark_delivery_latency_seconds',
    help: 'From the newest commit in a Window to its acknowledgement.',
    labelNames,
    buckets: [0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 15, 60, 300, 900, 3600],
    registers,
  });

  // Only where something may be evicted.
  const onRound = retentionMetrics(config.retain ? registers : []);

  let states: () => readonly DestinationState[] = () => [];
  const look = () => {
    // Units that went to another process are that one's to tell of.
    for (const gauge of [mark, backlog, failing]) gauge.reset();
    for (const { destination, paused: pause, error, units } of states()) {
      paused.set({ destination }, pause ? 1 : 0);
      // One that could not be opened has no Units yet.
      if (error && units.length === 0) failing.set({ destination, unit: '*' }, 1);
      for (const { unit, commitTimeUs, backlogRecords, lastError } of units) {
        const labels = { destination, unit };
        if (commitTimeUs !== null) mark.set(labels, Number(commitTimeUs) / 1e6);
        backlog.set(labels, backlogRecords);
        failing.set(labels, error || lastError ? 1 : 0);
      }
    }
  };

  let last: PublisherStats = { changes: 0, transactions: 0, records: 0, bytes: 0, batches: 0 };
  const { metricsHost, metricsPort } = config.observe;
  const server =
    metricsPort === null
      ? null
      : createServer((request, response) => {
          if (request.url !== '/metrics') {
            response.writeHead(404).end();
            return;
          }
          look();
          void registry.metrics().then((text) => {
            response.writeHead(200, { 'content-type': registry.contentType });
            response.end(text);
          });
        });
  if (server && metricsPort !== null) {
    await new Promise<void>((resolve, reject) => {
      server.once('error', (error) => reject(notServed(error, `${metricsHost}:${metricsPort}`)));
      server.listen(metricsPort, metricsHost, () => resolve());
    });
  }

  return {
    onProgress(progress, stats) {
      // A reader that started over counts from zero again; any of its counts may be ahead by now.
      if (stats.changes < last.changes || stats.transactions < last.transactions || stats.bytes < last.bytes)
        last = { changes: 0, transactions: 0, records: 0, bytes: 0, batches: 0 };
      changes.inc(stats.changes - last.changes);
      transactions.inc(stats.transactions - last.transactions);
      bytes.inc(stats.bytes - last.bytes);
      last = { ...stats };
      behind.set(Number(progress.commitTimeUs) / 1e6);
      confirmed.set(Number(progress.ackLsn));
      parked.set(Object.keys(progress.parked).length);
      snapshots.set(Object.keys(progress.snapshots).length);
      snapshotRows.reset();
      for (const [topic, state] of Object.entries(progress.snapshots))
        snapshotRows.set({ topic }, Number(state.rows));
    },
    onSlot({ retainedBytes }) {
      retained.set(Number(retainedBytes));
    },
    onDelivery({ destination, unit, rows: count, bytes: size, commitTimeUs, deliveredAtUs }) {
      const labels = { destination, unit };
      rows.inc(labels, count);
      delivered.inc(labels, size);
      windows.inc(labels);
      latency.observe(labels, Number(deliveredAtUs - commitTimeUs) / 1e6);
    },
    onRound,
    watch(destinations) {
      states = destinations;
    },
    stop: () =>
      new Promise<void>((resolve) => {
        if (server) server.close(() => resolve());
        else resolve();
      }),
  };
}

function notServed(error: Error, where: string): TidemarkError {
  const { code } = error as { code?: string };
  return new TidemarkError('TM101', `metrics cannot be served on ${where} (${code})`, {
    cause: error,
    remedy:
      code === 'EADDRINUSE'
        ? 'Something listens there, perhaps another process with this configuration: give each its own observe.metrics.port, or 0.'
        : 'Correct observe.metrics.host and observe.metrics.port.',
  });
}
