/** Tombstones by what somebody asks for: which rows can be recalled, where they are, what is known of each. */
import type { Client } from 'pg';
import { TidemarkError } from '../platform/errors.ts';
import type { ContentHash } from './canonical-row.ts';
import { findByKey, readWhole, retentionError, type TextRow, textRows } from './session.ts';
import type { SourceTable } from './source-table.ts';
import { type FilterCondition, filterSql } from './tombstone-filter.ts';

/** Of one table: rows by key, or those that the conditions are true of, or (both null) all of them. */
export interface Selection {
  table: SourceTable;
  keys: readonly string[] | null;
  where: readonly FilterCondition[] | null;
}

export interface OpenTombstone extends ContentHash {
  id: string;
  /** As Postgres prints it. */
  evictedAt: string;
  key: string;
  salt: Buffer;
  forfeited: string[];
}

/** @returns conditions over cold_storage_archive as `a`, and their parameters */
export function selectionSql({ table, keys, where }: Selection): { sql: string; values: unknown[] } {
  const values: unknown[] = [table.schema, table.name];
  const conditions = ['a.table_schema = $1', 'a.table_name = $2'];
  if (keys) conditions.push(`a.row_key = any ($${values.push(keys)}::text[])`);
  if (where) {
    const filter = filterSql(where, table, values.length + 1);
    conditions.push(...filter.conditions);
    values.push(...filter.values);
  }
  return { sql: conditions.join(' and '), values };
}

/** A literal that is no value of its field's type is a mistake of whoever wrote it. */
async function ask(
  client: Client,
  selection: Pick<Selection, 'keys'>,
  text: string,
  values: unknown[],
): Promise<TextRow[]> {
  try {
    return await planned(client, selection, () => textRows(client, text, values));
  } catch (error) {
    const { code } = error as { code?: unknown };
    if (typeof code !== 'string' || !/^(22|42883)/.test(code)) throw retentionError(error);
    throw new TidemarkError(
      'TM101',
      `--where compares a field with a literal of another type (SQLSTATE ${code})`,
      {
        remedy: "A time is written as '2026-01-31' or '2026-01-31T18:00Z', a number as 17.",
      },
    );
  }
}

/** Right after rows went nobody has analyzed their Tombstones, and Postgres takes them for a handful. */
async function planned<T>(
  client: Client,
  { keys }: Pick<Selection, 'keys'>,
  question: () => Promise<T>,
): Promise<T> {
  await client.query('begin read only');
  try {
    await (keys ? findByKey(client) : readWhole(client));
    return await question();
  } finally {
    await client.query('commit').catch(() => {});
  }
}

/**
 * Of a key that was evicted more than once, the newest: the older ones are of rows that nobody has any more. For few keys it is
 * asked of each by itself (`offset 0` keeps it from becoming a join): of a table that nobody has analyzed Postgres expects one
 * row, and then reads all of a table's Tombstones for each key as gladly as those of the key.
 */
const newestOfKey = ({ keys }: Pick<Selection, 'keys'>) =>
  `not exists (select from tidemark_retention.cold_storage_archive later
  where later.table_schema = a.table_schema and later.table_name = a.table_name and later.row_key = a.row_key and later.position > a.position${keys ? ' offset 0' : ''})`;
const open = (selection: Pick<Selection, 'keys'>) =>
  `a.recalled_at is null and a.salt is not null and ${newestOfKey(selection)}`;

export async function countOpen(client: Client, selection: Selection): Promise<number> {
  const { sql, values } = selectionSql(selection);
  const rows = await ask(
    client,
    selection,
    `select count(*) from tidemark_retention.cold_storage_archive a where ${sql} and ${open(selection)}`,
    values,
  );
  return Number(rows[0]![0]);
}

/** Keys of rows that can be recalled, each once however many Tombstones it has; at most so many. */
export async function openKeys(client: Client, selection: Selection, limit: number): Promise<string[]> {
  const { sql, values } = selectionSql(selection);
  const rows = await ask(
    client,
    selection,
    `select a.row_key from tidemark_retention.cold_storage_archive a where ${sql} and ${open(selection)} group by 1 order by min(a.evicted_at), 1 limit ${limit}`,
    values,
  );
  return rows.map(([key]) => key!);
}

/** Columns that the hashes of what is selected cover. */
export async function coveredColumns(client: Client, selection: Selection): Promise<Set<string>> {
  const { sql, values } = selectionSql(selection);
  const rows = await ask(
    client,
    selection,
    `select distinct c from (select distinct a.hashed_columns from tidemark_retention.cold_storage_archive a
       where ${sql} and ${open(selection)}) as s, unnest(s.hashed_columns) as c`,
    values,
  );
  return new Set(rows.map(([name]) => name!));
}

export interface Holder {
  destination: string;
  unit: string;
  rows: number;
}

/** Destinations that Tombstones name; those that are relied upon alone first, then those that have most. */
export async function holdersOf(client: Client, selection: Selection): Promise<Holder[]> {
  const { sql, values } = selectionSql(selection);
  const rows = await ask(
    client,
    selection,
    `select d ->> 'destination', d ->> 'unit', count(*)
       from tidemark_retention.cold_storage_archive a, jsonb_array_elements(a.delivered_to) d where ${sql} and ${open(selection)}
      group by 1, 2 order by count(*) filter (where d ->> 'destination' = a.pinned_destination) desc, 3 desc, 1`,
    values,
  );
  return rows.map(([destination, unit, count]) => ({
    destination: destination!,
    unit: unit!,
    rows: Number(count),
  }));
}

/**
 * The newest of each of these keys that can be recalled and that the conditions are true of: by Position, since a clock may
 * have been set back.
 * @param holder that it has to name; null: whichever
 */
export async function findOpen(
  client: Client,
  { table, where }: Selection,
  keys: readonly string[],
  holder: string | null,
): Promise<Map<string, OpenTombstone>> {
  const { sql, values } = selectionSql({ table, where, keys: null });
  const wanted = values.push(keys);
  const named =
    holder === null
      ? ''
      : `and a.delivered_to @> $${values.push(JSON.stringify([{ destination: holder }]))}::jsonb`;
  const question = () =>
    client.query<OpenTombstone>(
      `select distinct on (a.row_key collate "C") a.id, a.evicted_at::text as "evictedAt", a.row_key as key, a.hash_version as version,
              a.hashed_columns as columns, a.content_hash as hash, a.salt, a.forfeited_columns as forfeited
         from tidemark_retention.cold_storage_archive a
        where ${sql} and ${open({ keys })} and a.row_key = any ($${wanted}::text[]) ${named} order by a.row_key collate "C", a.position desc, a.evicted_at desc`,
      values,
    );
  try {
    const { rows } = await planned(client, { keys }, question);
    return new Map(rows.map((row) => [row.key, row]));
  } catch (error) {
    throw retentionError(error);
  }
}

export interface ListedTombstone {
  key: string;
  tenant: string | null;
  evictedAt: string;
  destinations: string[];
  /** Null: it can be recalled. */
  lost: string | null;
}

/** Rows that are at destinations alone, in the order in which they went. */
export async function listOpen(
  client: Client,
  selection: Selection,
  limit: number,
): Promise<{
  total: number;
  lost: number;
  oldest: string | null;
  newest: string | null;
  rows: ListedTombstone[];
}> {
  const { sql, values } = selectionSql(selection);
  const from = `from tidemark_retention.cold_storage_archive a where ${sql} and a.recalled_at is null and ${newestOfKey(selection)}`;
  const [[total, lost, oldest, newest] = []] = await ask(
    client,
    selection,
    `select count(*), count(*) filter (where a.salt is null), min(a.evicted_at), max(a.evicted_at) ${from}`,
    values,
  );
  const rows = await ask(
    client,
    selection,
    `select a.row_key, a.tenant, a.evicted_at, a.salt is null,
            (select json_agg(d ->> 'destination') from jsonb_array_elements(a.delivered_to) d) ${from}
      order by a.evicted_at, a.id limit ${limit}`,
    values,
  );
  return {
    total: Number(total),
    lost: Number(lost),
    oldest: oldest ?? null,
    newest: newest ?? null,
    rows: rows.map(([key, tenant, evictedAt, erased, destinations]) => ({
      key: key!,
      tenant: tenant ?? null,
      evictedAt: evictedAt!,
      destinations: JSON.parse(destinations ?? '[]') as string[],
      lost: erased === 't' ? 'its salt was erased' : null,
    })),
  };
}

/** Of keys that were named: which have no Tombstone, which came back already, and which nobody can tell any more. */
export async function stateOfKeys(
  client: Client,
  { table, keys }: Selection,
): Promise<{ unknown: string[]; already: string[]; lost: string[] }> {
  const wanted = keys ?? [];
  const found = await planned(client, { keys: wanted }, () =>
    textRows(
      client,
      `select r.key, bool_or(a.row_key is not null), bool_or(a.recalled_at is null and a.salt is not null),
              bool_or(a.recalled_at is null and a.salt is null)
         from unnest($3::text[]) as r(key) left join tidemark_retention.cold_storage_archive a
           on a.table_schema = $1 and a.table_name = $2 and a.row_key = r.key and ${newestOfKey({ keys: wanted })} group by 1`,
      [table.schema, table.name, wanted],
    ),
  );
  const state = { unknown: [] as string[], already: [] as string[], lost: [] as string[] };
  for (const [key, known, isOpen, isLost] of found) {
    if (known === 'f') state.unknown.push(key!);
    else if (isOpen === 't') continue;
    else if (isLost === 't') state.lost.push(key!);
    else state.already.push(key!);
  }
  return state;
}
