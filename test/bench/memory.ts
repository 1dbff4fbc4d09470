/** The reader's memory over one huge transaction, and over a long time at a steady pace. */
import { setTimeout as sleep } from 'node:timers/promises';
import type pg from 'pg';
import { bulkFindings } from '../../src/sample/bulk.ts';
import { migrateSample } from '../../src/sample/migrate.ts';
import { seedSample } from '../../src/sample/seed.ts';
import { type BenchDatabase, BenchStack, say, settle } from './bench-stack.ts';
import { median } from './process-cost.ts';
import { introduceReader, ReaderProcess } from './reader-process.ts';
import type { BenchResult } from './run.ts';

const rows = Number(process.env.BENCH_ROWS ?? 5_000_000);
const minutes = Number(process.env.BENCH_MINUTES ?? 60);
const steadyRowsPerSecond = 2000;

export async function memory(): Promise<BenchResult> {
  const results: BenchResult['rows'] = [];
  await BenchStack.with('memory', async (stack) => {
    const database = await stack.database();
    await migrateSample(database.client);
    await seedSample(database.client, { seed: 1, findings: 0 });
    const config = await stack.config(database);
    await introduceReader(config, database.client);
    results.push(await hugeTransaction(database, config), await steadyPace(database.client, config));
    await database.client.end();
  });
  return {
    name: 'memory',
    rows: results,
    note: 'resident memory of the reader process, looked at every 200 ms; growth between the medians of the fifth and the last tenth',
  };
}

/** Looks at the reader's memory until it is told to stop. */
async function watch(reader: ReaderProcess, until: Promise<unknown>): Promise<number[]> {
  const seen: number[] = [];
  let over = false;
  const done = until.finally(() => {
    over = true;
  });
  while (!over) {
    seen.push(await reader.memoryMiB());
    await Promise.race([sleep(200), done]);
  }
  await done;
  return seen;
}

function summary(what: string, seen: readonly number[]): Record<string, string | number> {
  const tenth = Math.max(1, Math.floor(seen.length / 10));
  // In the first tenths Postgres may still be decoding a huge transaction to disk, and nothing is read.
  const growth = median(seen.slice(-tenth)) - median(seen.slice(4 * tenth, 5 * tenth));
  return {
    what,
    'peak MiB': Math.round(Math.max(...seen)),
    'median MiB': Math.round(median(seen)),
    'growth MiB': Math.round(growth),
  };
}

async function hugeTransaction({ client }: BenchDatabase, config: string) {
  say(`writing ${rows} rows in one transaction`);
  await bulkFindings(client, { rows, seed: 'huge', inOneTransaction: true });
  const end = await settle(client);
  const reader = await ReaderProcess.start(config);
  const reading = reader.confirmed(client, end);
  const seen = await watch(reader, reading);
  const { seconds } = await reading;
  await reader.stop();
  return { ...summary(`a transaction of ${rows} rows`, seen), 'rows/s': Math.round(rows / seconds) };
}

async function steadyPace(client: pg.Client, config: string) {
  say(`${minutes} minutes at ${steadyRowsPerSecond} rows/s`);
  const reader = await ReaderProcess.start(config);
  const writing = (async () => {
    const startedAt = Date.now();
    for (let second = 0; second < minutes * 60; second++) {
      await bulkFindings(client, { rows: steadyRowsPerSecond, seed: `steady-${second}` });
      await sleep(Math.max(0, startedAt + (second + 1) * 1000 - Date.now()));
    }
  })();
  const seen = await watch(reader, writing);
  await reader.stop();
  return {
    ...summary(`${minutes} minutes of ${steadyRowsPerSecond} rows/s`, seen),
    'rows/s': steadyRowsPerSecond,
  };
}
