/** The peer: Debezium's Postgres source in a standalone worker of Kafka Connect, writing Avro over the same backlog. */
import { setTimeout as sleep } from 'node:timers/promises';
import { Kafka, logLevel } from 'kafkajs';
import { type ConnectPlugin, KafkaConnect } from '../fixtures/kafka-connect.ts';
import { cpuMicros, peakMemoryMiB } from './process-cost.ts';

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

export interface PeerResult {
  rowsPerSecond: number;
  cpuMicrosPerRow: number;
  peakMiB: number;
}

/**
 * Reads a slot that holds the backlog. Of 20 to 90 per cent of it: the start of a JVM and the wait for the last poll are
 * not what is compared. Settings are the fastest of those that were tried: a large queue and batches, a short poll,
 * no compression, no pauses for completeness of a producer's batch.
 */
export async function readWithDebezium(options: DebeziumCase): Promise<PeerResult> {
  const { directory, brokers, registryUrl, prefix, rows, table } = options;
  const topic = `${prefix}.${table}`;
  const kafka = new Kafka({ brokers, clientId: 'bench', logLevel: logLevel.NOTHING });
  const admin = kafka.admin();
  await admin.connect();
  await admin.createTopics({ topics: [{ topic, numPartitions: 4, replicationFactor: 1 }] });
  const connect = await KafkaConnect.start({
    directory,
    brokers,
    registryUrl,
    connectors: { peer: connectorOf(options) },
    plugins: [plugin],
  });
  try {
    await connect.running();
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

function connectorOf({ sourceUrl, prefix, slot, publication, table }: DebeziumCase): Record<string, string> {
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
