/** The demo as long as somebody watches: workload, pipeline, a view that redraws, and nothing left behind. */
import pg from 'pg';
import { readSlot } from '../replicate/source.ts';
import type { DemoEnvironment } from './environment.ts';
import type { DemoPipeline } from './pipeline.ts';
import { renderLine, renderView, type ViewState } from './view.ts';

const redrawMs = 250;
const lineMs = 2000;

export interface LiveOptions {
  environment: DemoEnvironment;
  pipeline: DemoPipeline;
  slot: string;
  rate: number;
  seed: number;
  signal: AbortSignal;
  out: NodeJS.WriteStream;
}

/** Returns when the signal aborts; throws what stopped the reader. */
export async function runLive({
  environment,
  pipeline,
  slot,
  rate,
  seed,
  signal,
  out,
}: LiveOptions): Promise<void> {
  const workload = new AbortController();
  signal.addEventListener('abort', () => workload.abort(), { once: true });
  const startedAt = Date.now();
  const work = pipeline.work({ seed, transactionsPerSecond: rate, connections: 2, signal: workload.signal });
  // The operator's view of the slot, through a connection that may come and go.
  const watcher = new SlotWatcher(environment.stack.environment.TIDEMARK_SOURCE_URL!, slot);
  const history: number[] = [];
  let lastTransactions = 0;
  let lastRows = 0;
  let rowsPerSecond = 0;
  const counter = setInterval(() => {
    history.push(pipeline.transactions - lastTransactions);
    if (history.length > 30) history.shift();
    rowsPerSecond = pipeline.rows - lastRows;
    lastTransactions = pipeline.transactions;
    lastRows = pipeline.rows;
  }, 1000);
  const state = (): ViewState => {
    const now = Date.now();
    const { progress } = pipeline;
    return {
      seconds: (now - startedAt) / 1000,
      commitsPerSecond: history,
      rowsPerSecond,
      transactions: pipeline.transactions,
      source: {
        lagSeconds: progress ? Math.max(0, (now - Number(progress.commitTimeUs) / 1000) / 1000) : null,
        lagBytes:
          progress && watcher.currentLsn !== null
            ? Math.max(0, Number(watcher.currentLsn - progress.ackLsn))
            : null,
        retainedBytes: watcher.retainedBytes,
      },
      destinations: pipeline.destinations.map(
        ({ name, windows, rows, markMs, lastReceipt, error, latency }) => ({
          name,
          lagSeconds: markMs === null ? null : Math.max(0, (now - markMs) / 1000),
          windows,
          rows,
          p50Ms: latency.percentile(0.5),
          p99Ms: latency.percentile(0.99),
          receipt:
            lastReceipt &&
            `${lastReceipt.rows} changes to ${lastReceipt.position} as ${shorten(lastReceipt.commitId)}`,
          error,
        }),
      ),
      memoryBytes: process.memoryUsage.rss(),
      tryNext: tryNext(environment),
    };
  };
  const terminal = out.isTTY === true;
  const draw = setInterval(
    () => {
      if (terminal)
        out.write(
          `\u001b[H${renderView(state(), out.columns ?? 80, !process.env.NO_COLOR).replaceAll('\n', '\u001b[K\n')}\u001b[K\u001b[J`,
        );
      else out.write(`${renderLine(state())}\n`);
    },
    terminal ? redrawMs : lineMs,
  );
  if (terminal) out.write('\u001b[2J\u001b[?25l');
  else
    out.write(
      `${tryNext(environment)
        .map(([what, command]) => `${what}: ${command}`)
        .join('\n')}\n`,
    );
  try {
    await Promise.race([work, pipeline.reader.finished]);
  } finally {
    clearInterval(draw);
    clearInterval(counter);
    await watcher.close();
    workload.abort();
    await work.catch(() => {});
    if (terminal) out.write('\u001b[?25h\n');
  }
}

function tryNext({ sourceUrl, replicaUrl, lake, configFile }: DemoEnvironment): [string, string][] {
  return [
    [
      'write to the source',
      `psql '${sourceUrl}' -c "update app.findings set status = 'resolved' where status = 'open'"`,
    ],
    [
      'see it in the replica',
      `psql '${replicaUrl}' -c "select status, count(*) from app.findings group by 1"`,
    ],
    [
      'and in the lake (DuckDB over Parquet)',
      `npm run duckdb -- '${lake}/app.findings/_latest.sql' "select status, count(*) from tidemark_latest group by 1"`,
    ],
    [
      'prove that a destination equals the source, now',
      `npx tidemark verify replica --config '${configFile}'`,
    ],
    ['see where everything stands', `npx tidemark status --config '${configFile}'`],
  ];
}

function shorten(text: string): string {
  return text.length > 24 ? `…${text.slice(-23)}` : text;
}

class SlotWatcher {
  currentLsn: bigint | null = null;
  retainedBytes: number | null = null;
  #client: pg.Client | null = null;
  readonly #timer: NodeJS.Timeout;
  #busy = false;

  constructor(url: string, slot: string) {
    const source = new URL(url);
    source.pathname = '/app';
    this.#timer = setInterval(() => void this.#look(source.toString(), slot), 500);
  }

  async close(): Promise<void> {
    clearInterval(this.#timer);
    await this.#client?.end().catch(() => {});
  }

  async #look(url: string, slot: string): Promise<void> {
    if (this.#busy) return;
    this.#busy = true;
    try {
      if (!this.#client) {
        const client = new pg.Client(url);
        client.on('error', () => {
          this.#client = null;
        });
        await client.connect();
        this.#client = client;
      }
      const state = await readSlot(this.#client, slot);
      const { rows } = await this.#client.query(`select (pg_current_wal_lsn() - '0/0'::pg_lsn)::text as lsn`);
      this.currentLsn = BigInt(rows[0].lsn);
      this.retainedBytes = state ? Number(state.retainedBytes) : null;
    } catch {
      this.#client = null;
    } finally {
      this.#busy = false;
    }
  }
}
