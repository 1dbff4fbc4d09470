/** The demo as long as somebody watches: the workload goes on, the view follows. */
import { formatLsn, parsePosition } from '../connector/position.ts';
import { agingTable } from './aging.ts';
import { titleOf } from './destinations.ts';
import type { DemoEnvironment } from './environment.ts';
import type { Notices } from './notices.ts';
import { commonMark, type DemoPipeline, type DestinationState } from './pipeline.ts';
import { SourceWatcher } from './source-watcher.ts';
import { Terminal } from './terminal.ts';
import { size } from './text.ts';
import { tryNext } from './try-next.ts';
import { type DestinationView, renderLine, renderView, type ViewState } from './view.ts';

const redrawMs = 250;
const lineMs = 2000;
/** A warning is news for so long. */
const noticeMs = 15_000;
const historySeconds = 60;
/** Latency is shown of this and the turn before. */
const latencyTurnMs = 30_000;
/** The workload ends here: nobody watches what fills the disk overnight. */
const largestDatabaseBytes = 2 * 2 ** 30;

export interface LiveOptions {
  environment: DemoEnvironment;
  pipeline: DemoPipeline;
  notices: Notices;
  slot: string;
  /** Transactions per second, 0 for as fast as possible. */
  rate: number;
  seed: number;
  signal: AbortSignal;
  out: NodeJS.WriteStream;
}

/** Returns when the signal aborts. @throws what stopped the pipeline, the workload or a server */
export async function runLive(options: LiveOptions): Promise<void> {
  const { environment, pipeline, notices, slot, rate, seed, signal, out } = options;
  const watcher = new SourceWatcher(environment.sourceUrl, slot);
  const ending = new AbortController();
  const work = pipeline.work({
    seed,
    transactionsPerSecond: rate,
    connections: 2,
    wall: Date.now,
    signal: AbortSignal.any([signal, ending.signal]),
  });
  work.catch(() => {});
  const startedAt = performance.now();
  const commands = tryNext(environment);
  const rates = new Rates(pipeline);
  let full = false;
  const state = (): ViewState => ({
    seconds: (performance.now() - startedAt) / 1000,
    commitsPerSecond: rates.commits,
    rowsPerSecond: rates.rows,
    transactions: pipeline.source.transactions,
    ...stagesOf(pipeline, watcher),
    letGo: pipeline.evicted === null ? null : { table: agingTable, rows: pipeline.evicted },
    memoryBytes: process.memoryUsage.rss(),
    notice: notices.last && Date.now() - notices.last.atMs < noticeMs ? notices.last : null,
    remark: full
      ? `The workload ended at ${size(largestDatabaseBytes)} of data; Ctrl+C, then start again for more`
      : null,
    tryNext: commands,
  });
  const terminal = out.isTTY ? new Terminal(out) : null;
  // In the scrollback too, for when the view has no room for them.
  if (!terminal)
    out.write(`Try next, in another terminal:\n${commands.map((line) => `  ${line}\n`).join('')}`);
  const colour = out.isTTY && !process.env.NO_COLOR;
  const draw = () => {
    if (terminal)
      terminal.draw(renderView(state(), { columns: terminal.columns, rows: terminal.rows, colour }));
    else out.write(`${renderLine(state())}\n`);
  };
  const drawing = setInterval(draw, terminal ? redrawMs : lineMs);
  const counting = setInterval(() => {
    rates.count();
    if (watcher.databaseBytes < largestDatabaseBytes || full) return;
    full = true;
    ending.abort();
  }, 1000);
  const turning = setInterval(() => {
    for (const { latency } of pipeline.destinations) latency.turn();
  }, latencyTurnMs);
  const stopped = new Promise<void>((resolve) => {
    if (signal.aborted) resolve();
    signal.addEventListener('abort', () => resolve(), { once: true });
    // Whoever read the lines has gone: `npm run demo | head`.
    out.once('error', () => resolve());
  });
  try {
    await Promise.race([stopped, work.then(() => stopped), pipeline.failed]);
  } finally {
    clearInterval(drawing);
    clearInterval(counting);
    clearInterval(turning);
    terminal?.close();
    ending.abort();
    await Promise.all([work.catch(() => {}), watcher.close()]);
  }
}

/** Differences per second. */
class Rates {
  commits: number[] = [];
  rows = 0;
  readonly #pipeline: DemoPipeline;
  #last: { transactions: number; rows: number };

  constructor(pipeline: DemoPipeline) {
    this.#pipeline = pipeline;
    this.#last = { ...pipeline.source };
  }

  count(): void {
    const { transactions, rows } = this.#pipeline.source;
    this.commits = [...this.commits, transactions - this.#last.transactions].slice(-historySeconds);
    this.rows = rows - this.#last.rows;
    this.#last = { transactions, rows };
  }
}

function stagesOf(
  pipeline: DemoPipeline,
  watcher: SourceWatcher,
): Pick<ViewState, 'source' | 'kafka' | 'destinations'> {
  const { progress, kafka } = pipeline;
  const { currentLsn, retainedBytes } = watcher;
  const bytesAfter = (lsn: bigint) => (currentLsn === null ? null : Math.max(0, Number(currentLsn - lsn)));
  return {
    source: {
      tables: kafka.topics,
      lsn: currentLsn === null ? null : formatLsn(currentLsn),
      retainedBytes,
    },
    kafka: {
      lagSeconds: progress && ageSeconds(Number(progress.commitTimeUs) / 1000),
      lagBytes: progress && bytesAfter(progress.ackLsn),
      records: kafka.records,
      bytes: kafka.bytes,
      snapshot: pipeline.snapshot,
    },
    destinations: pipeline.destinations.map((destination) => viewOf(destination, bytesAfter)),
  };
}

function viewOf(destination: DestinationState, bytesAfter: (lsn: bigint) => number | null): DestinationView {
  const { name, kind, cadenceMs, windows, rows, receipt, units, error, latency } = destination;
  const mark = commonMark(destination);
  const markMs = mark && Math.min(...units.map((unit) => unit.markMs ?? 0));
  return {
    name,
    kind: titleOf(kind),
    rhythm: cadenceMs === 0 ? 'at every commit' : `every ${cadenceMs / 1000} s`,
    lagSeconds: windows > 0 && markMs ? ageSeconds(markMs) : null,
    lagBytes: mark && bytesAfter(parsePosition(mark).lsn),
    windows,
    rows,
    p50Ms: latency.percentile(0.5),
    p99Ms: latency.percentile(0.99),
    receipt: receipt && { ...receipt, secondsAgo: ageSeconds(receipt.atMs) },
    marks: units.map(({ unit, mark: position }) => ({ unit, position })),
    error,
  };
}

function ageSeconds(sinceMs: number): number {
  return Math.max(0, Date.now() - sinceMs) / 1000;
}
