/**
 * One Kafka transaction at a time, on kafkajs: the portable producer. Any failure makes it unusable: the caller
 * fences again and starts over from Progress, which is right for every unknown outcome.
 */
import kafkajs, {
  type CompressionTypes,
  type Kafka,
  type Message,
  type Producer,
  type Transaction,
} from 'kafkajs';
import { describeCause, TidemarkError } from '../platform/errors.ts';
import type { KafkaConfig } from '../platform/resolved-config.ts';

export interface TopicBatch {
  topic: string;
  messages: Message[];
}

/** Where a partition ends after a send. */
export interface PartitionEnd {
  topic: string;
  partition: number;
  /** Last record + 1. */
  endOffset: bigint;
}

/**
 * kafkajs copies a partition's list of messages for every message it adds to it (groupMessagesPerPartition), so that a
 * send costs the square of its size: 4 MiB in one send ran at 25 k rows/s, in portions of this many at 40 k.
 */
const portionMessages = 1000;

/** And of this many bytes, unless one message is larger: a portion is a record batch, which topics limit in size. */
const portionBytes = 1 << 20;

function* portions(batches: TopicBatch[]): Generator<TopicBatch[]> {
  let part: TopicBatch[] = [];
  let messagesLeft = portionMessages;
  let bytesLeft = portionBytes;
  for (const { topic, messages } of batches) {
    let from = 0;
    for (let at = 0; at < messages.length; at++) {
      const size = sizeOf(messages[at]!);
      if ((messagesLeft === 0 || size > bytesLeft) && (part.length > 0 || at > from)) {
        if (at > from) part.push({ topic, messages: messages.slice(from, at) });
        yield part;
        part = [];
        from = at;
        messagesLeft = portionMessages;
        bytesLeft = portionBytes;
      }
      messagesLeft--;
      bytesLeft -= size;
    }
    part.push({ topic, messages: messages.slice(from) });
  }
  if (part.length > 0) yield part;
}

function sizeOf({ key, value }: Message): number {
  return (key?.length ?? 0) + (value?.length ?? 0) + 100;
}

/** kafkajs numbers codecs as Kafka does; zstd (4) is registered in platform/kafka.ts. */
const compressionTypes = {
  none: kafkajs.CompressionTypes.None,
  gzip: kafkajs.CompressionTypes.GZIP,
  zstd: kafkajs.CompressionTypes.ZSTD,
};

export class TransactionalProducer {
  readonly #producer: Producer;
  readonly #compression: CompressionTypes;
  #transaction: Transaction | null = null;

  constructor(kafka: Kafka, config: KafkaConfig, transactionalId: string) {
    this.#compression = compressionTypes[config.compression];
    this.#producer = kafka.producer({
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
  }

  /** Takes the transactional id: the previous holder's open transaction is aborted and its writes fail from now on. */
  async fence(): Promise<void> {
    await this.#guard('take over the transactional id', async () => {
      await this.#producer.connect();
      this.#transaction = await this.#producer.transaction();
    });
  }

  /**
   * Sends into the current transaction, beginning one where needed.
   * @returns the end offset (last record + 1) of every partition written
   */
  async send(batches: TopicBatch[]): Promise<PartitionEnd[]> {
    const ends = new Map<string, PartitionEnd>();
    for (const part of portions(batches)) {
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

  #sendPortion(batches: TopicBatch[]): Promise<{ topic: string; partition: number; baseOffset: bigint }[]> {
    return this.#guard('produce', async () => {
      this.#transaction ??= await this.#producer.transaction();
      const metadata = await this.#transaction.sendBatch({
        topicMessages: batches,
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

  async close(): Promise<void> {
    await this.#producer.disconnect().catch(() => {});
  }

  async #guard<T>(what: string, run: () => Promise<T>): Promise<T> {
    try {
      return await run();
    } catch (error) {
      throw producerError(what, error);
    }
  }
}

function producerError(what: string, error: unknown): TidemarkError {
  if (error instanceof TidemarkError) return error;
  const root = rootCause(error);
  const type = (root as { type?: string }).type;
  if (type === 'PRODUCER_FENCED' || type === 'INVALID_PRODUCER_EPOCH') {
    return new TidemarkError('TM302', 'the transactional id was taken over', { cause: error });
  }
  if (
    type === 'TRANSACTIONAL_ID_AUTHORIZATION_FAILED' ||
    type === 'TOPIC_AUTHORIZATION_FAILED' ||
    type === 'CLUSTER_AUTHORIZATION_FAILED'
  ) {
    return new TidemarkError('TM303', `Kafka refused to ${what}: ${type}`, {
      cause: error,
      remedy: 'Grant WRITE and DESCRIBE on the topics and the transactional id to this user.',
    });
  }
  if (type === 'MESSAGE_TOO_LARGE' || type === 'RECORD_LIST_TOO_LARGE') {
    return new TidemarkError('TM303', 'Kafka refused a batch as too large', {
      cause: error,
      remedy: 'Raise max.message.bytes of the topics: `tidemark check` prints the command.',
    });
  }
  return new TidemarkError('TM301', `cannot ${what}: ${describeCause(root)}`, { cause: error });
}

function rootCause(error: unknown): unknown {
  let at = error;
  while (at instanceof Error && at.cause instanceof Error) at = at.cause;
  return at;
}
