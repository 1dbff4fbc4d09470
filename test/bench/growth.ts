/**
 * Cost as it grows: the same backlog over ten times the tables, in rows ten times as wide, and ten times as long. And
 * where one slot ends: the same two tables read through one slot, and through two side by side.
 */
import type pg from 'pg';
import { type BenchDatabase, BenchStack, leave, say, settle, sourceIdOf } from './bench-stack.ts';
import { median } from './process-cost.ts';
import { introduceReader, type ReaderCost, ReaderProcess } from './reader-process.ts';
import type { BenchResult } from './run.ts';

const rows = Number(process.env.BENCH_ROWS ?? 200_000);
const rounds = Number(process.env.BENCH_ROUNDS ?? 3);
const rowsPerTransaction = 1000;

interface Size {
  what: string;
  tables: number;
  columns: number;
  rows: number;
  /** Readers side by side, each with its share of the tables. */
  slots?: number;
}

const sizes: readonly Size[] = [
  { what: '20 tables, 10 columns', tables: 20, columns: 10, rows },
  { what: '10 times the tables', tables: 200, columns: 10, rows },
  { what: '10 times the columns, a tenth of the rows', tables: 20, columns: 100, rows: rows / 10 },
  { what: '10 times the backlog', tables: 20, columns: 10, rows: rows * 10 },
  { what: '2 tables, one slot', tables: 2, columns: 10, rows: rows * 2 },
  { what: '2 tables, two slots side by side', tables: 2, columns: 10, rows: rows * 2, slots: 2 },
];

export async function growth(): Promise<BenchResult> {
  const measured = new Map<Size, ReaderCost[]>();
  await BenchStack.with('growth', async (stack) => {
    for (let round = 1; round <= rounds; round++)
      for (const size of sizes) {
        const cost = await measure(stack, size);
        measured.set(size, [...(measured.get(size) ?? []), cost]);
        say(`round ${round}: ${size.what}: ${Math.round(size.rows / cost.seconds)} rows/s`);
      }
  });
  return {
    name: 'growth',
    rows: [...measured].map(([size, costs]) => ({
      what: size.what,
      'rows/s (median)': Math.round(median(costs.map(({ seconds }) => size.rows / seconds))),
      'values/s': Math.round(median(costs.map(({ seconds }) => (size.rows * size.columns) / seconds))),
      'CPU µs/row': Number(median(costs.map(({ cpuMicros }) => cpuMicros / size.rows)).toFixed(2)),
      'peak MiB': Math.round(median(costs.map(({ peakMiB }) => peakMiB))),
    })),
    bar: 'values/s',
    note: `${rows} rows in transactions of ${rowsPerTransaction}, ${rounds} rounds, medians; of two readers the time of the slower, the CPU and memory of both`,
  };
}

async function measure(stack: BenchStack, size: Size): Promise<ReaderCost> {
  const database = await stack.database();
  const { client } = database;
  await createTables(client, size);
  const configs = await configsOf(stack, database, size);
  for (const config of configs) await introduceReader(config, client);
  await fillTables(client, size);
  const end = await settle(client);
  const readers = await Promise.all(configs.map((config) => ReaderProcess.start(config)));
  const costs = await Promise.all(readers.map((reader) => reader.confirmed(client, end)));
  for (const reader of readers) await reader.stop();
  await leave(database);
  return {
    seconds: Math.max(...costs.map(({ seconds }) => seconds)),
    cpuMicros: sum(costs.map(({ cpuMicros }) => cpuMicros)),
    peakMiB: sum(costs.map(({ peakMiB }) => peakMiB)),
  };
}

function configsOf(
  stack: BenchStack,
  database: BenchDatabase,
  { tables, slots = 1 }: Size,
): Promise<string[]> {
  const names = Array.from({ length: tables }, (_, i) => `app.growth_${i}`);
  return Promise.all(
    Array.from({ length: slots }, (_, slot) =>
      stack.config(
        database,
        {
          'source.id': `${sourceIdOf(database.name)}-${slot}`,
          'source.tables': names.filter((_, i) => i % slots === slot),
        },
        `tidemark-${slot}.yaml`,
      ),
    ),
  );
}

async function createTables(client: pg.Client, { tables, columns }: Size): Promise<void> {
  await client.query('create schema app');
  const list = Array.from({ length: columns - 1 }, (_, i) => `c${i} ${i % 2 === 0 ? 'text' : 'bigint'}`);
  for (let i = 0; i < tables; i++)
    await client.query(`create table app.growth_${i} (id bigint primary key, ${list.join(', ')})`);
}

async function fillTables(client: pg.Client, { tables, columns, rows }: Size): Promise<void> {
  const values = Array.from({ length: columns - 1 }, (_, i) =>
    i % 2 === 0 ? `'a value of row ' || n` : `n * ${i}`,
  );
  await client.query('set synchronous_commit = off');
  for (let from = 0, i = 0; from < rows; from += rowsPerTransaction, i++)
    await client.query(
      `insert into app.growth_${i % tables} select n, ${values.join(', ')}
         from generate_series(${from + 1}, ${Math.min(rows, from + rowsPerTransaction)}) as n`,
    );
}

function sum(values: readonly number[]): number {
  return values.reduce((a, b) => a + b, 0);
}
