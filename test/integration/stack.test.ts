/** The local stack: every part answers real clients, keeps its data, and recovers from being killed. */
import { type ChildProcess, execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, readdirSync, readFileSync, readlinkSync } from 'node:fs';
import { mkdir, rm, writeFile } from 'node:fs/promises';
import { join, resolve } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { GetObjectCommand, ListObjectsV2Command, PutObjectCommand, S3Client } from '@aws-sdk/client-s3';
import { Kafka, logLevel } from 'kafkajs';
import pg from 'pg';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { partNames } from '../../compose/layout.ts';
import { type Stack, startStack } from '../../compose/local-stack.ts';
import { choosePorts } from '../../compose/ports.ts';
import { checkPrerequisites } from '../../compose/prerequisites.ts';
import { endRecordedProcess, readProcess } from '../../compose/process.ts';
import { TidemarkError } from '../../src/platform/errors.ts';

const project = resolve(import.meta.dirname, '..', '..');
const scratch = join(project, '.tidemark', `stack-test-${process.pid}`);
/** The first start on a machine downloads about 220 MiB. */
const coldStartMs = 600_000;
const warmStartMs = 15_000;

type Environment = Readonly<Record<string, string>>;

beforeAll(() => mkdir(scratch, { recursive: true }));
afterAll(() => rm(scratch, { recursive: true, force: true }));

describe('a stack with every part', () => {
  const directory = join(scratch, 'whole');
  let stack: Stack;
  const start = () => startStack({ directory, parts: partNames });

  beforeAll(async () => {
    stack = await start();
  }, coldStartMs);
  afterAll(() => stack.stop(), 60_000);

  it('serves a source with logical decoding, over TCP and a socket, to those who know the password', async () => {
    const { TIDEMARK_SOURCE_URL: url, TIDEMARK_SOURCE_SOCKET_URL: socketUrl } = stack.environment;
    expect(await query(url!, 'SHOW wal_level')).toEqual([{ wal_level: 'logical' }]);
    expect(await query(url!, 'SHOW max_replication_slots')).toEqual([{ max_replication_slots: '20' }]);
    expect(await query(url!, 'SHOW max_wal_senders')).toEqual([{ max_wal_senders: '20' }]);
    if (socketUrl)
      expect(await query(socketUrl, 'SELECT current_database() AS it')).toEqual([{ it: 'tidemark' }]);
    const wrong = url!.replace(/postgres:[0-9a-f]+@/, 'postgres:wrong@');
    await expect(query(wrong, 'SELECT 1')).rejects.toMatchObject({ code: '28P01' });
  });

  it('serves Kafka with groups and transactions, and makes no topic by itself', async () => {
    const kafka = kafkaClient(stack.environment);
    const admin = kafka.admin();
    await admin.connect();
    await admin.createTopics({ topics: [{ topic: 'first', numPartitions: 2 }] });
    const producer = kafka.producer({
      transactionalId: 'stack-test',
      maxInFlightRequests: 1,
      idempotent: true,
    });
    await producer.connect();
    const transaction = await producer.transaction();
    await transaction.send({ topic: 'first', messages: [{ key: 'k', value: 'v' }] });
    await transaction.commit();
    await producer.disconnect();
    expect(await consumeOne(kafka, 'first')).toBe('v');
    await expect(admin.fetchTopicMetadata({ topics: ['never-made'] })).rejects.toThrow(
      /does not host this topic/,
    );
    await admin.disconnect();
  });

  it('serves the object store to those who know the key, with one bucket and none made by a write', async () => {
    await s3Client(stack.environment).send(
      new PutObjectCommand({ Bucket: 'tidemark', Key: 'kept', Body: 'kept' }),
    );
    const stranger = s3Client({ ...stack.environment, TIDEMARK_S3_SECRET_KEY: 'wrong' });
    await expect(stranger.send(new ListObjectsV2Command({ Bucket: 'tidemark' }))).rejects.toThrow();
    const elsewhere = new PutObjectCommand({ Bucket: 'unmade', Key: 'k', Body: 'b' });
    await expect(s3Client(stack.environment).send(elsewhere)).rejects.toThrow();
  });

  it('serves ClickHouse to those who know the password', async () => {
    const { environment } = stack;
    await clickhouseText(environment, 'CREATE TABLE default.kept (id UInt8) ENGINE = MergeTree ORDER BY id');
    await clickhouseText(environment, 'INSERT INTO default.kept VALUES (42)');
    const stranger = { ...environment, TIDEMARK_CLICKHOUSE_PASSWORD: 'wrong' };
    await expect(clickhouseText(stranger, 'SELECT 1')).rejects.toThrow(/401.*516/);
    await expect(clickhouseText(environment, 'SELECT nonsense')).rejects.toThrow(/UNKNOWN_IDENTIFIER/);
  });

  it('serves an Iceberg catalog', async () => {
    const { TIDEMARK_ICEBERG_URL: url } = stack.environment;
    const response = await fetch(`${url}/v1/namespaces`, {
      method: 'POST',
      headers: { 'content-type': 'application/json' },
      body: JSON.stringify({ namespace: ['kept'], properties: {} }),
    });
    expect(response.status).toBe(200);
    expect(await icebergNamespaces(stack.environment)).toEqual([['kept']]);
  });

  it('listens on the loopback address alone', () => {
    for (const name of partNames) {
      const addresses = listeningAddresses(stack.pid(name)!);
      expect(addresses.length, name).toBeGreaterThan(0);
      expect(
        addresses.filter((address) => address !== loopbackHex),
        name,
      ).toEqual([]);
    }
  });

  it('keeps row, topic, schema id, object and ports over a restart, and is up again quickly', async () => {
    const before = stack.environment;
    await query(before.TIDEMARK_SOURCE_URL!, 'CREATE TABLE kept (id int PRIMARY KEY)');
    await query(before.TIDEMARK_SOURCE_URL!, 'INSERT INTO kept VALUES (42)');
    const filler = await registerSchema(before, 'filler', '"long"');
    const id = await registerSchema(before, 'kept', '"string"');
    expect(id).not.toBe(filler);

    await stack.stop();
    const begun = performance.now();
    stack = await start();
    const took = performance.now() - begun;
    console.info(`second start: ${(took / 1000).toFixed(1)} s`);

    expect(took).toBeLessThan(warmStartMs);
    expect(stack.environment).toEqual(before);
    expect(await query(before.TIDEMARK_SOURCE_URL!, 'SELECT id FROM kept')).toEqual([{ id: 42 }]);
    expect(await topics(stack.environment)).toContain('first');
    expect(await registerSchema(stack.environment, 'kept', '"string"')).toBe(id);
    expect(await objectText(stack.environment, 'kept')).toBe('kept');
    expect(await clickhouseText(stack.environment, 'SELECT id FROM default.kept')).toBe('42\n');
    expect(await icebergNamespaces(stack.environment)).toEqual([['kept']]);
  }, 120_000);

  it.each(partNames)(
    'brings %s back after a crash with the same address and data',
    async (name) => {
      const environment = stack.environment;
      const url = environment.TIDEMARK_SOURCE_URL!;
      const probe: Record<(typeof partNames)[number], () => Promise<unknown>> = {
        postgres: () => query(url, 'SELECT count(*)::int AS rows FROM kept'),
        kafka: async () => (await topics(environment)).includes('first'),
        registry: () => registerSchema(environment, 'kept', '"string"'),
        s3: () => objectText(environment, 'kept'),
        clickhouse: () => clickhouseText(environment, 'SELECT * FROM default.kept'),
        iceberg: () => icebergNamespaces(environment),
      };
      const before = await probe[name]();
      await stack.stopPart(name, { signal: 'SIGKILL' });
      expect(stack.pid(name)).toBeUndefined();
      await expect(probe[name]()).rejects.toThrow();
      await stack.startPart(name);
      expect(await probe[name]()).toEqual(before);
    },
    60_000,
  );

  it('refuses a second start on the same folder and names the process that has it', async () => {
    const refusal = await start().catch((error: unknown) => error);
    expect(refusal).toBeInstanceOf(TidemarkError);
    expect((refusal as TidemarkError).message).toContain(`process ${process.pid}`);
    expect(await query(stack.environment.TIDEMARK_SOURCE_URL!, 'SELECT 1 AS one')).toEqual([{ one: 1 }]);
  });

  it('does not let stack:down end a program of somebody else', async () => {
    const { code, errors } = await runCommand(['--down'], directory);
    expect(code).toBe(1);
    expect(errors).toContain(`belongs to process ${process.pid}`);
  });
});

describe('the command', () => {
  const directory = join(scratch, 'command');
  afterAll(() => runCommand(['--down'], directory), 60_000);

  it(
    'leaves a stack in the background, and gives a second caller the same environment',
    async () => {
      const first = await runCommand(['--detach', '--json'], directory);
      expect(first.errors).toContain('Kafka 4.3.1 is ready');
      expect(first.code).toBe(0);
      const environment = JSON.parse(first.output) as Environment;
      expect(await query(environment.TIDEMARK_SOURCE_URL!, 'SELECT 1 AS one')).toEqual([{ one: 1 }]);
      const second = await runCommand(['--detach'], directory);
      expect(parseLines(second.output)).toEqual(environment);
      expect((await runCommand([], directory)).errors).toContain('is already run by process');
    },
    coldStartMs,
  );

  it('takes its servers along when the supervisor is killed', async () => {
    const pids = serverPids(directory);
    expect(pids.length).toBe(3);
    process.kill(ownerPid(directory), 'SIGKILL');
    await until(() => pids.every((pid) => readProcess(pid) === undefined), 20_000);
  }, 30_000);

  it('recovers when supervisor, guards and Postgres were all killed and the other servers run on', async () => {
    const first = await runCommand(['--detach', '--json'], directory);
    const environment = JSON.parse(first.output) as Environment;
    await query(environment.TIDEMARK_SOURCE_URL!, 'CREATE TABLE survives AS SELECT 7 AS id');
    const [postmaster, ...others] = serverPids(directory);
    const supervisor = ownerPid(directory);
    for (const guard of childrenOf(supervisor).filter((pid) =>
      readProcess(pid)?.commandLine.startsWith('/bin/sh'),
    )) {
      process.kill(guard, 'SIGKILL');
    }
    process.kill(supervisor, 'SIGKILL');
    process.kill(postmaster!, 'SIGKILL');
    expect(existsSync(join(directory, 'data', 'postgres', 'postmaster.pid'))).toBe(true);
    expect(others.every((pid) => readProcess(pid) !== undefined)).toBe(true);

    const again = await runCommand(['--detach', '--json'], directory);
    expect(again.errors).toContain('ended kafka, left by an earlier run');
    expect(again.code).toBe(0);
    expect(JSON.parse(again.output)).toEqual(environment);
    expect(await query(environment.TIDEMARK_SOURCE_URL!, 'SELECT id FROM survives')).toEqual([{ id: 7 }]);
    expect(others.every((pid) => readProcess(pid) === undefined)).toBe(true);
  }, 90_000);

  it('starts although the number in postmaster.pid now belongs to a stranger', async () => {
    await runCommand(['--down'], directory);
    const stranger = spawn('sleep', ['60']);
    const file = join(directory, 'data', 'postgres', 'postmaster.pid');
    await writeFile(file, `${stranger.pid}\n${join(directory, 'data', 'postgres')}\n`);
    expect((await runCommand(['--detach'], directory)).code).toBe(0);
    expect(stranger.exitCode).toBeNull();
    stranger.kill();
  }, 60_000);

  it('stops everything on stack:down', async () => {
    const pids = [ownerPid(directory), ...serverPids(directory)];
    const { code } = await runCommand(['--down'], directory);
    expect(code).toBe(0);
    expect(pids.filter((pid) => readProcess(pid) !== undefined)).toEqual([]);
    expect((await runCommand(['--down'], directory)).errors).toContain('nothing was running');
  }, 60_000);

  it('says which part died, shows the end of its log, and stops the others', async () => {
    const command = startCommand([], directory);
    await until(() => command.output.includes('TIDEMARK_REGISTRY_URL='), 30_000);
    const pids = serverPids(directory);
    process.kill(pids[1]!, 'SIGKILL');
    expect(await command.ended).toBe(1);
    expect(command.errors).toMatch(
      /Kafka 4\.3\.1 died \(SIGKILL\); its log is .*kafka\.log and ends with:\n[\s\S]*Kafka Server started/,
    );
    expect(pids.filter((pid) => readProcess(pid) !== undefined)).toEqual([]);
  }, 60_000);

  it('stops on SIGINT with code 0', async () => {
    const command = startCommand([], directory);
    await until(() => command.output.includes('TIDEMARK_REGISTRY_URL='), 30_000);
    command.child.kill('SIGINT');
    expect(await command.ended).toBe(0);
    expect(command.errors).toContain('stopped');
  }, 60_000);

  it('names a missing program and the line that installs it, before anything is started', async () => {
    const fresh = join(scratch, 'bare');
    const { code, errors } = await runCommand([], fresh, { PATH: '' });
    expect(code).toBe(1);
    expect(errors).toContain('TM103');
    expect(errors).toMatch(
      /Java 17 or newer is not installed[\s\S]*apt-get install -y openjdk-17-jre-headless/,
    );
    expect(existsSync(fresh)).toBe(false);
  });
});

describe('prerequisites', () => {
  const bare = { path: '', nodeVersion: '24.0.0' };
  it.each([
    { what: 'Java', parts: ['kafka'] as const, environment: bare, remedy: /openjdk-17/ },
    { what: 'Python', parts: ['s3'] as const, environment: bare, remedy: /python3-venv|brew install python/ },
    {
      what: 'Node',
      parts: ['postgres'] as const,
      environment: { ...bare, nodeVersion: '20.1.0' },
      remedy: /npm ci/,
    },
  ])('asks for $what with TM103', ({ parts, environment, remedy }) => {
    expect(() => checkPrerequisites(parts, environment)).toThrowError(
      expect.objectContaining({ code: 'TM103', remedy: expect.stringMatching(remedy) }),
    );
  });

  it('asks for nothing that the chosen parts do not need', () => {
    expect(() => checkPrerequisites(['postgres'], bare)).not.toThrow();
  });
});

describe('leftovers', () => {
  it('leaves a stranger alone who got the number of an earlier server', async () => {
    const stranger = spawn('sleep', ['60']);
    const file = join(scratch, 'stranger.json');
    const { startedAt } = readProcess(stranger.pid!)!;
    const record = { pid: stranger.pid, stopSignal: 'SIGKILL', stopTimeoutMs: 1_000 };
    await writeFile(file, JSON.stringify({ ...record, startedAt, mark: '/some/stack' }));
    expect(await endRecordedProcess(file)).toBe(false);
    await writeFile(file, JSON.stringify({ ...record, startedAt: 'earlier', mark: 'sleep' }));
    expect(await endRecordedProcess(file)).toBe(false);
    expect(stranger.exitCode ?? stranger.signalCode).toBeNull();
    stranger.kill();
  });

  it('keeps a remembered port only while it is free, and gives every name its own', async () => {
    const first = await choosePorts(['a', 'b'], {});
    expect(await choosePorts(['a', 'b'], first)).toEqual(first);
    const clash = await choosePorts(['a', 'b'], { a: first.a, b: first.a });
    expect(clash.a).toBe(first.a);
    expect(clash.b).not.toBe(first.a);
  });
});

// Clients

async function query(url: string, sql: string): Promise<unknown[]> {
  const client = new pg.Client({ connectionString: url });
  client.on('error', () => undefined);
  await client.connect();
  try {
    return (await client.query(sql)).rows;
  } finally {
    await client.end();
  }
}

function kafkaClient(environment: Environment): Kafka {
  const brokers = [environment.TIDEMARK_KAFKA_BROKERS!];
  return new Kafka({ brokers, logLevel: logLevel.NOTHING, retry: { retries: 2 } });
}

async function topics(environment: Environment): Promise<string[]> {
  const admin = kafkaClient(environment).admin();
  try {
    await admin.connect();
    return await admin.listTopics();
  } finally {
    await admin.disconnect();
  }
}

async function consumeOne(kafka: Kafka, topic: string): Promise<string> {
  const consumer = kafka.consumer({ groupId: 'stack-test', sessionTimeout: 1_000, heartbeatInterval: 200 });
  await consumer.connect();
  await consumer.subscribe({ topic, fromBeginning: true });
  const value = await new Promise<string>((found, failed) => {
    consumer
      .run({ eachMessage: async ({ message }) => found(message.value?.toString() ?? '') })
      .catch((error: unknown) => failed(error));
  });
  await consumer.disconnect();
  return value;
}

async function registerSchema(environment: Environment, subject: string, schema: string): Promise<number> {
  const response = await fetch(`${environment.TIDEMARK_REGISTRY_URL}/subjects/${subject}/versions`, {
    method: 'POST',
    headers: { 'content-type': 'application/vnd.schemaregistry.v1+json' },
    body: JSON.stringify({ schema }),
  });
  expect(response.status).toBe(200);
  return ((await response.json()) as { id: number }).id;
}

function s3Client(environment: Environment): S3Client {
  return new S3Client({
    endpoint: environment.TIDEMARK_S3_ENDPOINT!,
    region: 'us-east-1',
    forcePathStyle: true,
    maxAttempts: 1,
    credentials: {
      accessKeyId: environment.TIDEMARK_S3_ACCESS_KEY!,
      secretAccessKey: environment.TIDEMARK_S3_SECRET_KEY!,
    },
  });
}

async function clickhouseText(environment: Environment, sql: string): Promise<string> {
  const response = await fetch(environment.TIDEMARK_CLICKHOUSE_URL!, {
    method: 'POST',
    headers: {
      'X-ClickHouse-User': environment.TIDEMARK_CLICKHOUSE_USER!,
      'X-ClickHouse-Key': environment.TIDEMARK_CLICKHOUSE_PASSWORD!,
    },
    body: sql,
  });
  const text = await response.text();
  if (!response.ok) throw new Error(`${response.status}: ${text}`);
  return text;
}

async function icebergNamespaces(environment: Environment): Promise<unknown> {
  const response = await fetch(`${environment.TIDEMARK_ICEBERG_URL}/v1/namespaces`);
  if (!response.ok) throw new Error(`the catalog answers ${response.status}`);
  return ((await response.json()) as { namespaces: unknown }).namespaces;
}

async function objectText(environment: Environment, key: string): Promise<string> {
  const found = await s3Client(environment).send(new GetObjectCommand({ Bucket: 'tidemark', Key: key }));
  return (await found.Body?.transformToString()) ?? '';
}

// Commands and processes

interface RunningCommand {
  child: ChildProcess;
  output: string;
  errors: string;
  ended: Promise<number | null>;
}

function startCommand(args: string[], directory: string, env: NodeJS.ProcessEnv = {}): RunningCommand {
  const child = spawn(process.execPath, [join(project, 'compose', 'stack.ts'), ...args], {
    env: { ...process.env, TIDEMARK_STACK_DIR: directory, ...env },
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  const ended = once(child, 'close').then(([code]) => code as number | null);
  const command: RunningCommand = { child, output: '', errors: '', ended };
  child.stdout?.on('data', (chunk: Buffer) => {
    command.output += chunk;
  });
  child.stderr?.on('data', (chunk: Buffer) => {
    command.errors += chunk;
  });
  return command;
}

async function runCommand(args: string[], directory: string, env: NodeJS.ProcessEnv = {}) {
  const command = startCommand(args, directory, env);
  const code = await command.ended;
  return { code, output: command.output, errors: command.errors };
}

/** As a shell reads them: what users do with the lines. */
function parseLines(output: string): Environment {
  const names = output
    .trim()
    .split('\n')
    .map((line) => line.slice(0, line.indexOf('=')));
  const script = `${output}\n${names.map((name) => `printf '%s\\0' "$${name}"`).join('\n')}`;
  const values = execFileSync('/bin/sh', ['-c', script], { encoding: 'utf8' }).split('\0');
  return Object.fromEntries(names.map((name, i) => [name, values[i]!]));
}

function recordedPid(file: string): number {
  return (JSON.parse(readFileSync(file, 'utf8')) as { pid: number }).pid;
}

function ownerPid(directory: string): number {
  return recordedPid(join(directory, 'run', 'owner.json'));
}

/** Postgres, Kafka, registry. */
function serverPids(directory: string): number[] {
  return ['postgres', 'kafka', 'registry'].map((name) => recordedPid(join(directory, 'run', `${name}.json`)));
}

function childrenOf(parent: number): number[] {
  return readdirSync('/proc')
    .filter((name) => /^\d+$/.test(name))
    .map(Number)
    .filter((pid) => {
      try {
        return new RegExp(`^PPid:\\s+${parent}$`, 'm').test(readFileSync(`/proc/${pid}/status`, 'utf8'));
      } catch {
        return false;
      }
    });
}

/** 127.0.0.1 as /proc/net/tcp prints it. */
const loopbackHex = '0100007F';

/** The addresses, in the notation of proc(5), on which a process or its children accept connections. */
function listeningAddresses(pid: number): string[] {
  const inodes = new Set<string>();
  for (const member of [pid, ...childrenOf(pid)]) {
    for (const descriptor of readdirSync(`/proc/${member}/fd`)) {
      try {
        const inode = /^socket:\[(\d+)\]$/.exec(readlinkSync(`/proc/${member}/fd/${descriptor}`))?.[1];
        if (inode !== undefined) inodes.add(inode);
      } catch {
        // Closed in the meantime.
      }
    }
  }
  return ['tcp', 'tcp6'].flatMap((family) =>
    readFileSync(`/proc/net/${family}`, 'utf8')
      .split('\n')
      .slice(1)
      .map((line) => line.trim().split(/\s+/))
      .filter((fields) => fields[3] === '0A' && inodes.has(fields[9] ?? ''))
      .map((fields) => fields[1]!.split(':')[0]!),
  );
}

async function until(condition: () => boolean, withinMs: number): Promise<void> {
  const deadline = Date.now() + withinMs;
  while (!condition()) {
    if (Date.now() > deadline) throw new Error(`not within ${withinMs} ms: ${condition}`);
    await sleep(50);
  }
}
