/**
 * The quarantine topic: Changes that a destination refused, and those that build on them, whole as they were in their
 * change topic. Which of its records count is in the ledger (quarantine-ledger.ts): what a worker wrote before it died
 * is written once more, and the first copy means nothing.
 */
import type { Kafka, Message, Producer } from 'kafkajs';
import { TidemarkError } from '../../platform/errors.ts';
import { kafkaError } from '../../platform/kafka.ts';
import { type CommittedBatch, CommittedReader } from '../../platform/kafka-fetch/committed-records.ts';
import { type FetchedRecord, headerOf } from '../../platform/kafka-fetch/record-set.ts';
import type { KafkaConfig } from '../../platform/resolved-config.ts';
import { header, topicNames } from '../../publish/record-format.ts';
import { ensureTopics } from '../../publish/topics.ts';

/** Of one request: the broker takes the topic's largest record and a mebibyte. */
const requestBytes = 4 << 20;
/** Of one answer: those that are wanted may lie far apart. */
const readBytes = 1 << 20;

export class DeadLetters {
  readonly topic: string;
  readonly #kafka: Kafka;
  readonly #config: KafkaConfig;
  #producer: Promise<Producer> | null = null;

  constructor(kafka: Kafka, config: KafkaConfig) {
    this.topic = topicNames(config.topicPrefix).quarantine;
    this.#kafka = kafka;
    this.#config = config;
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
  topicOf(record: FetchedRecord): string {
    const text = headerOf(record, header.quarantine)?.toString();
    if (text) return (JSON.parse(text) as { topic: string }).topic;
    throw new TidemarkError(
      'TM206',
      `the record of ${this.topic} at offset ${record.offset} is not Tidemark's`,
    );
  }

  /**
   * Records by their offsets, in order, as they come.
   * @throws TidemarkError TM301; TM306 where the topic lost one
   */
  async read(offsets: readonly number[], take: (records: FetchedRecord[]) => Promise<void>): Promise<void> {
    if (offsets.length === 0) return;
    const wanted = [...new Set(offsets)].sort((a, b) => a - b);
    const reader = new CommittedReader(this.#kafka);
    try {
      while (wanted.length > 0) {
        const found = await this.#readAt(reader, wanted[0]!);
        const taken: FetchedRecord[] = [];
        for (const record of found?.records ?? []) {
          if (record.offset !== wanted[0]) continue;
          taken.push(record);
          wanted.shift();
        }
        if (taken.length === 0 || wanted[0]! < found!.end) throw lost(this.topic, wanted[0]!);
        await take(taken);
      }
    } catch (error) {
      throw kafkaError(error, `read ${this.topic}`);
    } finally {
      await reader.close();
    }
  }

  /** Null where the log does not reach there, at either end. */
  async #readAt(reader: CommittedReader, offset: number): Promise<CommittedBatch | null> {
    try {
      return await reader.readAt({ topic: this.topic, partition: 0 }, offset, readBytes);
    } catch (error) {
      if ((error as { type?: unknown }).type === 'OFFSET_OUT_OF_RANGE') return null;
      throw error;
    }
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

function lost(topic: string, offset: number): TidemarkError {
  return new TidemarkError('TM306', `${topic} does not hold offset ${offset} any more`, {
    remedy:
      'Drop the entries that need it (`tidemark quarantine drop`), and read the table once more: `tidemark snapshot start`.',
  });
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
