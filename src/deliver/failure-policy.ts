/** What a worker does about an error: the one table. The operator's remedy is in platform/errors.ts. */
import type { RetryClass, TidemarkError } from '../platform/errors.ts';

export interface Reaction {
  /** Stop working on the Unit: somebody else has it. */
  leave: boolean;
  delayMs: number;
}

interface Policy {
  firstDelayMs: number;
  longestDelayMs: number;
}

const slow = { firstDelayMs: 30_000, longestDelayMs: 30_000 };

const policies: Record<RetryClass, Policy> = {
  // For ever, since it mends itself.
  transient: { firstDelayMs: 200, longestDelayMs: 30_000 },
  // Somebody has to act; asking now and then is how we notice that they did.
  operator: slow,
  // One table: its Unit waits, others go on.
  data: slow,
  bug: slow,
};

/**
 * @param attempt 0 for the first failure in a row
 * @param random from [0, 1)
 */
export function reactTo(error: TidemarkError, attempt: number, random: () => number = Math.random): Reaction {
  if (error.code === 'TM403') return { leave: true, delayMs: 0 };
  const { firstDelayMs, longestDelayMs } = policies[error.retry];
  const delayMs = Math.min(firstDelayMs * 2 ** Math.min(attempt, 20), longestDelayMs);
  // Half of it at random, so that many Units of one destination do not come back at the same moment.
  const chosen = Math.round(delayMs * (0.5 + random() / 2));
  return { leave: false, delayMs: Math.max(chosen, error.retryAfterMs ?? 0) };
}
