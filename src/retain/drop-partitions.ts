/**
 * Partitions that rows left behind: empty, and of a time so far back that no row which they could take would stay. The
 * rows went one by one, each with its delete, by which the stream knows them; the partition goes without any.
 */
import type { Client } from 'pg';
import { tableName } from '../connector/shape.ts';
import { TidemarkError } from '../platform/errors.ts';
import { failpoint } from '../platform/failpoint.ts';
import type { RetainConfig } from '../platform/resolved-config.ts';
import { quoted } from '../replicate/catalogue.ts';
import type { EvictableTable } from './evictable-table.ts';
import { readHolds } from './holds-in-force.ts';
import { holdBack, retentionError } from './session.ts';

export interface DroppedPartitions {
  names: string[];
  /** Somebody has them in use. */
  awaited: string[];
}

/** @throws TidemarkError TM505 where the table's owner has not let it, TM503 where something hangs on a partition, TM507 */
export async function dropEmptyPartitions(
  client: Client,
  table: EvictableTable,
  retain: RetainConfig,
): Promise<DroppedPartitions> {
  const result: DroppedPartitions = { names: [], awaited: [] };
  for (const { oid, name } of await pastPartitions(client, table, retain)) {
    try {
      if (await dropPartition(client, table, oid)) result.names.push(name);
    } catch (error) {
      if ((error as { code?: string }).code !== lockNotAvailable) throw dropError(table, name, error);
      result.awaited.push(name);
    }
  }
  return result;
}

const lockNotAvailable = '55P03';

async function dropPartition(client: Client, table: EvictableTable, oid: number): Promise<boolean> {
  try {
    await client.query('begin isolation level read committed');
    await holdBack(client);
    const holds = await readHolds(client, table);
    const { rows } = holds.all
      ? { rows: [] }
      : await client.query<{ dropped: boolean }>(
          'select tidemark_retention.drop_partition($1::oid) as dropped',
          [oid],
        );
    const dropped = rows[0]?.dropped ?? false;
    if (dropped) await failpoint('before-drop-commit');
    await client.query('commit');
    if (dropped) await failpoint('after-drop-commit');
    return dropped;
  } catch (error) {
    await client.query('rollback').catch(() => {});
    throw error;
  }
}

/** Rows of whatever tenant would be old enough there. */
async function pastPartitions(
  client: Client,
  { oid, policy, tenant }: EvictableTable,
  { tenants }: RetainConfig,
): Promise<{ oid: number; name: string }[]> {
  const days =
    tenant === null
      ? `${policy.retentionDays}::int8`
      : `(select max(o.${client.escapeIdentifier(tenants!.days)})::int8 from ${quoted(tenants!.table)} as o where o.${client.escapeIdentifier(tenants!.days)} > 0)`;
  const { rows } = await client.query<{ oid: number; name: string }>(
    `select p.relid::oid::int8::float8 as oid, p.relid::regclass::text as name
       from (select relid, tidemark_retention.partition_end(relid, $2) as past from pg_partition_tree($1::oid)
              where isleaf and level = 1) p
      where p.past <= now() - make_interval(days => least(${days}, 365000)::int) order by p.past, 1`,
    [oid, policy.ageColumn],
  );
  return rows;
}

function dropError(table: EvictableTable, partition: string, error: unknown): TidemarkError {
  const { code } = error as { code?: string };
  if (code === '42501')
    return new TidemarkError(
      'TM505',
      `the owner of tidemark_retention.drop_partition may not drop ${partition}`,
      {
        cause: error,
        remedy: `grant <the owner of ${tableName(table)}> to <the owner of that function>; or let drop_partitions of the policy be false.`,
      },
    );
  if (code === '2BP01')
    return new TidemarkError('TM503', `${partition} is empty, and is not dropped: something depends on it`, {
      cause: error,
      remedy: `drop table ${partition}; says what. Or let drop_partitions of the policy be false.`,
    });
  return retentionError(error);
}
