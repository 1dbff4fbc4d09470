/**
 * One batch of an erasure in one transaction of the source. Rows that are there are deleted, which is streamed as any
 * delete; Tombstones of rows that are not lose their salt and are marked as erased, by which the reader deletes the rows
 * wherever they are. Holds are kept out meanwhile: one that was placed before stops it.
 */
import type { Client } from 'pg';
import { TidemarkError } from '../../platform/errors.ts';
import { failpoint } from '../../platform/failpoint.ts';
import { archiveTable } from '../../platform/retention-archive.ts';
import { requirePublished } from '../evictable-table.ts';
import { referredBy } from '../foreign-keys.ts';
import { readHolds } from '../holds-in-force.ts';
import { findByKey, holdBack, retentionError, textRows } from '../session.ts';
import { fromTable } from '../source-table.ts';
import { type ErasableTable, type EraseScope, inScope, rowSelection, tombstonesInScope } from './scope.ts';

export interface BatchErased {
  hot: number;
  tombstones: number;
}

const batchRows = 500;

export interface BatchOptions {
  client: Client;
  publication: string;
  erasureId: string;
}

/** @throws TidemarkError TM511 under a legal hold; TM503, TM505, TM507: nothing of the batch happened then */
export async function eraseBatch(
  each: ErasableTable,
  scope: EraseScope,
  options: BatchOptions,
): Promise<BatchErased> {
  const { client, publication } = options;
  try {
    await client.query('begin');
    await findByKey(client);
    await holdBack(client);
    await requirePublished(client, publication, each.streamed ? [archiveTable, each.table] : [archiveTable]);
    const holds = await readHolds(client, { ...each.table, tenant: each.tenantColumn });
    if (holds.all || (scope.tenant !== null && holds.tenants.has(scope.tenant))) throw heldError(each.name);
    const rows = await lockRows(client, each, scope);
    const tombstones = await markTombstones(each, scope, options);
    if ([...rows, ...tombstones].some((row) => holds.covers(row))) throw heldError(each.name);
    await deleteRows(client, each, rows);
    await failpoint('before-erase-commit');
    await client.query('commit');
    await failpoint('after-erase-commit');
    return { hot: rows.length, tombstones: tombstones.length };
  } catch (error) {
    await client.query('rollback').catch(() => {});
    throw retentionError(error);
  }
}

export function heldError(table: string): TidemarkError {
  return new TidemarkError('TM511', `rows of ${table} are under a legal hold, and are not erased`);
}

interface LockedRow {
  place: [tableOid: string, ctid: string];
  tenant: string | null;
  key: string;
}

/** Nobody can begin to refer to a row that is locked: those that are referred to are left, and so is who refers to them. */
async function lockRows(client: Client, each: ErasableTable, scope: EraseScope): Promise<LockedRow[]> {
  const { sql, value } = inScope(client, each, scope);
  const referred = each.references.map((reference) => referredBy(client, reference)).join(' or ');
  const free = referred === '' ? '' : ` and not (${referred})`;
  const found = await textRows(
    client,
    `select t.tableoid, t.ctid, ${rowSelection(client, each)} from ${fromTable(each.table)} where ${sql}${free} limit ${batchRows} for update of t`,
    [value],
  );
  const rows = found.map(([oid, ctid, tenant, ...cells]): LockedRow => {
    return { place: [oid!, ctid!], tenant: tenant ?? null, key: JSON.stringify(cells) };
  });
  if (referred === '' || rows.length === 0) return rows;
  const since = await textRows(
    client,
    `select t.tableoid, t.ctid from ${fromTable(each.table)} join unnest($1::oid[], $2::tid[]) as r(oid, place) on t.tableoid = r.oid and t.ctid = r.place where ${referred}`,
    placesOf(rows),
  );
  const kept = new Set(since.map((place) => place.join(' ')));
  return rows.filter(({ place }) => !kept.has(place.join(' ')));
}

function placesOf(rows: readonly LockedRow[]): [string[], string[]] {
  return [rows.map(({ place }) => place[0]), rows.map(({ place }) => place[1])];
}

async function deleteRows(client: Client, each: ErasableTable, rows: readonly LockedRow[]): Promise<void> {
  if (rows.length === 0) return;
  const { rowCount } = await client.query(
    `delete from ${fromTable(each.table)} using unnest($1::oid[], $2::tid[]) as r(oid, place) where t.tableoid = r.oid and t.ctid = r.place`,
    placesOf(rows),
  );
  if (rowCount === rows.length) return;
  throw new TidemarkError(
    'TM503',
    `${rows.length - (rowCount ?? 0)} rows of ${each.name} were not deleted when they should have been`,
    {
      remedy: 'A trigger or rule of the table keeps rows: take it away, then erase again.',
    },
  );
}

async function markTombstones(
  { table }: ErasableTable,
  scope: EraseScope,
  { client, erasureId }: BatchOptions,
): Promise<{ tenant: string | null; key: string }[]> {
  const found = await textRows(
    client,
    `update tidemark_retention.cold_storage_archive a
        set erased_at = now(), erased_by = session_user, erasure_id = $4, salt = null, salt_erased_at = coalesce(a.salt_erased_at, now())
       from (select a.evicted_at, a.id from tidemark_retention.cold_storage_archive a
              where ${tombstonesInScope(scope)} and a.erased_at is null limit ${batchRows} for update) as r
      where a.evicted_at = r.evicted_at and a.id = r.id returning a.tenant, a.row_key`,
    [scope.keys ?? scope.tenant, table.schema, table.name, erasureId],
  );
  return found.map(([tenant, key]) => ({ tenant: tenant ?? null, key: key! }));
}
