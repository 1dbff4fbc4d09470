/** The bounded demo: so many transactions, everything delivered, both destinations verified while writes go on. */

import type { SinkKind } from '../connector/sink.ts';
import { TidemarkError } from '../platform/errors.ts';
import type { Logger } from '../platform/log.ts';
import type { ResolvedConfig } from '../platform/resolved-config.ts';
import type { VerifyReport } from '../verify/report.ts';
import { verifyDestination } from '../verify/verify-destination.ts';
import type { DemoPipeline } from './pipeline.ts';
import { size } from './view.ts';

export interface DemoSummary {
  equal: boolean;
  transactions: number;
  rows: number;
  /** From the first commit until every destination had everything. */
  seconds: number;
  rowsPerSecond: number;
  /** Encoded into Kafka. */
  kafkaBytes: number;
  peakMemoryBytes: number;
  destinations: {
    name: string;
    windows: number;
    bytes: number;
    p50Ms: number | null;
    p99Ms: number | null;
    equal: boolean;
    position: string;
    rows: number;
    differences: string[];
  }[];
}

export interface OnceOptions {
  pipeline: DemoPipeline;
  config: ResolvedConfig;
  sinkKinds: ReadonlyMap<string, SinkKind>;
  log: Logger;
  transactions: number;
  rate: number;
  seed: number;
  signal: AbortSignal;
  say(line: string): void;
}

/** Transactions per second that go on during verify. */
const backgroundRate = 20;
const deliveryLimitMs = 300_000;

export async function runOnce(options: OnceOptions): Promise<DemoSummary> {
  const { pipeline, config, sinkKinds, log, transactions, rate, seed, signal, say } = options;
  const startedAt = Date.now();
  say(`writing ${transactions} transactions${rate > 0 ? ` at ${rate} per second` : ''}`);
  await Promise.race([
    pipeline.work({
      seed,
      transactions,
      transactionsPerSecond: rate,
      connections: 2,
      hostileValues: true,
      signal,
    }),
    pipeline.reader.finished,
  ]);
  interrupted(signal);
  say('waiting until both destinations have everything');
  await pipeline.delivered(Date.now(), deliveryLimitMs);
  const seconds = (Date.now() - startedAt) / 1000;
  const { transactions: committed, rows } = pipeline;
  const kafkaBytes = pipeline.stats?.bytes ?? 0;
  const latencies = pipeline.destinations.map(({ latency }) => ({
    p50Ms: latency.percentile(0.5),
    p99Ms: latency.percentile(0.99),
  }));
  const windows = pipeline.destinations.map(({ windows: count, bytes }) => ({ windows: count, bytes }));

  const background = new AbortController();
  signal.addEventListener('abort', () => background.abort(), { once: true });
  const writing = pipeline.work({
    seed: `${seed}-verify`,
    transactionsPerSecond: backgroundRate,
    signal: background.signal,
  });
  const reports: VerifyReport[] = [];
  try {
    for (const { name } of pipeline.destinations) {
      say(`verifying ${name} while writes go on`);
      reports.push(
        await verifyDestination({
          config,
          sinkKinds,
          destination: name,
          log,
          limit: 20,
          timeoutMs: 120_000,
          signal,
        }),
      );
      interrupted(signal);
    }
  } finally {
    background.abort();
    await writing.catch(() => {});
  }
  return {
    equal: reports.every(({ equal }) => equal),
    transactions: committed,
    rows,
    seconds,
    rowsPerSecond: Math.round(rows / seconds),
    kafkaBytes,
    peakMemoryBytes: pipeline.peakRssBytes,
    destinations: pipeline.destinations.map(({ name }, i) => ({
      name,
      ...windows[i]!,
      ...latencies[i]!,
      equal: reports[i]!.equal,
      position: reports[i]!.position,
      rows: reports[i]!.tables.reduce((sum, table) => sum + (table.destinationRows ?? 0), 0),
      differences: reports[i]!.tables.filter(({ status }) => status !== 'equal').map(
        ({ table, status }) => `${table}: ${status}`,
      ),
    })),
  };
}

function interrupted(signal: AbortSignal): void {
  if (signal.aborted)
    throw new TidemarkError('TM408', 'interrupted before the run was complete', {
      remedy: 'Start it again.',
    });
}

export function renderSummary(summary: DemoSummary): string {
  const lines = [
    '',
    `${summary.transactions} transactions, ${summary.rows} rows in ${summary.seconds.toFixed(1)} s: ${summary.rowsPerSecond} rows/s; ${size(summary.kafkaBytes)} into Kafka; peak memory ${size(summary.peakMemoryBytes)}`,
  ];
  for (const {
    name,
    windows,
    bytes,
    p50Ms,
    p99Ms,
    equal,
    rows,
    position,
    differences,
  } of summary.destinations) {
    const latency =
      p50Ms === null
        ? ''
        : `; commit to readable p50 ${Math.round(p50Ms)} ms, p99 ${Math.round(p99Ms ?? 0)} ms`;
    lines.push(`${equal ? '✓' : '✗'} ${name}: ${windows} Windows, ${size(bytes)}${latency}`);
    lines.push(`    ${equal ? 'equals' : 'DIFFERS FROM'} the source at ${position}: ${rows} rows`);
    for (const difference of differences) lines.push(`    ${difference}`);
  }
  return `${lines.join('\n')}\n`;
}
