/**
 * From the commit (as the client that wrote it saw it) to a consumer that reads committed, at 1,000 one-row transactions
 * a second, beside Debezium with a poll of 10 ms: each alone on the machine, in turns.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import kafkajs, { type KafkaMessage } from 'kafkajs';
import pg from 'pg';
import { ByteReader } from '../../src/publish/byte-writer.ts';
import { type BenchDatabase, BenchStack, leave, publicationOf, say, sourceIdOf } from './bench-stack.ts';
import { startDebezium } from './debezium-source.ts';
import { median, percentile } from './process-cost.ts';
import { takesPart } from './race-table.ts';
import { introduceReader, ReaderProcess } from './reader-process.ts';
import type { BenchResult } from './run.ts';

const rowsPerSecond = 1000;
const writers = 8;
const seconds = Number(process.env.BENCH_SECONDS ?? 20);
/** Before anything is counted: code gets compiled, connections open. */
const warmSeconds = 5;
const rounds = Number(process.env.BENCH_ROUNDS ?? 5);
const table = 'app.ticks';

const titles = {
  ours: 'Tidemark, Kafka transactions',
  peer: 'Debezium 3.6.3, poll.interval.ms 10',
} as const;
type Contender = keyof typeof titles;

interface Latencies {
  p50: number;
  p99: number;
  rows: number;
}

export async function latency(): Promise<BenchResult> {
  const measured: Record<Contender, Latencies[]> = { ours: [], peer: [] };
  await BenchStack.with('latency', async (stack) => {
    for (let round = 1; round <= rounds; round++) {
      const order: Contender[] = round % 2 === 0 ? ['ours', 'peer'] : ['peer', 'ours'];
      for (const contender of order) {
        if (!takesPart(contender)) continue;
        const one = await measure(stack, contender);
        measured[contender].push(one);
        say(
          `round ${round}: ${titles[contender]}: p50 ${one.p50.toFixed(1)} ms, p99 ${one.p99.toFixed(1)} ms`,
        );
      }
    }
  });
  return {
    name: 'latency',
    rows: (Object.keys(titles) as Contender[])
      .filter((one) => measured[one].length > 0)
      .map((contender) => ({
        what: titles[contender],
        'p50 ms': Number(median(measured[contender].map(({ p50 }) => p50)).toFixed(1)),
        'p99 ms': Number(median(measured[contender].map(({ p99 }) => p99)).toFixed(1)),
        'rows/s': Math.round(median(measured[contender].map(({ rows }) => rows)) / seconds),
      })),
    bar: 'p99 ms',
    note: `commit to readable (read_committed), ${writers} writers, ${rounds} rounds of ${seconds} s; medians of rounds`,
  };
}

async function measure(stack: BenchStack, contender: Contender): Promise<Latencies> {
  const database = await stack.database();
  const { client, name } = database;
  await client.query('create schema app');
  await client.query(
    `create table ${table} (id bigint primary key, title text, score float8, at timestamptz)`,
  );
  const config = await stack.config(database);
  await introduceReader(config, client);
  const prefix = contender === 'ours' ? sourceIdOf(name) : `peer-${name}`;
  const topic = `${prefix}.${table}`;
  const stop = await (contender === 'ours' ? startOurs(config) : startPeer(stack, database, prefix));
  const kafka = new kafkajs.Kafka({
    brokers: [stack.brokers],
    clientId: 'bench',
    logLevel: kafkajs.logLevel.NOTHING,
  });
  try {
    const committedAt = new Map<number, number>();
    const latencies: number[] = [];
    const consumer = await consume(kafka, topic, ({ key }) => {
      const readableAt = performance.now();
      // The key's only field; ours comes after the registry's five bytes, the peer's converter has its id in a header.
      const id = new ByteReader(key!, contender === 'ours' ? 5 : 0).long();
      const at = committedAt.get(id);
      if (at !== undefined) latencies.push(Math.max(0, readableAt - at));
    });
    await write(database.url, committedAt);
    await sleep(2000);
    await consumer.disconnect();
    return { p50: percentile(latencies, 0.5), p99: percentile(latencies, 0.99), rows: latencies.length };
  } finally {
    await stop();
    await leave(database);
  }
}

async function startOurs(config: string): Promise<() => Promise<void>> {
  const reader = await ReaderProcess.start(config);
  return () => reader.stop();
}

async function startPeer(
  stack: BenchStack,
  database: BenchDatabase,
  prefix: string,
): Promise<() => Promise<void>> {
  const slot = `${database.name}_peer`;
  await database.client.query(`select pg_create_logical_replication_slot($1, 'pgoutput')`, [slot]);
  const { connect } = await startDebezium({
    directory: `${database.folder}/connect`,
    brokers: [stack.brokers],
    registryUrl: stack.registryUrl,
    sourceUrl: database.url,
    prefix,
    slot,
    publication: publicationOf(database.name),
    table,
  });
  return () => connect.stop();
}

async function consume(kafka: kafkajs.Kafka, topic: string, take: (message: KafkaMessage) => void) {
  const consumer = kafka.consumer({ groupId: `${topic}-latency`, maxWaitTimeInMs: 500, minBytes: 1 });
  await consumer.connect();
  await consumer.subscribe({ topic, fromBeginning: true });
  const joined = new Promise((resolve) => consumer.on('consumer.group_join', resolve));
  await consumer.run({
    autoCommit: false,
    partitionsConsumedConcurrently: 4,
    eachBatch: async ({ batch }) => {
      for (const message of batch.messages) take(message);
    },
  });
  await joined;
  return consumer;
}

/** At an even pace; each row's own time is when its commit had returned. */
async function write(url: string, committedAt: Map<number, number>): Promise<void> {
  const startedAt = performance.now();
  const total = rowsPerSecond * (warmSeconds + seconds);
  let next = 0;
  await Promise.all(
    Array.from({ length: writers }, async () => {
      const client = new pg.Client(url);
      await client.connect();
      for (;;) {
        const id = next++;
        if (id >= total) break;
        const wait = startedAt + (id / rowsPerSecond) * 1000 - performance.now();
        if (wait > 1) await sleep(wait);
        await client.query({
          name: 'tick',
          text: `insert into ${table} values ($1, 'a row at an even pace', 1.5, now())`,
          values: [id],
        });
        if (id >= warmSeconds * rowsPerSecond) committedAt.set(id, performance.now());
      }
      await client.end();
    }),
  );
}
