/** The newest Progress without taking part: for `status`, which must not fence anybody. */

import { randomUUID } from 'node:crypto';
import type { Kafka } from 'kafkajs';
import { decodeProgress, type Progress } from './progress.ts';

/** The topic's last records may be fences and markers: this many offsets back there is a Progress. */
const lookBack = 100n;
/** Nothing new for this long means that the end was reached. */
const quietMs = 400;

/** @returns the newest committed Progress, or null where there is none within reach */
export async function peekProgress(
  kafka: Kafka,
  topic: string,
  groupPrefix: string,
): Promise<Progress | null> {
  const admin = kafka.admin();
  await admin.connect();
  const groupId = `${groupPrefix}.peek.${randomUUID()}`;
  const consumer = kafka.consumer({
    groupId,
    maxWaitTimeInMs: 100,
    readUncommitted: false,
    allowAutoTopicCreation: false,
  });
  let newest: Progress | null = null;
  try {
    const [partition] = await admin.fetchTopicOffsets(topic);
    const low = BigInt(partition!.low);
    const high = BigInt(partition!.high);
    if (high === low) return null;
    const from = high - lookBack > low ? high - lookBack : low;
    let lastRecordAt = 0;
    await consumer.connect();
    await consumer.subscribe({ topic, fromBeginning: true });
    const joined = new Promise<void>((resolve) => consumer.on('consumer.group_join', () => resolve()));
    await consumer.run({
      autoCommit: false,
      eachMessage: async ({ message }) => {
        lastRecordAt = Date.now();
        if (!message.value || BigInt(message.offset) < from) return;
        const progress = decodeProgress(message.value);
        if (progress.kind !== 'fence') newest = progress;
      },
    });
    consumer.seek({ topic, partition: 0, offset: String(from) });
    await joined;
    const giveUpAt = Date.now() + 10000;
    while (Date.now() < giveUpAt && (lastRecordAt === 0 || Date.now() - lastRecordAt < quietMs)) {
      await new Promise((resolve) => setTimeout(resolve, 50));
    }
    return newest;
  } finally {
    await consumer.disconnect().catch(() => {});
    await admin.deleteGroups([groupId]).catch(() => {});
    await admin.disconnect().catch(() => {});
  }
}
