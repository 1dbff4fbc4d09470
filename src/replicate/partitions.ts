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
}

/** Of the given tables, which trackedTables gave. The session has an empty search path. */
export async function leafPartitions(
  client: ClientBase,
  tables: readonly Pick<CatalogueTable, 'oid' | 'kind'>[],
): Promise<LeafPartition[]> {
  const roots = tables.filter(({ kind }) => kind === 'partitioned').map(({ oid }) => oid);
  if (roots.length === 0) return [];
  const { rows } = await client.query<LeafPartition>(
    `select leaf.relid::oid::int8::float8 as oid, leaf.relid::text as name, root::int8::float8 as root,
            pg_get_partition_constraintdef(leaf.relid) as constraint
       from unnest($1::oid[]) root cross join lateral pg_partition_tree(root) leaf
      where leaf.isleaf and leaf.relid <> root order by 1`,
    [roots],
  );
  return rows;
}
