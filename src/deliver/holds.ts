/**
 * Holds: verify asks a destination to stop, or to go on to exactly one Position and stop there. A hold that is not
 * extended expires, so a verify that died never stops a destination for good.
 */
import type { Pool } from 'pg';
import type { Position } from '../connector/position.ts';
import { controlError, inTransaction } from '../platform/control.ts';
import { TidemarkError } from '../platform/errors.ts';

export interface HoldName {
  sourceId: string;
  destination: string;
  /** Names who holds; only they may extend, aim or release. */
  holder: string;
}

/**
 * Stops the destination: when this returns, no new Window is decided, and what is in flight is an open delivery in
 * the ledger.
 * @throws TidemarkError TM408 when somebody else holds the destination, TM409
 */
export async function requestHold(pool: Pool, name: HoldName, timeToLiveMs: number): Promise<void> {
  await inTransaction(pool, async (client) => {
    const { rows } = await client.query<{ holder: string }>(
      `insert into tidemark.holds as held (source_id, destination, holder, expires_at)
       values ($1, $2, $3, now() + $4 * interval '1 millisecond')
       on conflict (source_id, destination) do update
         set holder = excluded.holder, target = null, expires_at = excluded.expires_at
         where held.expires_at <= now() or held.holder = excluded.holder
       returning holder`,
      [name.sourceId, name.destination, name.holder, timeToLiveMs],
    );
    if (rows.length === 0) {
      throw new TidemarkError('TM408', `another verify holds ${name.destination}`, {
        remedy: 'Wait until it has finished; a hold that nobody extends expires by itself.',
      });
    }
    // Waits for decisions under way: their transactions hold these rows until the Window is in the ledger.
    await client.query(
      'select 1 from tidemark.units where source_id = $1 and destination = $2 order by unit for update',
      [name.sourceId, name.destination],
    );
  });
}

/** @throws TidemarkError TM408 when the hold has expired or is somebody else's, TM409 */
export async function extendHold(pool: Pool, name: HoldName, timeToLiveMs: number): Promise<void> {
  await change(pool, name, `expires_at = now() + $4 * interval '1 millisecond'`, [timeToLiveMs]);
}

/** Lets the destination go on to exactly `target`, a transaction boundary. @throws TidemarkError TM408, TM409 */
export async function setTarget(pool: Pool, name: HoldName, target: Position): Promise<void> {
  await change(pool, name, 'target = $4', [target]);
}

/** Also fine when the hold is gone already. @throws TidemarkError TM409 */
export async function releaseHold(pool: Pool, { sourceId, destination, holder }: HoldName): Promise<void> {
  try {
    await pool.query('delete from tidemark.holds where source_id = $1 and destination = $2 and holder = $3', [
      sourceId,
      destination,
      holder,
    ]);
  } catch (error) {
    throw controlError(error);
  }
}

async function change(pool: Pool, name: HoldName, assignment: string, values: unknown[]): Promise<void> {
  try {
    const { rowCount } = await pool.query(
      `update tidemark.holds set ${assignment}
       where source_id = $1 and destination = $2 and holder = $3 and expires_at > now()`,
      [name.sourceId, name.destination, name.holder, ...values],
    );
    if (rowCount === 1) return;
  } catch (error) {
    throw controlError(error);
  }
  throw new TidemarkError('TM408', `the hold on ${name.destination} has expired`, {
    remedy: 'Start the command again.',
  });
}
