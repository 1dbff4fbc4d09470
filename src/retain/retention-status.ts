/** What the service did, and what stands in the source database. */
import type { Client, Pool } from 'pg';
import { type RecordedRound, readRounds } from './retention-ledger.ts';
import { retentionError } from './session.ts';
import { requireSetUp } from './setup.ts';

export interface RetentionStatus {
  /** A process works at present. */
  working: boolean;
  tables: RecordedRound[];
  /** Tombstones by table. */
  tombstones: { table: string; rows: number; recalled: number; overridden: number; newest: Date | null }[];
  holds: number;
  overrides: { name: string; table: string; tenant: string | null; expiresAt: Date }[];
}

/** @throws TidemarkError TM501, TM505, TM409, TM415 */
export async function readRetentionStatus(
  client: Client,
  pool: Pool,
  sourceId: string,
): Promise<RetentionStatus> {
  const tables = await readRounds(pool, sourceId);
  try {
    await requireSetUp(client);
    const { rows: tombstones } = await client.query<RetentionStatus['tombstones'][number]>(
      `select table_schema || '.' || table_name as "table", count(*)::float8 as rows, count(recalled_at)::float8 as recalled,
              count(override_id)::float8 as overridden, max(evicted_at) as newest
         from tidemark_retention.cold_storage_archive group by 1 order by 1`,
    );
    const { rows: holds } = await client.query<{ count: number }>(
      `select count(*)::int as count from tidemark_retention.legal_holds
        where released_at is null and (expires_at is null or expires_at > now())`,
    );
    const { rows: overrides } = await client.query<RetentionStatus['overrides'][number]>(
      `select name, table_schema || '.' || table_name as "table", tenant, expires_at as "expiresAt"
         from tidemark_retention.overrides o where expires_at > now()
          and not exists (select from tidemark_retention.override_revocations r where r.override_id = o.id) order by name`,
    );
    const { rows: lock } = await client.query<{ working: boolean }>(
      `select exists (select from pg_locks l join pg_stat_activity a using (pid)
         where l.locktype = 'advisory' and l.granted and a.application_name = $1
           and a.datname = current_database() and a.pid <> pg_backend_pid()) as working`,
      [`tidemark retain/${sourceId}`],
    );
    return { working: lock[0]!.working, tables, tombstones, holds: holds[0]!.count, overrides };
  } catch (error) {
    throw retentionError(error);
  }
}

/** Rows that were recalled, by table. */
export async function recalledByTable(client: Client): Promise<Map<string, number>> {
  const { rows } = await client.query<{ name: string; rows: number }>(
    `select table_schema || '.' || table_name as name, count(*)::float8 as rows from tidemark_retention.cold_storage_archive
      where recalled_at is not null group by table_schema, table_name`,
  );
  return new Map(rows.map((row) => [row.name, row.rows]));
}
