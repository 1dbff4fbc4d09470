/** What becomes of Quarantine's entries when a Window is delivered. */
import type { PoolClient } from 'pg';

/** In the transaction that records a Delivery: what it took along, and what it made unnecessary. */
export async function settleQuarantine(
  client: PoolClient,
  { replayed, superseded }: { replayed: readonly number[]; superseded: readonly number[] },
): Promise<void> {
  for (const [state, ids] of [
    ['replayed', replayed],
    ['superseded', superseded],
  ] as const) {
    if (ids.length === 0) continue;
    await client.query(
      `update tidemark.quarantine set state = $2, changed_at = now()
       where id = any ($1) and state in ('held', 'replaying', 'dropped')`,
      [ids, state],
    );
  }
}
