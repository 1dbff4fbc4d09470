/**
 * What the shared fetcher reads is what was committed, each record at the offset where kafkajs' consumer finds it: through
 * transactions that were aborted, every compression, from any offset, by many at once, while the broker goes away and comes
 * back.
 */
import kafkajs, { type Kafka, type Producer } from 'kafkajs';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { type Stack, startStack } from '../../compose/local-stack.ts';
import type { Reading } from '../../src/deliver/fetch/cursor.ts';
import { SharedFetcher } from '../../src/deliver/fetch/shared-fetcher.ts';
import { createKafka } from '../../src/platform/kafka.ts';
import type { FetchedRecord } from '../../src/platform/kafka-fetch/record-set.ts';
import { type Random, random } from '../unit/deliver-random.ts';
import { log, until } from './deliver-harness.ts';

let stack: Stack;
let kafka: Kafka;
beforeAll(async () => {
  stack = await startStack({
    directory: new URL('../../.tidemark/test-stacks/shared-fetcher', import.meta.url).pathname,
    parts: ['kafka'],
  });
  const brokers = stack.environment.TIDEMARK_KAFKA_BROKERS!.split(',');
  kafka = createKafka({ brokers, clientId: 'test', tls: false, sasl: null }, log);
});
afterAll(async () => {
  await stack?.stop();
});

let serial = 0;

async function createTopic(partitions: number, topic = `shared-${process.pid}-${++serial}`): Promise<string> {
  const admin = kafka.admin();
  await admin.connect();
  await admin.createTopics({ topics: [{ topic, numPartitions: partitions }], waitForLeaders: false });
  // The broker hears of it some milliseconds after the controller has answered.
  await until('the topic is there', () =>
    admin.fetchTopicMetadata({ topics: [topic] }).then(
      ({ topics: [found] }) => found?.partitions.every(({ leader }) => leader >= 0) ?? false,
      () => false,
    ),
  );
  await admin.disconnect();
  return topic;
}

const compressions = [
  kafkajs.CompressionTypes.None,
  kafkajs.CompressionTypes.GZIP,
  kafkajs.CompressionTypes.ZSTD,
];

/**
 * Transactions of two producers, some of them aborted, some side by side, and records outside of any.
 * @returns the number of every record that was committed
 */
async function write(
  r: Random,
  topic: string,
  partitions: number,
  transactions: number,
): Promise<Set<string>> {
  const committed = new Set<string>();
  const transactional = await Promise.all(
    ['a', 'b'].map((name) =>
      connected(
        kafka.producer({ transactionalId: `${topic}-${name}`, maxInFlightRequests: 1, idempotent: true }),
      ),
    ),
  );
  const plain = await connected(kafka.producer());
  const batch = () => ({
    topic,
    compression: r.pick(compressions),
    messages: Array.from({ length: 1 + r.integer(40) }, () => ({
      partition: r.integer(partitions),
      key: r.next() < 0.1 ? null : `key ${r.integer(1000)}`,
      value: r.next() < 0.05 ? null : 'v'.repeat(r.next() < 0.01 ? 200_000 : r.integer(300)),
      headers: {
        number: String(++serial),
        ...(r.next() < 0.3 ? { other: 'ö' } : {}),
      },
    })),
  });
  const numbers = ({ messages }: ReturnType<typeof batch>) => messages.map(({ headers }) => headers.number);
  for (let i = 0; i < transactions; i++) {
    if (r.next() < 0.2) {
      const alone = batch();
      await plain.send(alone);
      for (const number of numbers(alone)) committed.add(number);
    }
    const both = await Promise.all(
      transactional.slice(0, 1 + r.integer(2)).map(async (one) => ({
        transaction: await one.transaction(),
        sent: [] as string[],
      })),
    );
    for (let sends = 1 + r.integer(3); sends > 0; sends--)
      for (const { transaction, sent } of both) {
        const next = batch();
        await transaction.send(next);
        sent.push(...numbers(next));
      }
    for (const { transaction, sent } of r.next() < 0.5 ? both : both.reverse()) {
      if (r.next() < 0.35) {
        await transaction.abort();
        continue;
      }
      await transaction.commit();
      for (const number of sent) committed.add(number);
    }
  }
  await Promise.all([...transactional, plain].map((one) => one.disconnect()));
  return committed;
}

async function connected(producer: Producer): Promise<Producer> {
  await producer.connect();
  return producer;
}

interface Seen {
  offset: number;
  key: string | null;
  value: string | null;
  headers: (string | undefined)[];
}

function seen(record: FetchedRecord): Seen {
  const found = new Map<string, string>();
  record.readHeaders({
    header: (name, bytes, start, end) => {
      if (!found.has(name)) found.set(name, bytes.toString('utf8', start, end));
    },
  });
  return {
    offset: record.offset,
    key: record.key?.toString() ?? null,
    value: record.value?.toString() ?? null,
    headers: ['number', 'other', 'none'].map((name) => found.get(name)),
  };
}

/** The slow twin: by partition, all that is there, of which what was committed is kept. */
async function readWithKafkajs(topic: string, committed: ReadonlySet<string>): Promise<Map<number, Seen[]>> {
  const admin = kafka.admin();
  await admin.connect();
  const ends = new Map(
    (await admin.fetchTopicOffsets(topic)).map(({ partition, high }) => [partition, Number(high)]),
  );
  await admin.disconnect();
  const found = new Map<number, Seen[]>([...ends.keys()].map((partition) => [partition, []]));
  const reached = new Map<number, number>();
  const consumer = kafka.consumer({ groupId: `${topic}-twin-${++serial}`, readUncommitted: true });
  await consumer.connect();
  await consumer.subscribe({ topic, fromBeginning: true });
  consumer.on('consumer.start_batch_process', ({ payload }) => {
    reached.set(payload.partition, Number(payload.lastOffset) + 1);
  });
  await consumer.run({
    eachBatch: async ({ batch: { partition, messages } }) => {
      for (const { offset, key, value, headers } of messages) {
        if (!committed.has(String(headers?.number))) continue;
        found.get(partition)!.push({
          offset: Number(offset),
          key: key?.toString() ?? null,
          value: value?.toString() ?? null,
          headers: ['number', 'other', 'none'].map((name) => headers?.[name]?.toString()),
        });
      }
    },
  });
  await until('the twin has read all', () =>
    [...ends].every(([partition, end]) => end === 0 || (reached.get(partition) ?? 0) >= end),
  );
  await consumer.disconnect();
  return found;
}

/** Reads on from where it stopped whenever it stops, and remembers what it took. */
class Follower {
  readonly taken: Seen[] = [];
  readonly displaced: number[] = [];
  reading!: Reading;
  /** Offset behind what was taken. */
  next: number;
  readonly #fetcher: SharedFetcher;
  readonly #topic: string;
  readonly #partition: number;
  readonly #refuses: () => boolean;

  constructor(fetcher: SharedFetcher, topic: string, partition: number, from: number, refuses = () => false) {
    this.#fetcher = fetcher;
    this.#topic = topic;
    this.#partition = partition;
    this.#refuses = refuses;
    this.next = from;
    this.#begin();
  }

  #begin(): void {
    this.reading = this.#fetcher.read(this.#topic, this.#partition, this.next, {
      take: async (records, from, end) => {
        await new Promise((resolve) => setImmediate(resolve));
        if (this.#refuses()) {
          setTimeout(() => this.#begin(), 5);
          return false;
        }
        for (const record of records) if (record.offset >= from) this.taken.push(seen(record));
        this.next = end;
        return true;
      },
      displaced: (expected) => void this.displaced.push(expected),
    });
  }
}

async function endsOf(topic: string): Promise<number[]> {
  const admin = kafka.admin();
  await admin.connect();
  const found = await admin.fetchTopicOffsets(topic);
  await admin.disconnect();
  return found.sort((a, b) => a.partition - b.partition).map(({ high }) => Number(high));
}

test('many read what was committed, from anywhere, refusing and pausing at random', async () => {
  const seed = Number(process.env.FETCH_SEED ?? Math.floor(Math.random() * 2 ** 31));
  const r = random(seed);
  const partitions = 3;
  const topic = await createTopic(partitions);
  const twin = await readWithKafkajs(topic, await write(r, topic, partitions, 60));
  const ends = await endsOf(topic);
  const fetcher = new SharedFetcher(kafka, log);
  const followers = Array.from({ length: 24 }, (_, i) => {
    const partition = i % partitions;
    const from = i < partitions ? 0 : r.integer(ends[partition]!);
    return { partition, from, follower: new Follower(fetcher, topic, partition, from, () => r.next() < 0.2) };
  });
  const pausing = setInterval(() => {
    for (const { follower } of followers) follower.reading.setPaused(r.next() < 0.3);
  }, 7);
  try {
    await until(`all are read (FETCH_SEED=${seed})`, () =>
      followers.every(({ partition, follower }) => follower.next >= ends[partition]!),
    );
  } finally {
    clearInterval(pausing);
    await fetcher.close();
  }
  for (const { partition, from, follower } of followers) {
    const expected = twin.get(partition)!.filter(({ offset }) => offset >= from);
    expect(follower.taken, `FETCH_SEED=${seed}, partition ${partition} from ${from}`).toEqual(expected);
  }
});

test('twenty who read the same partition cost one reading of it', async () => {
  const topic = await createTopic(1);
  const producer = await connected(kafka.producer());
  const value = () => Array.from({ length: 500 }, () => Math.random().toString(36)).join('');
  for (let i = 0; i < 20; i++)
    await producer.send({ topic, messages: Array.from({ length: 50 }, () => ({ value: value() })) });
  const fetcher = new SharedFetcher(kafka, log);
  const followers = Array.from({ length: 20 }, () => new Follower(fetcher, topic, 0, 0));
  await until('all are read', () => followers.every(({ next }) => next === 1000));
  const late = new Follower(fetcher, topic, 0, 990);
  await until('the late one too', () => late.next === 1000);
  const alone = new SharedFetcher(kafka, log);
  const single = new Follower(alone, topic, 0, 0);
  await until('the single one has read all', () => single.next === 1000);
  expect(alone.fetchedBytes).toBeGreaterThan(4_000_000);
  expect(fetcher.fetchedBytes).toBeLessThan(alone.fetchedBytes * 1.3);
  // From then on all stand at the end, and what comes next comes once.
  const before = fetcher.fetchedBytes;
  await producer.send({ topic, messages: [{ value: 'last' }] });
  await until('the last one is there', () =>
    [...followers, late].every(({ taken }) => taken.at(-1)?.value === 'last'),
  );
  expect(fetcher.fetchedBytes - before).toBeLessThan(200);
  await Promise.all([fetcher.close(), alone.close(), producer.disconnect()]);
});

test('the broker goes away and comes back: nothing is missing, nothing twice', async () => {
  const topic = await createTopic(2);
  const r = random(7);
  const committed = await write(r, topic, 2, 10);
  const fetcher = new SharedFetcher(kafka, log);
  const followers = [0, 1].map((partition) => new Follower(fetcher, topic, partition, 0));
  const before = await endsOf(topic);
  await until('the first are read', () => followers.every(({ next }, i) => next >= before[i]!));
  const troubles: (string | null)[] = [];
  fetcher.onTrouble((error) => void troubles.push(error?.code ?? null));
  await stack.stopPart('kafka', { signal: 'SIGKILL' });
  await until('it says so', () => troubles.includes('TM301'));
  await stack.startPart('kafka');
  for (const number of await write(r, topic, 2, 10)) committed.add(number);
  const ends = await endsOf(topic);
  await until('the rest is read', () => followers.every(({ next }, i) => next >= ends[i]!));
  expect(troubles.at(-1)).toBeNull();
  await fetcher.close();
  const twin = await readWithKafkajs(topic, committed);
  for (const [partition, { taken }] of followers.entries()) expect(taken).toEqual(twin.get(partition));
});

test('an offset that the log has lost, or never had, ends the reading and is told', async () => {
  const topic = await createTopic(1);
  const producer = await connected(kafka.producer());
  await producer.send({ topic, messages: Array.from({ length: 20 }, (_, i) => ({ value: `${i}` })) });
  const fetcher = new SharedFetcher(kafka, log);
  const ahead = new Follower(fetcher, topic, 0, 500);
  await until('one is ahead', () => ahead.displaced.length === 1);
  expect(ahead.displaced).toEqual([500]);
  expect(ahead.reading.position).toBeNull();
  const admin = kafka.admin();
  await admin.connect();
  // kafkajs looks for the leader in what it happens to know.
  await admin.fetchTopicOffsets(topic);
  await admin.deleteTopicRecords({ topic, partitions: [{ partition: 0, offset: '10' }] });
  await admin.disconnect();
  const lost = new Follower(fetcher, topic, 0, 3);
  const kept = new Follower(fetcher, topic, 0, 12);
  await until('one is behind', () => lost.displaced.length === 1 && kept.next === 20);
  expect(lost.taken).toEqual([]);
  expect(kept.taken.map(({ value }) => value)).toEqual(['12', '13', '14', '15', '16', '17', '18', '19']);
  await fetcher.close();
  await producer.disconnect();
});

test('a topic that is not there keeps nobody else waiting, and is read once it is', async () => {
  const topic = await createTopic(1);
  const missing = `${topic}-later`;
  const fetcher = new SharedFetcher(kafka, log);
  const late = new Follower(fetcher, missing, 0, 0);
  const other = new Follower(fetcher, topic, 0, 0);
  const producer = await connected(kafka.producer());
  for (let i = 0; i < 20; i++) {
    await producer.send({ topic, messages: [{ value: `${i}` }] });
    const begun = performance.now();
    await until('it comes at once', () => other.next === i + 1);
    expect(performance.now() - begun).toBeLessThan(3000);
  }
  await createTopic(1, missing);
  await producer.send({ topic: missing, messages: [{ value: 'there' }] });
  await until('the late one is read', () => late.taken.length === 1);
  await fetcher.close();
  await producer.disconnect();
});
