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
}

/** Of a partitioned table's keys the one that was declared, not its copies on partitions. */
export async function foreignKeysTo(client: Client, oid: number): Promise<ForeignKey[]> {
  const { rows } = await client.query<{
    schema: string;
    name: string;
    kind: string;
    columns: [string, string][];
  }>(
    `select n.nspname as schema, r.relname as name, r.relkind as kind,
            (select json_agg(json_build_array(a.attname, b.attname) order by k.place)
               from unnest(c.conkey, c.confkey) with ordinality as k(own, other, place)
               join pg_attribute a on a.attrelid = c.conrelid and a.attnum = k.own
               join pg_attribute b on b.attrelid = c.confrelid and b.attnum = k.other) as columns
       from pg_constraint c join pg_class r on r.oid = c.conrelid join pg_namespace n on n.oid = r.relnamespace
      where c.contype = 'f' and c.confrelid = $1 and c.conparentid = 0
      order by 1, 2, c.conname`,
    [oid],
  );
  return rows.map(({ schema, name, kind, columns }) => ({
    table: { schema, name },
    columns,
    only: kind === 'r',
  }));
}

/** A condition over `t`: some row refers to it. */
export function referredBy(client: Client, { table, columns, only }: ForeignKey): string {
  const pairs = columns.map(
    ([own, other]) => `c.${client.escapeIdentifier(own)} = t.${client.escapeIdentifier(other)}`,
  );
  return `exists (select from ${only ? 'only ' : ''}${quoted(table)} as c where ${pairs.join(' and ')})`;
}
