/** The same changes merged into a table, and into one ten times as large: the cost should follow the changes. */
import type pg from 'pg';
import { type BenchDatabase, BenchStack, leave, say } from '../bench-stack.ts';
import { median } from '../process-cost.ts';
import { takesPart } from '../race-table.ts';
import { introduceReader } from '../reader-process.ts';
import type { BenchResult } from '../run.ts';
import { clickhouse, type Destination, deliverAll, describe, postgres, publish } from './delivery-run.ts';

const rounds = Number(process.env.BENCH_ROUNDS ?? 5);
const small = Number(process.env.BENCH_ROWS ?? 300_000);
const sizes = [small, small * 10];
const changes = 40_000;

const kinds = { replica: 'Postgres', columns: 'ClickHouse' } as const;
type Kind = keyof typeof kinds;

/** A table of some size, and the destination that holds it. */
interface Side {
  rows: number;
  source: BenchDatabase;
  replica: BenchDatabase;
  config: string;
}

export async function mergeCost(): Promise<BenchResult> {
  const racing = (Object.keys(kinds) as Kind[]).filter(takesPart);
  const results: BenchResult['rows'] = [];
  await BenchStack.with(
    'deliver-growth',
    async (stack) => {
      for (const kind of racing) results.push(...(await race(stack, kind)));
    },
    racing.includes('columns') ? ['clickhouse'] : [],
  );
  return {
    name: 'deliver-growth',
    rows: results,
    bar: 'merge ms (median)',
    note: `${changes} changes, three quarters updates of rows all over the table, one quarter new rows; ${rounds} rounds, the two sizes by turns; from the first byte written to the acknowledgement`,
  };
}

async function race(stack: BenchStack, kind: Kind): Promise<BenchResult['rows']> {
  const sides: Side[] = [];
  for (const rows of sizes) sides.push(await fill(stack, kind, rows));
  const milliseconds = new Map(sides.map((side) => [side, [] as number[]]));
  for (let round = 1; round <= rounds; round++)
    for (const side of sides) {
      const took = await change(side, kind, round);
      milliseconds.get(side)!.push(took);
      say(`round ${round}: ${kinds[kind]}, ${side.rows} rows: merged in ${took} ms`);
    }
  for (const { source, replica } of sides) {
    await replica.client.end();
    await leave(source);
  }
  const [first] = sides;
  return sides.map((side) => ({
    what: `${kinds[kind]}: into ${side.rows} rows`,
    'merge ms (median)': Math.round(median(milliseconds.get(side)!)),
    'to the small table': Number(
      median(milliseconds.get(side)!.map((one, i) => one / milliseconds.get(first!)![i]!)).toFixed(2),
    ),
  }));
}

async function fill(stack: BenchStack, kind: Kind, rows: number): Promise<Side> {
  const source = await stack.database();
  const replica = await stack.database();
  await source.client.query('create schema app');
  await source.client.query(
    'create table app.things (id uuid primary key, state text, score float8, note text, at timestamptz)',
  );
  const config = await stack.config(source);
  await describe(source, destinationOf(stack, kind, replica));
  await introduceReader(config, source.client);
  await insert(source.client, 'first', rows);
  await publish(source.client, config);
  await deliverAll(source, config, kind, rows);
  say(`${kinds[kind]}: ${rows} rows are there`);
  return { rows, source, replica, config };
}

/** @returns what the merge took, milliseconds */
async function change({ rows, source, config }: Side, kind: Kind, round: number): Promise<number> {
  const { client } = source;
  const updates = (changes * 3) / 4;
  await client.query(
    `update app.things set state = 'changed', at = clock_timestamp()
      where id in (select md5('first/' || (n * ($1::int8 / $2::int8)))::uuid from generate_series(1, $2::int8) as n)`,
    [rows, updates],
  );
  await insert(client, `round ${round}`, changes - updates);
  await publish(client, config);
  const before = await mergedSoFar(client, kind);
  await deliverAll(source, config, kind, changes);
  return (await mergedSoFar(client, kind)) - before;
}

async function insert(client: pg.Client, seed: string, rows: number): Promise<void> {
  await client.query(
    `insert into app.things select md5($1::text || '/' || n)::uuid, 'new', n * 1.5, 'a thing among many, number ' || n, clock_timestamp()
       from generate_series(1, $2::int8) as n`,
    [seed, rows],
  );
}

async function mergedSoFar(client: pg.Client, destination: string): Promise<number> {
  const { rows } = await client.query<{ total: string }>(
    'select coalesce(sum(duration_ms), 0) as total from tidemark.deliveries where destination = $1',
    [destination],
  );
  return Number(rows[0]!.total);
}

function destinationOf(stack: BenchStack, kind: Kind, replica: BenchDatabase): Destination {
  return kind === 'replica' ? postgres(kind, replica) : clickhouse(kind, stack, replica.name);
}
