/**
 * WAL to Kafka over a backlog of findings, beside pg_recvlogical reading the same backlog with the same pgoutput
 * options (its output thrown away): the physical floor of a logical decoder's client.
 */
import { execFile, spawn, spawnSync } from 'node:child_process';
import { mkdir, readFile, rm, writeFile } from 'node:fs/promises';
import { setTimeout as sleep } from 'node:timers/promises';
import pg from 'pg';
import { startStack } from '../../compose/local-stack.ts';
import { TidemarkError } from '../../src/platform/errors.ts';
import { bulkFindings } from '../../src/sample/bulk.ts';
import { migrateSample } from '../../src/sample/migrate.ts';
import { seedSample } from '../../src/sample/seed.ts';
import type { BenchResult } from './run.ts';

const backlogRows = Number(process.env.BENCH_ROWS ?? 500_000);
const rounds = Number(process.env.BENCH_ROUNDS ?? 3);
const root = new URL('../../', import.meta.url).pathname;
const directory = `${root}.tidemark/bench/stack`;

interface Measured {
  rowsPerSecond: number;
  cpuMicrosPerRow: number;
  peakMiB: number;
}

export async function walToKafka(): Promise<BenchResult> {
  if (spawnSync('pg_recvlogical', ['--version']).status !== 0) {
    throw new TidemarkError('TM103', 'pg_recvlogical is not installed', {
      remedy: 'apt-get install -y postgresql-client',
    });
  }
  const say = (line: string) => void process.stderr.write(`bench: ${line}\n`);
  const stack = await startStack({ directory, log: say });
  const ours: Measured[] = [];
  const floor: Measured[] = [];
  try {
    for (let round = 1; round <= rounds; round++) {
      const database = `bench_${process.pid}_${round}`;
      const url = await createDatabase(stack.environment.TIDEMARK_SOURCE_URL!, database);
      const client = new pg.Client(url);
      client.on('error', () => {});
      await client.connect();
      await migrateSample(client);
      await seedSample(client, { seed: 1, findings: 0 });
      const config = await writeConfig(stack.environment, url, database);
      // Both slots and the publication exist before the backlog; a first short run of the reader makes its own.
      await runReader(config, client, 'select pg_current_wal_lsn()');
      await client.query(`select pg_create_logical_replication_slot($1, 'pgoutput')`, [`${database}_floor`]);
      say(`round ${round}: writing ${backlogRows} rows`);
      await bulkFindings(client, { rows: backlogRows, seed: round });
      await client.query('checkpoint');
      const { rows } = await client.query<{ lsn: string }>('select pg_current_wal_insert_lsn() as lsn');
      const end = rows[0]!.lsn;
      // Alternate who goes first: the second reads warm files.
      const both = [
        async () => floor.push(await measureFloor(url, database, end)),
        async () => ours.push(await measureReader(config, client, end)),
      ];
      if (round % 2 === 0) both.reverse();
      for (const measure of both) await measure();
      say(
        `round ${round}: reader ${Math.round(ours.at(-1)!.rowsPerSecond)} rows/s, pg_recvlogical ${Math.round(floor.at(-1)!.rowsPerSecond)} rows/s`,
      );
      await client.query(
        'select pg_drop_replication_slot(slot_name) from pg_replication_slots where database = $1 and not active',
        [database],
      );
      await client.end();
    }
  } finally {
    await stack.stop();
    // Gigabytes of segments that no later run reads.
    await rm(directory, { recursive: true, force: true });
  }
  const row = (what: string, measured: Measured[]) => ({
    what,
    'rows/s (median)': Math.round(median(measured.map((one) => one.rowsPerSecond))),
    'CPU µs/row': Number(median(measured.map((one) => one.cpuMicrosPerRow)).toFixed(2)),
    'peak MiB': Math.round(median(measured.map((one) => one.peakMiB))),
  });
  const ratio = median(ours.map((one, i) => one.rowsPerSecond / floor[i]!.rowsPerSecond));
  return {
    name: 'wal-to-kafka',
    rows: [
      row('WAL to Kafka, Avro, acks=all, transactions', ours),
      row('pg_recvlogical to /dev/null, same options', floor),
    ],
    note: `${backlogRows} rows of about 312 B of pgoutput, ${rounds} rounds; ratio (median of pairs) ${ratio.toFixed(2)}`,
  };
}

async function createDatabase(adminUrl: string, name: string): Promise<string> {
  const admin = new pg.Client(adminUrl);
  await admin.connect();
  await admin.query(`create database ${name}`);
  await admin.end();
  const url = new URL(adminUrl);
  url.pathname = `/${name}`;
  return url.toString();
}

async function writeConfig(
  environment: Readonly<Record<string, string>>,
  url: string,
  name: string,
): Promise<string> {
  // Below the stack's folder, which is removed at the end.
  const folder = `${directory}/cases/${name}`;
  await mkdir(`${folder}/instances`, { recursive: true });
  const config = {
    'source.id': name.replaceAll('_', '-'),
    'source.url': url,
    'source.tables': ['app.*'],
    'source.tenant.column': 'organization_id',
    // What follows the last commit (a checkpoint) is confirmed by a heartbeat: it must not count as reading.
    'source.heartbeat.interval': '100ms',
    'kafka.brokers': environment.TIDEMARK_KAFKA_BROKERS,
    'kafka.topic.replication.factor': 1,
    'kafka.topic.min.insync.replicas': 1,
    'registry.url': environment.TIDEMARK_REGISTRY_URL,
    'control.url': url,
    'deliver.instances.directory': 'instances',
  };
  await writeFile(`${folder}/tidemark.yaml`, JSON.stringify(config, null, 2));
  return `${folder}/tidemark.yaml`;
}

async function runReader(config: string, client: pg.Client, target: string): Promise<Measured> {
  const child = spawn(
    process.execPath,
    [`${root}src/tidemark.mjs`, 'run', '--roles', 'replicate', '--config', config],
    {
      stdio: ['ignore', 'ignore', 'pipe'],
    },
  );
  let log = '';
  const reading = new Promise<number>((resolve, reject) => {
    child.stderr.on('data', (chunk: Buffer) => {
      log += chunk.toString();
      if (log.includes('reading the slot')) resolve(performance.now());
      log = log.slice(-20000);
    });
    child.on('exit', (code) => reject(new Error(`the reader ended with ${code}: ${log.slice(-2000)}`)));
  });
  const startedAt = await reading;
  const startCpu = await cpuMicros(child.pid!);
  const { rows } = await client.query(target);
  const end = Object.values(rows[0] as Record<string, string>)[0];
  for (;;) {
    const { rows: done } = await client.query(
      `select coalesce(bool_or(confirmed_flush_lsn >= $1::pg_lsn), false) as done from pg_replication_slots
        where database = current_database() and slot_name not like '%floor'`,
      [end],
    );
    if (done[0].done) break;
    await sleep(20);
  }
  const seconds = (performance.now() - startedAt) / 1000;
  const cpu = (await cpuMicros(child.pid!)) - startCpu;
  const peakMiB = await peakMemory(child.pid!);
  child.removeAllListeners('exit');
  child.kill('SIGTERM');
  await new Promise((resolve) => child.on('exit', resolve));
  return { rowsPerSecond: backlogRows / seconds, cpuMicrosPerRow: cpu / backlogRows, peakMiB };
}

function measureReader(config: string, client: pg.Client, end: string): Promise<Measured> {
  return runReader(config, client, `select '${end}'`);
}

async function measureFloor(url: string, database: string, end: string): Promise<Measured> {
  const id = database.replaceAll('_', '-');
  const publication = `tidemark_${id.replaceAll('-', '_')}`;
  const startedAt = performance.now();
  const args = [
    '-f',
    '/dev/null',
    '-d',
    url,
    '--slot',
    `${database}_floor`,
    '--start',
    '--no-loop',
    '--endpos',
    end,
  ];
  const options = [
    'proto_version=1',
    `publication_names=${publication},${publication}_inserts`,
    'binary=true',
    'messages=true',
  ];
  const program = execFile('pg_recvlogical', [...args, ...options.flatMap((option) => ['-o', option])]);
  let cpu = 0;
  const sampler = setInterval(async () => {
    cpu = (await cpuMicros(program.pid!).catch(() => cpu)) || cpu;
  }, 50);
  const code = await new Promise((resolve) => program.on('exit', resolve));
  clearInterval(sampler);
  if (code !== 0) throw new Error(`pg_recvlogical ended with ${code}`);
  const seconds = (performance.now() - startedAt) / 1000;
  return { rowsPerSecond: backlogRows / seconds, cpuMicrosPerRow: cpu / backlogRows, peakMiB: 0 };
}

/** User and system time of a process so far, microseconds (clock ticks of 10 ms). */
async function cpuMicros(pid: number): Promise<number> {
  const fields = (await readFile(`/proc/${pid}/stat`, 'utf8')).split(') ')[1]!.split(' ');
  return (Number(fields[11]) + Number(fields[12])) * 10000;
}

async function peakMemory(pid: number): Promise<number> {
  const status = await readFile(`/proc/${pid}/status`, 'utf8');
  return Number(/VmHWM:\s+(\d+)/.exec(status)?.[1] ?? 0) / 1024;
}

function median(values: number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  const middle = Math.floor(sorted.length / 2);
  return sorted.length % 2 === 1 ? sorted[middle]! : (sorted[middle - 1]! + sorted[middle]!) / 2;
}
