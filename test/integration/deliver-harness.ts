/** One stack for a test file, and a delivery of one or more destinations over it. */
import { type ChildProcess, spawn } from 'node:child_process';
import { randomUUID } from 'node:crypto';
import { chmodSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { setTimeout as sleep } from 'node:timers/promises';
import type { Kafka } from 'kafkajs';
import pg from 'pg';
import { type Stack, startStack } from '../../compose/local-stack.ts';
import type { SinkKind } from '../../src/connector/sink.ts';
import { type Delivery, startDelivery } from '../../src/deliver/delivery.ts';
import type { DeliveredWindow } from '../../src/deliver/unit-worker.ts';
import { migrateControl } from '../../src/platform/control.ts';
import { createKafka } from '../../src/platform/kafka.ts';
import { createLogger, type LogLevel } from '../../src/platform/log.ts';
import { endpointFromUrl } from '../../src/platform/postgres-endpoint.ts';
import { RegistryClient } from '../../src/platform/registry.ts';
import type { DestinationConfig, KafkaConfig, ResolvedConfig } from '../../src/platform/resolved-config.ts';
import { FakeSource } from './deliver-source.ts';

export const log = createLogger({
  level: (process.env.TIDEMARK_TEST_LOG as LogLevel | undefined) ?? 'error',
});

export interface Harness {
  stack: Stack;
  kafka: Kafka;
  registry: RegistryClient;
  pool: pg.Pool;
  directory: string;
  config(source: FakeSource, destinations: Partial<DestinationConfig>[]): ResolvedConfig;
  source(): FakeSource;
  /** Of spawnDelivery; those that a failed test left behind end with the harness. */
  children: Set<ChildProcess>;
  stop(): Promise<void>;
}

export async function startHarness(): Promise<Harness> {
  const directory = mkdtempSync(join(tmpdir(), 'tidemark-deliver-'));
  // Postgres runs as another user and must get through.
  chmodSync(directory, 0o755);
  const stack = await startStack({ directory: join(directory, 'stack') });
  const { TIDEMARK_SOURCE_URL, TIDEMARK_KAFKA_BROKERS, TIDEMARK_REGISTRY_URL } = stack.environment;
  const control = await endpointFromUrl(TIDEMARK_SOURCE_URL!);
  const kafkaConfig = (prefix: string): KafkaConfig => ({
    brokers: TIDEMARK_KAFKA_BROKERS!.split(','),
    clientId: 'tidemark-test',
    tls: false,
    sasl: null,
    topicPrefix: prefix,
    partitions: 2,
    replicationFactor: 1,
    minInsyncReplicas: 1,
    retentionMs: -1,
    rowMaxBytes: 64 << 20,
    compression: 'none',
    producer: 'kafkajs',
    batchMaxBytes: 16 << 20,
    transactionTimeoutMs: 60_000,
    sessionTimeoutMs: 6000,
  });
  const registryConfig = { url: TIDEMARK_REGISTRY_URL!, username: null, password: null, tls: false as const };
  const kafka = createKafka(kafkaConfig('unused'), log);
  const registry = new RegistryClient(registryConfig, log);
  const pool = new pg.Pool({ connectionString: TIDEMARK_SOURCE_URL!, max: 2 });
  pool.on('error', () => {});
  await migrateControl(pool);
  const children = new Set<ChildProcess>();
  return {
    stack,
    kafka,
    registry,
    pool,
    directory,
    children,
    source: () => new FakeSource(kafka, registry),
    config: (source, destinations): ResolvedConfig => ({
      file: join(directory, 'tidemark.yaml'),
      source: {
        id: source.sourceId,
        endpoint: control,
        slot: 's',
        publication: 'p',
        tables: [],
        tenantColumn: null,
        personalColumns: [],
        hashKey: null,
        slotFailover: false,
        walBudget: null,
        heartbeatIntervalMs: 1000,
        snapshot: { mode: 'never', chunkRows: 1000, chunkBytes: 1 << 20 },
        statusIntervalMs: 1000,
        values: 'auto',
      },
      kafka: kafkaConfig(source.prefix),
      registry: registryConfig,
      control,
      deliver: {
        instancesDirectory: directory,
        spillDirectory: join(directory, 'spill'),
        spillMaxBytes: 4 * 2 ** 30,
        memoryBytes: 128 << 20,
        spillMemoryBytes: 128 << 20,
      },
      destinations: destinations.map((each) => ({
        name: 'warehouse',
        file: 'warehouse.json',
        kind: 'memory',
        tables: ['app.*'],
        tenant: null,
        cadenceMs: 0,
        tableCadenceMs: {},
        windowMaxRecords: 100_000,
        pauseAfterMs: null,
        quarantineMaxRows: 1000,
        options: {},
        ...each,
      })),
      observe: { metricsHost: '127.0.0.1', metricsPort: null },
    }),
    async stop() {
      for (const child of children) child.kill('SIGKILL');
      registry.close();
      await pool.end();
      await stack.stop();
      rmSync(directory, { recursive: true, force: true });
    },
  };
}

export async function deliver(
  config: ResolvedConfig,
  kind: SinkKind,
  onDelivery?: (delivery: DeliveredWindow) => void,
  reload?: () => Promise<readonly DestinationConfig[]>,
): Promise<Delivery> {
  return startDelivery({
    config,
    sinkKinds: new Map([[kind.name, kind]]),
    log,
    ...(onDelivery ? { onDelivery } : {}),
    ...(reload ? { reload } : {}),
  });
}

/** Polls until the probe gives something true. */
export async function until<T>(what: string, probe: () => T | Promise<T>, timeoutMs = 60_000): Promise<T> {
  const deadline = Date.now() + timeoutMs;
  for (;;) {
    const found = await probe();
    if (found) return found;
    if (Date.now() > deadline) throw new Error(`timed out: ${what}`);
    await sleep(20);
  }
}

/** Every Unit's mark is at the Position or beyond. */
export function marksAt(delivery: Delivery, position: string, units = 1): boolean {
  const all = delivery.snapshot().destinations.flatMap((each) => each.units);
  return all.length >= units && all.every(({ mark }) => mark !== null && mark >= position);
}

export interface ChildOptions {
  /** Where the destination keeps its contents; null: rows are only counted. */
  storeFile: string | null;
  unit?: SinkKind['unit'];
  /** The destination refuses rows that have it in a cell. */
  refused?: string;
  /** TIDEMARK_FAILPOINTS. */
  failpoints?: string;
}

export interface DeliveryProcess {
  child: ChildProcess;
  /** What it wrote so far. */
  lines: Record<string, unknown>[];
  /** Resolves with the exit code or the signal. */
  exited: Promise<NodeJS.Signals | number | null>;
}

/** A delivery in a process of its own (deliver-child.ts), for tests that kill, freeze or weigh it. */
export function spawnDelivery(
  harness: Harness,
  config: ResolvedConfig,
  options: ChildOptions,
): DeliveryProcess {
  const file = join(harness.directory, `child-${randomUUID()}.json`);
  writeFileSync(file, JSON.stringify({ config, unit: 'destination', ...options }));
  const child = spawn(process.execPath, [join(import.meta.dirname, 'deliver-child.ts'), file], {
    stdio: ['ignore', 'pipe', 'inherit'],
    env: { ...process.env, TIDEMARK_FAILPOINTS: options.failpoints ?? '' },
  });
  harness.children.add(child);
  child.on('exit', () => harness.children.delete(child));
  const lines: Record<string, unknown>[] = [];
  createInterface({ input: child.stdout! }).on('line', (line) => {
    lines.push(JSON.parse(line) as Record<string, unknown>);
  });
  const exited = new Promise<NodeJS.Signals | number | null>((resolve) => {
    child.on('exit', (code, signal) => resolve(signal ?? code));
  });
  return { child, lines, exited };
}
