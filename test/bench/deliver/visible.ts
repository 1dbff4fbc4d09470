/** From the commit, as the client that wrote it saw it, to a reader of the replica, at an even pace and cadence continuous. */
import { setTimeout as sleep } from 'node:timers/promises';
import pg from 'pg';
import { type BenchDatabase, BenchStack, leave, say } from '../bench-stack.ts';
import { median, percentile } from '../process-cost.ts';
import { introduceReader, ReaderProcess } from '../reader-process.ts';
import type { BenchResult } from '../run.ts';
import { describe, postgres, start } from './delivery-run.ts';

const rowsPerSecond = 2000;
const writers = 8;
const seconds = Number(process.env.BENCH_SECONDS ?? 30);
/** Before anything is counted: code gets compiled, connections open. */
const warmSeconds = 10;
const rounds = Number(process.env.BENCH_ROUNDS ?? 5);
const lookEveryMs = 5;

interface Seen {
  p50: number;
  p99: number;
  most: number;
  rows: number;
  peakMiB: number;
}

export async function visible(): Promise<BenchResult> {
  const measured: Seen[] = [];
  await BenchStack.with('deliver-latency', async (stack) => {
    for (let round = 1; round <= rounds; round++) {
      const one = await measure(stack);
      measured.push(one);
      say(`round ${round}: p50 ${one.p50.toFixed(0)} ms, p99 ${one.p99.toFixed(0)} ms, ${one.rows} rows`);
    }
  });
  const mid = (of: (one: Seen) => number) => Math.round(median(measured.map(of)));
  return {
    name: 'deliver-latency',
    rows: [
      {
        what: 'commit to visible in the Postgres replica',
        'p50 ms': mid(({ p50 }) => p50),
        'p99 ms': mid(({ p99 }) => p99),
        'longest ms': mid(({ most }) => most),
        'rows/s': mid(({ rows }) => rows / seconds),
        'peak MiB': mid(({ peakMiB }) => peakMiB),
      },
    ],
    note: `${rowsPerSecond} transactions of one row a second by ${writers} writers, the replica looked at every ${lookEveryMs} ms; ${rounds} rounds of ${seconds} s; medians of rounds`,
  };
}

async function measure(stack: BenchStack): Promise<Seen> {
  const source = await stack.database();
  const replica = await stack.database();
  const { client } = source;
  await client.query('create schema app');
  await client.query(
    'create table app.ticks (writer integer, number bigint, title text, score float8, at timestamptz, primary key (writer, number))',
  );
  const config = await stack.config(source);
  await describe(source, postgres('replica', replica));
  await introduceReader(config, client);
  const reader = await ReaderProcess.start(config);
  const delivery = await start(config, 'replica');
  try {
    await client.query(
      `insert into app.ticks select w, -1, 'first', 0, now() from generate_series(0, ${writers - 1}) as w`,
    );
    await firstRows(replica);
    const committedAt = Array.from({ length: writers }, () => [] as number[]);
    const writing = write(source.url, committedAt);
    const latencies = await watch(replica, committedAt, writing);
    return {
      p50: percentile(latencies, 0.5),
      p99: percentile(latencies, 0.99),
      most: Math.max(...latencies),
      rows: latencies.length,
      peakMiB: await delivery.peakMiB(),
    };
  } finally {
    await delivery.stop();
    await reader.stop();
    await replica.client.end();
    await leave(source);
  }
}

async function firstRows({ client }: BenchDatabase): Promise<void> {
  for (;;) {
    const { rows } = await client.query<{ there: boolean }>(
      `select to_regclass('app.ticks') is not null as there`,
    );
    if (rows[0]!.there && (await client.query('select from app.ticks')).rowCount === writers) return;
    await sleep(50);
  }
}

/** Each writer's rows by their number; one that is not counted has a commit time of 0. */
async function write(url: string, committedAt: number[][]): Promise<void> {
  const startedAt = performance.now();
  const each = (rowsPerSecond / writers) * (warmSeconds + seconds);
  const warm = (rowsPerSecond / writers) * warmSeconds;
  await Promise.all(
    committedAt.map(async (times, writer) => {
      const client = new pg.Client(url);
      await client.connect();
      for (let number = 0; number < each; number++) {
        const wait = startedAt + ((number * writers + writer) / rowsPerSecond) * 1000 - performance.now();
        if (wait > 1) await sleep(wait);
        await client.query({
          name: 'tick',
          text: `insert into app.ticks values ($1, $2, 'a row at an even pace', 1.5, now())`,
          values: [writer, number],
        });
        times.push(number < warm ? 0 : performance.now());
      }
      await client.end();
    }),
  );
}

/** A Window holds each writer's rows in the order of their commits: the greatest number tells of all below it. */
async function watch(
  { client }: BenchDatabase,
  committedAt: number[][],
  writing: Promise<void>,
): Promise<number[]> {
  const latencies: number[] = [];
  const next = committedAt.map(() => 0);
  let written = false;
  const done = writing.then(() => {
    written = true;
  });
  const greatest = committedAt
    .map((_, writer) => `(select max(number) from app.ticks where writer = ${writer}) as w${writer}`)
    .join(', ');
  while (!written || committedAt.some((times, writer) => next[writer]! < times.length)) {
    const { rows } = await client.query<Record<string, string>>(`select ${greatest}`);
    const now = performance.now();
    for (const [writer, times] of committedAt.entries()) {
      // A row may be visible here before its writer heard of its own commit.
      for (; next[writer]! < Math.min(times.length, Number(rows[0]![`w${writer}`]) + 1); next[writer]!++) {
        const at = times[next[writer]!]!;
        if (at > 0) latencies.push(Math.max(0, now - at));
      }
    }
    await sleep(lookEveryMs);
  }
  await done;
  return latencies;
}
