/** What the source's catalogue says of tracked tables: identity, types, enum labels, personal columns. */

import { type ClientBase, escapeIdentifier } from 'pg';
import type { ColumnShape, TableId, TableShape } from '../connector/shape.ts';
import { tableName } from '../connector/shape.ts';
import { isMask, isProtecting, type ProtectingPolicy } from '../platform/column-policy.ts';
import { TidemarkError } from '../platform/errors.ts';
import type { ColumnPolicy, SourceConfig, TableRule } from '../platform/resolved-config.ts';
import { archiveTable } from '../platform/retention-archive.ts';
import { parseTablePattern } from '../platform/table-name.ts';
import { protectionOf } from './column-protection.ts';
import type { Relation } from './pgoutput.ts';
import { describeType, keyForm, readSourceTypes, type SourceTypes } from './source-types.ts';

export interface CatalogueColumn {
  name: string;
  /** attnum: stays when it is renamed. */
  number: number;
  /** format_type with an empty search path. */
  type: string;
  typeOid: number;
  /** Part of the replica identity. */
  identity: boolean;
  generated: boolean;
  /** Commented `@personal` or named like a personal column. */
  personal: boolean;
}

export interface CatalogueTable extends TableId {
  oid: number;
  kind: 'table' | 'partitioned';
  replicaIdentity: 'default' | 'nothing' | 'full' | 'index';
  hasPrimaryKey: boolean;
  columns: CatalogueColumn[];
  /** Owned by (a role this user is a member of). */
  owned: boolean;
  owner: string;
}

/** A table can be published with updates and deletes only where its rows can be told apart. */
export function hasIdentity(table: CatalogueTable): boolean {
  if (table.replicaIdentity === 'full' || table.replicaIdentity === 'index') return true;
  return table.replicaIdentity === 'default' && table.hasPrimaryKey;
}

const tablesQuery = `
  select c.oid, n.nspname as schema, c.relname as name, c.relkind, c.relreplident, c.relpersistence,
         exists (select 1 from pg_index i where i.indrelid = c.oid and i.indisprimary and i.indimmediate) as has_primary_key,
         pg_has_role(c.relowner, 'USAGE') as owned, pg_get_userbyid(c.relowner) as owner,
         (select json_agg(json_build_object(
                   'name', a.attname, 'number', a.attnum, 'type', format_type(a.atttypid, a.atttypmod), 'typeOid', a.atttypid::int8, 'generated', a.attgenerated <> '',
                   'identity', coalesce(a.attnum = any (k.indkey[0:k.indnkeyatts - 1]), false),
                   'comment', col_description(c.oid, a.attnum)) order by a.attnum)
            from pg_attribute a
            left join pg_index k on k.indrelid = c.oid
              and case when c.relreplident = 'i' then k.indisreplident else k.indisprimary and k.indimmediate end
           where a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped) as columns
    from pg_class c join pg_namespace n on n.oid = c.relnamespace
   where c.relkind in ('r', 'p') and not c.relispartition
     and n.nspname not in ('pg_catalog', 'information_schema') and n.nspname !~ '^pg_'
   order by 2, 3`;

const identities = { d: 'default', n: 'nothing', f: 'full', i: 'index' } as const;

/** Partitions that the WAL does not carry, and whose tables would be replicated in part. */
const unloggedPartitionsQuery = `
  select p.oid::regclass::text as name from unnest($1::oid[]) root cross join lateral pg_partition_tree(root) leaf
    join pg_class p on p.oid = leaf.relid
   where leaf.isleaf and (p.relpersistence <> 'p' or p.relkind = 'f') order by 1`;

/** What a name stands for that is no table to track. */
const otherRelationQuery = `
  select case when c.relpersistence = 't' then 'a temporary table' when c.relispartition then 'a partition'
              when c.relkind = 'v' then 'a view' when c.relkind = 'm' then 'a materialized view'
              when c.relkind = 'f' then 'a foreign table' else 'no table' end as kind,
         (select i.inhparent::regclass::text from pg_inherits i where i.inhrelid = c.oid and c.relispartition) as parent
    from pg_class c join pg_namespace n on n.oid = c.relnamespace
   where n.nspname || '.' || c.relname = $1 and c.relkind in ('r', 'p', 'v', 'm', 'f')`;

/**
 * The tables that source.tables selects.
 * @throws TidemarkError TM501 where retention is not set up; TM202 for unlogged tables and partitions, for foreign partitions, for names of anything else than
 * tables, and for patterns that match nothing
 */
export async function trackedTables(client: ClientBase, source: SourceConfig): Promise<CatalogueTable[]> {
  await client.query(`set search_path = ''`);
  const { rows } = await client.query(tablesQuery);
  const matches = rows.filter((row) => ruleFor(source.tables, row as TableId) !== null);
  // Temporary tables are in a schema of their session's, which no pattern selects.
  const unlogged = matches.filter((row) => row.relpersistence !== 'p').map((row) => tableName(row));
  if (unlogged.length > 0) {
    throw new TidemarkError(
      'TM202',
      `unlogged tables are not in the WAL and cannot be tracked: ${unlogged.join(', ')}`,
      {
        remedy: unlogged.map((name) => `alter table ${name} set logged;`).join(' '),
      },
    );
  }
  await requireLoggedPartitions(
    client,
    matches.filter((row) => row.relkind === 'p').map((row) => row.oid),
  );
  for (const { pattern } of source.tables) {
    if (!rows.some((row) => matchesPattern(pattern, row as TableId))) {
      await refuseOtherRelation(client, pattern);
      if (pattern === tableName(archiveTable))
        throw new TidemarkError('TM501', 'the source database has no table of Tombstones');
      throw new TidemarkError('TM202', `source.tables: ${pattern} matches no table`, {
        remedy: 'Create the table, correct the pattern, or grant USAGE on its schema.',
      });
    }
  }
  return matches.map((row) => ({
    oid: row.oid,
    schema: row.schema,
    name: row.name,
    kind: row.relkind === 'p' ? 'partitioned' : 'table',
    replicaIdentity: identities[row.relreplident as 'd'],
    hasPrimaryKey: row.has_primary_key,
    owned: row.owned,
    owner: row.owner,
    columns: (row.columns ?? []).map(
      (column: CatalogueColumn & { comment: string | null }): CatalogueColumn => ({
        name: column.name,
        number: column.number,
        type: column.type,
        typeOid: column.typeOid,
        identity: column.identity,
        generated: column.generated,
        personal: isPersonal(source, column.name, column.comment),
      }),
    ),
  }));
}

async function requireLoggedPartitions(client: ClientBase, roots: readonly number[]): Promise<void> {
  if (roots.length === 0) return;
  const { rows } = await client.query<{ name: string }>(unloggedPartitionsQuery, [roots]);
  if (rows.length === 0) return;
  throw new TidemarkError(
    'TM202',
    `partitions that are unlogged or foreign tables are not in the WAL, so their tables cannot be tracked: ${rows.map(({ name }) => name).join(', ')}`,
    {
      remedy:
        'Make unlogged partitions logged, detach foreign ones, or leave their tables out of source.tables.',
    },
  );
}

/** @throws TidemarkError TM202 where the name is that of a view, a partition, or whatever else is not a table to track */
async function refuseOtherRelation(client: ClientBase, pattern: string): Promise<void> {
  const { rows } = await client.query<{ kind: string; parent: string | null }>(otherRelationQuery, [pattern]);
  const found = rows[0];
  if (!found) return;
  throw new TidemarkError(
    'TM202',
    `source.tables: ${pattern} is ${found.kind}${found.parent ? ` of ${found.parent}` : ''}, and only tables are replicated`,
    {
      remedy: found.parent
        ? `Name ${found.parent} instead: its partitions are replicated as one table.`
        : 'Take it out of source.tables, and name the tables that its rows come from.',
    },
  );
}

/** The table in a statement. */
export function quoted(table: TableId): string {
  return `${escapeIdentifier(table.schema)}.${escapeIdentifier(table.name)}`;
}

/** `schema.table` or `schema.*`. */
export function matchesPattern(pattern: string, table: TableId): boolean {
  const wanted = parseTablePattern(pattern);
  return wanted?.schema === table.schema && (wanted.name === null || wanted.name === table.name);
}

/** The most specific rule that selects the table. */
export function ruleFor(rules: readonly TableRule[], table: TableId): TableRule | null {
  return (
    rules.find(
      ({ pattern }) => parseTablePattern(pattern)?.name === table.name && matchesPattern(pattern, table),
    ) ??
    rules.find(({ pattern }) => matchesPattern(pattern, table)) ??
    null
  );
}

function isPersonal(source: SourceConfig, column: string, comment: string | null): boolean {
  if (comment && /(^|\s)@personal\b/.test(comment)) return true;
  const name = column.toLowerCase();
  return source.personalColumns.some((pattern) => {
    const expression = pattern
      .toLowerCase()
      .replace(/[.+?^${}()|[\]\\]/g, '\\$&')
      .replaceAll('*', '.*');
    return new RegExp(`^${expression}$`).test(name);
  });
}

/** Personal columns are dropped unless the configuration keeps them; every other column is kept unless it drops it. */
export function columnPolicy(
  source: SourceConfig,
  table: TableId,
  column: Pick<CatalogueColumn, 'name' | 'personal'>,
): ColumnPolicy {
  const explicit = ruleFor(source.tables, table)?.columns ?? {};
  // A column may be called constructor.
  if (Object.hasOwn(explicit, column.name)) return explicit[column.name]!;
  return column.personal ? 'drop' : 'keep';
}

export function tenantColumnOf(source: SourceConfig, table: TableId): string | null {
  const rule = ruleFor(source.tables, table);
  return rule?.tenantColumn === undefined ? source.tenantColumn : rule.tenantColumn;
}

export interface DescribedRelation {
  shape: TableShape;
  /** The shape's columns as Postgres has them: they differ where a column is hashed or masked. */
  sourceColumns: ColumnShape[];
  /** For each column of the shape its index in the relation's tuples. */
  tupleIndex: number[];
  /** Columns in the stream that the policy drops here, because the publication cannot leave them out. */
  droppedHere: string[];
  /** What the columns' types are made of, and each column's type. */
  types: SourceTypes;
  typeOids: number[];
}

interface TypeRow {
  position: number;
  type: string | null;
  comment: string | null;
}

/** A column of a Relation message, with what only the catalogue knows. */
export interface RelationColumnInfo extends Omit<ColumnShape, 'key' | 'nullable'> {
  typeOid: number;
  policy: ColumnPolicy;
}

/** In the order of the relation's tuples. */
export async function relationColumns(
  client: ClientBase,
  source: SourceConfig,
  relation: Relation,
): Promise<{ columns: RelationColumnInfo[]; types: SourceTypes }> {
  await client.query(`set search_path = ''`);
  const { rows } = await client.query<TypeRow>(
    `select u.position::int as position, format_type(u.type, u.typmod) as type,
            (select col_description(a.attrelid, a.attnum) from pg_attribute a
              where a.attrelid = $3 and a.attname = u.name and not a.attisdropped) as comment
       from unnest($1::oid[], $2::int[], $4::text[]) with ordinality as u(type, typmod, name, position)
      order by u.position`,
    [
      relation.columns.map((column) => column.typeOid),
      relation.columns.map((column) => column.typmod),
      relation.oid,
      relation.columns.map((column) => column.name),
    ],
  );
  const types = await readSourceTypes(
    client,
    relation.columns.map((column) => column.typeOid),
  );
  const columns = relation.columns.map(({ name, typeOid }, i) => {
    const row = rows[i]!;
    const personal = isPersonal(source, name, row.comment);
    return {
      name,
      ...describeType(types, typeOid, row.type ?? `oid ${typeOid}`),
      typeOid,
      policy: columnPolicy(source, relation, { name, personal }),
    };
  });
  return { columns, types };
}

/**
 * The shape of a table as the Relation message gives it. Only what the message lacks comes from the catalogue: the
 * names and structure of types, enum labels, the primary key under REPLICA IDENTITY FULL, and comments.
 * @throws TidemarkError TM208 when the policy would drop or mask a key column
 */
export async function describeRelation(
  client: ClientBase,
  source: SourceConfig,
  relation: Relation,
): Promise<DescribedRelation> {
  const { columns: described, types } = await relationColumns(client, source, relation);
  const keyNames = await keyColumnNames(client, relation);
  const columns: ColumnShape[] = [];
  const sourceColumns: ColumnShape[] = [];
  const tupleIndex: number[] = [];
  const droppedHere: string[] = [];
  described.forEach((column, i) => {
    const { policy } = column;
    const key = keyNames.has(column.name);
    if (policy === 'drop') {
      if (key) {
        throw new TidemarkError(
          'TM208',
          `key column ${tableName(relation)}.${column.name} is personal or dropped, but rows cannot be told apart without it`,
          {
            remedy: `Say in tidemark.yaml that ${column.name} is kept, or give the table another replica identity.`,
          },
        );
      }
      droppedHere.push(column.name);
      return;
    }
    if (key && isMask(policy)) {
      throw new TidemarkError(
        'TM208',
        `key column ${tableName(relation)}.${column.name} is masked, but rows cannot be told apart by what a mask leaves`,
        { remedy: `Say in tidemark.yaml that ${column.name} is kept or hashed.` },
      );
    }
    const { typeOid: _, policy: __, ...type } = column;
    const own: ColumnShape = {
      ...type,
      ...(key ? keyForm(type) : {}),
      key,
      nullable: !key,
    };
    sourceColumns.push(own);
    columns.push(isProtecting(policy) ? protectedColumn(own, policy, source.hashKey) : own);
    tupleIndex.push(i);
  });
  const tenantName = tenantColumnOf(source, relation);
  const tenant = columns.findIndex((column) => column.name === tenantName);
  const inIdentity =
    tenant >= 0 && relation.columns.some((column) => column.name === tenantName && column.identity);
  return {
    shape: {
      schema: relation.schema,
      name: relation.name,
      columns,
      keyColumns: columns.flatMap((column, i) => (column.key ? [i] : [])),
      // Without it in the identity, a delete does not say whose row it was: partition by key then.
      tenantColumn: inIdentity ? tenant : null,
    },
    sourceColumns,
    tupleIndex,
    droppedHere,
    types,
    typeOids: tupleIndex.map((i) => relation.columns[i]!.typeOid),
  };
}

function protectedColumn(
  { name, type, key, nullable }: ColumnShape,
  policy: ProtectingPolicy,
  hashKey: string | null,
): ColumnShape {
  return { name, type: 'text', key, nullable, protection: protectionOf(policy, type, hashKey) };
}

/**
 * Under FULL every column is flagged as identity; the primary key, if any, is what tells rows apart. Not one that is
 * checked at commit: within a Transaction two rows may have the same key, and swap theirs.
 */
async function keyColumnNames(client: ClientBase, relation: Relation): Promise<Set<string>> {
  if (relation.replicaIdentity !== 'full') {
    return new Set(relation.columns.filter((column) => column.identity).map((column) => column.name));
  }
  const { rows } = await client.query<{ name: string }>(
    `select a.attname as name from pg_index i
       join pg_attribute a on a.attrelid = i.indrelid and a.attnum = any (i.indkey[0:i.indnkeyatts - 1])
      where i.indrelid = $1 and i.indisprimary and i.indimmediate`,
    [relation.oid],
  );
  return new Set(rows.map((row) => row.name));
}
