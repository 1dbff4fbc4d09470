/**
 * Kafka loses a transaction's markers in some partitions (lost-markers.ts). The reader's next life decides as the
 * coordinator did: nothing is lost or twice, and every partition ends where consumers see it end.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import type { Kafka } from 'kafkajs';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { sinkKinds } from '../../connectors/sinks/registry.ts';
import { loadConfig } from '../../src/platform/config.ts';
import { createKafka } from '../../src/platform/kafka.ts';
import { KafkaCluster } from '../../src/platform/kafka-cluster.ts';
import { createLogger } from '../../src/platform/log.ts';
import { readEnds } from '../../src/platform/partition-ends.ts';
import { type Reader, startReader } from '../../src/publish/reader.ts';
import { type LostMarkerFault, LostMarkers } from '../fixtures/lost-markers.ts';
import { FaultStack, type Pipeline, until } from '../fixtures/pipeline.ts';
import type { LogLine } from '../fixtures/tidemark-process.ts';

let faults: FaultStack;
let kafka: Kafka;
let markers: LostMarkers;
beforeAll(async () => {
  faults = await FaultStack.start('settled');
  const brokers = faults.stack.environment.TIDEMARK_KAFKA_BROKERS!.split(',');
  kafka = createKafka({ brokers, clientId: 'test', tls: false, sasl: null }, { debug() {} });
  markers = await LostMarkers.install(kafka);
});
afterAll(async () => {
  markers?.remove();
  await faults?.stop();
});

class LocalReader {
  readonly lines: LogLine[] = [];
  #reader!: Reader;

  static async start(pipeline: Pipeline): Promise<LocalReader> {
    const local = new LocalReader();
    const env = { ...process.env, ...pipeline.environment };
    const config = await loadConfig(pipeline.configFile, sinkKinds, env);
    const log = createLogger({
      level: 'debug',
      write: (line) => local.lines.push(JSON.parse(line) as LogLine),
    });
    local.#reader = startReader({ config, log });
    await local.logged(({ message }) => message === 'reading the slot');
    return local;
  }

  async logged(test: (line: LogLine) => boolean): Promise<LogLine> {
    await until('the reader logs it', 60_000, () => this.lines.some(test)).catch((error: Error) => {
      const tail = this.lines.slice(-12).map((line) => JSON.stringify(line));
      throw new Error([error.message, ...tail].join('\n'));
    });
    return this.lines.find(test)!;
  }

  decided(): unknown[] {
    return this.lines
      .filter(({ message }) => message.startsWith('an earlier transaction was open'))
      .map(({ decision, partitions }) => ({ decision, partitions }));
  }

  async stop(): Promise<void> {
    await this.#reader.stop();
  }
}

/** Of every topic of the pipeline, with open transactions. */
async function openPartitions({ prefix }: Pipeline): Promise<string[]> {
  const admin = kafka.admin();
  const cluster = new KafkaCluster(kafka);
  try {
    await admin.connect();
    const topics = (await admin.listTopics()).filter((topic) => topic.startsWith(`${prefix}.`));
    const ends = await readEnds(cluster, await cluster.partitionsOf(new Set(topics)));
    return [...ends].filter(([, { stable, high }]) => stable !== high).map(([name]) => name);
  } finally {
    await cluster.close();
    await admin.disconnect();
  }
}

const touchFindings = `update app.findings set status = status`;

/** A reader that streams, with rows in the source. */
async function begin(pipeline: Pipeline): Promise<LocalReader> {
  const reader = await LocalReader.start(pipeline);
  await pipeline.begun();
  await pipeline.published();
  return reader;
}

async function conclude(pipeline: Pipeline, reader: LocalReader): Promise<void> {
  await pipeline.source.query(touchFindings);
  await pipeline.published();
  await reader.stop();
  expect(reader.lines.filter(({ code }) => code === 'TM901')).toEqual([]);
  await pipeline.checkStream();
  expect(await openPartitions(pipeline)).toEqual([]);
}

const ofFindings = (topic: string) => topic.endsWith('.app.findings');
/** Whichever partition comes first: they are few tenants. */
const inFindings: LostMarkerFault['loses'] = (topic, partition, lost) =>
  ofFindings(topic) && (lost.length === 0 || lost.includes(`${topic}/${partition}`));
const inProgress: LostMarkerFault['loses'] = (topic) => topic.endsWith('.progress');
const anywhere: LostMarkerFault['loses'] = () => true;

test.each([
  { what: 'committed, hidden in a table', loses: inFindings, aborted: false, decision: 'commit' },
  { what: 'aborted, open in a table', loses: inFindings, aborted: true, decision: 'abort' },
  { what: 'committed, its Progress hidden', loses: inProgress, aborted: false, decision: 'commit' },
  { what: 'aborted, its Progress open', loses: inProgress, aborted: true, decision: 'abort' },
  // The slot was confirmed: what is aborted now would be lost.
  { what: 'committed, hidden everywhere', loses: anywhere, aborted: false, decision: 'commit' },
  // Nobody can tell it from one that was committed, and nobody has to.
  { what: 'aborted, open everywhere', loses: anywhere, aborted: true, decision: 'commit' },
])('$what', ({ what, loses, aborted, decision }) =>
  faults.run(what.replace(/\W+/g, '-').toLowerCase(), { destinations: [] }, async (pipeline) => {
    const reader = await begin(pipeline);
    markers.next({ of: ofFindings, loses, aborted });
    await pipeline.source.query(touchFindings);
    await reader.logged(({ message }) => message.startsWith('an earlier transaction was open'));
    await conclude(pipeline, reader);
    const settled = reader.decided() as { decision: string; partitions: string[] }[];
    expect(settled.map((one) => one.decision)).toEqual(settled.map(() => decision));
    expect(settled.flatMap((one) => one.partitions).toSorted()).toEqual(markers.lost.toSorted());
  }),
);

test('with the portable producer', () =>
  faults.run(
    'settled-kafkajs',
    { destinations: [], config: { 'kafka.producer': 'kafkajs' } },
    async (pipeline) => {
      const reader = await begin(pipeline);
      markers.next({ of: ofFindings, loses: inFindings, aborted: false });
      await pipeline.source.query(touchFindings);
      await reader.logged(({ message }) => message.startsWith('an earlier transaction was open'));
      await conclude(pipeline, reader);
      expect(reader.decided()).toEqual([{ decision: 'commit', partitions: markers.lost }]);
    },
  ));

test('a transaction of another producer is reported, and waited for', () =>
  faults.run('settled-foreign', { destinations: [] }, async (pipeline) => {
    const first = await begin(pipeline);
    await first.stop();
    const producer = kafka.producer({ transactionalId: 'foreign', idempotent: true, maxInFlightRequests: 1 });
    await producer.connect();
    const transaction = await producer.transaction();
    await transaction.send({
      topic: `${pipeline.prefix}.app.findings`,
      messages: [{ value: 'x', partition: 1 }],
    });
    const starting = LocalReader.start(pipeline);
    await sleep(8000);
    const { source } = await pipeline.status();
    expect(source.problem).toMatchObject({ code: 'TM309' });
    expect(source.problem?.remedy).toContain('describe-producers --topic');
    await transaction.abort();
    await producer.disconnect();
    await conclude(pipeline, await starting);
  }));
