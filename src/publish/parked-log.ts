/**
 * The raw messages of one parked table, read back from the parked topic in the order they came. The end is a record
 * that the reader writes for the purpose, as with Progress: a topic's end offset also counts markers.
 */
import { randomUUID } from 'node:crypto';
import type { IHeaders, Kafka, KafkaMessage } from 'kafkajs';
import { TidemarkError } from '../platform/errors.ts';
import { endReading } from '../platform/kafka.ts';
import { header } from './record-format.ts';

/** R: a Relation message. */
const relationByte = 0x52;

export interface ParkedLogOptions {
  kafka: Kafka;
  topic: string;
  groupPrefix: string;
  table: string;
  /** Where the table was parked; what was parked of it before then was brought back already. */
  from: string;
  /** Of the record that ends the reading. */
  endMark: string;
}

/** @throws TidemarkError TM301 where the topic cannot be read */
export async function* readParked(options: ParkedLogOptions): AsyncGenerator<Buffer> {
  const { kafka, topic, groupPrefix, endMark } = options;
  const groupId = `${groupPrefix}.resume.${randomUUID()}`;
  const consumer = kafka.consumer({
    groupId,
    readUncommitted: false,
    maxWaitTimeInMs: 100,
    sessionTimeout: 30_000,
    allowAutoTopicCreation: false,
    retry: { retries: 3 },
  });
  const channel = new Channel<Buffer>();
  let pending: Buffer[] = [];
  const take = async (message: KafkaMessage): Promise<void> => {
    const { key, value, headers = {} } = message;
    if (text(headers, header.resume) === endMark) return channel.end();
    if (!value || key?.toString() !== options.table || text(headers, header.resume) !== null) return;
    const position = text(headers, header.position);
    // What describes the table has no Position: it counts with the Change that follows it.
    if (position === null) {
      pending.push(value);
      return;
    }
    if (position < options.from) {
      pending = pending.filter((description) => description[0] === relationByte).slice(-1);
      return;
    }
    for (const description of pending) await channel.put(description);
    pending = [];
    await channel.put(value);
  };
  try {
    await consumer.connect();
    await consumer.subscribe({ topic, fromBeginning: true });
    consumer.on('consumer.crash', ({ payload }) =>
      channel.fail(new TidemarkError('TM301', 'reading the parked topic failed', { cause: payload.error })),
    );
    consumer
      .run({ autoCommit: false, eachMessage: ({ message }) => take(message) })
      .catch((error) =>
        channel.fail(new TidemarkError('TM301', 'reading the parked topic failed', { cause: error })),
      );
    yield* channel.values();
  } finally {
    channel.end();
    await endReading(kafka, consumer, groupId);
  }
}

function text(headers: IHeaders, name: string): string | null {
  const value = headers[name];
  return value === undefined ? null : String(value);
}

/** One value at a time: whoever puts waits until it is taken, so that a backlog of any size needs no memory. */
class Channel<T> {
  #value: { value: T } | null = null;
  #ended = false;
  #error: unknown = null;
  #wake: () => void = () => {};
  #changed = this.#next();

  #next(): Promise<void> {
    return new Promise((resolve) => {
      this.#wake = resolve;
    });
  }

  #ring(): void {
    const wake = this.#wake;
    this.#changed = this.#next();
    wake();
  }

  async put(value: T): Promise<void> {
    while (this.#value && !this.#ended) await this.#changed;
    if (this.#ended) return;
    this.#value = { value };
    this.#ring();
  }

  end(): void {
    this.#ended = true;
    this.#ring();
  }

  fail(error: unknown): void {
    this.#error ??= error;
    this.end();
  }

  async *values(): AsyncGenerator<T> {
    for (;;) {
      const taken = this.#value;
      if (taken) {
        this.#value = null;
        this.#ring();
        yield taken.value;
      } else if (this.#ended) {
        if (this.#error) throw this.#error;
        return;
      } else await this.#changed;
    }
  }
}
