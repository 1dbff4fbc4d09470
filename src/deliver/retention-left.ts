/** How long Kafka goes on keeping what a Unit has yet to read. */

/** Below this share of the topics' retention it is told of. */
const warnBelow = 0.25;

export interface RetentionLeft {
  /** Milliseconds until records that the Unit needs may be gone; 0: they may be gone already. */
  leftMs: number;
  /** Time to do something. */
  short: boolean;
}

/**
 * @param retentionMs of the change topics; negative: they keep everything
 * @param markTimeUs commit time at the Unit's mark, microseconds since 1970 UTC
 * @param pending whether anything lies beyond the mark
 * @returns null where nothing can be lost
 */
export function retentionLeft(
  retentionMs: number,
  { markTimeUs, pending }: { markTimeUs: bigint; pending: boolean },
  nowMs = Date.now(),
): RetentionLeft | null {
  if (retentionMs < 0 || !pending) return null;
  // What lies just beyond the mark was written at its commit time, or later.
  const leftMs = Math.max(0, Number(markTimeUs / 1000n) + retentionMs - nowMs);
  return { leftMs, short: leftMs < retentionMs * warnBelow };
}
