/**
 * Reading the progress topic to its end. A topic's end is not a number one can trust across open transactions and
 * markers, so the reader writes a fence record of its own, in a transaction, and reads until it meets it: what comes
 * before is all there is, because nobody else can write any more.
 */
import { randomUUID } from 'node:crypto';
import type { Kafka } from 'kafkajs';
import { TidemarkError } from '../platform/errors.ts';
import { endReading } from '../platform/kafka.ts';
import { decodeProgress, type Progress } from './progress.ts';

const stepBack = 200n;

/**
 * The last Progress that covers something, or null in a topic without any.
 * @param fenceWriter the `writer` of a fence record that this process committed just now
 * @throws TidemarkError TM301 when the topic cannot be read within a minute
 */
export async function readLastProgress(
  kafka: Kafka,
  topic: string,
  groupPrefix: string,
  fenceWriter: string,
): Promise<Progress | null> {
  const admin = kafka.admin();
  await admin.connect();
  try {
    const [partition] = await admin.fetchTopicOffsets(topic);
    const low = BigInt(partition!.low);
    const high = BigInt(partition!.high);
    for (let span = stepBack; ; span *= 10n) {
      const from = high - span > low ? high - span : low;
      const found = await scan(kafka, topic, groupPrefix, from, fenceWriter);
      if (found || from === low) return found;
    }
  } finally {
    await admin.disconnect();
  }
}

async function scan(
  kafka: Kafka,
  topic: string,
  groupPrefix: string,
  from: bigint,
  fenceWriter: string,
): Promise<Progress | null> {
  const groupId = `${groupPrefix}.${randomUUID()}`;
  const consumer = kafka.consumer({
    groupId,
    readUncommitted: false,
    maxWaitTimeInMs: 100,
    sessionTimeout: 10000,
    allowAutoTopicCreation: false,
    retry: { retries: 3 },
  });
  let last: Progress | null = null;
  try {
    await consumer.connect();
    await consumer.subscribe({ topic, fromBeginning: true });
    await new Promise<void>((resolve, reject) => {
      const timeout = setTimeout(
        () =>
          reject(new TidemarkError('TM301', 'the progress topic could not be read to its end within 60 s')),
        60000,
      );
      const finish = (error?: unknown) => {
        clearTimeout(timeout);
        if (error === undefined) resolve();
        else reject(error);
      };
      consumer.on('consumer.crash', ({ payload }) =>
        finish(new TidemarkError('TM301', 'reading the progress topic failed', { cause: payload.error })),
      );
      consumer
        .run({
          autoCommit: false,
          eachMessage: async ({ message }) => {
            if (!message.value || BigInt(message.offset) < from) return;
            const progress = decodeProgress(message.value);
            if (progress.kind !== 'fence') last = progress;
            else if (progress.writer === fenceWriter) finish();
          },
        })
        // The fence may be met, and the consumer be gone, before run() has returned: then seeking fails.
        .then(() => consumer.seek({ topic, partition: 0, offset: String(from) }))
        .catch(finish);
    });
  } finally {
    await endReading(kafka, consumer, groupId);
  }
  return last;
}
