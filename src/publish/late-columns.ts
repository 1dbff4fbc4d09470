/**
 * Columns that destinations get as they are from now on, and not from the beginning: a column list was widened after the
 * column was made, or the configuration does not drop, mask or hash it any more. What rows had there is in no stream.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { type ClientBase, escapeIdentifier } from 'pg';
import type { CatalogueColumn, CatalogueTable } from '../replicate/catalogue.ts';
import { sessionForText } from '../replicate/column-origins.ts';
import type { PublicationPlan } from '../replicate/publication.ts';
import type { Published, PublishedTables } from '../replicate/publication-gap.ts';
import { scanReference } from '../replicate/snapshot/table-scan.ts';

export interface LateColumns {
  table: CatalogueTable;
  /** Their names. */
  columns: string[];
}

/** For rows of one table, read from end to end where none has a value. */
const patienceMs = 5000;
const pollMs = 100;

/**
 * To be called once the publications are as planned.
 * @param before what was published when the reader last looked
 * @returns tables that have, or may have, rows with values in such columns that nobody was told of
 */
export async function lateColumns(
  client: ClientBase,
  before: PublishedTables,
  plans: readonly PublicationPlan[],
): Promise<LateColumns[]> {
  const candidates = plans.flatMap(({ tables }) =>
    tables.flatMap(({ table, kept }) => {
      const numbers = lateNumbers(before[table.oid], kept);
      return numbers.size > 0
        ? [{ table, of: table.columns.filter((each) => numbers.has(each.number)) }]
        : [];
    }),
  );
  if (candidates.length === 0) return [];
  // A transaction that wrote before the list was wider, and is still open, shows nobody its rows.
  const upto = await othersEnded(client);
  const late: LateColumns[] = [];
  for (const { table, of } of candidates) {
    const columns: string[] = [];
    for (const column of of)
      if (upto === null || (await hasValues(client, table, column, upto))) columns.push(column.name);
    if (columns.length > 0) late.push({ table, columns });
  }
  return late;
}

function lateNumbers(had: Published | undefined, kept: readonly number[]): Set<number> {
  if (!had?.kept || !had.there) return new Set();
  // All columns of a table without a list are in the stream from their first value on.
  const known = new Set(had.kept);
  const there = new Set(had.there);
  return new Set(kept.filter((number) => !known.has(number) && (had.listed || there.has(number))));
}

/** @returns the first transaction that began after this was called, once those before it have ended; null: they did not */
async function othersEnded(client: ClientBase): Promise<string | null> {
  const { rows } = await client.query<{ upto: string }>(
    'select pg_snapshot_xmax(pg_current_snapshot())::text as upto',
  );
  const deadline = performance.now() + patienceMs;
  for (;;) {
    const { rows: now } = await client.query<{ ended: boolean }>(
      'select pg_snapshot_xmin(pg_current_snapshot()) >= $1::xid8 as ended',
      [rows[0]!.upto],
    );
    if (now[0]!.ended) return rows[0]!.upto;
    if (performance.now() > deadline) return null;
    await sleep(pollMs);
  }
}

/** Others than what the catalogue says that rows from before the column have, in rows from before a transaction. True where that cannot be told in time. */
async function hasValues(
  client: ClientBase,
  table: CatalogueTable,
  { name, number }: CatalogueColumn,
  upto: string,
): Promise<boolean> {
  try {
    await client.query(`begin; ${sessionForText}; set local statement_timeout = ${patienceMs}`);
    const { rows } = await client.query(
      `select from ${scanReference({ table })} where ${escapeIdentifier(name)}::text is distinct from
          (select (attmissingval::text::text[])[1] from pg_attribute where attrelid = $1 and attnum = $2)
          and age(xmin) > age($3::xid8::xid) limit 1`,
      [table.oid, number, upto],
    );
    return rows.length > 0;
  } catch {
    return true;
  } finally {
    await client.query('rollback');
  }
}
