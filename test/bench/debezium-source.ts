/** The peer: Debezium's Postgres source in a standalone worker of Kafka Connect, writing Avro over the same backlog. */
import { setTimeout as sleep } from 'node:timers/promises';
import { type Admin, Kafka, logLevel } from 'kafkajs';
import { type ConnectPlugin, KafkaConnect } from '../fixtures/kafka-connect.ts';
import { cpuMicros, peakMemoryMiB } from './process-cost.ts';
import type { Measured } from './race-table.ts';

const plugin: ConnectPlugin = {
  name: 'debezium-postgres',
  pom: new URL('debezium/pom.xml', import.meta.url).pathname,
  announcement: 'Debezium Postgres source 3.6.3 from Maven Central (5 MiB)',
};

export interface DebeziumCase {
  directory: string;
  brokers: string[];
  registryUrl: string;
  sourceUrl: string;
  prefix: string;
  slot: string;
  publication: string;
  /** `schema.table` */
  table: string;
  rows: number;
}

/**
 * Reads a slot that holds the backlog. Of 20 to 90 per cent of it: the start of a JVM and the wait for the last poll are
 * not what is compared. Settings are the fastest of those that were tried: a large queue and batches, a short poll,
 * no compression, no pauses for completeness of a producer's batch.
 */
export async function readWithDebezium(
  options: DebeziumCase,
  overrides: Record<string, string> = {},
): Promise<Measured> {
  const { rows } = options;
  const { connect, admin, topic } = await startDebezium(options, overrides);
  try {
    const published = async () => {
      const ends = await admin.fetchTopicOffsets(topic);
      return ends.reduce((sum, { high }) => sum + Number(high), 0);
    };
    const reach = async (share: number) => {
      for (let last = Date.now(), before = -1; ; ) {
        const count = await published();
        const at = performance.now();
        if (count >= rows * share) return { count, at, cpu: await cpuMicros(connect.pid) };
        if (count > before) last = Date.now();
        before = count;
        if (Date.now() - last > 120_000)
          throw new Error(`Debezium stands still at ${count}: ${await connect.tail()}`);
        await connect.check();
        await sleep(20);
      }
    };
    const from = await reach(0.2);
    const to = await reach(0.9);
    const read = to.count - from.count;
    return {
      rowsPerSecond: (read * 1000) / (to.at - from.at),
      cpuMicrosPerRow: (to.cpu - from.cpu) / read,
      peakMiB: await peakMemoryMiB(connect.pid),
    };
  } finally {
    await connect.stop();
    await admin.disconnect();
  }
}

/** Resolves once the connector runs. @param overrides of its settings */
export async function startDebezium(
  options: Omit<DebeziumCase, 'rows'>,
  overrides: Record<string, string> = {},
): Promise<{ connect: KafkaConnect; admin: Admin; topic: string }> {
  const { directory, brokers, registryUrl, prefix, table } = options;
  const topic = `${prefix}.${table}`;
  const kafka = new Kafka({ brokers, clientId: 'bench', logLevel: logLevel.NOTHING });
  const admin = kafka.admin();
  await admin.connect();
  await admin.createTopics({ topics: [{ topic, numPartitions: 4, replicationFactor: 1 }] });
  const connect = await KafkaConnect.start({
    directory,
    brokers,
    registryUrl,
    connectors: { peer: { ...connectorOf(options), ...overrides } },
    plugins: [plugin],
  });
  await connect.running();
  return { connect, admin, topic };
}

function connectorOf({
  sourceUrl,
  prefix,
  slot,
  publication,
  table,
}: Omit<DebeziumCase, 'rows'>): Record<string, string> {
  const url = new URL(sourceUrl);
  return {
    'connector.class': 'io.debezium.connector.postgresql.PostgresConnector',
    'tasks.max': '1',
    'topic.prefix': prefix,
    'database.hostname': url.hostname,
    'database.port': url.port,
    'database.user': url.username,
    'database.password': decodeURIComponent(url.password),
    'database.dbname': url.pathname.slice(1),
    'plugin.name': 'pgoutput',
    'slot.name': slot,
    'publication.name': publication,
    'publication.autocreate.mode': 'disabled',
    'table.include.list': table,
    'snapshot.mode': 'no_data',
    'poll.interval.ms': '10',
    'max.batch.size': '8192',
    'max.queue.size': '32768',
    'producer.override.acks': 'all',
    'producer.override.batch.size': '262144',
    'producer.override.linger.ms': '5',
  };
}
