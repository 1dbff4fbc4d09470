/**
 * The quarantine topic: Changes that a destination refused, and those that build on them, whole as they were in their
 * change topic. Which of its records count is in the ledger (quarantine-ledger.ts): what a worker wrote before it died
 * is written once more, and the first copy means nothing.
 */
import { randomUUID } from 'node:crypto';
import { setTimeout as sleep } from 'node:timers/promises';
import type { Kafka, KafkaMessage, Message, Producer } from 'kafkajs';
import { TidemarkError } from '../../platform/errors.ts';
import { endReading, kafkaError } from '../../platform/kafka.ts';
import type { KafkaConfig } from '../../platform/resolved-config.ts';
import { header, topicNames } from '../../publish/record-format.ts';
import { ensureTopics } from '../../publish/topics.ts';

/** Of one request: the broker takes the topic's largest record and a mebibyte. */
const requestBytes = 4 << 20;
/** Nothing came for so long although records are missing. */
const quietMs = 20_000;

export class DeadLetters {
  readonly topic: string;
  readonly #kafka: Kafka;
  readonly #config: KafkaConfig;
  readonly #groupPrefix: string;
  #producer: Promise<Producer> | null = null;

  /** @param groupPrefix of the consumer groups that reading takes */
  constructor(kafka: Kafka, config: KafkaConfig, groupPrefix: string) {
    this.topic = topicNames(config.topicPrefix).quarantine;
    this.#kafka = kafka;
    this.#config = config;
    this.#groupPrefix = groupPrefix;
  }

  /**
   * Durable on all replicas when it returns.
   * @returns the offset of each
   * @throws TidemarkError TM301, TM303
   */
  async write(messages: readonly Message[]): Promise<number[]> {
    try {
      const producer = await this.#connected();
      const offsets: number[] = [];
      for (const request of inRequests(messages)) {
        const [sent] = await producer.send({ topic: this.topic, acks: -1, messages: request });
        const base = Number(sent!.baseOffset);
        for (let i = 0; i < request.length; i++) offsets.push(base + i);
      }
      return offsets;
    } catch (error) {
      await this.close();
      throw kafkaError(error, `write to ${this.topic}`);
    }
  }

  /** The change topic that a dead letter came from. @throws TidemarkError TM206 for a record that is none of ours */
  topicOf({ headers = {}, offset }: KafkaMessage): string {
    const text = headers[header.quarantine]?.toString();
    if (text) return (JSON.parse(text) as { topic: string }).topic;
    throw new TidemarkError('TM206', `the record of ${this.topic} at offset ${offset} is not Tidemark's`);
  }

  /** Records by their offsets, in that order. @throws TidemarkError TM301; TM306 where the topic lost one */
  async read(offsets: readonly number[], take: (message: KafkaMessage) => Promise<void>): Promise<void> {
    if (offsets.length === 0) return;
    const wanted = new Set(offsets);
    const groupId = `${this.#groupPrefix}.quarantine.${randomUUID()}`;
    const consumer = this.#kafka.consumer({
      groupId,
      maxWaitTimeInMs: 100,
      readUncommitted: false,
      allowAutoTopicCreation: false,
      retry: { retries: 3 },
    });
    let failure: unknown = null;
    let seenAt = Date.now();
    try {
      await consumer.connect();
      await consumer.subscribe({ topic: this.topic, fromBeginning: true });
      const joined = new Promise<void>((resolve) => consumer.on('consumer.group_join', () => resolve()));
      consumer.on('consumer.crash', ({ payload }) => {
        failure ??= payload.error;
      });
      await consumer.run({
        autoCommit: false,
        eachMessage: async ({ message }) => {
          seenAt = Date.now();
          if (failure || !wanted.delete(Number(message.offset))) return;
          await take(message).catch((error) => {
            failure ??= error;
          });
        },
      });
      consumer.seek({ topic: this.topic, partition: 0, offset: String(Math.min(...offsets)) });
      await joined;
      while (wanted.size > 0 && !failure && Date.now() - seenAt < quietMs) await sleep(20);
    } catch (error) {
      failure ??= error;
    } finally {
      await endReading(this.#kafka, consumer, groupId);
    }
    if (failure) throw kafkaError(failure, `read ${this.topic}`);
    if (wanted.size === 0) return;
    throw new TidemarkError('TM306', `${this.topic} does not hold offset ${Math.min(...wanted)} any more`, {
      remedy:
        'Drop the entries that need it (`tidemark quarantine drop`), and read the table once more: `tidemark snapshot start`.',
    });
  }

  async close(): Promise<void> {
    const producer = this.#producer;
    this.#producer = null;
    await producer?.then((each) => each.disconnect()).catch(() => {});
  }

  #connected(): Promise<Producer> {
    this.#producer ??= this.#connect();
    return this.#producer;
  }

  async #connect(): Promise<Producer> {
    const admin = this.#kafka.admin();
    try {
      await admin.connect();
      await ensureTopics(admin, this.#config, []);
    } finally {
      await admin.disconnect().catch(() => {});
    }
    const producer = this.#kafka.producer({
      idempotent: true,
      maxInFlightRequests: 1,
      allowAutoTopicCreation: false,
    });
    await producer.connect();
    return producer;
  }
}

function* inRequests(messages: readonly Message[]): Iterable<Message[]> {
  let request: Message[] = [];
  let bytes = 0;
  for (const message of messages) {
    const size = (message.value?.length ?? 0) + (message.key?.length ?? 0) + 512;
    if (request.length > 0 && bytes + size > requestBytes) {
      yield request;
      request = [];
      bytes = 0;
    }
    request.push(message);
    bytes += size;
  }
  if (request.length > 0) yield request;
}
