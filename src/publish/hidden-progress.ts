/** Progress that stands in a transaction that is not decided in the progress topic, and what became of that transaction. */

import type { KafkaCluster, StoredRecord, TopicPartition } from '../platform/kafka-cluster.ts';
import { fetchStored, type PartitionEnds, partitionName, readEnds } from '../platform/partition-ends.ts';
import { decodeProgress, type Progress } from './progress.ts';
import type { Traces } from './settlement-rules.ts';

/** Second field of a marker's key. */
const markerCommit = 1;

export interface HiddenProgress {
  progress: Progress;
  producerId: string;
}

/** Without fences: they claim nothing. */
export async function readHidden(
  cluster: KafkaCluster,
  place: TopicPartition,
  { stable, high }: PartitionEnds,
): Promise<HiddenProgress[]> {
  const hidden: HiddenProgress[] = [];
  for (let next = stable; next < high; ) {
    const records = await fetchStored(cluster, place, next);
    for (const { isControlRecord, value, batchContext } of records) {
      if (isControlRecord || !value) continue;
      const progress = decodeProgress(value);
      if (progress.kind !== 'fence') hidden.push({ progress, producerId: batchContext.producerId });
    }
    const last = records.at(-1);
    if (!last) break;
    next = BigInt(last.offset) + 1n;
  }
  return hidden;
}

/**
 * What the partitions tell that a transaction wrote to: those whose end its Progress has beyond the one before.
 * @throws kafkajs' error
 */
export async function readTraces(
  cluster: KafkaCluster,
  { progress, producerId }: HiddenProgress,
  before: Progress | null,
): Promise<Traces> {
  const exist = new Set(
    (await cluster.partitionsOf(new Set(Object.keys(progress.endOffsets)))).map(partitionName),
  );
  const written = Object.entries(progress.endOffsets).flatMap(([topic, offsets]) =>
    offsets
      .map((end, partition) => ({ topic, partition, end }))
      .filter(({ partition, end }) => end > (before?.endOffsets[topic]?.[partition] ?? 0n)),
  );
  const there = written.filter((place) => exist.has(partitionName(place)));
  const ends = await readEnds(cluster, there);
  const traces: Traces = { commits: 0, aborts: 0, short: written.length - there.length };
  for (const place of there) {
    const { high } = ends.get(partitionName(place))!;
    if (high < place.end) traces.short++;
    if (high <= place.end) continue;
    const marker = markerAt((await fetchStored(cluster, place, place.end))[0], place.end, producerId);
    if (marker === 'commit') traces.commits++;
    if (marker === 'abort') traces.aborts++;
  }
  return traces;
}

function markerAt(
  record: StoredRecord | undefined,
  offset: bigint,
  producerId: string,
): 'commit' | 'abort' | null {
  if (!record?.isControlRecord || BigInt(record.offset) !== offset) return null;
  if (record.batchContext.producerId !== producerId) return null;
  return record.key?.readInt16BE(2) === markerCommit ? 'commit' : 'abort';
}
