/** What is to be erased: rows of a tenant, or rows by key, in which tables, and whether somebody holds them. */
import type { Client } from 'pg';
import { type TableId, tableName } from '../../connector/shape.ts';
import { TidemarkError } from '../../platform/errors.ts';
import type { ResolvedConfig } from '../../platform/resolved-config.ts';
import { archiveTable } from '../../platform/retention-archive.ts';
import {
  type CatalogueTable,
  hasIdentity,
  quoted,
  tenantColumnOf,
  trackedTables,
} from '../../replicate/catalogue.ts';
import { type ForeignKey, foreignKeysTo } from '../foreign-keys.ts';
import { type Holds, readHolds } from '../holds-in-force.ts';
import { textRows } from '../session.ts';
import {
  describeSourceTable,
  fromTable,
  hasKey,
  knownKeys,
  printedKeys,
  printedTenants,
  requireKeyForm,
  type SourceTable,
} from '../source-table.ts';

export interface EraseScope {
  /** Null: rows by key. */
  tenant: string | null;
  /** With a tenant those that were named, empty: all of them; else the one that the keys are of. */
  tables: TableId[];
  /** As cold_storage_archive.row_key; null: all of the tenant. */
  keys: string[] | null;
}

export interface ErasableTable {
  table: SourceTable;
  name: string;
  tenantColumn: string | null;
  /** Its deletes are in the stream. */
  streamed: boolean;
  references: ForeignKey[];
}

/** Children before the tables that they refer to. @throws TidemarkError TM101, TM505 */
export async function erasableTables(
  client: Client,
  config: ResolvedConfig,
  scope: EraseScope,
): Promise<{ tables: ErasableTable[]; without: string[] }> {
  const tracked = (await trackedTables(client, config.source)).filter(
    (each) => tableName(each) !== tableName(archiveTable),
  );
  const wanted = new Set(scope.tables.map(tableName));
  const missing = [...wanted].find((name) => !tracked.some((each) => tableName(each) === name));
  if (missing !== undefined)
    throw new TidemarkError('TM101', `${missing} is not among the tables of source.tables`, {
      remedy: 'Nothing of it was streamed: delete its rows as its owner.',
    });
  const tables: ErasableTable[] = [];
  const without: string[] = [];
  for (const each of tracked) {
    if (wanted.size > 0 && !wanted.has(tableName(each))) continue;
    const tenant = tenantColumnOf(config.source, each);
    const tenantColumn = each.columns.some((column) => column.name === tenant) ? tenant : null;
    if (scope.tenant !== null && tenantColumn === null) {
      without.push(tableName(each));
      continue;
    }
    tables.push(await erasableTable(client, each, tenantColumn));
  }
  if (scope.tenant !== null && without.some((name) => wanted.has(name)))
    throw new TidemarkError('TM101', `${without.join(', ')} has no tenant column`, {
      remedy: 'Erase its rows by --key.',
    });
  if (scope.keys) for (const { table } of tables) requireKeyForm(table, scope.keys);
  await requireRights(client, tables);
  return { tables: childrenFirst(tables), without };
}

async function erasableTable(
  client: Client,
  tracked: CatalogueTable,
  tenantColumn: string | null,
): Promise<ErasableTable> {
  return {
    table: await describeSourceTable(client, tracked),
    name: tableName(tracked),
    tenantColumn,
    streamed: hasIdentity(tracked),
    references: await foreignKeysTo(client, tracked.oid),
  };
}

function childrenFirst(tables: readonly ErasableTable[]): ErasableTable[] {
  const ordered: ErasableTable[] = [];
  const visiting = new Set<string>();
  const visit = (each: ErasableTable) => {
    if (ordered.includes(each) || visiting.has(each.name)) return;
    visiting.add(each.name);
    for (const { table } of each.references) {
      const child = tables.find(({ name }) => name === tableName(table));
      if (child) visit(child);
    }
    ordered.push(each);
  };
  for (const each of tables) visit(each);
  return ordered;
}

/** @throws TidemarkError TM505 */
async function requireRights(client: Client, tables: readonly ErasableTable[]): Promise<void> {
  const wanted: [string, string[]][] = tables.flatMap(({ table, references }) => [
    [quoted(table), ['select', 'update', 'delete']],
    ...references.map(({ table: child }): [string, string[]] => [quoted(child), ['select']]),
  ]);
  const grants = new Set<string>();
  for (const [relation, rights] of wanted) {
    const { rows } = await client.query<{ missing: string | null }>(
      `select string_agg(r, ', ') as missing from unnest($2::text[]) r
        where not case r when 'update' then has_any_column_privilege(to_regclass($1), r) else has_table_privilege(to_regclass($1), r) end`,
      [relation, rights],
    );
    if (rows[0]?.missing) grants.add(`grant ${rows[0].missing} on ${relation} to <the role of retain.url>;`);
  }
  if (grants.size > 0)
    throw new TidemarkError('TM505', 'the role of retain.url lacks rights for what is to be erased', {
      remedy: [...grants].join(' '),
    });
}

/**
 * The scope as Tombstones have it, which are found by texts: a tenant or a key in another spelling would be of rows, and of
 * no Tombstone.
 * @throws TidemarkError TM101 for a tenant that tables print differently, and for a key of another form
 */
export async function printedScope(
  client: Client,
  tables: readonly ErasableTable[],
  scope: EraseScope,
): Promise<EraseScope> {
  if (scope.keys) {
    const [{ table } = { table: null }] = tables;
    if (!table) return scope;
    const printed = await printedKeys(client, table, scope.keys);
    const { known } = await knownKeys(client, table, scope.keys);
    return { ...scope, keys: [...new Set([...printed.values(), ...known])] };
  }
  const spellings = new Map<string, string>();
  for (const { table, name, tenantColumn } of tables) {
    const column = table.columns.find((each) => each.name === tenantColumn)!;
    const printed = await asked(name, () => printedTenants(client, column, [scope.tenant!]));
    spellings.set(printed.get(scope.tenant!)!, name);
  }
  if (spellings.size > 1)
    throw new TidemarkError(
      'TM101',
      `this tenant is ${[...spellings].map(([text, name]) => `${text} in ${name}`).join(', ')}`,
      { remedy: 'Erase its rows table by table, each with the tenant as the table has it.' },
    );
  const [tenant = scope.tenant] = spellings.keys();
  return { ...scope, tenant };
}

/**
 * Evicted rows of a tenant whose tables are not tracked any more, or have another name: no erasure reaches them. By the
 * tables' names.
 */
export async function untrackedTombstones(
  client: Client,
  tables: readonly ErasableTable[],
  { tenant, tables: only }: EraseScope,
): Promise<{ table: string; tombstones: number }[]> {
  if (tenant === null || only.length > 0) return [];
  const found = await textRows(
    client,
    `select a.table_schema, a.table_name, count(*) from tidemark_retention.cold_storage_archive a
      where a.tenant = $1 and a.erased_at is null group by 1, 2 order by 1, 2`,
    [tenant],
  );
  return found
    .map(([schema, name, rows]) => ({
      table: tableName({ schema: schema!, name: name! }),
      tombstones: Number(rows),
    }))
    .filter(({ table }) => !tables.some(({ name }) => name === table));
}

/** A condition over `t`, and its parameter $1. */
export function inScope(
  client: Client,
  { table, tenantColumn }: ErasableTable,
  { tenant, keys }: EraseScope,
): { sql: string; value: unknown } {
  if (keys) {
    const listed = `exists (select from unnest($1::text[]) as r(key) where ${hasKey(client, table, 'r.key')})`;
    return { sql: listed, value: keys };
  }
  const { type } = table.columns.find(({ name }) => name === tenantColumn)!;
  return { sql: `t.${client.escapeIdentifier(tenantColumn!)} = ($1::text)::${type}`, value: tenant };
}

/** As inScope, of Tombstones as `a`: $2 and $3 are the table. */
export function tombstonesInScope({ keys }: EraseScope): string {
  const rows = keys ? 'a.row_key = any ($1::text[])' : 'a.tenant = $1';
  return `a.table_schema = $2 and a.table_name = $3 and ${rows}`;
}

/** The key of `t` as cold_storage_archive.row_key, in columns; its tenant before them. */
export function rowSelection(client: Client, { table, tenantColumn }: ErasableTable): string {
  const id = (name: string) => `t.${client.escapeIdentifier(name)}`;
  const tenant = tenantColumn === null ? 'null::text' : `format('%s', ${id(tenantColumn)})`;
  return [tenant, ...table.key.map(({ name }) => id(name))].join(', ');
}

export interface TableCount {
  table: string;
  hot: number;
  tombstones: number;
  /** Rows under a legal hold, or all of them. */
  held: number;
}

/** What there is to erase, and what of it is held. @throws TidemarkError TM101 for a tenant or key that is no value of its column */
export async function countScope(
  client: Client,
  each: ErasableTable,
  scope: EraseScope,
): Promise<TableCount> {
  const { table, name } = each;
  const { sql, value } = inScope(client, each, scope);
  const holds = await readHolds(client, { ...table, tenant: each.tenantColumn });
  return asked(name, async () => {
    const [[hot] = []] = await textRows(client, `select count(*) from ${fromTable(table)} where ${sql}`, [
      value,
    ]);
    const [[tombstones] = []] = await textRows(
      client,
      `select count(*) from tidemark_retention.cold_storage_archive a where ${tombstonesInScope(scope)} and a.erased_at is null`,
      [value, table.schema, table.name],
    );
    const counts = { table: name, hot: Number(hot), tombstones: Number(tombstones) };
    return {
      ...counts,
      held: counts.hot + counts.tombstones === 0 ? 0 : await countHeld(client, each, scope, holds),
    };
  });
}

async function asked<T>(name: string, question: () => Promise<T>): Promise<T> {
  try {
    return await question();
  } catch (error) {
    if (!/^22/.test(String((error as { code?: unknown }).code))) throw error;
    throw new TidemarkError('TM101', `what is to be erased is no value of a column of ${name}`, {
      remedy: 'Give the tenant, or the key, as the table has it.',
    });
  }
}

async function countHeld(
  client: Client,
  each: ErasableTable,
  scope: EraseScope,
  holds: Holds,
): Promise<number> {
  if (holds.all || (scope.tenant !== null && holds.tenants.has(scope.tenant))) return 1;
  const keys = scope.keys ?? holds.keysOf(scope.tenant);
  if (keys.length === 0) return 0;
  const { table } = each;
  const found = await textRows(
    client,
    `select ${rowSelection(client, each)} from ${fromTable(table)} where ${inScope(client, each, { ...scope, keys }).sql}`,
    [keys],
  );
  const rows = found.map(([tenant, ...cells]) => ({ tenant: tenant ?? null, key: JSON.stringify(cells) }));
  const tombstones = await textRows(
    client,
    `select a.tenant, a.row_key from tidemark_retention.cold_storage_archive a
      where a.row_key = any ($1::text[]) and a.table_schema = $2 and a.table_name = $3 and a.erased_at is null`,
    [keys, table.schema, table.name],
  );
  rows.push(...tombstones.map(([tenant, key]) => ({ tenant: tenant ?? null, key: key! })));
  return rows.filter((row) => (scope.tenant === null || row.tenant === scope.tenant) && holds.covers(row))
    .length;
}
