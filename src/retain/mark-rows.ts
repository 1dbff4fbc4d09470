/**
 * Mark: rows that are old enough and not on hold, by their version, and the WAL's end after they were read. Whoever has
 * everything up to there has these versions. Marks live in memory: a crash loses nothing but them.
 */
import type { Client } from 'pg';
import { parseLsn } from '../connector/position.ts';
import type { RetainConfig } from '../platform/resolved-config.ts';
import { quoted } from '../replicate/catalogue.ts';
import type { EvictableTable } from './evictable-table.ts';
import type { Holds } from './holds-in-force.ts';
import { textRows } from './session.ts';

/** One version of a row: an update makes another one, and so does whatever moves it. */
export interface MarkedRow {
  /** The table, or the partition, that it lies in. */
  tableOid: string;
  ctid: string;
  xmin: string;
  /** As cold_storage_archive.row_key. */
  key: string;
  tenant: string | null;
}

export interface Marks {
  rows: MarkedRow[];
  /** Taken after all of them were read, and the timeline that it is of. */
  lsn: bigint;
  timeline: number;
  /** Rows that are old enough and on hold by themselves, not with their tenant or table; and recalled ones. */
  held: number;
  /** There are more. */
  more: boolean;
}

/** Rows of one look: without an index on the age each look reads the table. */
const pageRows = 20_000;
/** Days beyond that are for ever: Postgres' calendar does not reach back further from now. */
const mostDays = 365_000;

/** What `t` has to be joined with, and be, to be old enough. */
export function dueCondition(
  client: Client,
  { tenant, age, policy }: Pick<EvictableTable, 'tenant' | 'age' | 'policy'>,
  { tenants }: Pick<RetainConfig, 'tenants'>,
): { join: string; where: string; days: string } {
  if (tenant === null) {
    const own = `least(${policy.retentionDays}, ${mostDays})`;
    return { join: '', where: `${age} < now() - make_interval(days => ${own})`, days: own };
  }
  const id = (name: string) => client.escapeIdentifier(name);
  const { table, key, days } = tenants!;
  const its = `least(o.${id(days)}, ${mostDays})::int`;
  return {
    join: `join ${quoted(table)} as o on o.${id(key)} = t.${id(tenant)}`,
    where: `o.${id(days)} >= 1 and ${age} < now() - make_interval(days => ${its})`,
    days: its,
  };
}

/** The tenant's text; for SQL. */
export function tenantText(client: Client, { tenant }: Pick<EvictableTable, 'tenant'>): string {
  return tenant === null ? 'null::text' : `format('%s', t.${client.escapeIdentifier(tenant)})`;
}

export interface MarkOptions {
  retain: RetainConfig;
  /** Rows that are marked at most. */
  limit: number;
  /**
   * Partitions whose rows come through the stream or were asked for, by oid. What another one brought along when it was
   * attached is at no destination, and the stream does not tell.
   */
  partitions: readonly number[];
  /** Tenants of which nothing is marked. */
  without?: ReadonlySet<string>;
}

export async function markRows(
  client: Client,
  table: EvictableTable,
  holds: Holds,
  { retain, limit, partitions, without = new Set() }: MarkOptions,
): Promise<Marks> {
  const { join, where, days } = dueCondition(client, table, retain);
  const tenant = tenantText(client, table);
  const key = table.key.map((name) => `t.${client.escapeIdentifier(name)}`).join(', ');
  const marks: Marks = { rows: [], lsn: 0n, timeline: 0, held: 0, more: false };
  const known = table.partitioned ? 't.tableoid = any ($2::oid[])' : '$2::oid[] is not null';
  const free = `${where} and (${tenant} is null or ${tenant} <> all($1::text[])) and ${known}`;
  let after: (string | null)[] | null = null;
  while (marks.rows.length < limit && !holds.all) {
    const rows = await textRows(
      client,
      `select t.tableoid, t.ctid, t.xmin, ${tenant}, ${table.age}, ${days}, ${key} from ${table.from} ${join}
        where ${free} ${after ? `and (${table.age}, t.tableoid, t.ctid) > ($3::timestamptz, $4::oid, $5::tid)` : ''}
        order by ${table.age}, t.tableoid, t.ctid limit ${pageRows}`,
      [[...holds.tenants, ...without], partitions, ...(after ?? [])],
    );
    const recalled = await recalledRows(
      client,
      table,
      rows.map((row) => ({ key: JSON.stringify(row.slice(6)), days: row[5]! })),
    );
    for (const [tableOid, ctid, xmin, owner, , , ...cells] of rows) {
      const row = {
        tableOid: tableOid!,
        ctid: ctid!,
        xmin: xmin!,
        key: JSON.stringify(cells),
        tenant: owner ?? null,
      };
      if (holds.covers(row) || recalled.has(row.key)) marks.held++;
      else if (marks.rows.length < limit) marks.rows.push(row);
      else marks.more = true;
    }
    if (rows.length < pageRows) break;
    const last = rows.at(-1)!;
    after = [last[4]!, last[0]!, last[1]!];
  }
  // A commit is in the WAL before anybody sees it: whatever was read above lies before this.
  const end = await client.query<{ lsn: string; file: string }>(
    'select lsn, pg_walfile_name(lsn) as file from pg_current_wal_insert_lsn() as lsn',
  );
  marks.lsn = parseLsn(end.rows[0]!.lsn);
  marks.timeline = Number.parseInt(end.rows[0]!.file.slice(0, 8), 16);
  return marks;
}

/** Rows that are old enough, in partitions that nobody has read yet. */
export async function countUnread(
  client: Client,
  table: EvictableTable,
  { retain, partitions }: Pick<MarkOptions, 'retain' | 'partitions'>,
): Promise<number> {
  if (!table.partitioned) return 0;
  const { rows } = await client.query<{ unread: number[] }>(
    `select coalesce(array_agg(relid::oid::int8::float8), '{}') as unread from pg_partition_tree($1::oid)
      where isleaf and relid <> all ($2::oid[])`,
    [table.oid, partitions],
  );
  const { unread } = rows[0]!;
  if (unread.length === 0) return 0;
  const { join, where } = dueCondition(client, table, retain);
  const found = await client.query<{ count: number }>(
    `select count(*)::float8 as count from ${table.from} ${join} where ${where} and t.tableoid = any ($1::oid[])`,
    [unread],
  );
  return found.rows[0]!.count;
}

/** Keys of rows that were recalled: each stays for its days once more. */
async function recalledRows(
  client: Client,
  { schema, name }: EvictableTable,
  rows: readonly { key: string; days: string }[],
): Promise<Set<string>> {
  if (rows.length === 0) return new Set();
  const found = await textRows(
    client,
    `select r.key from unnest($3::text[], $4::int[]) as r(key, days)
      where exists (select from tidemark_retention.cold_storage_archive a
        where a.table_schema = $1 and a.table_name = $2 and a.row_key = r.key
          and a.recalled_at > now() - make_interval(days => r.days))`,
    [schema, name, rows.map(({ key }) => key), rows.map(({ days }) => days)],
  );
  return new Set(found.map(([key]) => key!));
}

/** Tenants whose days would let rows go at once. */
export async function tenantsWithoutDays(client: Client, { tenants }: RetainConfig): Promise<number> {
  if (!tenants) return 0;
  const { rows } = await client.query<{ count: number }>(
    `select count(*)::int as count from ${quoted(tenants.table)} where ${client.escapeIdentifier(tenants.days)} < 1`,
  );
  return rows[0]!.count;
}
