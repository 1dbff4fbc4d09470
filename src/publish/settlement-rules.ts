/** What an open transaction of an earlier life was meant to be, by what is there; decided here, done in transaction-settler.ts. */
import type { PartitionEnds } from '../platform/partition-ends.ts';
import type { Decision } from '../platform/transaction-coordinator.ts';

/** How the partitions look that a transaction wrote to, behind its last record there. */
export interface Traces {
  commits: number;
  aborts: number;
  /** End before that record. */
  short: number;
}

/**
 * Of a transaction whose Progress is there and not decided. A marker anywhere tells what the coordinator decided. Without
 * any, nobody saw anything of it, and it is whole, because Progress is sent last: it is committed, as the slot may have
 * been confirmed up to it. What is aborted is read from the slot again, or the reader stops with TM203.
 * @returns doubtful: its markers contradict each other; what is committed of it comes twice then, nothing is lost
 */
export function judgeHidden({ commits, aborts, short }: Traces): { decision: Decision; doubtful: boolean } {
  if (commits > 0) return { decision: aborts > 0 ? 'abort' : 'commit', doubtful: aborts > 0 };
  return { decision: aborts > 0 || short > 0 ? 'abort' : 'commit', doubtful: false };
}

/**
 * Of a partition, against the last Progress.
 * @param progressEnd null: Progress does not name it, so nothing was committed there
 * @returns beyond: records behind what Progress says are committed too, and will come again. null: nothing is open, or
 * records are missing, which is for compareEnds to say
 */
export function judgePartition(
  { stable, high }: PartitionEnds,
  progressEnd: bigint | null,
): { decision: Decision; beyond: boolean } | null {
  const end = progressEnd ?? 0n;
  if (stable >= high || high < end) return null;
  if (stable >= end) return { decision: 'abort', beyond: false };
  return { decision: 'commit', beyond: high > end };
}
