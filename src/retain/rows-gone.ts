/**
 * A trigger of the table, or a cascade, may delete more than the rows that go. Elsewhere such a delete is one of the
 * application: destinations would lose rows that nobody meant to delete. Postgres counts what a session deletes.
 */
import type { Client } from 'pg';
import { type TableId, tableName } from '../connector/shape.ts';
import { TidemarkError } from '../platform/errors.ts';

type CountedTable = TableId & { oid: number };

/** By table, partitions as their table: of this session, until Postgres takes them over between two transactions. */
export async function deletedRows(client: Client, table: CountedTable): Promise<Map<string, number>> {
  const { rows } = await client.query<{ name: string; deleted: number }>(
    `select case when own then $2 else s.schemaname || '.' || s.relname end as name, sum(s.n_tup_del)::int as deleted
       from pg_stat_xact_user_tables s
       cross join lateral (select s.relid = $1::oid or s.relid in (select relid from pg_partition_tree($1::oid)) as own) o
      where s.n_tup_del > 0 group by 1 order by 1`,
    [table.oid, tableName(table)],
  );
  return new Map(rows.map(({ name, deleted }) => [name, deleted]));
}

/**
 * @param going rows of the table that were to go
 * @param before of the same transaction, before they went
 * @throws TidemarkError TM503
 */
export async function requireNoOthersGone(
  client: Client,
  table: CountedTable,
  going: number,
  before: ReadonlyMap<string, number>,
): Promise<void> {
  const own = tableName(table);
  // Triggers that wait for the commit would delete unseen.
  await client.query('set constraints all immediate');
  for (const [name, deleted] of await deletedRows(client, table)) {
    const gone = deleted - (before.get(name) ?? 0);
    if (gone === (name === own ? going : 0)) continue;
    throw new TidemarkError(
      'TM503',
      `${own} is not evicted: with ${going} of its rows ${gone} of ${name} would be deleted`,
      {
        remedy:
          'A trigger or a cascade deletes them, and destinations would lose them. Let it not fire for the role of retain.url, or disable the policy.',
      },
    );
  }
}
