/** Reads the progress topic from its beginning to a fence that this process wrote just now. */
import { randomUUID } from 'node:crypto';
import type { Kafka } from 'kafkajs';
import { TidemarkError } from '../../../src/connector/failure.ts';
import { kafkaFailure } from './failures.ts';
import { fenceWriter, type KnownState } from './progress.ts';

const withinMs = 60_000;

/**
 * kafkajs reads in groups alone: this one is nobody's afterwards. It is compacted, so the beginning is never far.
 * @throws TidemarkError
 */
export async function readProgress(
  kafka: Kafka,
  topic: string,
  groupPrefix: string,
  writer: string,
  state: KnownState,
): Promise<void> {
  const groupId = `${groupPrefix}.${randomUUID()}`;
  const consumer = kafka.consumer({
    groupId,
    readUncommitted: false,
    maxWaitTimeInMs: 100,
    sessionTimeout: 10_000,
    allowAutoTopicCreation: false,
    retry: { retries: 3 },
  });
  const { promise, resolve, reject } = Promise.withResolvers<void>();
  const late = new TidemarkError(
    'TM401',
    `${topic} could not be read to its end within ${withinMs / 1000} s`,
  );
  const timer = setTimeout(() => reject(late), withinMs);
  try {
    await consumer.connect();
    await consumer.subscribe({ topic, fromBeginning: true });
    consumer.on('consumer.crash', ({ payload }) => reject(payload.error));
    await consumer.run({
      autoCommit: false,
      eachMessage: async ({ message }) => {
        if (!message.key || !message.value) return;
        const [key, value] = [message.key.toString('utf8'), message.value.toString('utf8')];
        try {
          if (fenceWriter(key, value) === writer) resolve();
          else state.take(key, value);
        } catch (error) {
          reject(error);
        }
      },
    });
    await promise;
  } catch (error) {
    throw kafkaFailure(error, `read ${topic}`);
  } finally {
    clearTimeout(timer);
    // Rejected or not, nobody may be left to hear of it.
    promise.catch(() => {});
    await consumer.disconnect().catch(() => {});
    await deleteGroup(kafka, groupId);
  }
}

/** Without the right to, it expires by itself. */
async function deleteGroup(kafka: Kafka, groupId: string): Promise<void> {
  const admin = kafka.admin({ retry: { retries: 1 } });
  await admin
    .connect()
    .then(() => admin.deleteGroups([groupId]))
    .catch(() => {});
  await admin.disconnect().catch(() => {});
}
