/**
 * The bounded demo: so many transactions, everything delivered, a row let go and recalled, destinations verified while
 * writes go on.
 */
import type { SinkKind } from '../connector/sink.ts';
import type { Logger } from '../platform/log.ts';
import type { ResolvedConfig } from '../platform/resolved-config.ts';
import { verifyDestination } from '../verify/verify-destination.ts';
import { letRowGo } from './let-go.ts';
import type { DemoPipeline } from './pipeline.ts';
import { type DemoSummary, summarize } from './summary.ts';

export interface OnceOptions {
  pipeline: DemoPipeline;
  config: ResolvedConfig;
  sinkKinds: ReadonlyMap<string, SinkKind>;
  log: Logger;
  /** Destinations that can be compared with the source. */
  verifiable: readonly string[];
  transactions: number;
  /** As the application's own role. */
  sourceUrl: string;
  /** Transactions per second, 0 for as fast as possible. */
  rate: number;
  seed: number;
  signal: AbortSignal;
  say(line: string): void;
}

/** Transactions per second that go on during verify. */
const backgroundRate = 20;
/** Delivery that makes no sense any more; a slow machine needs a fraction of it. */
const deliveryLimitMs = 300_000;
const joinLimitMs = 90_000;
const verifyLimitMs = 120_000;

/**
 * @throws TidemarkError whatever stops the pipeline, TM408 when it does not get on; the signal's reason
 */
export async function runOnce(options: OnceOptions): Promise<DemoSummary> {
  const { pipeline, transactions, rate, seed, signal, say } = options;
  // Groups are joined and the history is in the replica: what is measured is the pipeline and not its start.
  say('reading what the tables hold already, beside the stream');
  await pipeline.until('the first snapshots', deliveryLimitMs, () => pipeline.snapshot === null);
  const history = await pipeline.now();
  say('delivering it');
  await pipeline.until('every destination to be followed', joinLimitMs, () =>
    pipeline.destinations.every(({ units }) => units.length > 0 && units.every(({ mark }) => mark !== null)),
  );
  // The fastest; others with a cadence take the history with their first Window.
  await pipeline.reached(history, deliveryLimitMs, [pipeline.destinations[0]!.name]);
  pipeline.measureFrom(await pipeline.now());

  say(`writing ${transactions} transactions${rate > 0 ? ` at ${rate} per second` : ''}`);
  const bytesBefore = pipeline.kafka.bytes;
  const startedAt = performance.now();
  const totals = await pipeline.work({
    seed,
    transactions,
    transactionsPerSecond: rate,
    connections: 2,
    hostileValues: true,
    signal,
  });
  signal.throwIfAborted();
  const writtenSeconds = secondsSince(startedAt);
  const end = await pipeline.now();
  say('waiting until every destination has everything');
  await Promise.all(
    pipeline.destinations.map(async ({ name }) => {
      await pipeline.reached(end, deliveryLimitMs, [name]);
      say(`${name} has everything, ${secondsSince(startedAt).toFixed(1)} s after the first transaction`);
    }),
  );
  const measured = {
    totals,
    rows: pipeline.source.rows,
    writtenSeconds,
    deliveredSeconds: secondsSince(startedAt),
    kafkaBytes: pipeline.kafka.bytes - bytesBefore,
    destinations: pipeline.destinations.map(({ name, windows, rows, bytes, latency }) => ({
      name,
      windows,
      rows,
      bytes,
      p50Ms: latency.percentile(0.5),
      p99Ms: latency.percentile(0.99),
    })),
  };
  // A destination that cannot be read back proves nothing.
  const letGo = options.verifiable.length > 0 ? await letRowGo(options) : null;
  const reports = await verifyAll(options);
  return summarize(measured, letGo, reports, process.resourceUsage().maxRSS * 1024);
}

/** One after the other, while the application goes on writing. */
async function verifyAll({ pipeline, config, sinkKinds, log, verifiable, seed, signal, say }: OnceOptions) {
  const ending = new AbortController();
  const writing = pipeline.work({
    seed: `${seed}/verify`,
    transactionsPerSecond: backgroundRate,
    signal: AbortSignal.any([signal, ending.signal]),
  });
  writing.catch(() => {});
  const reports = [];
  try {
    for (const { name } of pipeline.destinations) {
      if (!verifiable.includes(name)) continue;
      say(`verifying ${name} while writes go on`);
      const verifying = verifyDestination({
        config,
        sinkKinds,
        destination: name,
        log,
        limit: 20,
        timeoutMs: verifyLimitMs,
        signal,
      });
      verifying.catch(() => {});
      reports.push(await Promise.race([verifying, pipeline.failed]));
    }
    return reports;
  } finally {
    ending.abort();
    await writing.catch(() => {});
  }
}

function secondsSince(startedAt: number): number {
  return (performance.now() - startedAt) / 1000;
}
