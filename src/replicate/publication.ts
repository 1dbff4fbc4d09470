/**
 * The publications, planned so that they can never break the application's writes: Postgres refuses an UPDATE or
 * DELETE on a table whose publication publishes it without a usable replica identity. Such tables go into a second
 * publication that carries inserts and truncates only.
 */

import type { ClientBase } from 'pg';
import { escapeIdentifier as quote } from 'pg';
import { tableName } from '../connector/shape.ts';
import { TidemarkError } from '../platform/errors.ts';
import type { SourceConfig } from '../platform/resolved-config.ts';
import { type CatalogueTable, columnPolicy, hasIdentity } from './catalogue.ts';

export interface PublishedTable {
  table: CatalogueTable;
  /** Columns of the publication's list, or null for all of them. */
  columns: string[] | null;
  /** Columns that the policy drops but the publication cannot leave out: the reader drops them. */
  droppedByReader: string[];
  /** attnums of columns that destinations get as they are. */
  kept: number[];
}

export interface PublicationPlan {
  name: string;
  publish: string;
  tables: PublishedTable[];
}

/** @param version server_version_num; column lists exist from 150000 on */
export function planPublications(
  source: SourceConfig,
  tables: readonly CatalogueTable[],
  version: number,
): PublicationPlan[] {
  const full: PublishedTable[] = [];
  const insertOnly: PublishedTable[] = [];
  for (const table of tables) {
    const kept = table.columns.filter(
      (column) => !column.generated && columnPolicy(source, table, column) !== 'drop',
    );
    const dropped = table.columns.filter(
      (column) => !column.generated && columnPolicy(source, table, column) === 'drop',
    );
    const identity = hasIdentity(table);
    // A column list must hold the whole identity, and none is accepted with REPLICA IDENTITY FULL.
    const listable =
      version >= 150000 &&
      source.publicationColumnLists !== false &&
      table.replicaIdentity !== 'full' &&
      dropped.every((column) => !column.identity) &&
      kept.length > 0;
    const entry: PublishedTable = {
      table,
      columns: dropped.length > 0 && listable ? kept.map((column) => column.name) : null,
      droppedByReader: dropped.length > 0 && !listable ? dropped.map((column) => column.name) : [],
      kept: kept
        .filter((column) => columnPolicy(source, table, column) === 'keep')
        .map(({ number }) => number),
    };
    (identity ? full : insertOnly).push(entry);
  }
  return [
    { name: source.publication, publish: 'insert, update, delete, truncate', tables: full },
    { name: insertOnlyName(source), publish: 'insert, truncate', tables: insertOnly },
  ];
}

export function insertOnlyName(source: SourceConfig): string {
  return `${source.publication.slice(0, 55)}_inserts`;
}

/** The statement that makes the publication as planned. */
export function createStatement(plan: PublicationPlan): string {
  const tables = plan.tables.map(tableClause).join(', ');
  const target = tables ? ` for table ${tables}` : '';
  return `create publication ${quote(plan.name)}${target} with (publish = '${plan.publish}', publish_via_partition_root = true);`;
}

export function setStatement(plan: PublicationPlan): string {
  return `alter publication ${quote(plan.name)} set table ${plan.tables.map(tableClause).join(', ')};`;
}

function tableClause({ table, columns }: PublishedTable): string {
  const list = columns ? ` (${columns.map(quote).join(', ')})` : '';
  // Without it, Postgres adds the tables that inherit from this one too: those are tables of their own.
  const only = table.kind === 'table' ? 'only ' : '';
  return `${only}${quote(table.schema)}.${quote(table.name)}${list}`;
}

interface ActualPublication {
  publish: string;
  viaRoot: boolean;
  allTables: boolean;
  /** `schema.name` to its column list, null for all columns. */
  tables: Map<string, string[] | null>;
}

export interface PublicationDifference {
  plan: PublicationPlan;
  what: string;
  statement: string;
}

/** What has to be done to the publications; empty when they are as planned. */
export async function comparePublications(
  client: ClientBase,
  plans: readonly PublicationPlan[],
  version: number,
): Promise<PublicationDifference[]> {
  const differences: PublicationDifference[] = [];
  for (const plan of plans) {
    const actual = await readPublication(client, plan.name, version);
    if (!actual) {
      differences.push({
        plan,
        what: `publication ${plan.name} does not exist`,
        statement: createStatement(plan),
      });
      continue;
    }
    if (actual.allTables) {
      differences.push({
        plan,
        what: `publication ${plan.name} is for all tables, which would break writes to tables without a replica identity`,
        statement: `drop publication ${quote(plan.name)}; ${createStatement(plan)}`,
      });
      continue;
    }
    if (actual.publish !== plan.publish || !actual.viaRoot) {
      differences.push({
        plan,
        what: `publication ${plan.name} publishes ${actual.publish}${actual.viaRoot ? '' : ' and not through the partition root'}`,
        statement: `alter publication ${quote(plan.name)} set (publish = '${plan.publish}', publish_via_partition_root = true);`,
      });
    }
    if (!sameTables(plan, actual)) {
      const statement =
        plan.tables.length > 0
          ? setStatement(plan)
          : `drop publication ${quote(plan.name)}; ${createStatement(plan)}`;
      differences.push({
        plan,
        what: `publication ${plan.name} has other tables or columns than configured`,
        statement,
      });
    }
  }
  return differences;
}

function sameTables(plan: PublicationPlan, actual: ActualPublication): boolean {
  if (plan.tables.length !== actual.tables.size) return false;
  return plan.tables.every(({ table, columns }) => {
    const list = actual.tables.get(tableName(table));
    if (list === undefined) return false;
    const kept = columns ?? table.columns.filter((column) => !column.generated).map((column) => column.name);
    const published =
      list ?? table.columns.filter((column) => !column.generated).map((column) => column.name);
    return [...kept].sort().join('\0') === [...published].sort().join('\0');
  });
}

async function readPublication(
  client: ClientBase,
  name: string,
  version: number,
): Promise<ActualPublication | null> {
  const { rows } = await client.query(
    `select oid, puballtables, pubviaroot, pubinsert, pubupdate, pubdelete, pubtruncate from pg_publication where pubname = $1`,
    [name],
  );
  const row = rows[0];
  if (!row) return null;
  const columnList =
    version >= 150000
      ? `(select json_agg(a.attname) from pg_attribute a where a.attrelid = r.prrelid and a.attnum = any (r.prattrs))`
      : 'null';
  const { rows: tables } = await client.query(
    `select n.nspname as schema, c.relname as name, ${columnList} as columns
       from pg_publication_rel r join pg_class c on c.oid = r.prrelid join pg_namespace n on n.oid = c.relnamespace
      where r.prpubid = $1`,
    [row.oid],
  );
  const publish = [
    row.pubinsert && 'insert',
    row.pubupdate && 'update',
    row.pubdelete && 'delete',
    row.pubtruncate && 'truncate',
  ];
  return {
    publish: publish.filter(Boolean).join(', '),
    viaRoot: row.pubviaroot,
    allTables: row.puballtables,
    tables: new Map(tables.map((table) => [tableName(table), table.columns])),
  };
}

/**
 * Makes the publications as planned.
 * @throws TidemarkError TM202 with the statements to run, where this role may not
 */
export async function ensurePublications(
  client: ClientBase,
  plans: readonly PublicationPlan[],
  version: number,
): Promise<string[]> {
  const differences = await comparePublications(client, plans, version);
  const done: string[] = [];
  for (const { statement, what } of differences) {
    try {
      await client.query(statement);
      done.push(what);
    } catch (error) {
      const { code } = error as { code?: string };
      if (code === '25006') {
        throw new TidemarkError('TM202', `${what}, and the source is a standby`, {
          cause: error,
          remedy: `On its primary: ${differences.map((difference) => difference.statement).join(' ')}`,
        });
      }
      if (code !== '42501') throw error;
      const owners = [
        ...new Set(
          plans.flatMap((plan) =>
            plan.tables.filter(({ table }) => !table.owned).map(({ table }) => table.owner),
          ),
        ),
      ];
      throw new TidemarkError(
        'TM202',
        `${what}, and this role may not change it (tables are owned by ${owners.join(', ')})`,
        {
          cause: error,
          remedy: `As the owner of the tables: ${differences.map((difference) => difference.statement).join(' ')}`,
        },
      );
    }
  }
  return done;
}
