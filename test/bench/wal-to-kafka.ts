/**
 * WAL to Kafka over a backlog of findings, beside pg_recvlogical reading the same backlog with the same pgoutput
 * options (its output thrown away), over TCP and over a Unix socket: the physical floor of a logical decoder's client.
 * And beside Debezium, the peer.
 */
import { execFile, spawn, spawnSync } from 'node:child_process';
import { mkdir, rm, writeFile } from 'node:fs/promises';
import { setTimeout as sleep } from 'node:timers/promises';
import pg from 'pg';
import { startStack } from '../../compose/local-stack.ts';
import { TidemarkError } from '../../src/platform/errors.ts';
import { bulkFindings } from '../../src/sample/bulk.ts';
import { migrateSample } from '../../src/sample/migrate.ts';
import { seedSample } from '../../src/sample/seed.ts';
import { readWithDebezium } from './debezium-source.ts';
import { cpuMicros, median, peakMemoryMiB } from './process-cost.ts';
import type { BenchResult } from './run.ts';

const backlogRows = Number(process.env.BENCH_ROWS ?? 500_000);
const rounds = Number(process.env.BENCH_ROUNDS ?? 5);
const root = new URL('../../', import.meta.url).pathname;

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
  const directory = `${root}.tidemark/bench/stack`;
  const say = (line: string) => void process.stderr.write(`bench: ${line}\n`);
  const stack = await startStack({ directory, log: say });
  const measured: Record<Contender, Measured[]> = { ours: [], tcp: [], socket: [], peer: [] };
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
      // All slots and the publication exist before the backlog; a first short run of the reader makes its own.
      await runReader(config, client, 'select pg_current_wal_lsn()');
      for (const slot of ['tcp', 'socket', 'peer'])
        await client.query(`select pg_create_logical_replication_slot($1, 'pgoutput')`, [
          `${database}_${slot}`,
        ]);
      say(`round ${round}: writing ${backlogRows} rows`);
      await bulkFindings(client, { rows: backlogRows, seed: round });
      await client.query('checkpoint');
      const { rows } = await client.query<{ lsn: string }>('select pg_current_wal_insert_lsn() as lsn');
      const end = rows[0]!.lsn;
      // Without a host before the path it is a URL to libpq only.
      const socketUrl = stack.environment.TIDEMARK_SOURCE_SOCKET_URL!.replace(/@\/[^?]*/, `@/${database}`);
      const measures: Record<Contender, () => Promise<Measured>> = {
        ours: () => runReader(config, client, `select '${end}'`),
        tcp: () => measureFloor(url, database, 'tcp', end),
        socket: () => measureFloor(socketUrl, database, 'socket', end),
        peer: () =>
          readWithDebezium({
            directory: `${directory}/cases/${database}/connect`,
            brokers: [stack.environment.TIDEMARK_KAFKA_BROKERS!],
            registryUrl: stack.environment.TIDEMARK_REGISTRY_URL!,
            sourceUrl: url,
            prefix: `peer-${database}`,
            slot: `${database}_peer`,
            publication: publicationOf(database),
            table: 'app.findings',
            rows: backlogRows,
          }),
      };
      // Everybody goes first in some round: whoever comes later reads warm files.
      for (let i = 0; i < contenders.length; i++) {
        const contender = contenders[(i + round) % contenders.length]!;
        if (contender === 'peer' && process.env.BENCH_PEER === 'no') continue;
        const result = await measures[contender]();
        measured[contender].push(result);
        say(`round ${round}: ${names[contender]}: ${Math.round(result.rowsPerSecond)} rows/s`);
      }
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
  const raced = contenders.filter((one) => measured[one].length > 0);
  const ratioTo = (other: Contender) =>
    median(measured.ours.map((one, i) => one.rowsPerSecond / measured[other][i]!.rowsPerSecond)).toFixed(2);
  return {
    name: 'wal-to-kafka',
    rows: raced.map((contender) => ({
      what: names[contender],
      'rows/s (median)': Math.round(median(measured[contender].map((one) => one.rowsPerSecond))),
      'CPU µs/row': Number(median(measured[contender].map((one) => one.cpuMicrosPerRow)).toFixed(2)),
      'peak MiB': Math.round(median(measured[contender].map((one) => one.peakMiB))),
      'ours to this': ratioTo(contender),
    })),
    note: `${backlogRows} rows of about 312 B of pgoutput, ${rounds} rounds; ratios are medians of pairs`,
  };
}

const contenders = ['ours', 'tcp', 'socket', 'peer'] as const;
type Contender = (typeof contenders)[number];
const names: Record<Contender, string> = {
  ours: 'Tidemark: WAL to Kafka, Avro, acks=all, transactions',
  tcp: 'pg_recvlogical to /dev/null, TCP, same options',
  socket: 'pg_recvlogical to /dev/null, Unix socket, same options',
  peer: 'Debezium 3.6.3 on Kafka Connect: WAL to Kafka, Avro, acks=all',
};

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
  const folder = `${root}.tidemark/bench/stack/cases/${name}`;
  await mkdir(`${folder}/instances`, { recursive: true });
  const config = {
    'source.id': name.replaceAll('_', '-'),
    'source.url': url,
    'source.tables': ['app.*'],
    'source.tenant.column': 'organization_id',
    // What follows the last commit (a checkpoint) is confirmed by a heartbeat: it must not count as reading.
    'source.heartbeat.interval': '100ms',
    // The backlog is in the WAL: the same rows are not to be read from the table as well.
    'source.snapshot.mode': 'never',
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
        where database = current_database() and slot_name like 'tidemark%'`,
      [end],
    );
    if (done[0].done) break;
    await sleep(20);
  }
  const seconds = (performance.now() - startedAt) / 1000;
  const cpu = (await cpuMicros(child.pid!)) - startCpu;
  const peakMiB = await peakMemoryMiB(child.pid!);
  child.removeAllListeners('exit');
  child.kill('SIGTERM');
  await new Promise((resolve) => child.on('exit', resolve));
  return { rowsPerSecond: backlogRows / seconds, cpuMicrosPerRow: cpu / backlogRows, peakMiB };
}

function publicationOf(database: string): string {
  return `tidemark_${database}`;
}

async function measureFloor(url: string, database: string, slot: string, end: string): Promise<Measured> {
  const publication = publicationOf(database);
  const startedAt = performance.now();
  const args = [
    '-f',
    '/dev/null',
    '-d',
    url,
    '--slot',
    `${database}_${slot}`,
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
