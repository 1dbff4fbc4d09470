/**
 * Evict: one batch in one transaction of the source database. What is still the version that was marked is locked, its
 * Tombstone written, and it is deleted: all of it or, whatever dies, nothing.
 */
import type { Client } from 'pg';
import type { Position } from '../connector/position.ts';
import { tableName } from '../connector/shape.ts';
import { TidemarkError } from '../platform/errors.ts';
import { failpoint } from '../platform/failpoint.ts';
import type { RetainConfig } from '../platform/resolved-config.ts';
import { archiveTable } from '../platform/retention-archive.ts';
import { quoted } from '../replicate/catalogue.ts';
import { type ContentHash, hashRow } from './canonical-row.ts';
import type { DeliveryMark, Proof } from './delivery-proof.ts';
import { type EvictableTable, requirePublished } from './evictable-table.ts';
import { foreignKeysTo, referredBy } from './foreign-keys.ts';
import { readHolds } from './holds-in-force.ts';
import { dueCondition, type MarkedRow, tenantText } from './mark-rows.ts';
import { overrideFor, readOverrides, readPolicy } from './policies.ts';
import { differs, digestOf, type ReadBack } from './read-back.ts';
import { deletedRows, requireNoOthersGone } from './rows-gone.ts';
import { holdBack, retentionError, textRows } from './session.ts';

export interface BatchContext {
  client: Client;
  retain: RetainConfig;
  publication: string;
  /** Position up to which destinations were found to be. */
  position: Position;
  proofOf(row: Pick<MarkedRow, 'key' | 'tenant'>): Proof;
  /** What the destinations handed back; null: they were not asked. */
  readBack: ReadBack | null;
}

/** Rows of the batch, by what became of them. */
export interface BatchOutcome {
  evicted: number;
  held: number;
  /** It is another version by now, is gone, is locked by somebody, or is not old enough any more. */
  changed: number;
  referred: number;
  /** An override ended meanwhile. */
  unproven: number;
}

/** Rows that are fetched at a time: as many as are about so large together, by those that came before. */
const fetchBytes = 1 << 20;
const fetchRows = { first: 20, most: 100 };

interface LockedRow {
  mark: MarkedRow;
  hash: ContentHash;
  /** See ReadBack; empty where nothing was read back. */
  digest: string;
}

/** @throws TidemarkError TM503 where something is not as it must be, TM505, TM507; nothing went then */
export async function evictBatch(
  table: EvictableTable,
  marks: readonly MarkedRow[],
  context: BatchContext,
): Promise<BatchOutcome> {
  const { client } = context;
  const outcome: BatchOutcome = { evicted: 0, held: 0, changed: 0, referred: 0, unproven: 0 };
  try {
    await client.query('begin');
    await holdBack(client);
    // Nobody can begin to refer to the table (a new foreign key) until the batch is over.
    await client.query(`lock table ${quoted(table)} in row exclusive mode`);
    await requireSame(client, table);
    const references = await foreignKeysTo(client, table.oid);
    await requirePublished(client, context.publication, [archiveTable, table]);
    const holds = await readHolds(client, table);
    const overrides = await readOverrides(client, table);
    const free = marks.filter((row) => !holds.covers(row));
    outcome.held = marks.length - free.length;
    const locked = await lockRows(table, free, context);
    outcome.changed = free.length - locked.length;
    const proven = locked.filter(
      ({ mark }) => context.proofOf(mark).enough || overrideFor(overrides, mark.tenant) !== null,
    );
    outcome.unproven = locked.length - proven.length;
    requireRead(table, proven, context);
    const referred = await referredRows({ ...table, references }, proven, client);
    const going = proven.filter(({ mark }) => !referred.has(placeOf(mark)));
    outcome.referred = proven.length - going.length;
    if (going.length > 0) {
      await writeTombstones(
        table,
        going.map((row) => {
          const proof = context.proofOf(row.mark);
          const override = proof.enough ? null : overrideFor(overrides, row.mark.tenant)!.id;
          return { ...row, proof, override };
        }),
        context,
      );
      const before = await deletedRows(client, table);
      await deleteRows(table, going, client);
      await requireNoOthersGone(client, table, going.length, before);
    }
    await failpoint('before-evict-commit');
    await client.query('commit');
    await failpoint('after-evict-commit');
    outcome.evicted = going.length;
    return outcome;
  } catch (error) {
    await client.query('rollback').catch(() => {});
    throw retentionError(error);
  }
}

/** @throws TidemarkError TM508 */
function requireRead(table: EvictableTable, rows: readonly LockedRow[], context: BatchContext): void {
  const { readBack } = context;
  if (!readBack) return;
  for (const { mark, digest } of rows) {
    const proof = context.proofOf(mark);
    if (!proof.enough) continue;
    const destination = readBack.differing(mark.key, digest, proof.relied);
    if (destination !== null) throw differs(table, destination);
  }
}

/** The policy that the batch was chosen by. */
async function requireSame(client: Client, { policy, ...table }: EvictableTable): Promise<void> {
  const now = await readPolicy(client, table);
  if (now?.enabled && now.version === policy.version) return;
  throw new TidemarkError('TM507', `the policy of ${tableName(table)} changed meanwhile`);
}

/** A row address counts within one partition only. */
function byTable(rows: readonly MarkedRow[]): Map<string, MarkedRow[]> {
  return Map.groupBy(rows, ({ tableOid }) => tableOid);
}

/** VACUUM FULL and CLUSTER move rows, each with its xmin: of one transaction, one lies where another lay. */
function keyOf({ key }: EvictableTable, cells: ReadonlyMap<string, string | null>): string {
  return JSON.stringify(key.map((name) => cells.get(name)));
}

function placeOf({ tableOid, ctid }: Pick<MarkedRow, 'tableOid' | 'ctid'>): string {
  return `${tableOid} ${ctid}`;
}

/** Those that are still what was marked; whoever has one locked keeps it. */
async function lockRows(
  table: EvictableTable,
  marks: readonly MarkedRow[],
  { client, retain, readBack }: BatchContext,
): Promise<LockedRow[]> {
  const { join, where } = dueCondition(client, table, retain);
  const columns = table.kept.map((name) => `t.${client.escapeIdentifier(name)}`);
  const locked: LockedRow[] = [];
  for (const [tableOid, rows] of byTable(marks)) {
    const known = new Map(rows.map((row) => [row.ctid, row]));
    await client.query(
      `declare marked no scroll cursor for
         select ${['t.ctid', 't.xmin', tenantText(client, table), ...columns].join(', ')} from ${table.from} ${join}
          where t.tableoid = $1::oid and t.ctid = any ($2::tid[]) and ${where} for update of t skip locked`,
      [tableOid, [...known.keys()]],
    );
    for (let wanted = fetchRows.first; ; ) {
      // Rows may be large: of a few at a time only the hash is kept.
      const found = await textRows(client, `fetch ${wanted} from marked`);
      let characters = 0;
      for (const [ctid, xmin, tenant, ...values] of found) {
        for (const value of values) characters += value?.length ?? 0;
        const mark = known.get(ctid!)!;
        const cells = new Map(table.kept.map((name, i) => [name, values[i]!]));
        if (mark.xmin !== xmin || mark.tenant !== tenant || mark.key !== keyOf(table, cells)) continue;
        locked.push({ mark, hash: hashRow(cells), digest: readBack ? digestOf(cells, table.kept) : '' });
      }
      if (found.length < wanted) break;
      wanted = Math.max(1, Math.min(fetchRows.most, Math.floor((fetchBytes * wanted) / (characters + 1))));
    }
    await client.query('close marked');
  }
  return locked;
}

/** Nobody can begin to refer to a row that is locked, so a statement that begins now sees all who do. */
async function referredRows(
  { references, from }: EvictableTable,
  rows: readonly LockedRow[],
  client: Client,
): Promise<Set<string>> {
  const referred = new Set<string>();
  if (rows.length === 0 || references.length === 0) return referred;
  const condition = references.map((reference) => referredBy(client, reference)).join(' or ');
  for (const [tableOid, marks] of byTable(rows.map(({ mark }) => mark))) {
    const found = await textRows(
      client,
      `select t.ctid from ${from} where t.tableoid = $1::oid and t.ctid = any ($2::tid[]) and (${condition})`,
      [tableOid, marks.map(({ ctid }) => ctid)],
    );
    for (const [ctid] of found) referred.add(placeOf({ tableOid, ctid: ctid! }));
  }
  return referred;
}

type GoingRow = LockedRow & { proof: Proof; override: string | null };

/** What a Tombstone says of its proof: of many rows it is the same. */
function evidenceOf({ proof, override }: GoingRow) {
  const pinned = override === null ? proof.pinned : null;
  const names = proof.holders.map(({ destination }) => destination);
  return { id: JSON.stringify([names, pinned, override]), holders: proof.holders, pinned, override };
}

/** Before the delete: the reader takes a delete for an eviction only then. */
async function writeTombstones(
  { schema, name, policy, forfeited }: EvictableTable,
  rows: readonly GoingRow[],
  { client, position }: BatchContext,
): Promise<void> {
  const hashes = rows.map(({ hash }) => hash);
  const { version, columns } = hashes[0]!;
  const evidence = new Map<string, ReturnType<typeof evidenceOf> & { at: number }>();
  const places = rows.map((row) => {
    const one = evidenceOf(row);
    const known = evidence.get(one.id) ?? { ...one, at: evidence.size + 1 };
    evidence.set(one.id, known);
    return known.at;
  });
  const distinct = [...evidence.values()];
  await client.query(
    `insert into tidemark_retention.cold_storage_archive
       (table_schema, table_name, position, policy_version, hash_version, hashed_columns, forfeited_columns,
        row_key, tenant, content_hash, salt, delivered_to, pinned_destination, override_id)
     select $1, $2, $3, $4, $5, $6, $7, r.row_key, r.tenant,
            substring($8::bytea from (r.n::int - 1) * 32 + 1 for 32), substring($9::bytea from (r.n::int - 1) * 32 + 1 for 32),
            ($13::jsonb[])[r.evidence], ($14::text[])[r.evidence], ($15::uuid[])[r.evidence]
       from unnest($10::text[], $11::text[], $12::int[]) with ordinality as r(row_key, tenant, evidence, n)`,
    [
      schema,
      name,
      position,
      policy.version,
      version,
      columns,
      forfeited,
      Buffer.concat(hashes.map(({ hash }) => hash)),
      Buffer.concat(hashes.map(({ salt }) => salt!)),
      rows.map(({ mark }) => mark.key),
      rows.map(({ mark }) => mark.tenant),
      places,
      distinct.map(({ holders }) => JSON.stringify(holders.map(deliveredTo))),
      distinct.map(({ pinned }) => pinned),
      distinct.map(({ override }) => override),
    ],
  );
}

function deliveredTo({ destination, unit, mark, receipt }: DeliveryMark) {
  return { destination, unit, mark, receipt };
}

/** @throws TidemarkError TM503 where a trigger kept rows */
async function deleteRows(table: EvictableTable, rows: readonly LockedRow[], client: Client): Promise<void> {
  let deleted = 0;
  for (const [tableOid, marks] of byTable(rows.map(({ mark }) => mark))) {
    const { rowCount } = await client.query(
      `delete from ${table.from} where t.tableoid = $1::oid and t.ctid = any ($2::tid[])`,
      [tableOid, marks.map(({ ctid }) => ctid)],
    );
    deleted += rowCount ?? 0;
  }
  if (deleted === rows.length) return;
  throw new TidemarkError(
    'TM503',
    `${tableName(table)} is not evicted: ${rows.length - deleted} of ${rows.length} rows were not deleted when they should have been`,
    { remedy: 'A trigger or rule of the table keeps rows: take it away, or disable the policy.' },
  );
}
