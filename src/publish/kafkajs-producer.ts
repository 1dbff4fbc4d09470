/**
 * The portable producer: transactions by kafkajs alone. Slower than record-batch-producer.ts (about 20 against 3 µs of
 * CPU a record), and the one to fall back to.
 */
import kafkajs, {
  type CompressionTypes,
  type Kafka,
  type Message,
  type Producer,
  type TopicMessages,
  type Transaction,
} from 'kafkajs';
import { TidemarkError } from '../platform/errors.ts';
import type { KafkaConfig } from '../platform/resolved-config.ts';
import { type RecordRun, readRecords } from './record-run.ts';
import { kafkajsError, type PartitionEnd, type TransactionalProducer } from './transactional-producer.ts';

/**
 * kafkajs copies a partition's list of messages for every message it adds to it (groupMessagesPerPartition), so that a
 * send costs the square of its size: 4 MiB in one send ran at 25 k rows/s, in portions of this many at 40 k.
 */
const portionMessages = 1000;

/** And of this many bytes, unless one message is larger: a portion is a record batch, which topics limit in size. */
const portionBytes = 1 << 20;

/** kafkajs numbers codecs as Kafka does; zstd (4) is registered in platform/kafka.ts. */
const compressionTypes = {
  none: kafkajs.CompressionTypes.None,
  gzip: kafkajs.CompressionTypes.GZIP,
  zstd: kafkajs.CompressionTypes.ZSTD,
};

export class KafkajsProducer implements TransactionalProducer {
  readonly #make: () => Producer;
  readonly #compression: CompressionTypes;
  #producer: Producer;
  #hasId = false;
  #transaction: Transaction | null = null;

  constructor(kafka: Kafka, config: KafkaConfig, transactionalId: string) {
    this.#compression = compressionTypes[config.compression];
    this.#make = () =>
      kafka.producer({
        transactionalId,
        idempotent: true,
        maxInFlightRequests: 1,
        transactionTimeout: config.transactionTimeoutMs,
        allowAutoTopicCreation: false,
        createPartitioner: kafkajs.Partitioners.DefaultPartitioner,
        // After a commit the coordinator answers CONCURRENT_TRANSACTIONS for some ms: ask again soon. kafkajs demands
        // many retries for exactly-once; the factor keeps an outage from being hammered.
        retry: { initialRetryTime: 5, factor: 0.2, multiplier: 2, maxRetryTime: 1000, retries: 14 },
      });
    this.#producer = this.#make();
  }

  async fence(): Promise<void> {
    await this.#guard('take over the transactional id', async () => {
      // A producer of kafkajs takes the id once.
      if (this.#hasId) {
        await this.#producer.disconnect();
        this.#producer = this.#make();
      }
      await this.#producer.connect();
      this.#hasId = true;
      this.#transaction = await this.#producer.transaction();
    });
  }

  /**
   * Sends into the current transaction, beginning one where needed.
   * @returns the end offset (last record + 1) of every partition written
   */
  async send(runs: readonly RecordRun[]): Promise<PartitionEnd[]> {
    const ends = new Map<string, PartitionEnd>();
    for (const part of portions(runs)) {
      const counts = new Map<string, number>();
      for (const { topic, messages } of part) {
        for (const { partition } of messages) {
          const name = `${topic}/${partition}`;
          counts.set(name, (counts.get(name) ?? 0) + 1);
        }
      }
      for (const { topic, partition, baseOffset } of await this.#sendPortion(part)) {
        const name = `${topic}/${partition}`;
        ends.set(name, { topic, partition, endOffset: baseOffset + BigInt(counts.get(name) ?? 0) });
      }
    }
    return [...ends.values()];
  }

  #sendPortion(
    topicMessages: TopicMessages[],
  ): Promise<{ topic: string; partition: number; baseOffset: bigint }[]> {
    return this.#guard('produce', async () => {
      this.#transaction ??= await this.#producer.transaction();
      const metadata = await this.#transaction.sendBatch({
        topicMessages,
        acks: -1,
        compression: this.#compression,
      });
      return metadata.map(({ topicName, partition, baseOffset }) => {
        if (baseOffset === undefined)
          throw new TidemarkError('TM301', `Kafka acknowledged ${topicName} without an offset`);
        return { topic: topicName, partition, baseOffset: BigInt(baseOffset) };
      });
    });
  }

  async commit(): Promise<void> {
    await this.#guard('commit', async () => {
      await this.#transaction?.commit();
      this.#transaction = null;
    });
  }

  async abort(): Promise<void> {
    await this.#guard('abort', async () => {
      await this.#transaction?.abort();
      this.#transaction = null;
    });
  }

  async close(): Promise<void> {
    await this.#producer.disconnect().catch(() => {});
  }

  async #guard<T>(what: string, run: () => Promise<T>): Promise<T> {
    try {
      return await run();
    } catch (error) {
      throw kafkajsError(what, error);
    }
  }
}

/** Sends of a bounded number of messages and bytes; a single larger message goes alone. */
function* portions(runs: readonly RecordRun[]): Generator<TopicMessages[]> {
  let part = new Map<string, Message[]>();
  let [count, bytes] = [0, 0];
  for (const run of runs) {
    const { topic, partition } = run;
    for (const record of readRecords(run)) {
      const size = (record.key?.length ?? 0) + (record.value?.length ?? 0) + 100;
      if (count > 0 && (count >= portionMessages || bytes + size > portionBytes)) {
        yield [...part].map(([topic, messages]) => ({ topic, messages }));
        part = new Map();
        [count, bytes] = [0, 0];
      }
      const messages = part.get(topic) ?? [];
      part.set(topic, messages);
      messages.push({ ...record, partition });
      count++;
      bytes += size;
    }
  }
  if (count > 0) yield [...part].map(([topic, messages]) => ({ topic, messages }));
}
