/** What the sample database holds, boiled down to one hash per table. */
import type { ClientBase } from 'pg';
import { type Table, tables } from './rows.ts';

export interface TableContent {
  rows: number;
  /** MD5 over the sorted MD5s of the rows' text; independent of physical order, partitions and session settings. */
  hash: string;
}

/** Row count and content hash of every table, from one snapshot. Sorts one digest per row: for tests and demos. */
export async function sampleContent(client: ClientBase): Promise<Record<Table, TableContent>> {
  await client.query('BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY');
  try {
    await client.query(
      `SET LOCAL TIME ZONE 'UTC'; SET LOCAL DateStyle = 'ISO, YMD'; SET LOCAL IntervalStyle = 'postgres';
       SET LOCAL extra_float_digits = 1; SET LOCAL bytea_output = 'hex'`,
    );
    const content: Partial<Record<Table, TableContent>> = {};
    for (const table of tables) {
      const result = await client.query<{ rows: number; hash: string }>(
        `SELECT count(*)::int AS rows, md5(coalesce(string_agg(digest, '' ORDER BY digest), '')) AS hash
         FROM (SELECT md5(t::text) COLLATE "C" AS digest FROM app.${table} t) digests`,
      );
      content[table] = result.rows[0]!;
    }
    return content as Record<Table, TableContent>;
  } finally {
    await client.query('ROLLBACK');
  }
}
