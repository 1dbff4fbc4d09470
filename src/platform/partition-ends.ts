/** Where partitions end, to those who read committed and to those who read all, and what stands at an offset. */
import type { KafkaCluster, StoredRecord, TopicPartition } from './kafka-cluster.ts';

export interface PartitionEnds {
  /** Last stable offset: the first record of the oldest transaction that is not decided there, or else the end. */
  stable: bigint;
  /** High watermark: behind the last record or marker. */
  high: bigint;
}

const readAll = 0;
const readCommitted = 1;
const latest = '-1';
const earliest = '-2';
/** A record of any size comes whole; of several only the first may be larger. */
const fetchBytes = 1 << 20;

export function partitionName({ topic, partition }: TopicPartition): string {
  return `${topic}/${partition}`;
}

/**
 * @returns by `topic/partition`; without those of topics that do not exist
 * @throws kafkajs' error; TidemarkError TM301 where a partition has no leader
 */
export async function readEnds(
  cluster: KafkaCluster,
  partitions: readonly TopicPartition[],
): Promise<Map<string, PartitionEnds>> {
  // In this order: what ends in between is seen as open, and looked at again.
  const stable = await readOffsets(cluster, partitions, readCommitted, latest);
  const high = await readOffsets(cluster, partitions, readAll, latest);
  const ends = new Map<string, PartitionEnds>();
  for (const [name, offset] of high) ends.set(name, { stable: stable.get(name) ?? 0n, high: offset });
  return ends;
}

/** Last stable offsets by `topic/partition`, as readEnds. */
export function readStableEnds(
  cluster: KafkaCluster,
  partitions: readonly TopicPartition[],
): Promise<Map<string, bigint>> {
  return readOffsets(cluster, partitions, readCommitted, latest);
}

/** First offsets by `topic/partition`, as readEnds. */
export function readBeginnings(
  cluster: KafkaCluster,
  partitions: readonly TopicPartition[],
): Promise<Map<string, bigint>> {
  return readOffsets(cluster, partitions, readAll, earliest);
}

async function readOffsets(
  cluster: KafkaCluster,
  partitions: readonly TopicPartition[],
  isolationLevel: number,
  timestamp: string,
): Promise<Map<string, bigint>> {
  const leaders = await cluster.brokersOf(partitions);
  const answers = await Promise.all(
    [...leaders].map(([broker, list]) =>
      broker.listOffsets({
        replicaId: -1,
        isolationLevel,
        topics: [...Map.groupBy(list, ({ topic }) => topic)].map(([topic, some]) => ({
          topic,
          partitions: some.map(({ partition }) => ({ partition, timestamp })),
        })),
      }),
    ),
  );
  const offsets = new Map<string, bigint>();
  for (const { responses } of answers) {
    for (const { topic, partitions: list } of responses)
      for (const { partition, offset } of list)
        offsets.set(partitionName({ topic, partition }), BigInt(offset));
  }
  return offsets;
}

/** All records from an offset on, as many as come at once: also what is open or was aborted, and the markers. */
export async function fetchStored(
  cluster: KafkaCluster,
  place: TopicPartition,
  from: bigint,
): Promise<StoredRecord[]> {
  const { topic, partition } = place;
  const [[broker] = []] = await cluster.brokersOf([place]);
  const { responses } = await broker!.fetch({
    replicaId: -1,
    isolationLevel: readAll,
    maxWaitTime: 20,
    minBytes: 1,
    maxBytes: fetchBytes,
    topics: [{ topic, partitions: [{ partition, fetchOffset: String(from), maxBytes: fetchBytes }] }],
  });
  return responses[0]!.partitions[0]!.messages.filter(({ offset }) => BigInt(offset) >= from);
}
