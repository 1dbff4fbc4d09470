/**
 * Gathers records into requests and sends them in order, one on the way while the next is gathered.
 *
 * kafkajs copies a partition's list of messages for every message that it adds to it, so that a request costs the square
 * of its size: requests are small. A request's part for one partition is a record batch, which topics limit in size.
 */
import type { Message, TopicMessages } from 'kafkajs';
import { RefusedRows } from '../../../src/connector/failure.ts';
import { partitionOf } from '../../../src/connector/kafka.ts';
import type { Position } from '../../../src/connector/position.ts';
import type { TableId } from '../../../src/connector/shape.ts';
import { TooLarge } from './failures.ts';
import type { OutRecord } from './table-records.ts';
import type { KnownTopic } from './topics.ts';

const requestMessages = 1000;
const requestBytes = 1 << 20;
/** Length fields, offsets and headers' names of a record, about. */
const frameBytes = 120;
/** Of a topic's limit: what compression does not save must fit. */
const batchShare = 0.9;

interface Origin {
  table: TableId;
  position: Position;
  topic: string;
}

export class Outbox {
  bytes = 0;
  readonly #send: (messages: TopicMessages[]) => Promise<void>;
  #topics = new Map<string, Message[]>();
  #count = 0;
  #gathered = 0;
  #origin: Origin | null = null;
  #sending: Promise<void> = Promise.resolve();

  constructor(send: (messages: TopicMessages[]) => Promise<void>) {
    this.#send = send;
  }

  /** @throws what sending the request before last failed with */
  async add(
    { key, value, headers }: OutRecord,
    origin: Origin,
    { partitions, largestBatch }: KnownTopic,
  ): Promise<void> {
    const { topic } = origin;
    let size = frameBytes + (key?.length ?? 0) + (value?.length ?? 0);
    for (const name in headers) size += headers[name]!.length;
    const most = Math.min(requestBytes, largestBatch * batchShare);
    if (this.#count >= requestMessages || (this.#count > 0 && this.#gathered + size > most))
      await this.#flush();
    let messages = this.#topics.get(topic);
    if (!messages) {
      messages = [];
      this.#topics.set(topic, messages);
    }
    // Java's default partitioner; records without a key keep their order in one partition.
    const partition = key === null ? 0 : partitionOf(key, partitions);
    messages.push({ key, value, headers, partition });
    this.#count += 1;
    this.#gathered += size;
    this.#origin = origin;
    this.bytes += size;
  }

  /** Everything is acknowledged. */
  async done(): Promise<void> {
    await this.#flush();
    await this.#sending;
  }

  async #flush(): Promise<void> {
    if (this.#count === 0) return;
    const messages = [...this.#topics].map(([topic, list]) => ({ topic, messages: list }));
    const alone = this.#count === 1 ? this.#origin : null;
    this.#topics = new Map();
    this.#count = 0;
    this.#gathered = 0;
    await this.#sending;
    this.#sending = this.#send(messages).catch((error: unknown) => {
      throw error instanceof TooLarge && alone ? refusal(alone, error) : error;
    });
    // Awaited with the next; one that fails meanwhile must not end the process.
    this.#sending.catch(() => {});
  }
}

function refusal({ table, position, topic }: Origin, cause: TooLarge): RefusedRows {
  const reason = `MESSAGE_TOO_LARGE: larger than max.message.bytes of ${topic}`;
  return new RefusedRows([{ table, position, reason }], { cause });
}
