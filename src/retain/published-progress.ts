/**
 * From a mark in the WAL to a Position that destinations have to reach: that of the first Progress behind it in which the
 * table is neither parked nor being read. Up to there, everything the mark speaks of is in the table's topics.
 */
import type { Pool } from 'pg';
import { type Position, parsePosition } from '../connector/position.ts';
import { tableName } from '../connector/shape.ts';
import { controlError } from '../platform/control.ts';
import { TidemarkError } from '../platform/errors.ts';
import type { Progress } from '../publish/progress.ts';
import type { StayReason } from './delivery-proof.ts';
import type { EvictableTable } from './evictable-table.ts';

export interface SourceFacts {
  epoch: number;
  systemIdentifier: string;
  timeline: number;
}

/**
 * @param mark the WAL's end after the rows were read
 * @returns the Position, or why there is none yet
 */
export function positionBehind(
  progress: Progress | null,
  mark: { lsn: bigint; timeline: number },
  table: Pick<EvictableTable, 'schema' | 'name' | 'topic'>,
): Position | StayReason {
  if (!progress) return 'not delivered yet';
  // Of another timeline, the same LSN is another place.
  if (progress.timeline !== mark.timeline || parsePosition(progress.position).lsn < mark.lsn)
    return 'not delivered yet';
  if (progress.parked[tableName(table)]) return 'table is parked';
  if (progress.snapshots[table.topic]) return 'snapshot under way';
  return progress.position;
}

/**
 * That rows from before the slot, and from before the table joined, are in Kafka as well.
 * @returns whether somebody has asked for rows that are not all there yet
 * @throws TidemarkError TM503, TM409
 */
export async function requireWhole(
  pool: Pool,
  sourceId: string,
  epoch: number,
  table: EvictableTable,
): Promise<boolean> {
  const name = tableName(table);
  try {
    const { rows } = await pool.query<{
      read: boolean;
      gap: boolean;
      torn: boolean;
      open: boolean;
      whole: boolean;
      known: boolean;
    }>(
      `with own as (select * from tidemark.snapshots
                where source_id = $1 and table_name = $2 and epoch = $3 and destination is null)
       select exists (select from own where state = 'done' and condition is null) as read,
              exists (select from own where state in ('requested', 'running', 'paused')) as open,
              exists (select from own where state in ('requested', 'running', 'paused') and condition is null) as whole,
              exists (select from own o where state in ('cancelled', 'failed') and (condition is null or condition like '(tableoid = %')
                and not exists (select from own later where later.state = 'done' and later.requested_at > o.requested_at
                  and (later.condition is null or later.condition = o.condition))) as torn,
              coalesce((select publication_gap ? $2 from tidemark.sources where source_id = $1), false) as gap,
              coalesce((select published ? $4 from tidemark.sources where source_id = $1), true) as known`,
      [sourceId, name, epoch, String(table.oid)],
    );
    const { read, gap, torn, open, whole, known } = rows[0]!;
    // One that was made anew under its name is not asked for yet: what was read is of the one before.
    if (read && !gap && !torn) return open || !known;
    // What that one reads is all that is missing.
    if (whole && !gap) return true;
    throw new TidemarkError(
      'TM503',
      gap
        ? `${name} is not evicted: changes of it may be missing in the stream (TM245)`
        : torn
          ? `${name} is not evicted: a snapshot of it, or of a partition that was attached, did not come to its end`
          : `${name} is not evicted: whether its rows from before the slot were delivered is not known`,
      { remedy: gap ? 'See TM245.' : `tidemark snapshot start ${name}` },
    );
  } catch (error) {
    throw controlError(error);
  }
}
