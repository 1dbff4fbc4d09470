/**
 * kafkajs closes both connections to a broker when one of them was lost, and waits for what is in flight on the other.
 * Where that one goes down as well it tells nobody: the request waited for ever, and delivery with it.
 */
import { rm } from 'node:fs/promises';
import { resolve } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { type Stack, startStack } from '../../compose/local-stack.ts';
import { createKafka } from '../../src/platform/kafka.ts';
import { KafkaCluster } from '../../src/platform/kafka-cluster.ts';
import { fetchPartitions } from '../../src/platform/kafka-fetch/fetch-request.ts';

const directory = resolve(import.meta.dirname, '..', '..', '.tidemark', `closing-connection-${process.pid}`);
const place = { topic: 'quiet', partition: 0 };
let stack: Stack;
beforeAll(async () => {
  stack = await startStack({ directory, parts: ['kafka'] });
});
afterAll(async () => {
  await stack?.kill();
  await stack?.stop();
  await rm(directory, { recursive: true, force: true });
});

test('a request in flight on a connection that is being closed fails when the broker dies', async () => {
  const brokers = stack.environment.TIDEMARK_KAFKA_BROKERS!.split(',');
  const kafka = createKafka({ brokers, clientId: 'test', tls: false, sasl: null }, { debug() {} });
  const admin = kafka.admin();
  await admin.connect();
  await admin.createTopics({ waitForLeaders: true, topics: [{ topic: place.topic, numPartitions: 1 }] });
  await admin.disconnect();
  const cluster = new KafkaCluster(kafka);
  const { leaders } = await cluster.findLeaders([place]);
  const connection = await cluster.connectionTo(leaders.get('quiet/0')!, 1);
  const limits = { maxWaitMs: 20_000, maxBytes: 1 << 20, partitionBytes: 1 << 20 };
  const outcome = fetchPartitions(connection, [{ ...place, offset: 0 }], limits).then(
    () => 'answered',
    () => 'failed',
  );
  const [broker] = (await cluster.brokersOf([place])).keys();
  const closing = (broker as unknown as { disconnect(): Promise<void> }).disconnect();
  await stack.stopPart('kafka', { signal: 'SIGKILL' });
  expect(await Promise.race([outcome, sleep(10_000, 'waits')])).toBe('failed');
  expect(await Promise.race([closing.then(() => 'closed'), sleep(10_000, 'waits')])).toBe('closed');
  await cluster.close();
});
