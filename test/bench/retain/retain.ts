/**
 * Rows leave the source on proof of delivery: how fast while nobody else is there, what it costs an application that is, and
 * how large the Tombstones are that stay.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { createInterface } from 'node:readline';
import { setTimeout as sleep } from 'node:timers/promises';
import type pg from 'pg';
import { endpointFromUrl } from '../../../src/platform/postgres-endpoint.ts';
import { setUpRetention } from '../../../src/retain/setup.ts';
import { type BenchDatabase, BenchStack, say, sourceIdOf } from '../bench-stack.ts';
import { describe, postgres, start } from '../deliver/delivery-run.ts';
import { median, percentile } from '../process-cost.ts';
import { ReaderProcess } from '../reader-process.ts';
import type { BenchResult } from '../run.ts';
import { applicationTables } from './application.ts';

const idleRows = Number(process.env.BENCH_ROWS ?? 600_000);
const rounds = Number(process.env.BENCH_ROUNDS ?? 3);
const seconds = Number(process.env.BENCH_SECONDS ?? 30);
/** At the start of each part: what it finds is not counted. */
const settleSeconds = 5;
const perSecond = 150;
/** So many that none of the parts runs out. */
const besideRows = rounds * (seconds + 2 * settleSeconds) * 8000;

const tables = `
  create schema app;
  create table app.tenants (id int primary key, data_retention_days int);
  insert into app.tenants select i, 30 from generate_series(1, 50) i;
  create table app.events (organization_id int, id bigint, kind text, title text, score float8, detail jsonb, tags text[],
    created_at timestamptz not null, primary key (organization_id, id));
  create index on app.events (created_at);`;
const fill = `insert into app.events select 1 + i % 50, i, 'kind ' || i % 7, 'what the event ' || i || ' is about, in a few words', i / 7.0,
    jsonb_build_object('source', '10.0.0.' || i % 250, 'count', i % 1000, 'rule', 'r-' || i % 90), array['a', 'tag-' || i % 30],
    now() - interval '400 days' + i * interval '1 second' from generate_series($1::bigint, $2::bigint) i`;

export async function retain(): Promise<BenchResult> {
  const rows: BenchResult['rows'] = [];
  await BenchStack.with('retain', async (stack) => {
    const database = await stack.database();
    const control = await stack.database();
    const replica = await stack.database();
    const { client } = database;
    await client.query(tables);
    await setUpRetention(await endpointFromUrl(database.url));
    say(`writing ${idleRows} rows`);
    await client.query(fill, [1, idleRows]);
    await client.query('vacuum analyze app.events');
    const config = await stack.config(database, {
      'source.snapshot.mode': 'initial',
      'control.url': control.url,
      'retain.enabled': true,
      'retain.tenants.table': 'app.tenants',
      'retain.interval': '1s',
      'retain.mark.rows': 200_000,
    });
    await describe(database, postgres('replica', replica));
    const reader = await ReaderProcess.start(config);
    const delivery = await start(config, 'replica');
    await held(replica, idleRows);
    await client.query(`insert into tidemark_retention.policies (table_schema, table_name, enabled, age_column, batch_rows, rows_per_second)
      values ('app', 'events', true, 'created_at', 2000, 100000)`);

    rows.push(await alone(database, control, config));
    await client.query('vacuum analyze app.events, tidemark_retention.cold_storage_archive');
    rows.push(await tombstoneSize(client));

    say(`writing ${besideRows} rows`);
    for (let from = idleRows; from < idleRows + besideRows; from += 100_000)
      await client.query(fill, [from + 1, Math.min(from + 100_000, idleRows + besideRows)]);
    await client.query(applicationTables);
    await client.query('vacuum analyze app.events, bank.branches, bank.tellers, bank.accounts');
    await client.query('checkpoint');
    await held(replica, idleRows + besideRows);
    rows.push(...(await beside(database, control, config)));
    await delivery.stop();
    await reader.stop();
    for (const each of [database, control, replica]) await each.client.end();
  });
  return {
    name: 'retain',
    rows,
    note: `events of 8 columns, delivered to a Postgres on the same server; beside ${perSecond} transactions/s like TPC-B's: ${rounds} rounds of ${seconds} s without and with eviction in turns, medians of rounds`,
  };
}

/** The replica has so many. */
async function held({ client }: BenchDatabase, count: number): Promise<void> {
  const giveUpAt = Date.now() + 900_000;
  for (;;) {
    const { rows } = await client.query<{ there: boolean }>(
      `select to_regclass('app.events') is not null as there`,
    );
    if (rows[0]!.there) {
      const found = await client.query<{ n: string }>('select count(*) as n from app.events');
      if (Number(found.rows[0]!.n) >= count) return;
    }
    if (Date.now() > giveUpAt) throw new Error('the replica does not get the rows');
    await sleep(500);
  }
}

/** Rows that went so far, as the service says after each round. */
async function evicted({ client, name }: { client: pg.Client; name: string }): Promise<number> {
  const { rows } = await client.query<{ evicted: string }>(
    'select coalesce(sum(evicted), 0) as evicted from tidemark.retention where source_id = $1',
    [sourceIdOf(name)],
  );
  return Number(rows[0]!.evicted);
}

const gone = (database: BenchDatabase, control: BenchDatabase) =>
  evicted({ client: control.client, name: database.name });

async function alone(database: BenchDatabase, control: BenchDatabase, config: string) {
  const service = await ReaderProcess.start(config, 'retain', 'running');
  const cpuBefore = await service.cpuMicros();
  const giveUpAt = Date.now() + 900_000;
  while ((await gone(database, control)) < idleRows) {
    if (Date.now() > giveUpAt) throw new Error('the rows do not go');
    await sleep(200);
  }
  const cpu = (await service.cpuMicros()) - cpuBefore;
  const peak = await service.peakMiB();
  await service.stop();
  // From the first batch to the last: what lies between them, marking and waiting for the proof, is part of it.
  const { rows } = await database.client.query<{ seconds: number }>(
    `select extract(epoch from max(evicted_at) - min(evicted_at))::float8 as seconds from tidemark_retention.cold_storage_archive`,
  );
  const one = {
    what: 'evicted, nobody else there',
    'rows/s': Math.round(idleRows / rows[0]!.seconds),
    'CPU µs/row': Number((cpu / idleRows).toFixed(1)),
    'peak MiB': Math.round(peak),
  };
  say(JSON.stringify(one));
  return one;
}

async function tombstoneSize(client: pg.Client) {
  const { rows } = await client.query<Record<'rows' | 'heap' | 'indexes' | 'all', string>>(
    `select (select count(*) from tidemark_retention.cold_storage_archive) as rows, sum(pg_table_size(relid)) as heap,
            sum(pg_indexes_size(relid)) as indexes, sum(pg_total_relation_size(relid)) as "all"
       from pg_partition_tree('tidemark_retention.cold_storage_archive') where isleaf`,
  );
  const each = (bytes: string) => Math.round(Number(bytes) / Number(rows[0]!.rows));
  const one = {
    what: `Tombstone, one destination, of ${Number(rows[0]!.rows).toLocaleString('en')}`,
    bytes: each(rows[0]!.all),
    'heap and TOAST': each(rows[0]!.heap),
    indexes: each(rows[0]!.indexes),
  };
  say(JSON.stringify(one));
  return one;
}

class Application {
  readonly #child: ChildProcess;
  #latencies: number[] = [];

  constructor(url: string) {
    const program = new URL('application.ts', import.meta.url).pathname;
    this.#child = spawn(process.execPath, [program, url, String(perSecond)], {
      stdio: ['ignore', 'pipe', 'inherit'],
    });
    createInterface(this.#child.stdout!).on('line', (line) => {
      for (const one of JSON.parse(line) as number[]) this.#latencies.push(one);
    });
  }

  /** Of so many seconds from now on. */
  async latencies(): Promise<number[]> {
    this.#latencies = [];
    await sleep(seconds * 1000);
    return this.#latencies;
  }

  async stop(): Promise<void> {
    const exited = new Promise((resolve) => this.#child.on('exit', resolve));
    this.#child.kill('SIGKILL');
    await exited;
  }
}

async function beside(database: BenchDatabase, control: BenchDatabase, config: string) {
  const application = new Application(database.url);
  const seen = { without: [] as number[], with: [] as number[], ratio: [] as number[], rows: [] as number[] };
  const p50 = { without: [] as number[], with: [] as number[] };
  await sleep(2 * settleSeconds * 1000);
  for (let round = 1; round <= rounds; round++) {
    await sleep(settleSeconds * 1000);
    const without = await application.latencies();
    const service = await ReaderProcess.start(config, 'retain', 'running');
    await sleep(settleSeconds * 1000);
    const before = await gone(database, control);
    const began = performance.now();
    const during = await application.latencies();
    const rows = await tombstonesSince(database.client, (performance.now() - began) / 1000);
    await service.stop();
    if (before === (await gone(database, control)) && rows === 0) throw new Error('nothing was evicted');
    p50.without.push(percentile(without, 0.5));
    p50.with.push(percentile(during, 0.5));
    seen.without.push(percentile(without, 0.99));
    seen.with.push(percentile(during, 0.99));
    seen.ratio.push(percentile(during, 0.99) / percentile(without, 0.99));
    seen.rows.push(rows / seconds);
    say(
      `round ${round}: p99 ${seen.without.at(-1)!.toFixed(1)} ms, ${seen.with.at(-1)!.toFixed(1)} ms with ${Math.round(seen.rows.at(-1)!)} rows/s evicted`,
    );
  }
  await application.stop();
  const ms = (values: number[]) => Number(median(values).toFixed(1));
  return [
    { what: 'application alone', 'p50 ms': ms(p50.without), 'p99 ms': ms(seen.without) },
    {
      what: 'application, rows are evicted',
      'p50 ms': ms(p50.with),
      'p99 ms': ms(seen.with),
      'p99, of alone': Number(median(seen.ratio).toFixed(2)),
      'rows/s': Math.round(median(seen.rows)),
    },
  ];
}

async function tombstonesSince(client: pg.Client, secondsAgo: number): Promise<number> {
  const { rows } = await client.query<{ n: string }>(
    `select count(*) as n from tidemark_retention.cold_storage_archive where evicted_at > now() - make_interval(secs => $1)`,
    [secondsAgo],
  );
  return Number(rows[0]!.n);
}
