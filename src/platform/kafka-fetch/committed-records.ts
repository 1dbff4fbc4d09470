/**
 * The committed records of topics without a consumer group: a group costs rights of its own, and its first member waits
 * for others (three seconds by default).
 */
import { setTimeout as sleep } from 'node:timers/promises';
import type { Kafka } from 'kafkajs';
import { TidemarkError } from '../errors.ts';
import { innermost } from '../kafka.ts';
import { brokerError, KafkaCluster, type TopicPartition } from '../kafka-cluster.ts';
import { partitionName, readBeginnings, readStableEnds } from '../partition-ends.ts';
import { fetchPartitions, type PartitionAnswer } from './fetch-request.ts';
import { type FetchedRecord, readRecordSet } from './record-set.ts';

/** Of an answer, but for a first record that is larger. */
const fetchBytes = 16 << 20;
const maxWaitMs = 20;
const patienceMs = 30_000;
/** Between two looks at the end of a partition, or at a broker that is not ready. */
const pauseMs = 50;

/** What one look at a partition found. */
export interface CommittedBatch {
  /** From the offset that was asked for on; none where only markers or aborted ones are there. */
  records: Iterable<FetchedRecord>;
  /** Where to go on. */
  end: number;
}

export class CommittedReader {
  readonly #cluster: KafkaCluster;
  #closed = false;

  /** Connects when it is first asked for something. @param over connections of its own, or those that are there */
  constructor(over: Kafka | KafkaCluster) {
    this.#cluster = over instanceof KafkaCluster ? over : new KafkaCluster(over);
  }

  /**
   * From the beginning to where the topic ends now, partition by partition, each in order.
   * @throws kafkajs' error; TidemarkError TM301, see `readAt`
   */
  async *read(topic: string): AsyncIterable<Iterable<FetchedRecord>> {
    for (const place of await this.#cluster.partitionsOf(new Set([topic]))) {
      const beginnings = await readBeginnings(this.#cluster, [place]);
      for (let next = Number(beginnings.get(partitionName(place))); ; ) {
        const found = await this.readAt(place, next);
        if (!found) break;
        yield found.records;
        next = found.end;
      }
    }
  }

  /**
   * What stands at an offset and behind it, as much as one answer holds; null where the partition ends there. A record
   * of any size comes whole.
   * @param maxBytes of the answer, as it comes
   * @throws kafkajs' error, also for an offset that the log does not have any more; TidemarkError TM301 where a
   *   transaction that began before the end stays open, or for records that cannot be read
   */
  async readAt(place: TopicPartition, offset: number, maxBytes = fetchBytes): Promise<CommittedBatch | null> {
    const where = partitionName(place);
    for (const deadline = Date.now() + patienceMs; ; await sleep(20)) {
      const { recordSet, aborted, end: logEnd } = await this.#fetch(place, offset, maxBytes);
      const { records, end } = await readRecordSet(recordSet, offset, aborted, where);
      if (end !== null) return { records, end };
      if (offset >= logEnd && (await this.#endsAt(place, offset))) return null;
      if (Date.now() > deadline)
        throw new TidemarkError('TM301', `${where} has a transaction that stays open before its end`);
    }
  }

  /**
   * What stands from an offset up to another, or without one also what comes later, for as long as it is taken. A broker
   * that goes away, a leader that moves or is not ready yet is waited for.
   * @throws kafkajs' error of what no waiting mends, or after half a minute of it; otherwise as `readAt`
   */
  async *follow(place: TopicPartition, from: number, to = Infinity): AsyncGenerator<FetchedRecord, void> {
    let deadline = Date.now() + patienceMs;
    for (let next = from; next < to; ) {
      let found: CommittedBatch | null = null;
      try {
        found = await this.readAt(place, next);
        deadline = Date.now() + patienceMs;
      } catch (error) {
        if (this.#closed || !passes(error) || Date.now() > deadline) throw error;
        await this.#cluster.findLeaders([place]).catch(() => {});
      }
      if (found) {
        for (const record of found.records) if (record.offset < to) yield record;
        next = found.end;
      } else {
        await sleep(pauseMs);
        if (this.#closed) throw new TidemarkError('TM301', 'the reader was closed');
      }
    }
  }

  /** A new leader may know of less than there is for a moment, and says so when it is asked for the end. */
  async #endsAt(place: TopicPartition, offset: number): Promise<boolean> {
    const ends = await this.ends([place]);
    return offset >= Number(ends.get(partitionName(place)));
  }

  async #fetch(place: TopicPartition, offset: number, maxBytes: number): Promise<PartitionAnswer> {
    const [leader] = await this.#cluster.leaders([place]);
    const limits = { maxWaitMs, maxBytes, partitionBytes: maxBytes };
    const { errorCode, partitions } = await fetchPartitions(leader!, [{ ...place, offset }], limits);
    const code = errorCode || partitions[0]!.errorCode;
    if (code !== 0) throw brokerError(code);
    return partitions[0]!;
  }

  /**
   * Up to where whoever reads committed sees each partition: the first offset of the oldest open transaction, or the end.
   * @returns by `topic/partition`
   * @throws kafkajs' error
   */
  ends(partitions: readonly TopicPartition[]): Promise<Map<string, bigint>> {
    return readStableEnds(this.#cluster, partitions);
  }

  /** First offset of a partition, and where it ends for whoever reads committed. @throws kafkajs' error */
  async boundsOf(place: TopicPartition): Promise<{ beginning: number; end: number }> {
    const name = partitionName(place);
    const beginnings = await readBeginnings(this.#cluster, [place]);
    const ends = await this.ends([place]);
    return { beginning: Number(beginnings.get(name)), end: Number(ends.get(name)) };
  }

  close(): Promise<void> {
    this.#closed = true;
    return this.#cluster.close();
  }
}

/** Whether asking again may help: kafkajs says so of the broker's answer, not of the count of its own attempts. */
function passes(error: unknown): boolean {
  return error instanceof Error && (innermost(error) as { retriable?: unknown }).retriable === true;
}
