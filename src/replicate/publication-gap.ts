/**
 * What a publication lacks that it had: Postgres then sends nothing of it, without a word (from Postgres 18 on even where
 * the publication itself is gone), so changes may be missing from then on.
 */

import type { ClientBase } from 'pg';
import { tableName } from '../connector/shape.ts';
import type { PublicationPlan, PublishedTable } from './publication.ts';
import { askSource } from './source.ts';

/** By table oid: a table made anew under the same name is another one. */
export type PublishedTables = Record<string, Published>;

export interface Published {
  publication: string;
  operations: string[];
  columns: string[];
  /** Whether by a column list. Absent, like what follows, in what older readers remembered. */
  listed?: boolean;
  /** attnums of all columns that there are, and of those that destinations get as they are. */
  there?: number[];
  kept?: number[];
}

/** What the plans publish, once they are carried out. */
export function publishedTables(plans: readonly PublicationPlan[]): PublishedTables {
  return Object.fromEntries(
    plans.flatMap(({ name, publish, tables }) =>
      tables.map((entry) => [
        entry.table.oid,
        {
          publication: name,
          operations: publish.split(', '),
          columns: sentColumns(entry),
          listed: entry.columns !== null,
          there: entry.table.columns.map(({ number }) => number),
          kept: entry.kept,
        },
      ]),
    ),
  );
}

/**
 * @param before what was published when the reader last looked
 * @param plans of the catalogue as it is now
 * @returns in words, by `schema.table`, what is wanted, was published, and is not published any more
 */
export async function publicationGap(
  client: ClientBase,
  before: PublishedTables,
  plans: readonly PublicationPlan[],
  version: number,
): Promise<Record<string, string>> {
  const gap: Record<string, string> = {};
  for (const plan of plans) {
    const actual = await readPublished(client, plan.name, version);
    for (const entry of plan.tables) {
      const had = before[entry.table.oid];
      // Where the plan moved a table to the other publication, nobody did it behind our back.
      if (had?.publication !== plan.name) continue;
      const name = tableName(entry.table);
      const now = actual?.tables.get(Number(entry.table.oid));
      if (!actual) gap[name] = `publication ${plan.name} is gone`;
      else if (now === undefined) gap[name] = `${name} is not in publication ${plan.name}`;
      else {
        const wanted = new Set([...plan.publish.split(', '), ...sentColumns(entry)]);
        const sent = new Set([...actual.operations, ...(now ?? sentColumns({ ...entry, columns: null }))]);
        const missing = [...had.operations, ...had.columns].filter(
          (each) => wanted.has(each) && !sent.has(each),
        );
        if (missing.length > 0)
          gap[name] = `publication ${plan.name} leaves out ${missing.join(', ')} of ${name}`;
      }
    }
  }
  return gap;
}

function sentColumns({ table, columns }: PublishedTable): string[] {
  return columns ?? table.columns.filter(({ generated }) => !generated).map(({ name }) => name);
}

/** Tables by oid, with their column list or null for all columns. Null: no such publication. */
async function readPublished(
  client: ClientBase,
  name: string,
  version: number,
): Promise<{ operations: string[]; tables: Map<number, string[] | null> } | null> {
  const { rows } = await askSource(
    client,
    `select oid, array_remove(array[case when pubinsert then 'insert' end, case when pubupdate then 'update' end,
              case when pubdelete then 'delete' end, case when pubtruncate then 'truncate' end], null) as operations
       from pg_publication where pubname = $1`,
    [name],
  );
  const row = rows[0];
  if (!row) return null;
  const list =
    version >= 150000
      ? `(select json_agg(a.attname) from pg_attribute a where a.attrelid = r.prrelid and a.attnum = any (r.prattrs))`
      : 'null::json';
  const { rows: tables } = await askSource(
    client,
    `select r.prrelid::int8 as oid, ${list} as columns from pg_publication_rel r where r.prpubid = $1`,
    [row.oid],
  );
  return {
    operations: row.operations,
    tables: new Map(tables.map((table) => [Number(table.oid), table.columns])),
  };
}
