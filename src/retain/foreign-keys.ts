/** Children first: a row that others refer to stays, whatever their foreign key says is to become of them. */
import type { Client } from 'pg';
import type { TableId } from '../connector/shape.ts';
import { quoted } from '../replicate/catalogue.ts';

export interface ForeignKey {
  /** The table that refers. */
  table: TableId;
  /** Pairs: column there, column here. */
  columns: [string, string][];
  only: boolean;
  /** The partition that it refers to; null: the table. */
  partition: number | null;
}

/** Of a partitioned table's keys the one that was declared, not its copies on partitions; and those to a partition. */
export async function foreignKeysTo(client: Client, oid: number): Promise<ForeignKey[]> {
  const { rows } = await client.query<{
    schema: string;
    name: string;
    kind: string;
    columns: [string, string][];
    partition: number | null;
  }>(
    `select n.nspname as schema, r.relname as name, r.relkind as kind, nullif(c.confrelid, $1::oid)::int8::float8 as partition,
            (select json_agg(json_build_array(a.attname, b.attname) order by k.place)
               from unnest(c.conkey, c.confkey) with ordinality as k(own, other, place)
               join pg_attribute a on a.attrelid = c.conrelid and a.attnum = k.own
               join pg_attribute b on b.attrelid = c.confrelid and b.attnum = k.other) as columns
       from pg_constraint c join pg_class r on r.oid = c.conrelid join pg_namespace n on n.oid = r.relnamespace
      where c.contype = 'f' and c.conparentid = 0 and (c.confrelid = $1::oid or c.confrelid in (select relid from pg_partition_tree($1::oid)))
      order by 1, 2, c.conname`,
    [oid],
  );
  return rows.map(({ schema, name, kind, columns, partition }) => ({
    table: { schema, name },
    columns,
    only: kind === 'r',
    partition,
  }));
}

/** A condition over `t`: some row refers to it. */
export function referredBy(client: Client, { table, columns, only, partition }: ForeignKey): string {
  const own =
    partition === null
      ? ''
      : `t.tableoid in (select relid from pg_partition_tree(${partition}::oid::regclass)) and `;
  const pairs = columns.map(
    ([own, other]) => `c.${client.escapeIdentifier(own)} = t.${client.escapeIdentifier(other)}`,
  );
  return `(${own}exists (select from ${only ? 'only ' : ''}${quoted(table)} as c where ${pairs.join(' and ')}))`;
}
