/**
 * Rows that were evicted come back: the tenants of one half from Postgres, by a recall that is killed on its way and run again,
 * those of the other half from Parquet; while the reader and the delivery of the same rows go on.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { setTimeout as sleep } from 'node:timers/promises';
import type pg from 'pg';
import { endpointFromUrl } from '../../src/platform/postgres-endpoint.ts';
import { setUpRetention } from '../../src/retain/setup.ts';
import { type BenchDatabase, BenchStack, leave, say } from './bench-stack.ts';
import { describe, postgres } from './deliver/delivery-run.ts';
import { cpuMicros, peakMemoryMiB } from './process-cost.ts';
import { type Measured, raceBar } from './race-table.ts';
import { ReaderProcess } from './reader-process.ts';
import type { BenchResult } from './run.ts';

const rows = Number(process.env.BENCH_ROWS ?? 1_000_000);
const tenants = 10;
const program = new URL('../../src/tidemark.mjs', import.meta.url).pathname;

export async function recall(): Promise<BenchResult> {
  const lines = await BenchStack.with('recall', run);
  return {
    name: 'recall',
    rows: lines.map(([what, { rowsPerSecond, cpuMicrosPerRow, peakMiB }]) => ({
      what,
      [raceBar]: Math.round(rowsPerSecond),
      'CPU µs/row': Number(cpuMicrosPerRow.toFixed(1)),
      'peak MiB': Math.round(peakMiB),
    })),
    bar: raceBar,
    note: `${rows} evicted rows of 13 columns, half of them from each; start and end of the command are in it, and the reader and the delivery to both of what comes back go on beside it; CPU and memory are of the command; one round`,
  };
}

type Line = [what: string, measured: Measured];

async function run(stack: BenchStack): Promise<Line[]> {
  const source = await stack.database();
  const replica = await stack.database();
  const { client } = source;
  const config = await stack.config(source, {
    'source.snapshot.mode': 'initial',
    'retain.enabled': true,
    'retain.interval': '200ms',
    'retain.mark.rows': Math.min(rows, 100_000),
    'retain.tenants.table': 'app.tenants',
    'source.tables': ['app.things'],
  });
  await describe(source, postgres('replica', replica), '1s');
  const lake = { 'connector.class': 'parquet', 'parquet.url': `file://${source.folder}/lake` };
  await describe(source, { name: 'lake', options: lake }, '5s');
  await client.query(`
    create schema app;
    create table app.tenants (id int primary key, data_retention_days int not null);
    insert into app.tenants select n, 30 from generate_series(1, ${tenants}) n;
    create table app.things (organization_id int, id uuid, rule text, title text, severity text, risk numeric(5, 2), exposure float8,
      detail jsonb, seen_at timestamptz, open boolean, tags text[], source inet, created_at timestamptz, primary key (organization_id, id));
    insert into app.things select 1 + n % ${tenants}, md5(n::text)::uuid, 'rule.' || n % 40, 'A thing among many, and its number is ' || n, 'low',
        n % 10000 / 100.0, n * 1.0001, jsonb_build_object('number', n, 'tags', '["one", "two"]'::jsonb), now() - interval '90 days', n % 3 = 0,
        array['a', 'b' || n % 9], '10.0.0.1', now() - interval '90 days' - n * interval '1 millisecond'
      from generate_series(1, ${rows}) n;`);
  await client.query('vacuum analyze app.things');
  await setUpRetention(await endpointFromUrl(source.url));
  await client.query(`insert into tidemark_retention.policies (table_schema, table_name, enabled, age_column, batch_rows, rows_per_second)
    values ('app', 'things', true, 'created_at', 10000, 1000000)`);
  const reader = await ReaderProcess.start(config);
  const delivery = await ReaderProcess.start(config, 'deliver', 'running');
  await snapshotDone(client);
  say(`evicting ${rows} rows`);
  await command(config, 'retain', 'run', '--once', '--timeout', '60m');
  const left = await counted(client);
  if (left > 0) throw new Error(`${left} rows stayed`);
  const half = Array.from({ length: tenants / 2 }, (_, i) => `'${i + 1}'`).join(', ');
  const lines: Line[] = [];
  for (const [what, where, from, killAt] of [
    [
      'recalled from Postgres, killed after half of it and run again',
      `tenant in (${half})`,
      'replica',
      rows / 4,
    ],
    ['recalled from Parquet', `tenant <> '0'`, 'lake', Number.POSITIVE_INFINITY],
  ] as const) {
    const one = await recalled(config, client, { where, from, killAt });
    say(`${what}: ${Math.round(one.rowsPerSecond)} rows/s, ${one.cpuMicrosPerRow.toFixed(1)} µs`);
    lines.push([what, one]);
  }
  const back = await counted(client);
  if (back !== rows) throw new Error(`${back} of ${rows} rows came back`);
  for (const destination of ['replica', 'lake'])
    await command(config, 'verify', destination, '--timeout', '30m');
  await Promise.all([reader.stop(), delivery.stop()]);
  await leave(replica);
  await leave(source);
  return lines;
}

/** Before it nothing is evicted. */
async function snapshotDone(client: pg.Client): Promise<void> {
  for (;;) {
    const { rowCount } = await client.query(
      `select from tidemark.snapshots where table_name = 'app.things' and state = 'done'`,
    );
    if (rowCount === 1) return;
    await sleep(100);
  }
}

async function counted(client: pg.Client): Promise<number> {
  const { rows: found } = await client.query<{ count: string }>('select count(*) from app.things');
  return Number(found[0]!.count);
}

/** Half of the rows. @param killAt as soon as so many came back, the process gets SIGKILL, and another one goes on */
async function recalled(
  config: string,
  client: BenchDatabase['client'],
  { where, from, killAt }: { where: string; from: string; killAt: number },
): Promise<Measured> {
  const args = ['recall', 'app.things', '--where', where, '--destination', from, '--reason', 'benchmark'];
  const startedAt = performance.now();
  let cpu = 0;
  let peakMiB = 0;
  for (;;) {
    const child = start(config, args);
    const exited = ended(child);
    let spent = 0;
    let killed = false;
    while (child.exitCode === null && child.signalCode === null) {
      const { pid } = child;
      spent = await cpuMicros(pid!).catch(() => spent);
      peakMiB = Math.max(peakMiB, await peakMemoryMiB(pid!).catch(() => 0));
      if (killAt !== Number.POSITIVE_INFINITY && !killed && (await counted(client)) >= killAt) {
        killed = child.kill('SIGKILL');
        killAt = Number.POSITIVE_INFINITY;
        say(`killed with ${await counted(client)} rows back`);
      }
      await Promise.race([sleep(killAt === Number.POSITIVE_INFINITY ? 50 : 500), exited.catch(() => {})]);
    }
    cpu += spent;
    if (killed) await exited.catch(() => {});
    else {
      await exited;
      break;
    }
  }
  const seconds = (performance.now() - startedAt) / 1000;
  return { rowsPerSecond: rows / 2 / seconds, cpuMicrosPerRow: cpu / (rows / 2), peakMiB };
}

async function command(config: string, ...args: string[]): Promise<void> {
  await ended(start(config, args));
}

/** Its lines for people are shown as they come. */
function start(config: string, args: readonly string[]): ChildProcess {
  const profile = process.env.BENCH_PROFILE
    ? ['--cpu-prof', `--cpu-prof-dir=${process.env.BENCH_PROFILE}`]
    : [];
  const child = spawn(process.execPath, [...profile, program, ...args, '--config', config], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  child.stdout!.on('data', (text: Buffer) => process.stderr.write(text));
  return child;
}

/** @throws when it ends with anything but 0 */
async function ended(child: ChildProcess): Promise<void> {
  const code = await new Promise((resolve) =>
    child.once('exit', (status, signal) => resolve(signal ?? status)),
  );
  if (code !== 0) throw new Error(`${child.spawnargs.slice(1).join(' ')} ended with ${code}`);
}
