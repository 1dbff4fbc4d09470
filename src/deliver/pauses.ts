/** Pauses: a destination that keeps its mark, holds the Floor and delivers nothing until somebody resumes it. */
import type { Pool } from 'pg';
import { inTransaction } from '../platform/control.ts';
import { TidemarkError } from '../platform/errors.ts';

export interface DestinationName {
  sourceId: string;
  destination: string;
}

export interface Pause {
  at: Date;
  /** Who paused it; `tidemark` where it paused itself. */
  by: string;
  reason: string;
}

/**
 * When this returns, no Window of the destination is decided any more, and no attempt at an open one begins: what a sink
 * is writing at that moment ends by itself. A pause that is there already stays as it is.
 * @returns the pause in force
 * @throws TidemarkError TM101 for a destination that was never delivered to, TM409
 */
export async function pauseDestination(
  pool: Pool,
  { sourceId, destination }: DestinationName,
  { by, reason }: Omit<Pause, 'at'>,
): Promise<Pause> {
  return inTransaction(pool, async (client) => {
    const { rows } = await client.query<PauseRow>(
      `update tidemark.destinations set paused_at = coalesce(paused_at, now()), paused_by = coalesce(paused_by, $3),
         pause_reason = coalesce(pause_reason, $4)
       where source_id = $1 and destination = $2 returning paused_at, paused_by, pause_reason`,
      [sourceId, destination, by, reason],
    );
    if (rows.length === 0) throw neverDelivered(destination);
    // Waits for decisions under way.
    await client.query(
      'select from tidemark.units where source_id = $1 and destination = $2 order by unit for update',
      [sourceId, destination],
    );
    return pauseOf(rows[0]!)!;
  });
}

/**
 * Lets a paused destination go on; what failed before is tried at once.
 * @returns the pause that ended, or null when there was none
 * @throws TidemarkError TM101 for a destination that was never delivered to, TM409
 */
export async function resumeDestination(
  pool: Pool,
  { sourceId, destination }: DestinationName,
): Promise<Pause | null> {
  return inTransaction(pool, async (client) => {
    const before = await client.query<PauseRow>(
      `select paused_at, paused_by, pause_reason from tidemark.destinations
       where source_id = $1 and destination = $2 for update`,
      [sourceId, destination],
    );
    if (before.rows.length === 0) throw neverDelivered(destination);
    await client.query(
      `update tidemark.destinations set paused_at = null, paused_by = null, pause_reason = null, resumed_at = now()
       where source_id = $1 and destination = $2`,
      [sourceId, destination],
    );
    // The time for which it failed counts anew.
    await client.query(
      `update tidemark.units set failing_since = null, failures = 0, next_attempt_at = null
       where source_id = $1 and destination = $2`,
      [sourceId, destination],
    );
    return pauseOf(before.rows[0]!);
  });
}

interface PauseRow {
  paused_at: Date | null;
  paused_by: string | null;
  pause_reason: string | null;
}

function pauseOf({ paused_at: at, paused_by: by, pause_reason: reason }: PauseRow): Pause | null {
  return at && { at, by: by ?? '', reason: reason ?? '' };
}

function neverDelivered(destination: string): TidemarkError {
  return new TidemarkError('TM101', `nothing was ever delivered to ${destination}`, {
    remedy:
      'Destinations are known once `tidemark run` has seen them: check the name with `tidemark status`.',
  });
}
