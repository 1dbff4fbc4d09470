/** A table as the source has it now: its columns, its key, and which of its rows are known by key. */
import type { Client } from 'pg';
import { type TableId, tableName } from '../connector/shape.ts';
import { TidemarkError } from '../platform/errors.ts';
import { quoted } from '../replicate/catalogue.ts';
import { textRows } from './session.ts';

export interface SourceColumn {
  name: string;
  /** pg_attribute.attnum: of no other column of the table, ever. */
  number: number;
  /** As format_type prints it. */
  type: string;
  generated: boolean;
}

export interface SourceTable extends TableId {
  columns: SourceColumn[];
  /** In the order of the record key: that of the table's columns. */
  key: SourceColumn[];
  partitioned: boolean;
  /** pg_class.oid */
  oid: number;
}

/** @throws TidemarkError TM101 where there is no such table */
export async function describeSourceTable(client: Client, table: TableId): Promise<SourceTable> {
  const { rows } = await client.query<SourceColumn & { key: boolean; partitioned: boolean; oid: number }>(
    `select a.attname as name, a.attnum::int as number, format_type(a.atttypid, a.atttypmod) as type,
            a.attgenerated <> '' as generated, c.relkind = 'p' as partitioned, c.oid::int8::float8 as oid,
            coalesce(a.attnum = any (i.indkey[0:i.indnkeyatts - 1]), false) as key
       from pg_class c join pg_attribute a on a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped
       left join pg_index i on i.indrelid = c.oid
        and case when c.relreplident = 'i' then i.indisreplident else i.indisprimary end
      where c.oid = to_regclass($1) and c.relkind in ('r', 'p') order by a.attnum`,
    [quoted(table)],
  );
  if (rows.length === 0)
    throw new TidemarkError('TM101', `the source has no table ${tableName(table)}`, {
      remedy: 'Write it as the source has it: schema.table.',
    });
  const columns = rows.map(({ name, number, type, generated }) => ({ name, number, type, generated }));
  return {
    schema: table.schema,
    name: table.name,
    columns,
    key: columns.filter((_, i) => rows[i]!.key),
    partitioned: rows[0]!.partitioned,
    oid: rows[0]!.oid,
  };
}

/** For FROM, with the alias `t`: never a table that inherits. */
export function fromTable(table: SourceTable): string {
  return `${table.partitioned ? '' : 'only '}${quoted(table)} as t`;
}

/** A condition: the row `t` is that of the key in `keys`, an expression of the form of cold_storage_archive.row_key. */
export function hasKey(client: Client, { key }: SourceTable, keys: string): string {
  return key
    .map(({ name, type }, i) => `t.${client.escapeIdentifier(name)} = ((${keys})::json ->> ${i})::${type}`)
    .join(' and ');
}

/**
 * Keys as row_key has them, whatever spelling of their values somebody used: keys are compared as texts, and a UUID in upper
 * case would be of no row.
 * @returns by the given key, the texts of its values as Postgres prints them
 * @throws TidemarkError TM101 where the table has no key, or a key is of another form
 */
export async function printedKeys(
  client: Client,
  table: SourceTable,
  keys: readonly string[],
): Promise<Map<string, string>> {
  requireKeyForm(table, keys);
  const values = table.key.map(({ type }, i) => `(r.key::json ->> ${i})::${type}`);
  try {
    const found = await textRows(
      client,
      `select r.key, ${values.join(', ')} from unnest($1::text[]) as r(key)`,
      [keys],
    );
    return new Map(found.map(([key, ...cells]) => [key!, JSON.stringify(cells)]));
  } catch (error) {
    // A text that is no value of the column's type.
    if (/^22/.test(String((error as { code?: unknown }).code))) throw keyForm(table);
    throw error;
  }
}

/**
 * Tenants as a column of theirs prints them, by the given text.
 * @throws what Postgres throws (SQLSTATE 22…) where one is no value of the column
 */
export async function printedTenants(
  client: Client,
  { type }: SourceColumn,
  tenants: readonly string[],
): Promise<Map<string, string>> {
  const found = await textRows(
    client,
    `select r.tenant, format('%s', r.tenant::${type}) from unnest($1::text[]) as r(tenant)`,
    [tenants],
  );
  return new Map(found.map(([given, printed]) => [given!, printed!]));
}

/**
 * By the given key, that of its row and of its Tombstone, as far as they are there. Equal values may differ in their texts
 * (numeric).
 * @throws TidemarkError TM101 as printedKeys
 */
export async function keysThere(
  client: Client,
  table: SourceTable,
  keys: readonly string[],
): Promise<Map<string, string[]>> {
  const printed = await printedKeys(client, table, keys);
  const key = table.key.map(({ name }) => `t.${client.escapeIdentifier(name)}`);
  const rows = await textRows(
    client,
    `select r.key, ${key.join(', ')} from unnest($1::text[]) as r(key) join ${fromTable(table)} on ${hasKey(client, table, 'r.key')}`,
    [keys],
  );
  const tombstones = await textRows(
    client,
    `select distinct a.row_key from tidemark_retention.cold_storage_archive a
      where a.table_schema = $1 and a.table_name = $2 and a.row_key = any ($3::text[])`,
    [table.schema, table.name, [...printed.values()]],
  );
  const hot = new Map(rows.map(([given, ...cells]) => [given!, JSON.stringify(cells)]));
  const evicted = new Set(tombstones.map(([text]) => text!));
  const there = new Map<string, string[]>();
  for (const [given, text] of printed)
    there.set(given, [hot.get(given) ?? [], evicted.has(text) ? text : []].flat());
  return there;
}

/** The keys as rows and Tombstones have them, and those that neither has. @throws TidemarkError TM101 as printedKeys */
export async function knownKeys(
  client: Client,
  table: SourceTable,
  keys: readonly string[],
): Promise<{ known: string[]; unknown: string[] }> {
  const there = [...(await keysThere(client, table, keys))];
  return {
    known: [...new Set(there.flatMap(([, texts]) => texts))],
    unknown: there.filter(([, texts]) => texts.length === 0).map(([given]) => given),
  };
}

/** Which of the keys the table has rows of. */
export async function keysInTable(
  client: Client,
  table: SourceTable,
  keys: readonly string[],
): Promise<Set<string>> {
  const found = await textRows(
    client,
    `select r.key from unnest($1::text[]) as r(key) where exists (select from ${fromTable(table)} where ${hasKey(client, table, 'r.key')})`,
    [keys],
  );
  return new Set(found.map(([key]) => key!));
}

/** @throws TidemarkError TM101 */
export function requireKeyForm(table: SourceTable, keys: readonly string[]): void {
  if (table.key.length === 0)
    throw new TidemarkError('TM101', `${tableName(table)} has no key by which a row could be named`);
  if (keys.some((key) => (JSON.parse(key) as unknown[]).length !== table.key.length)) throw keyForm(table);
}

function keyForm(table: SourceTable): TidemarkError {
  const names = table.key.map(({ name }) => name).join(', ');
  return new TidemarkError('TM101', `a key of ${tableName(table)} is a JSON array of the texts of ${names}`);
}
