/** The partitions that hold a partitioned table's rows: the stream names the root alone. */
import type { ClientBase } from 'pg';
import type { CatalogueTable } from './catalogue.ts';

export interface LeafPartition {
  oid: number;
  /** `schema.name`, quoted where it must be. */
  name: string;
  /** Oid of the table at the top. */
  root: number;
  /** What its rows fulfil; null for one that takes every row. Under the settings of value-session.ts. */
  constraint: string | null;
  /** It was created in its place, and so was every table between it and the root: the stream has all of its rows. */
  native: boolean;
}

/**
 * To attach a table rewrites the catalogue's row of each of its columns. So where one is still of the command that
 * created the table (then the system columns' rows are of the same one), and is marked as inherited, it was created as a
 * partition. Every doubt makes it false: later changes of all columns, one in flight (xmax), a restore by pg_upgrade.
 */
const createdInPlace = `
  exists (select
            from pg_class table_, pg_attribute own, pg_attribute system
           where table_.oid = member and table_.relpersistence = 'p'
             and own.attrelid = member and own.attnum > 0 and not own.attislocal
             and system.attrelid = member and system.attname = 'tableoid'
             and own.xmin = system.xmin and own.cmin = system.cmin and own.xmax = '0')`;

/** Of the given tables, which trackedTables gave. The session has an empty search path. */
export async function leafPartitions(
  client: ClientBase,
  tables: readonly Pick<CatalogueTable, 'oid' | 'kind'>[],
): Promise<LeafPartition[]> {
  const roots = tables.filter(({ kind }) => kind === 'partitioned').map(({ oid }) => oid);
  if (roots.length === 0) return [];
  const { rows } = await client.query<LeafPartition>(
    `select leaf.relid::oid::int8::float8 as oid, leaf.relid::text as name, root::int8::float8 as root,
            pg_get_partition_constraintdef(leaf.relid) as constraint,
            (select bool_and(${createdInPlace})
               from pg_partition_ancestors(leaf.relid) member
              where member not in (select pg_partition_ancestors(root))) as native
       from unnest($1::oid[]) root cross join lateral pg_partition_tree(root) leaf
      where leaf.isleaf and leaf.relid <> root order by 1`,
    [roots],
  );
  return rows;
}
