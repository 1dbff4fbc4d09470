/**
 * What a Relation message lacks about a table's columns: their numbers, and what existing rows have in a column that
 * was added with a default. It comes from the optional event trigger's message (migrations/optional/shape_notes.sql),
 * which stands at its exact place in the stream, or from the catalogue, which may have moved on since: then nothing
 * is claimed.
 */
import type { ClientBase } from 'pg';
import { TidemarkError } from '../platform/errors.ts';
import type { Relation } from './pgoutput.ts';

export interface ColumnOrigin {
  name: string;
  number: number;
  /** OID of the type, and its modifier. */
  type: number;
  typmod: number;
  /** Postgres' text of what rows from before the column have in it; null: nothing is stored for them. */
  missing: string | null;
  /** In a note that was parked: there is such a text, and it was left out. */
  withheld?: true;
  /** The default is worked out row by row, so what existing rows got when the column was added is not in the stream. */
  computed: boolean;
}

/** One message of the trigger. */
export interface ShapeNote {
  oid: number;
  /** The table was made by this statement: it had no rows before. */
  made: boolean;
  columns: ColumnOrigin[];
}

export const shapeNotePrefix = 'tidemark.shape';
export const labelNotePrefix = 'tidemark.labels';

/** @throws TidemarkError TM206 for a format that this version does not know */
export function parseShapeNote(content: Buffer): ShapeNote {
  const { oid, made, columns } = parseNote(content) as ShapeNote & { columns: ColumnOrigin[] | null };
  return { oid, made, columns: columns ?? [] };
}

/** The enum whose labels changed. @throws TidemarkError TM206 */
export function parseLabelNote(content: Buffer): { schema: string; name: string } {
  return parseNote(content) as unknown as { schema: string; name: string };
}

function parseNote(content: Buffer): object {
  const note = JSON.parse(content.toString('utf8')) as { format?: unknown };
  if (note.format === 1) return note;
  throw new TidemarkError(
    'TM206',
    'the event trigger tidemark_shape_notes wrote a note of an unknown format',
    {
      remedy: 'Run migrations/optional/shape_notes.sql of this version in the source database.',
    },
  );
}

/**
 * A table's notes taken together: what existing rows got is known from the first note that has the column, since
 * a rewrite of the table later moves it into the rows.
 */
export function laterNote(earlier: ShapeNote | undefined, note: ShapeNote): ShapeNote {
  if (!earlier) return note;
  const known = new Map(earlier.columns.map((column) => [column.number, column]));
  return {
    oid: note.oid,
    made: earlier.made || note.made,
    columns: note.columns.map((column) => {
      const first = known.get(column.number);
      if (!first) return column;
      const { missing, computed } = first;
      return { ...column, missing, computed, ...(first.withheld ? { withheld: true } : {}) };
    }),
  };
}

/**
 * The note without the values in it, for the parked topic: what policy a column of it has is not known there, since a
 * comment may make it personal later in the same transaction.
 */
export function noteWithoutValues(content: Buffer): Buffer {
  const note = parseNote(content) as ShapeNote & { columns: ColumnOrigin[] | null };
  const columns = (note.columns ?? []).map((column) =>
    column.missing === null ? column : { ...column, missing: null, withheld: true },
  );
  return Buffer.from(JSON.stringify({ ...note, columns }));
}

/**
 * Puts in what was left out of a parked note, as long as the catalogue still has it. A table that was rewritten since
 * has it in its rows: then it is as unknown as a default that was worked out row by row.
 */
export async function fillWithheld(
  client: ClientBase,
  { oid }: Pick<Relation, 'oid'>,
  origins: ReadonlyMap<string, ColumnOrigin>,
): Promise<Map<string, ColumnOrigin>> {
  const filled = new Map(origins);
  if (![...origins.values()].some(({ withheld }) => withheld)) return filled;
  await client.query(sessionForText);
  const { rows } = await client.query<Pick<ColumnOrigin, 'number' | 'missing'>>(missingQuery, [oid]);
  const known = new Map(rows.map(({ number, missing }) => [number, missing]));
  for (const [name, { withheld, ...origin }] of origins) {
    if (!withheld) continue;
    const missing = known.get(origin.number) ?? null;
    filled.set(name, { ...origin, missing, computed: origin.computed || missing === null });
  }
  return filled;
}

/** The note's columns by name, where it describes the Relation; else null. */
export function noteOrigins(relation: Relation, { columns }: ShapeNote): Map<string, ColumnOrigin> | null {
  const found = matching(relation, columns);
  return found.size === relation.columns.length ? found : null;
}

/**
 * What the catalogue says now of the Relation's columns, as far as that can be what it said then: a column that a later
 * transaction wrote (renamed, or dropped and added again) is left out. Transactions of the same table take turns, so an
 * earlier number means earlier, but for a transaction that had a number long before it altered the table.
 * @param xid of the transaction that the Relation is about
 */
export async function catalogueOrigins(
  client: ClientBase,
  relation: Relation,
  xid: number,
): Promise<Map<string, ColumnOrigin>> {
  await client.query(sessionForText);
  const { rows } = await client.query<ColumnOrigin & { then: boolean }>(originsQuery, [relation.oid, xid]);
  return matching(
    relation,
    rows.filter((column) => column.then),
  );
}

/** Columns of the Relation's names and types, in its order: pgoutput sends them in the order of their numbers. */
function matching(relation: Relation, columns: readonly ColumnOrigin[]): Map<string, ColumnOrigin> {
  const byName = new Map(columns.map((column) => [column.name, column]));
  const found = new Map<string, ColumnOrigin>();
  let last = 0;
  for (const { name, typeOid, typmod } of relation.columns) {
    const origin = byName.get(name);
    if (!origin || origin.type !== typeOid || origin.typmod !== typmod || origin.number <= last) continue;
    last = origin.number;
    found.set(name, origin);
  }
  return found;
}

/** Under these a value's text is the one that sinks know (connector/sink.ts). */
export const sessionForText =
  "set datestyle = 'ISO, YMD'; set intervalstyle = 'postgres'; set timezone = 'UTC'; set bytea_output = 'hex'; set extra_float_digits = 1";

/** The relations that have the rows: a partitioned table has them in its leaves, and the values of existing ones stand there. */
export const storedRelations = `stored (oid) as (
    select $1::oid union select relid from pg_partition_tree($1::oid) where isleaf)`;

const missingQuery = `
  with ${storedRelations}
  select a.attnum::int as number, (select (s.attmissingval::text::text[])[1] from stored join pg_attribute s on s.attrelid = stored.oid
           where s.attname = a.attname and s.atthasmissing limit 1) as missing
    from pg_attribute a where a.attrelid = $1 and a.attnum > 0 and not a.attisdropped`;

const originsQuery = `
  with ${storedRelations}
  select a.attname as name, a.attnum::int as number, age(a.xmin) >= age($2::text::xid) as then, a.atttypid::int8::float8 as type, a.atttypmod as typmod,
         (select (s.attmissingval::text::text[])[1] from stored join pg_attribute s on s.attrelid = stored.oid
           where s.attname = a.attname and s.atthasmissing limit 1) as missing,
         a.attidentity <> '' or coalesce(t.typtype = 'd' and d.adbin is not null, false)
           or exists (select from regexp_matches(d.adbin::text, ':(?:funcid|opfuncid) ([0-9]+)', 'g') m
                        join pg_proc p on p.oid = m[1]::oid where p.provolatile = 'v') as computed
    from pg_attribute a join pg_type t on t.oid = a.atttypid
    left join pg_attrdef d on d.adrelid = a.attrelid and d.adnum = a.attnum
   where a.attrelid = $1 and a.attnum > 0 and not a.attisdropped and a.attgenerated = ''
   order by a.attnum`;
