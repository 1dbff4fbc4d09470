/**
 * What existing rows have in a column that was added, where the catalogue says nothing of it: NULL, unless the table was
 * rewritten since (another type of a column, VACUUM FULL). A rewrite moves the default that they were given into the rows,
 * and the catalogue forgets it. Then the rows themselves are asked.
 */
import pg from 'pg';
import { type ColumnOrigin, sessionForText, storedRelations } from './column-origins.ts';

export interface AddedColumns {
  oid: number;
  /** Of the first transaction that the stream shows with the columns: rows that it or later ones wrote are in the stream. */
  xid: number;
  numbers: readonly number[];
  /** Whoever said what existing rows have was there when the columns were added; else it was the catalogue, later. */
  noted: boolean;
}

/** A large table that has no such row is read from end to end. */
const patienceMs = 5000;

interface Suspect {
  number: number;
  schema: string;
  table: string;
  column: string;
  /** Neither a default nor a rewrite is younger than the column. */
  untouched: boolean;
}

/** Of a column: what all existing rows have, or that they differ or could not be read. */
export type ExistingValues = Pick<ColumnOrigin, 'missing' | 'computed'>;

/**
 * Columns that rows from before have values in. One that could not be read in time, or may not be read, is one of them unless
 * the catalogue, or a note, speaks for NULL.
 * @returns by number of the column; what is not there is NULL
 * @throws what Postgres reports of the catalogue
 */
export async function existingValues(
  client: pg.ClientBase,
  { oid, xid, numbers, noted }: AddedColumns,
): Promise<Map<number, ExistingValues>> {
  await client.query(sessionForText);
  const { rows } = await client.query<Suspect>(suspectsQuery, [oid, numbers]);
  const existing = new Map<number, ExistingValues>();
  for (const suspect of rows) {
    const found = await distinctValues(client, suspect, xid).catch(() =>
      noted || suspect.untouched ? [] : null,
    );
    if (found?.length === 1) existing.set(suspect.number, { missing: found[0]!, computed: false });
    else if (found === null || found.length > 1)
      existing.set(suspect.number, { missing: null, computed: true });
  }
  return existing;
}

/** None, where all are NULL; two, where there are more than one. */
async function distinctValues(
  client: pg.ClientBase,
  { schema, table, column }: Suspect,
  xid: number,
): Promise<(string | null)[]> {
  const [from, name] = [
    `${pg.escapeIdentifier(schema)}.${pg.escapeIdentifier(table)}`,
    pg.escapeIdentifier(column),
  ];
  const before = `age(xmin) > age('${xid}'::xid)`;
  // All of them are one transaction.
  const results = await client.query(`set local statement_timeout = ${patienceMs};
    select distinct ${name}::text as value from (select ${name} from ${from}
       where ${before} and exists (select from ${from} where ${name} is not null and ${before})) existing limit 2`);
  const { rows } = (results as unknown as pg.QueryResult<{ value: string | null }>[])[1]!;
  return rows.map(({ value }) => value);
}

/** Of tables that were rewritten at some time: their file has not the number that it was made with. */
const suspectsQuery = `
  with ${storedRelations},
  rewritten as (
    select c.oid from stored join pg_class c using (oid)
     where c.relkind = 'r' and pg_relation_filenode(c.oid) <> c.oid)
  select a.attnum::int as number, n.nspname as schema, c.relname as table, a.attname as column,
         not a.atthasdef and not exists (
           select from rewritten r join pg_attribute s on s.attrelid = r.oid and s.attname = a.attname
            -- A rewrite makes every index anew.
            where not exists (select from pg_index i join pg_class ic on ic.oid = i.indexrelid
                               where i.indrelid = r.oid and age(ic.xmin) > age(s.xmin))) as untouched
    from pg_attribute a join pg_class c on c.oid = a.attrelid join pg_namespace n on n.oid = c.relnamespace
   where a.attrelid = $1 and a.attnum = any ($2::int[]) and not a.attisdropped
     and exists (select from rewritten)`;
