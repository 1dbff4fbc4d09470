/** What the destination has of a Window's tables: their definitions, and what `_tidemark.tables` says of them. */
import type { TableId, TableShape } from '../../../src/connector/shape.ts';
import type { Session } from './client.ts';
import type { Placement } from './placement.ts';
import { quoteText } from './quote.ts';

export interface ExistingColumn {
  name: string;
  type: string;
  notNull: boolean;
  /** Its value cannot be written: generated, or identity always. */
  generated: boolean;
}

export interface ExistingTable {
  schemaExists: boolean;
  /** pg_class.relkind; null where there is no such relation. */
  kind: string | null;
  columns: ExistingColumn[];
  /** Column names of every unique index that ON CONFLICT can use. */
  uniqueKeys: string[][];
  /** Rows may collide in another way than by the primary key: a unique or exclusion index that somebody added. */
  otherUnique: boolean;
  /** Name of the primary key constraint. */
  primaryKey: string | null;
  owner: { sourceId: string; destination: string; source: TableId; history: boolean } | null;
  /** The shape that it was merged with last, under the destination's names. */
  merged: TableShape | null;
  /** Name of the column with the time of deletion. */
  deletedAt: string | null;
  /** Where else this source's table was merged before. */
  elsewhere: string | null;
}

export interface TablesOwner {
  sourceId: string;
  destination: string;
  log(level: 'info' | 'warn', message: string, fields: Record<string, unknown>): void;
}

const laterColumns = {
  shape: 'jsonb',
  source_schema: 'text',
  source_table: 'text',
  history: 'boolean NOT NULL DEFAULT false',
  deleted_at_column: 'text',
};

/** Destinations of older versions lack some columns of `_tidemark.tables`. */
export async function completeRegister(session: Session): Promise<void> {
  const names = Object.keys(laterColumns);
  const [found] = await session.run(
    `SELECT FROM pg_attribute WHERE attrelid = '_tidemark.tables'::regclass AND attname IN (${names.map(quoteText).join(', ')})`,
  );
  if (found!.count === names.length) return;
  const added = Object.entries(laterColumns).map(
    ([name, type]) => `ADD COLUMN IF NOT EXISTS ${name} ${type}`,
  );
  await session.run(`ALTER TABLE _tidemark.tables ${added.join(', ')}`);
}

/** @param tables places in the destination, and the tables of the source that go there */
export async function readTables(
  session: Session,
  tables: readonly { place: TableId; source: TableId }[],
  { sourceId, destination }: TablesOwner,
  placement: Placement,
): Promise<ExistingTable[]> {
  const wanted = tables.map(
    ({ place, source }, i) =>
      `(${[place.schema, place.name, source.schema, source.name].map(quoteText).join(', ')}, ${i})`,
  );
  // Types are printed with their schemas, also those that the merge's path would print without.
  const [, result] = await session.run(
    `SELECT set_config('_tidemark.path', current_setting('search_path'), true), set_config('search_path', 'pg_catalog', true)`,
    `SELECT n.oid IS NOT NULL, c.relkind, r.source_id, r.destination, r.shape::text,
  coalesce(r.source_schema, r.schema_name), coalesce(r.source_table, r.table_name), r.history, r.deleted_at_column,
  (SELECT format('%I.%I', o.schema_name, o.table_name) FROM _tidemark.tables o
    WHERE o.source_id = ${quoteText(sourceId)} AND o.destination = ${quoteText(destination)} AND NOT o.history
      AND coalesce(o.source_schema, o.schema_name) = w.source_schema AND coalesce(o.source_table, o.table_name) = w.source_table
      AND (o.schema_name, o.table_name) <> (w.schema_name, w.table_name) LIMIT 1),
  (SELECT conname FROM pg_constraint WHERE conrelid = c.oid AND contype = 'p'),
  (SELECT count(*) > 1 FROM pg_index WHERE indrelid = c.oid AND (indisunique OR indisexclusion)),
  (SELECT json_agg(json_build_object('name', a.attname, 'type', format_type(a.atttypid, a.atttypmod),
     'notNull', a.attnotnull, 'generated', a.attgenerated <> '' OR a.attidentity = 'a'))
   FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped),
  (SELECT json_agg((SELECT json_agg(a.attname) FROM unnest(x.indkey) WITH ORDINALITY k (number, place)
     JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum = k.number WHERE k.place <= x.indnkeyatts))
   FROM pg_index x WHERE x.indrelid = c.oid AND x.indisunique AND x.indisvalid AND x.indimmediate
     AND x.indpred IS NULL AND x.indexprs IS NULL)
FROM (VALUES ${wanted.join(', ')}) AS w (schema_name, table_name, source_schema, source_table, i)
LEFT JOIN pg_namespace n ON n.nspname = w.schema_name
LEFT JOIN pg_class c ON c.relnamespace = n.oid AND c.relname = w.table_name
LEFT JOIN _tidemark.tables r ON r.schema_name = w.schema_name AND r.table_name = w.table_name
ORDER BY w.i`,
    `SELECT set_config('search_path', current_setting('_tidemark.path'), true)`,
  );
  return result!.rows.map((row): ExistingTable => {
    const [schemaExists, kind, owningSource, owningDestination, merged, schema, name, history] = row;
    const [deletedAt, elsewhere, primaryKey, otherUnique, columns, uniqueKeys] = row.slice(8);
    return {
      schemaExists: schemaExists === 't',
      kind: kind ?? null,
      columns: JSON.parse(columns ?? '[]') as ExistingColumn[],
      uniqueKeys: JSON.parse(uniqueKeys ?? '[]') as string[][],
      otherUnique: otherUnique === 't',
      primaryKey: primaryKey ?? null,
      owner:
        owningSource == null
          ? null
          : {
              sourceId: owningSource,
              destination: owningDestination!,
              source: { schema: schema!, name: name! },
              history: history === 't',
            },
      merged: merged == null ? null : placement.rename(JSON.parse(merged) as TableShape),
      deletedAt: deletedAt ?? null,
      elsewhere: elsewhere ?? null,
    };
  });
}

export interface Registration {
  place: TableId;
  source: TableId;
  created: boolean;
  history: boolean;
  /** As the source has it; null for a history. */
  shape: TableShape | null;
  deletedAt: string | null;
}

export function registerTable(
  { place, source, created, history, shape, deletedAt }: Registration,
  { sourceId, destination }: TablesOwner,
): string {
  const values = [
    ...[place.schema, place.name, sourceId, destination].map(quoteText),
    String(created),
    textOrNull(shape && JSON.stringify(shape)),
    ...[source.schema, source.name].map(quoteText),
    String(history),
    textOrNull(deletedAt),
  ];
  return `INSERT INTO _tidemark.tables (schema_name, table_name, source_id, destination, created, shape, source_schema, source_table, history, deleted_at_column)
VALUES (${values.join(', ')}) ON CONFLICT (schema_name, table_name) DO UPDATE SET shape = EXCLUDED.shape, deleted_at_column = EXCLUDED.deleted_at_column`;
}

function textOrNull(text: string | null): string {
  return text === null ? 'NULL' : quoteText(text);
}
