/**
 * Transactions that may have been streamed already and are not visible yet. A transaction that is streamed later takes
 * care of itself; what was in progress before must be over, or be seen at work still.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import type { ClientBase } from 'pg';
import type { CatalogueTable } from '../../replicate/catalogue.ts';
import { writeBarrier } from '../../replicate/snapshot/marks.ts';
import { scanReference } from '../../replicate/snapshot/table-scan.ts';
import {
  isOver,
  type PgSnapshot,
  parsePgSnapshot,
  type TransactionWatch,
} from '../../replicate/snapshot/visibility.ts';

/** Begins the watch over the stream from here on. */
export async function beginWatch(client: ClientBase, watch: TransactionWatch): Promise<void> {
  watch.begin();
  // A transaction that ends, so that every id given out before lies below the snapshot's xmax.
  await writeBarrier(client);
  watch.suspect(await currentSnapshot(client));
  watch.clear(await atWork(client));
}

/** How long a transaction may take that stands between us and knowing. */
const patienceMs = 5000;

/** Whether all that the table holds comes through the stream; false also where that cannot be known. */
export async function holdsNoEarlierRow(client: ClientBase, table: CatalogueTable): Promise<boolean> {
  await writeBarrier(client);
  const { running } = await currentSnapshot(client);
  const begun = new Set([...running].map((xid) => Number(BigInt.asUintN(32, xid))));
  for (const xid of await atWork(client)) begun.delete(xid);
  const giveUpAt = Date.now() + patienceMs;
  for (;;) {
    const now = await currentSnapshot(client);
    if ([...begun].every((xid) => isOver(now, xid))) break;
    if (Date.now() > giveUpAt) return false;
    await sleep(50);
  }
  const { rows } = await client.query(`select exists (select from ${scanReference({ table })}) as filled`);
  return !rows[0].filled;
}

async function currentSnapshot(client: ClientBase): Promise<PgSnapshot> {
  const { rows } = await client.query('select pg_current_snapshot()::text as snapshot');
  return parsePgSnapshot(rows[0].snapshot);
}

/** Between two statements of its own a transaction has not committed. */
async function atWork(client: ClientBase): Promise<number[]> {
  const { rows } = await client.query<{ xid: string }>(
    `select backend_xid::text as xid from pg_stat_activity
      where backend_xid is not null and state like 'idle in transaction%'`,
  );
  return rows.map(({ xid }) => Number(xid));
}

/** In words; empty where this role cannot see it. */
export async function oldestTransaction(client: ClientBase): Promise<string> {
  const { rows } = await client.query<{ what: string; seconds: number }>(
    `select * from (
       select 'process ' || pid as what, extract(epoch from clock_timestamp() - xact_start)::int as seconds
         from pg_stat_activity where backend_xid is not null and xact_start is not null
       union all
       select 'prepared transaction', extract(epoch from clock_timestamp() - prepared)::int from pg_prepared_xacts) as open
     order by seconds desc limit 1`,
  );
  const [oldest] = rows;
  return oldest ? `, the oldest of ${oldest.what} for ${oldest.seconds} s` : '';
}
