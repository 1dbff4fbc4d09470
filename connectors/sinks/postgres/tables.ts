/**
 * The replica's schemas, enum types and tables: made on first sight with the source's own column types and the key
 * as primary key, brought along where the shape changed since, otherwise compared with the shape. Runs inside the
 * merge's transaction, behind the progress lock.
 */
import { TidemarkError } from '../../../src/connector/failure.ts';
import { type ColumnShape, type EnumType, type TableShape, tableName } from '../../../src/connector/shape.ts';
import type { Session } from './client.ts';
import { describeEvolution, evolveStatements } from './evolve.ts';
import { asSinkFailure } from './failures.ts';
import { lockDefinitions } from './progress.ts';
import { quoteName, quoteTable, quoteText, typeText } from './quote.ts';
import { ensureTypes, enumsOf } from './types.ts';

interface ExistingColumn {
  name: string;
  type: string;
  notNull: boolean;
  /** Its value cannot be written: generated, or identity always. */
  generated: boolean;
}

interface ExistingTable {
  schemaExists: boolean;
  /** pg_class.relkind; null where there is no such relation. */
  kind: string | null;
  columns: ExistingColumn[];
  /** Column names of every unique index that ON CONFLICT can use. */
  uniqueKeys: string[][];
  /** Name of the primary key constraint. */
  primaryKey: string | null;
  owner: { sourceId: string; destination: string } | null;
  /** The shape that it was merged with last. */
  merged: TableShape | null;
}

export interface TablesOwner {
  sourceId: string;
  destination: string;
  log(level: 'info' | 'warn', message: string, fields: Record<string, unknown>): void;
}

/** Columns that the destination holds as text, because its rows could not be cast: names by quoted table. */
export type HeldAsText = ReadonlyMap<string, ReadonlySet<string>>;

/** The shape as the destination has it. */
export function heldShape(shape: TableShape, held: HeldAsText): TableShape {
  const names = held.get(quoteTable(shape));
  if (!names || names.size === 0) return shape;
  const columns = shape.columns.map((column): ColumnShape => {
    const { name, key, nullable } = column;
    return names.has(name) ? { name, type: 'text', key, nullable } : column;
  });
  return { ...shape, columns };
}

function textColumns(shape: TableShape, found: ExistingTable): Set<string> {
  const texts = new Set(found.columns.filter(({ type }) => type === 'text').map(({ name }) => name));
  const held = shape.columns.filter((column) => column.carried && typeText(shape, column) !== 'text');
  return new Set(held.map(({ name }) => name).filter((name) => texts.has(name)));
}

/** What identifies a shape here: a table is looked at again when this changes. */
export function shapeFingerprint(shape: TableShape): string {
  return JSON.stringify([
    shape.columns.map(({ name, type, base, enum: e, composite, number }) => [
      name,
      base ?? type,
      e?.labels,
      composite,
      number,
    ]),
    shape.keyColumns,
    shape.oid,
  ]);
}

/**
 * Makes what is missing, brings along what has another shape, and checks the rest.
 * @param labels of new enum types beyond the shapes', by quoted type
 * @returns of each of these tables what it holds as text
 * @throws TidemarkError TM405 naming table and column, TM404 for a table that was dropped behind our back
 */
export async function ensureTables(
  session: Session,
  shapes: readonly TableShape[],
  owner: TablesOwner,
  labels: ReadonlyMap<string, ReadonlySet<string>>,
): Promise<HeldAsText> {
  // Looked at behind the lock: another sink may be making the same schema or type.
  await session.run(lockDefinitions);
  await ensureShapeColumn(session);
  await ensureEnums(session, shapes, owner, labels);
  await ensureTypes(session, shapes);
  const existing = await readTables(session, shapes);
  const schemas = new Set<string>();
  const statements: { sql: string; shape: TableShape }[] = [];
  const created: TableShape[] = [];
  const evolved: [TableShape, TableShape][] = [];
  for (const [i, shape] of shapes.entries()) {
    const found = existing[i]!;
    const add = (sql: string) => statements.push({ sql, shape });
    checkOwner(shape, found, owner);
    const { merged } = found;
    const changed = merged !== null && shapeFingerprint(merged) !== shapeFingerprint(shape);
    if (found.kind === null) {
      if (!found.schemaExists && !schemas.has(shape.schema)) {
        schemas.add(shape.schema);
        add(`CREATE SCHEMA IF NOT EXISTS ${quoteName(shape.schema)}`);
      }
      add(createTable(shape));
      created.push(shape);
    } else if (changed) {
      compareTable(merged, found);
      for (const statement of evolveStatements(merged, shape, found.primaryKey)) add(statement);
      evolved.push([merged, shape]);
    } else {
      compareTable(shape, found);
    }
    if (!found.owner) {
      add(registerTable(shape, owner, found.kind === null));
      if (found.kind !== null)
        owner.log('warn', 'merging into a table that Tidemark did not make', { table: tableName(shape) });
    } else if (changed || merged === null) add(rememberShape(shape));
  }
  const held = (tables: readonly ExistingTable[]) =>
    new Map(shapes.map((shape, i) => [quoteTable(shape), textColumns(shape, tables[i]!)]));
  if (statements.length === 0) return held(existing);
  try {
    await session.run(...statements.map(({ sql }) => sql));
  } catch (error) {
    const failed = statements[(error as { completed?: number }).completed ?? 0];
    throw asSinkFailure(error, owner.destination, [failed?.shape ?? shapes[0]!]);
  }
  for (const shape of created) owner.log('info', 'created table', { table: tableName(shape) });
  for (const [before, after] of evolved)
    owner.log('info', 'the table follows its source', describeEvolution(before, after));
  const carried = evolved.some(([, { columns }]) => columns.some((column) => column.carried));
  return held(carried ? await readTables(session, shapes) : existing);
}

function createTable(shape: TableShape): string {
  if (shape.columns.length === 0) throw refused(shape, 'has no columns', 'Leave the table out of `tables`.');
  const lines = shape.columns.map((column, i) => {
    const key = shape.keyColumns.includes(i) ? ' NOT NULL' : '';
    return `${quoteName(column.name)} ${typeText(shape, column)}${key}`;
  });
  if (shape.keyColumns.length > 0) lines.push(`PRIMARY KEY (${keyNames(shape).map(quoteName).join(', ')})`);
  return `CREATE TABLE ${quoteTable(shape)} (\n  ${lines.join(',\n  ')}\n)`;
}

function registerTable(shape: TableShape, { sourceId, destination }: TablesOwner, created: boolean): string {
  const values = [shape.schema, shape.name, sourceId, destination].map(quoteText).join(', ');
  return `INSERT INTO _tidemark.tables (schema_name, table_name, source_id, destination, created, shape) VALUES (${values}, ${created}, ${quoteText(JSON.stringify(shape))})`;
}

function rememberShape(shape: TableShape): string {
  return `UPDATE _tidemark.tables SET shape = ${quoteText(JSON.stringify(shape))} WHERE schema_name = ${quoteText(shape.schema)} AND table_name = ${quoteText(shape.name)}`;
}

/** Destinations of older versions have none. */
async function ensureShapeColumn(session: Session): Promise<void> {
  const [found] = await session.run(
    `SELECT FROM pg_attribute WHERE attrelid = '_tidemark.tables'::regclass AND attname = 'shape'`,
  );
  if (found!.count === 0)
    await session.run('ALTER TABLE _tidemark.tables ADD COLUMN IF NOT EXISTS shape jsonb');
}

function keyNames(shape: TableShape): string[] {
  return shape.keyColumns.map((i) => shape.columns[i]!.name);
}

function refused(shape: TableShape, what: string, remedy: string): TidemarkError {
  return new TidemarkError('TM405', `${tableName(shape)} ${what}`, { remedy });
}

function checkOwner(shape: TableShape, found: ExistingTable, owner: TablesOwner): void {
  if (!found.owner) return;
  const { sourceId, destination } = found.owner;
  if (sourceId !== owner.sourceId || destination !== owner.destination) {
    throw refused(
      shape,
      `already belongs to destination ${destination} of source ${sourceId}`,
      'Give each destination a database of its own, or tables that no other one has.',
    );
  }
  if (found.kind === null) {
    throw new TidemarkError(
      'TM404',
      `${tableName(shape)} was merged before and is gone from the destination`,
    );
  }
}

/** @throws TidemarkError TM405 at the first difference */
function compareTable(shape: TableShape, found: ExistingTable): void {
  const target = quoteTable(shape);
  // Row addresses are unique within one plain table only, and tables without a key are found by them.
  if (found.kind !== 'r' && !(found.kind === 'p' && shape.keyColumns.length > 0)) {
    throw refused(shape, 'exists, but is not a plain table', `Rename or drop ${target} in the destination.`);
  }
  const columns = new Map(found.columns.map((column) => [column.name, column]));
  for (const [i, column] of shape.columns.entries()) {
    const name = JSON.stringify(column.name);
    const type = typeText(shape, column);
    const existing = columns.get(column.name);
    columns.delete(column.name);
    if (!existing) {
      throw refused(
        shape,
        `lacks column ${name}`,
        `ALTER TABLE ${target} ADD COLUMN ${quoteName(column.name)} ${type};`,
      );
    }
    const alter = `ALTER TABLE ${target} ALTER COLUMN ${quoteName(column.name)}`;
    if (existing.type !== type && !(column.carried && existing.type === 'text')) {
      throw refused(
        shape,
        `has column ${name} as ${existing.type}, the source has ${type}`,
        `${alter} TYPE ${type};`,
      );
    }
    if (existing.generated) {
      throw refused(shape, `computes column ${name} itself`, `${alter} DROP EXPRESSION; or DROP IDENTITY;`);
    }
    if (existing.notNull && !shape.keyColumns.includes(i)) {
      throw refused(shape, `allows no NULL in column ${name}`, `${alter} DROP NOT NULL;`);
    }
  }
  for (const name of columns.keys()) {
    throw refused(
      shape,
      `has a column ${JSON.stringify(name)} that the source has not`,
      `ALTER TABLE ${target} DROP COLUMN ${quoteName(name)};`,
    );
  }
  if (shape.keyColumns.length === 0) return;
  const key = keyNames(shape);
  const usable = found.uniqueKeys.some(
    (unique) => unique.length === key.length && key.every((name) => unique.includes(name)),
  );
  if (!usable) {
    throw refused(
      shape,
      'has no primary key on the key columns',
      `ALTER TABLE ${target} ADD PRIMARY KEY (${key.map(quoteName).join(', ')});`,
    );
  }
}

async function readTables(session: Session, shapes: readonly TableShape[]): Promise<ExistingTable[]> {
  const wanted = shapes.map(({ schema, name }, i) => `(${i}, ${quoteText(schema)}, ${quoteText(name)})`);
  // Types are printed with their schemas, also those that the merge's path would print without.
  const [, result] = await session.run(
    `SELECT set_config('_tidemark.path', current_setting('search_path'), true), set_config('search_path', 'pg_catalog', true)`,
    `SELECT n.oid IS NOT NULL, c.relkind, r.source_id, r.destination, r.shape::text,
  (SELECT conname FROM pg_constraint WHERE conrelid = c.oid AND contype = 'p'),
  (SELECT json_agg(json_build_object('name', a.attname, 'type', format_type(a.atttypid, a.atttypmod),
     'notNull', a.attnotnull, 'generated', a.attgenerated <> '' OR a.attidentity = 'a'))
   FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped),
  (SELECT json_agg((SELECT json_agg(a.attname) FROM unnest(x.indkey) WITH ORDINALITY k (number, place)
     JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum = k.number WHERE k.place <= x.indnkeyatts))
   FROM pg_index x WHERE x.indrelid = c.oid AND x.indisunique AND x.indisvalid AND x.indimmediate
     AND x.indpred IS NULL AND x.indexprs IS NULL)
FROM (VALUES ${wanted.join(', ')}) AS w (i, schema_name, table_name)
LEFT JOIN pg_namespace n ON n.nspname = w.schema_name
LEFT JOIN pg_class c ON c.relnamespace = n.oid AND c.relname = w.table_name
LEFT JOIN _tidemark.tables r ON r.schema_name = w.schema_name AND r.table_name = w.table_name
ORDER BY w.i`,
    `SELECT set_config('search_path', current_setting('_tidemark.path'), true)`,
  );
  return result!.rows.map(
    ([schemaExists, kind, sourceId, destination, merged, primaryKey, columns, uniqueKeys]) => ({
      schemaExists: schemaExists === 't',
      kind: kind ?? null,
      columns: JSON.parse(columns ?? '[]') as ExistingColumn[],
      uniqueKeys: JSON.parse(uniqueKeys ?? '[]') as string[][],
      primaryKey: primaryKey ?? null,
      owner: sourceId == null ? null : { sourceId, destination: destination! },
      merged: merged == null ? null : (JSON.parse(merged) as TableShape),
    }),
  );
}

async function ensureEnums(
  session: Session,
  shapes: readonly TableShape[],
  owner: TablesOwner,
  extra: ReadonlyMap<string, ReadonlySet<string>>,
): Promise<void> {
  const wanted = new Map<string, { type: EnumType; shape: TableShape }>();
  for (const shape of shapes) {
    for (const type of enumsOf(shape)) wanted.set(quoteTable(type), { type, shape });
  }
  if (wanted.size === 0) return;
  const list = [...wanted.values()];
  const [result] = await session.run(`SELECT t.typtype
FROM (VALUES ${list.map(({ type }, i) => `(${i}, ${quoteText(type.schema)}, ${quoteText(type.name)})`).join(', ')}) AS w (i, schema_name, type_name)
LEFT JOIN pg_namespace n ON n.nspname = w.schema_name
LEFT JOIN pg_type t ON t.typnamespace = n.oid AND t.typname = w.type_name
ORDER BY w.i`);
  const statements: string[] = [];
  for (const [i, { type, shape }] of list.entries()) {
    const [kind] = result!.rows[i]!;
    const labels = [...new Set([...type.labels, ...(extra.get(quoteTable(type)) ?? [])])];
    if (kind === null) {
      statements.push(
        `CREATE SCHEMA IF NOT EXISTS ${quoteName(type.schema)}`,
        `CREATE TYPE ${quoteTable(type)} AS ENUM (${labels.map(quoteText).join(', ')})`,
      );
      continue;
    }
    if (kind !== 'e') {
      throw refused(
        shape,
        `needs the enum ${quoteTable(type)}, which exists as another kind of type`,
        `Rename ${quoteTable(type)} in the destination.`,
      );
    }
  }
  try {
    if (statements.length > 0) await session.run(...statements);
  } catch (error) {
    throw asSinkFailure(
      error,
      owner.destination,
      list.map(({ shape }) => shape),
    );
  }
}
