/** Which tables were parked at a Position: read from the progress topic, without disturbing its writer. */
import { randomUUID } from 'node:crypto';
import type { Position } from '../connector/position.ts';
import { TidemarkError } from '../platform/errors.ts';
import { createKafka, kafkaError } from '../platform/kafka.ts';
import type { Logger } from '../platform/log.ts';
import type { ResolvedConfig } from '../platform/resolved-config.ts';
import { decodeProgress, type ParkedTable } from '../publish/progress.ts';
import { topicNames } from '../publish/record-format.ts';
import { within } from './wait.ts';

export type ParkedTables = Readonly<Record<string, Pick<ParkedTable, 'position' | 'code' | 'reason'>>>;

/** Offsets to step back from the end: several Progress records, also where every second offset is a marker. */
const stepBack = 200n;

/**
 * The first Progress of the newest ones that covers `at`. A table parked after `at` is left out.
 * @throws TidemarkError TM301 when no such Progress is read in time
 */
export async function parkedTablesAt(
  config: ResolvedConfig,
  at: Position,
  { timeoutMs, signal, log }: { timeoutMs: number; signal: AbortSignal; log: Logger },
): Promise<ParkedTables> {
  const topic = topicNames(config.kafka.topicPrefix).progress;
  const groupId = `tidemark.${config.source.id}.verify.${randomUUID()}`;
  const kafka = createKafka(config.kafka, log);
  const admin = kafka.admin();
  const consumer = kafka.consumer({
    groupId,
    readUncommitted: false,
    sessionTimeout: config.kafka.sessionTimeoutMs,
    maxWaitTimeInMs: 200,
    allowAutoTopicCreation: false,
  });
  const late = () => new TidemarkError('TM301', `no Progress that covers ${at} could be read`);
  try {
    await admin.connect();
    const [partition] = await admin.fetchTopicOffsets(topic);
    const low = BigInt(partition!.low);
    const back = BigInt(partition!.high) - stepBack;
    const from = back > low ? back : low;
    await consumer.connect();
    await consumer.subscribe({ topic, fromBeginning: true });
    const found = new Promise<ParkedTables>((resolve, reject) => {
      consumer.on('consumer.crash', ({ payload }) => reject(payload.error));
      consumer
        .run({
          autoCommit: false,
          eachMessage: async ({ message }) => {
            if (!message.value || BigInt(message.offset) < from) return;
            const progress = decodeProgress(message.value);
            if (progress.kind === 'fence' || progress.sourceId !== config.source.id) return;
            if (progress.position >= at) resolve(progress.parked);
          },
        })
        .then(() => consumer.seek({ topic, partition: 0, offset: String(from) }))
        // Found already: the consumer may be gone, and there is nothing to seek any more.
        .catch(reject);
    });
    const parked = await within(found, { limitMs: timeoutMs, signal, late });
    return Object.fromEntries(Object.entries(parked).filter(([, { position }]) => position <= at));
  } catch (error) {
    if (signal.aborted) throw signal.reason;
    throw kafkaError(error, 'read the progress topic');
  } finally {
    await consumer.disconnect().catch(() => {});
    await admin.deleteGroups([groupId]).catch(() => {});
    await admin.disconnect().catch(() => {});
  }
}
