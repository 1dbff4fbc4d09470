/** Which tables were parked at a Position, from a progress topic in a real Kafka, while its writer goes on. */
import { randomUUID } from 'node:crypto';
import { rm } from 'node:fs/promises';
import { resolve } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import type { Kafka, Producer } from 'kafkajs';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { type Stack, startStack } from '../../compose/local-stack.ts';
import { formatPosition, type Position } from '../../src/connector/position.ts';
import { createKafka } from '../../src/platform/kafka.ts';
import { createLogger } from '../../src/platform/log.ts';
import type { ResolvedConfig } from '../../src/platform/resolved-config.ts';
import { encodeProgress, type Progress } from '../../src/publish/progress.ts';
import { parkedTablesAt } from '../../src/verify/parked-tables.ts';

const directory = resolve(
  import.meta.dirname,
  '..',
  '..',
  '.tidemark',
  `verify-progress-test-${process.pid}`,
);
const log = createLogger({ level: 'error' });
let stack: Stack;
let config: ResolvedConfig;
let kafka: Kafka;
let producer: Producer;

beforeAll(async () => {
  stack = await startStack({ directory, parts: ['kafka'] });
  const brokers = stack.environment.TIDEMARK_KAFKA_BROKERS!.split(',');
  config = {
    source: { id: 'hot' },
    kafka: {
      brokers,
      clientId: 'test',
      tls: false,
      sasl: null,
      topicPrefix: 'hot',
      sessionTimeoutMs: 10_000,
    },
  } as unknown as ResolvedConfig;
  kafka = createKafka(config.kafka, log);
  const admin = kafka.admin();
  await admin.connect();
  await admin.createTopics({ topics: [{ topic: 'hot.progress', numPartitions: 1 }] });
  await admin.disconnect();
  producer = kafka.producer({ transactionalId: 'verify-test', idempotent: true, maxInFlightRequests: 1 });
  await producer.connect();
}, 300_000);
afterAll(async () => {
  await producer?.disconnect();
  await stack?.stop();
  await rm(directory, { recursive: true, force: true });
}, 60_000);

const at = (lsn: number): Position => formatPosition({ epoch: 1, lsn: BigInt(lsn), ordinal: 0 });
const options = () => ({ timeoutMs: 20_000, signal: new AbortController().signal, log });
const parkedAt = (lsn: number) => ({
  position: at(lsn),
  code: 'TM208',
  reason: 'its shape changed',
  moves: null,
});

async function write(
  lsn: number,
  parked: Progress['parked'],
  kind: Progress['kind'] = 'batch',
): Promise<void> {
  const progress: Progress = {
    kind,
    sourceId: 'hot',
    position: at(lsn),
    boundary: true,
    ackLsn: BigInt(lsn),
    commitTimeUs: 1n,
    writtenAtUs: 1n,
    systemIdentifier: '1',
    timeline: 1,
    writer: randomUUID(),
    endOffsets: {},
    parked,
    snapshots: {},
  };
  const transaction = await producer.transaction();
  await transaction.send({ topic: 'hot.progress', messages: [{ value: encodeProgress(progress, 1) }] });
  await transaction.commit();
}

test('tables parked at the Position are told, later ones are not, and fences say nothing', async () => {
  for (let lsn = 1; lsn <= 150; lsn++) await write(lsn, {});
  await write(160, { 'app.a': parkedAt(155) });
  await write(0, {}, 'fence');
  expect(await parkedTablesAt(config, at(160), options())).toEqual({ 'app.a': parkedAt(155) });
  await write(200, { 'app.a': parkedAt(155), 'app.b': parkedAt(190) });
  expect(await parkedTablesAt(config, at(180), options())).toEqual({ 'app.a': parkedAt(155) });
  // The writer was not disturbed by any of it.
  await write(201, {});
}, 60_000);

test('a Progress that is not there yet is waited for, and missed after the time limit', async () => {
  const reading = parkedTablesAt(config, at(300), options());
  setTimeout(() => void write(300, { 'app.c': parkedAt(300) }), 4000);
  expect(await reading).toEqual({ 'app.c': parkedAt(300) });
  const late = parkedTablesAt(config, at(400), { ...options(), timeoutMs: 300 });
  await expect(late).rejects.toMatchObject({ code: 'TM301' });
}, 60_000);

test('a broker that dies while Progress is waited for, and is loading when it comes back, is waited for too', async () => {
  const reading = parkedTablesAt(config, at(500), { ...options(), timeoutMs: 60_000 });
  reading.catch(() => {});
  await sleep(1000);
  await stack.stopPart('kafka', { signal: 'SIGKILL' });
  await sleep(1000);
  await stack.startPart('kafka');
  await write(500, { 'app.d': parkedAt(500) });
  expect(await reading).toEqual({ 'app.d': parkedAt(500) });
}, 120_000);
