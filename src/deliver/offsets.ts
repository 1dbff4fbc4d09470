/** Kafka offsets per topic and partition, as Progress and the ledger carry them. */
import { TidemarkError } from '../platform/errors.ts';

/**
 * Topic to offset per partition: end offsets are last data record + 1. A topic or partition that is absent starts
 * at 0. Plain numbers: Kafka's offsets are far below 2^53, and `fromProgress` refuses one that is not.
 */
export type Offsets = Readonly<Record<string, readonly number[]>>;

/** @throws TidemarkError TM206 for an offset beyond 2^53. */
export function fromProgress(endOffsets: Record<string, bigint[]>): Offsets {
  const result: Record<string, number[]> = {};
  for (const [topic, ends] of Object.entries(endOffsets)) {
    result[topic] = ends.map((end) => {
      const offset = Number(end);
      if (!Number.isSafeInteger(offset))
        throw new TidemarkError('TM206', `an end offset of ${topic} is too large`);
      return offset;
    });
  }
  return result;
}

/** Only the given topics; those that `offsets` lacks stay absent. */
export function pickTopics(offsets: Offsets, topics: readonly string[]): Offsets {
  const result: Record<string, readonly number[]> = {};
  for (const topic of topics) {
    const ends = offsets[topic];
    if (ends) result[topic] = ends;
  }
  return result;
}

/** Number of records (offsets, so null records and markers count too) from `start` to `end` over the topics. */
export function recordsBetween(start: Offsets, end: Offsets, topics: readonly string[]): number {
  let records = 0;
  for (const topic of topics) {
    const ends = end[topic];
    if (!ends) continue;
    const starts = start[topic];
    for (let partition = 0; partition < ends.length; partition++)
      records += Math.max(0, ends[partition]! - (starts?.[partition] ?? 0));
  }
  return records;
}

/**
 * Whether the log's start tells that records of [start, newestEnd) are gone. Progress' end offsets never count
 * transaction markers, and at an end offset stands the marker of the transaction that wrote the last record: a log
 * that begins one later, or in which nothing was written since, has lost nothing.
 */
export function lostToRetention(start: number, low: number, newestEnd: number | undefined): boolean {
  const marker = start > 0 ? 1 : 0;
  return low > start + marker && newestEnd !== undefined && newestEnd > start;
}
