/** What the ledger knows of destinations, for commands that show it. */
import type { Pool } from 'pg';
import type { Receipt } from '../connector/sink.ts';
import { controlError } from '../platform/control.ts';
import type { RecordedFailure } from './ledger.ts';
import type { Pause } from './pauses.ts';

export interface UnitRecord {
  unit: string;
  /** End Position of the last Window; null before the first. */
  mark: string | null;
  /** Running maximum of commit times at the mark, microseconds since 1970 UTC. */
  markTimeUs: bigint | null;
  windows: number;
  /** Decided and not acknowledged: 0 or 1. */
  open: number;
  ownerSeenAt: Date | null;
  failure: (RecordedFailure & { since: Date | null; failures: number; nextAttemptAt: Date | null }) | null;
}

export interface DestinationRecord {
  name: string;
  kind: string;
  pause: Pause | null;
  /** Version of its credentials, and why newer ones are not used. */
  credentials: { version: number; problem: string | null };
  /** Rows that it refused and that wait, or were dropped. */
  quarantined: number;
  /** What keeps the whole destination from opening. */
  failure: RecordedFailure | null;
  units: UnitRecord[];
}

export interface DeliveryRecord {
  unit: string;
  sequence: number;
  from: string;
  to: string;
  state: 'decided' | 'delivered';
  attempts: number;
  decidedAt: Date;
  deliveredAt: Date | null;
  durationMs: number | null;
  /** Version of the credentials that it was written with. */
  credentials: number | null;
  nextAttemptAt: Date | null;
  failure: RecordedFailure | null;
  receipt: Receipt | null;
}

interface FailureRow {
  error_code: string | null;
  error: string | null;
  remedy: string | null;
}

interface DestinationRow extends FailureRow {
  destination: string;
  kind: string;
  paused_at: Date | null;
  paused_by: string | null;
  pause_reason: string | null;
  credentials?: number;
  credentials_problem?: string | null;
  quarantined: number;
}

interface UnitRow extends FailureRow {
  destination: string;
  unit: string;
  mark: string | null;
  mark_time_us: string | null;
  owner_seen_at: Date | null;
  failing_since: Date | null;
  failures: number;
  next_attempt_at: Date | null;
  windows: string;
  open: string;
}

interface DeliveryRow extends FailureRow {
  unit: string;
  sequence: string;
  from_position: string;
  to_position: string;
  state: 'decided' | 'delivered';
  attempts: number;
  decided_at: Date;
  delivered_at: Date | null;
  duration_ms: string | null;
  next_attempt_at: Date | null;
  receipt: Receipt | null;
  credentials?: number | null;
}

/*
 * While a newer version is put in the place of an older one, the schema is a migration behind: so no column is asked for
 * by name that the last migration added, and it may be missing from the rows.
 */

/** By name. @throws TidemarkError TM409 */
export async function readDestinations(pool: Pool, sourceId: string): Promise<DestinationRecord[]> {
  try {
    const destinations = await pool.query<DestinationRow>(
      `select d.*,
              (select count(*)::int from tidemark.quarantine q where q.source_id = d.source_id
                  and q.destination = d.destination and q.state in ('held', 'replaying', 'dropped')) as quarantined
         from tidemark.destinations d where source_id = $1 order by destination`,
      [sourceId],
    );
    const units = await pool.query<UnitRow>(
      `select u.destination, u.unit, u.mark, u.mark_time_us, u.owner_seen_at, u.failing_since, u.failures,
              u.next_attempt_at, u.error_code, u.error, u.remedy,
              count(d.*) filter (where d.state = 'delivered') as windows,
              count(d.*) filter (where d.state = 'decided') as open
         from tidemark.units u left join tidemark.deliveries d using (source_id, destination, unit)
        where u.source_id = $1 group by u.source_id, u.destination, u.unit order by u.unit`,
      [sourceId],
    );
    return destinations.rows.map((row) => ({
      name: row.destination,
      kind: row.kind,
      pause: row.paused_at && {
        at: row.paused_at,
        by: row.paused_by ?? '',
        reason: row.pause_reason ?? '',
      },
      credentials: { version: row.credentials ?? 0, problem: row.credentials_problem ?? null },
      quarantined: row.quarantined,
      failure: failureOf(row),
      units: units.rows.filter((unit) => unit.destination === row.destination).map(unitOf),
    }));
  } catch (error) {
    throw controlError(error);
  }
}

/** The newest ones, newest first. @throws TidemarkError TM409 */
export async function readDeliveries(
  pool: Pool,
  { sourceId, destination, limit }: { sourceId: string; destination: string; limit: number },
): Promise<DeliveryRecord[]> {
  try {
    const { rows } = await pool.query<DeliveryRow>(
      `select * from tidemark.deliveries where source_id = $1 and destination = $2
        order by decided_at desc, sequence desc limit $3`,
      [sourceId, destination, limit],
    );
    return rows.map((row) => ({
      unit: row.unit,
      sequence: Number(row.sequence),
      from: row.from_position,
      to: row.to_position,
      state: row.state,
      attempts: row.attempts,
      decidedAt: row.decided_at,
      deliveredAt: row.delivered_at,
      durationMs: row.duration_ms === null ? null : Number(row.duration_ms),
      credentials: row.credentials ?? null,
      nextAttemptAt: row.next_attempt_at,
      failure: failureOf(row),
      receipt: row.receipt,
    }));
  } catch (error) {
    throw controlError(error);
  }
}

function unitOf(row: UnitRow): UnitRecord {
  const failure = failureOf(row);
  return {
    unit: row.unit,
    mark: row.mark,
    markTimeUs: row.mark_time_us === null ? null : BigInt(row.mark_time_us),
    windows: Number(row.windows),
    open: Number(row.open),
    ownerSeenAt: row.owner_seen_at,
    failure: failure && {
      ...failure,
      since: row.failing_since,
      failures: row.failures,
      nextAttemptAt: row.next_attempt_at,
    },
  };
}

function failureOf({ error_code: code, error, remedy }: FailureRow): RecordedFailure | null {
  return code === null ? null : { code, message: error ?? '', remedy: remedy ?? '' };
}
