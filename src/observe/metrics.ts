/** Prometheus metrics of this process, on a listen address of their own. Labels never hold tenant data. */
import { createServer } from 'node:http';
import { Counter, collectDefaultMetrics, Gauge, Histogram, Registry } from 'prom-client';
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

export interface Metrics {
  onProgress(progress: Progress, stats: PublisherStats): void;
  onSlot(slot: SlotState): void;
  onDelivery(event: DeliveryEvent): void;
  onRound(rounds: readonly RetentionRound[]): void;
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
    help: 'Commit time of the high-water mark, seconds since 1970.',
    labelNames,
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
          void registry.metrics().then((text) => {
            response.writeHead(200, { 'content-type': registry.contentType });
            response.end(text);
          });
        });
  if (server && metricsPort !== null) {
    await new Promise<void>((resolve, reject) => {
      server.once('error', reject);
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
      mark.set(labels, Number(commitTimeUs) / 1e6);
      latency.observe(labels, Number(deliveredAtUs - commitTimeUs) / 1e6);
    },
    onRound,
    stop: () =>
      new Promise<void>((resolve) => {
        if (server) server.close(() => resolve());
        else resolve();
      }),
  };
}
