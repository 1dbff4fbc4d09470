/**
 * Rows come back: one batch in one transaction of the source, the Tombstones' `recalled_at` first, by which the reader
 * takes the inserts for recalls. A row that the source does not take is found by halving, and the others come back.
 */
import type { Client } from 'pg';
import { failpoint } from '../platform/failpoint.ts';
import { archiveTable } from '../platform/retention-archive.ts';
import { quoted } from '../replicate/catalogue.ts';
import { requirePublished } from './evictable-table.ts';
import type { OpenTombstone } from './open-tombstones.ts';
import type { VerifiedRow } from './row-columns.ts';
import { findByKey, retentionError, type TextRow, textRows } from './session.ts';
import { keysInTable, type SourceTable } from './source-table.ts';

export interface ReturningRow {
  tombstone: OpenTombstone;
  row: VerifiedRow;
}

export interface InsertContext {
  client: Client;
  table: SourceTable;
  publication: string;
  reason: string;
}

export interface InsertOutcome {
  recalled: ReturningRow[];
  /** Somebody else recalled it meanwhile. */
  already: number;
  refused: { key: string; reason: string }[];
}

/** Whoever wrote that row has another one, and destinations have it by now. */
export const thereAgain = 'the source has a row of that key again';

/** @throws TidemarkError TM503, TM505, TM507; of what is not in the outcome nothing happened then */
export async function insertRecalled(
  rows: readonly ReturningRow[],
  context: InsertContext,
): Promise<InsertOutcome> {
  const outcome: InsertOutcome = { recalled: [], already: 0, refused: [] };
  // Rows that went under other columns are inserted with other columns.
  for (const group of Map.groupBy(rows, ({ row }) => [...row.cells.keys()].join('\0')).values())
    await insertGroup(group, context, outcome);
  return outcome;
}

async function insertGroup(
  rows: readonly ReturningRow[],
  context: InsertContext,
  outcome: InsertOutcome,
): Promise<void> {
  if (rows.length === 0) return;
  const { client } = context;
  try {
    await client.query('begin');
    await findByKey(client);
    const { coming, refused, already } = await insertOnce(rows, context);
    if (refused.size > 0) {
      await client.query('rollback');
      const others = rows.filter(({ tombstone }) => !refused.has(tombstone.key));
      for (const [key, reason] of refused) outcome.refused.push({ key, reason });
      return await insertGroup(others, context, outcome);
    }
    await failpoint('before-recall-commit');
    await client.query('commit');
    outcome.recalled.push(...coming);
    outcome.already += already;
    await failpoint('after-recall-commit');
  } catch (error) {
    await client.query('rollback').catch(() => {});
    const reason = refusalOf(error);
    if (reason === null) throw retentionError(error);
    if (rows.length === 1) {
      outcome.refused.push({ key: rows[0]!.tombstone.key, reason });
      return;
    }
    const half = rows.length >> 1;
    await insertGroup(rows.slice(0, half), context, outcome);
    await insertGroup(rows.slice(half), context, outcome);
  }
}

async function insertOnce(
  rows: readonly ReturningRow[],
  { client, table, publication, reason }: InsertContext,
): Promise<{ coming: ReturningRow[]; refused: Map<string, string>; already: number }> {
  await requirePublished(client, publication, [archiveTable, table]);
  const refused = new Map<string, string>();
  const keys = rows.map(({ tombstone }) => tombstone.key);
  for (const key of await keysInTable(client, table, keys)) refused.set(key, thereAgain);
  if (refused.size > 0) return { coming: [], refused, already: rows.length };
  const marked = await textRows(
    client,
    `update tidemark_retention.cold_storage_archive a set recalled_at = now(), recalled_by = session_user, recall_reason = $3
       from unnest($1::uuid[], $2::timestamptz[]) as r(id, evicted_at)
      where a.id = r.id and a.evicted_at = r.evicted_at and a.recalled_at is null and a.salt is not null returning a.id`,
    [rows.map(({ tombstone }) => tombstone.id), rows.map(({ tombstone }) => tombstone.evictedAt), reason],
  );
  const ids = new Set(marked.map(([id]) => id));
  const coming = rows.filter(({ tombstone }) => ids.has(tombstone.id));
  if (coming.length === 0) return { coming, refused, already: rows.length };
  const { names, written } = await writeRows(client, table, coming);
  for (const { tombstone, row } of coming) {
    const back = written.get(tombstone.key);
    if (back && row.cells.size === names.length && names.every((name, i) => back[i] === row.cells.get(name)))
      continue;
    refused.set(
      tombstone.key,
      'the source keeps it otherwise than it was: see what triggers and types the table has by now',
    );
  }
  return { coming, refused, already: rows.length - coming.length };
}

/** Postgres reads the texts that it printed. @returns what it has now of which columns, by key */
async function writeRows(
  client: Client,
  table: SourceTable,
  rows: readonly ReturningRow[],
): Promise<{ names: string[]; written: Map<string, TextRow> }> {
  const { cells } = rows[0]!.row;
  const wanted = table.columns.filter(({ name, generated }) => cells.has(name) && !generated);
  const list = wanted.map(({ name }) => client.escapeIdentifier(name)).join(', ');
  const values = wanted.map(({ type }, i) => `r.c${i}::${type}`).join(', ');
  const arrays = wanted.map((_, i) => `$${i + 1}::text[]`).join(', ');
  const found = await textRows(
    client,
    `insert into ${quoted(table)} (${list}) overriding system value
     select ${values} from unnest(${arrays}) as r(${wanted.map((_, i) => `c${i}`).join(', ')}) returning ${list}`,
    wanted.map(({ name }) => rows.map(({ row }) => row.cells.get(name)!)),
  );
  const keyPlaces = table.key.map(({ name }) => wanted.findIndex((column) => column.name === name));
  return {
    names: wanted.map(({ name }) => name),
    written: new Map(found.map((row) => [JSON.stringify(keyPlaces.map((place) => row[place])), row])),
  };
}

/** What Postgres refuses of a row for what it is; null: it failed for another reason. */
function refusalOf(error: unknown): string | null {
  const { code } = error as { code?: unknown };
  if (typeof code !== 'string') return null;
  if (code === '23505') return 'another row of the source has a value that must be unique';
  if (code === '23503') return 'a row that it refers to is not in the source: recall that one first';
  if (code === '23502') return 'a column that was added since must have a value, and has no default';
  if (code === '23514') return 'a check, or the partitions, of the table do not allow it any more';
  return /^(22|23|P0001)/.test(code) ? `the source refuses it (SQLSTATE ${code})` : null;
}
