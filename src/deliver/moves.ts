/** Moves: an operator sends a Unit to another place of the stream. Asked for in the ledger, made by the Unit's worker. */
import type { Pool, PoolClient } from 'pg';
import { beforeEverything, type Position } from '../connector/position.ts';
import type { Held } from '../connector/sink.ts';
import { controlError, inTransaction } from '../platform/control.ts';
import { TidemarkError } from '../platform/errors.ts';
import type { Mark } from './cut-window.ts';
import { lockUnit, type OwnedUnit, type UnitName } from './ledger.ts';
import type { Offsets } from './offsets.ts';
import type { DestinationName } from './pauses.ts';
import { quarantineAgain } from './quarantine/quarantine-again.ts';

export interface Move {
  id: number;
  kind: 'skip' | 'replay';
  target: Position | null;
}

export interface MoveRequest {
  kind: Move['kind'];
  target: Position | null;
  by: string;
  reason: string;
  /** All of the destination when null. */
  unit: string | null;
}

export interface MoveOutcome {
  unit: string;
  from: string | null;
  to: string | null;
  done: boolean;
}

interface DeliveredRow {
  to_position: string;
  end_offsets: Offsets;
  mark_offsets: Offsets | null;
  commit_time_us: string;
}

/**
 * Asks the workers of a destination; one that is asked already is not asked twice.
 * @returns ids of the moves
 * @throws TidemarkError TM101 where there is no such Unit, TM409
 */
export async function requestMove(
  pool: Pool,
  { sourceId, destination }: DestinationName,
  { kind, target, by, reason, unit }: MoveRequest,
): Promise<number[]> {
  return inTransaction(pool, async (client) => {
    const { rows } = await client.query<{ id: number }>(
      `insert into tidemark.moves (source_id, destination, unit, kind, target, requested_by, reason)
       select source_id, destination, unit, $3, $4, $5, $6 from tidemark.units
        where source_id = $1 and destination = $2 and ($7::text is null or unit = $7)
       on conflict (source_id, destination, unit) where done_at is null
         do update set kind = excluded.kind, target = excluded.target, requested_by = excluded.requested_by,
           reason = excluded.reason, requested_at = now()
       returning id::int as id`,
      [sourceId, destination, kind, target, by, reason, unit],
    );
    if (rows.length > 0) return rows.map(({ id }) => id);
    throw new TidemarkError('TM101', `${destination} has no Unit${unit === null ? '' : ` ${unit}`}`, {
      remedy: '`tidemark destination list` names destinations and their Units.',
    });
  });
}

/** @throws TidemarkError TM409 */
export async function moveOutcomes(pool: Pool, ids: readonly number[]): Promise<MoveOutcome[]> {
  try {
    const { rows } = await pool.query<MoveOutcome>(
      `select unit, from_position as "from", to_position as "to", done_at is not null as done
       from tidemark.moves where id = any ($1) order by unit`,
      [ids],
    );
    return rows;
  } catch (error) {
    throw controlError(error);
  }
}

export class Moves {
  readonly #pool: Pool;

  constructor(pool: Pool) {
    this.#pool = pool;
  }

  /** @throws TidemarkError TM409 */
  async pending({ sourceId, destination, unit }: UnitName): Promise<Move | null> {
    try {
      const { rows } = await this.#pool.query<Move>(
        `select id::int as id, kind, target from tidemark.moves
         where source_id = $1 and destination = $2 and unit = $3 and done_at is null`,
        [sourceId, destination, unit],
      );
      return rows[0] ?? null;
    } catch (error) {
      throw controlError(error);
    }
  }

  /** A move that goes nowhere. @throws TidemarkError TM403, TM409 */
  async stay(unit: OwnedUnit, move: Move): Promise<OwnedUnit> {
    await inTransaction(this.#pool, async (client) => {
      await lockUnit(client, unit);
      await done(client, move, unit.mark, unit.mark);
    });
    return unit;
  }

  /** Forward to a boundary; an open Window is given up. @throws TidemarkError TM403, TM409 */
  async skip(unit: OwnedUnit, move: Move, to: Mark): Promise<OwnedUnit> {
    await inTransaction(this.#pool, async (client) => {
      await lockUnit(client, unit);
      await client.query(
        `delete from tidemark.deliveries where source_id = $1 and destination = $2 and unit = $3 and state = 'decided'`,
        key(unit),
      );
      await place(client, unit, to);
      await done(client, move, unit.mark, to);
    });
    return { ...unit, mark: to, open: null };
  }

  /**
   * Back to what the destination says it holds; null: it holds nothing, and begins at the origin again.
   * @throws TidemarkError TM404 where the ledger knows no Delivery that ended there; TM403, TM409
   */
  async replayFromHeld(unit: OwnedUnit, move: Move, held: Held | null): Promise<OwnedUnit> {
    return inTransaction(this.#pool, async (client) => {
      await lockUnit(client, unit);
      const delivered =
        held &&
        (await deliveredAt(client, unit, 'sequence = $4 and to_position = $5', [
          held.sequence,
          held.position,
        ]));
      if (held && !delivered) {
        throw new TidemarkError(
          'TM404',
          `${unit.destination} holds ${unit.unit} up to ${held.position}, and the ledger knows no Window that ended there`,
          {
            remedy:
              'Rebuild the destination: empty it, and read its tables again with `tidemark snapshot start`.',
          },
        );
      }
      const to = delivered && markOf(delivered);
      if (held) await quarantineAgain(client, unit, held);
      await client.query(
        'delete from tidemark.deliveries where source_id = $1 and destination = $2 and unit = $3 and sequence > $4',
        [...key(unit), held?.sequence ?? 0],
      );
      await client.query(
        `update tidemark.units set merged_position = $4, merged_sequence = $5
         where source_id = $1 and destination = $2 and unit = $3`,
        [...key(unit), held?.position ?? null, held?.sequence ?? 0],
      );
      await place(client, unit, to);
      await done(client, move, unit.mark, to);
      return {
        ...unit,
        mark: to,
        merged: held && { position: held.position, sequence: held.sequence },
        open: null,
      };
    });
  }

  /** Back to the end of the last Window at or before a Position, of a destination that holds nothing itself. */
  async replayFrom(unit: OwnedUnit, move: Move, target: Position): Promise<OwnedUnit> {
    return inTransaction(this.#pool, async (client) => {
      await lockUnit(client, unit);
      const before = 'to_position <= $4 order by sequence desc limit 1';
      const delivered = await deliveredAt(client, unit, before, [target]);
      const to = delivered && markOf(delivered);
      await client.query(
        `delete from tidemark.deliveries where source_id = $1 and destination = $2 and unit = $3 and state = 'decided'`,
        key(unit),
      );
      await place(client, unit, to);
      await done(client, move, unit.mark, to);
      return { ...unit, mark: to, open: null };
    });
  }
}

async function deliveredAt(
  client: PoolClient,
  unit: UnitName,
  condition: string,
  values: readonly unknown[],
): Promise<DeliveredRow | null> {
  const { rows } = await client.query<DeliveredRow>(
    `select to_position, end_offsets, mark_offsets, commit_time_us from tidemark.deliveries
     where source_id = $1 and destination = $2 and unit = $3 and state = 'delivered' and ${condition}`,
    [...key(unit), ...values],
  );
  return rows[0] ?? null;
}

function markOf(row: DeliveredRow): Mark {
  return {
    position: row.to_position as Position,
    commitTimeUs: BigInt(row.commit_time_us),
    offsets: row.mark_offsets ?? row.end_offsets,
  };
}

/** @param mark null: the Unit begins at the origin */
async function place(client: PoolClient, unit: UnitName, mark: Mark | null): Promise<void> {
  await client.query(
    `update tidemark.units set mark = $4, mark_time_us = $5, mark_offsets = $6, failing_since = null, failures = 0
     where source_id = $1 and destination = $2 and unit = $3`,
    [
      ...key(unit),
      mark?.position ?? null,
      mark?.commitTimeUs ?? null,
      mark ? JSON.stringify(mark.offsets) : null,
    ],
  );
}

async function done(client: PoolClient, { id }: Move, from: Mark | null, to: Mark | null): Promise<void> {
  // What was read before it says nothing of what was skipped, whatever a clock says of when that was.
  await client.query(
    `update tidemark.moves m set from_position = $2, to_position = $3, done_at = now(),
       snapshots_before = array(select s.id from tidemark.snapshots s where s.source_id = m.source_id) where id = $1`,
    [id, from?.position ?? null, to?.position ?? beforeEverything],
  );
}

function key({ sourceId, destination, unit }: UnitName): string[] {
  return [sourceId, destination, unit];
}
