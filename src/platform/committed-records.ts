/**
 * The committed records of topics, from their beginning to where they end now, without a consumer group: a group costs
 * rights of its own, and its first member waits for others (three seconds by default). kafkajs has the requests but no
 * public way to them: they are reached by name, as in kafka-cluster.ts.
 */
import { createRequire } from 'node:module';
import { setTimeout as sleep } from 'node:timers/promises';
import type { Kafka } from 'kafkajs';
import { TidemarkError } from './errors.ts';
import { createCluster } from './kafka-cluster.ts';

const require = createRequire(import.meta.url);
/** Leaves out what was aborted, and the markers. */
const Batch = require('kafkajs/src/consumer/batch') as new (
  topic: string,
  fetchedOffset: string,
  partition: FetchedPartition,
) => { messages: CommittedRecord[]; rawMessages: unknown[]; lastOffset(): string };

export interface CommittedRecord {
  offset: string;
  key: Buffer | null;
  value: Buffer | null;
  headers: Record<string, Buffer>;
}

export interface TopicPartition {
  topic: string;
  partition: number;
}

interface FetchedPartition {
  partition: number;
  highWatermark: string;
  messages: unknown[];
}

interface Broker {
  fetch(request: object): Promise<{ responses: { partitions: FetchedPartition[] }[] }>;
}

interface Cluster {
  connect(): Promise<void>;
  disconnect(): Promise<void>;
  addMultipleTargetTopics(topics: string[]): Promise<void>;
  findTopicPartitionMetadata(topic: string): { partitionId: number; leader: number }[];
  findBroker(which: { nodeId: number }): Promise<Broker>;
  fetchTopicsOffset(
    topics: { topic: string; partitions: { partition: number }[]; fromBeginning: boolean }[],
  ): Promise<{ topic: string; partitions: { partition: number; offset: string }[] }[]>;
}

const readCommitted = 1;
/** A record of any size comes whole; of several only the first may be larger. */
const fetchBytes = 16 << 20;
const patienceMs = 30_000;

export class CommittedReader {
  readonly #cluster: Cluster;

  private constructor(cluster: Cluster) {
    this.#cluster = cluster;
  }

  /** @throws kafkajs' error */
  static async open(kafka: Kafka): Promise<CommittedReader> {
    const cluster = createCluster<Cluster>(kafka, {
      metadataMaxAge: 300_000,
      allowAutoTopicCreation: false,
      isolationLevel: readCommitted,
    });
    await cluster.connect();
    return new CommittedReader(cluster);
  }

  /**
   * Partition by partition, each in order.
   * @throws kafkajs' error; TidemarkError TM301 where a transaction that began before the end stays open
   */
  async *read(topic: string): AsyncIterable<CommittedRecord[]> {
    await this.#cluster.addMultipleTargetTopics([topic]);
    for (const { partitionId, leader } of this.#cluster.findTopicPartitionMetadata(topic)) {
      const broker = await this.#cluster.findBroker({ nodeId: leader });
      yield* this.#readPartition(broker, topic, partitionId);
    }
  }

  async *#readPartition(broker: Broker, topic: string, partition: number): AsyncIterable<CommittedRecord[]> {
    let next = await this.#firstOffset(topic, partition);
    for (let deadline = Date.now() + patienceMs; ; ) {
      const request = { partition, fetchOffset: String(next), maxBytes: fetchBytes };
      const { responses } = await broker.fetch({
        replicaId: -1,
        isolationLevel: readCommitted,
        maxWaitTime: 20,
        minBytes: 1,
        maxBytes: fetchBytes,
        topics: [{ topic, partitions: [request] }],
      });
      const answer = responses[0]!.partitions[0]!;
      if (next >= BigInt(answer.highWatermark)) return;
      const batch = new Batch(topic, String(next), answer);
      if (batch.rawMessages.length > 0) {
        if (batch.messages.length > 0) yield batch.messages;
        next = BigInt(batch.lastOffset()) + 1n;
        deadline = Date.now() + patienceMs;
      } else if (Date.now() > deadline) {
        throw new TidemarkError('TM301', `${topic} has a transaction that stays open before its end`);
      } else await sleep(20);
    }
  }

  async #firstOffset(topic: string, partition: number): Promise<bigint> {
    const [found] = await this.#cluster.fetchTopicsOffset([
      { topic, partitions: [{ partition }], fromBeginning: true },
    ]);
    return BigInt(found!.partitions[0]!.offset);
  }

  /**
   * Up to where whoever reads committed sees each partition: the first offset of the oldest open transaction, or the end.
   * @throws kafkajs' error
   */
  async ends(partitions: readonly TopicPartition[]): Promise<(TopicPartition & { offset: bigint })[]> {
    const topics = [...Map.groupBy(partitions, ({ topic }) => topic)].map(([topic, list]) => ({
      topic,
      partitions: list.map(({ partition }) => ({ partition })),
      fromBeginning: false,
    }));
    await this.#cluster.addMultipleTargetTopics(topics.map(({ topic }) => topic));
    const found = await this.#cluster.fetchTopicsOffset(topics);
    return found.flatMap(({ topic, partitions: list }) =>
      list.map(({ partition, offset }) => ({ topic, partition, offset: BigInt(offset) })),
    );
  }

  close(): Promise<void> {
    return this.#cluster.disconnect();
  }
}
