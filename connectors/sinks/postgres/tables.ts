/**
 * The replica's schemas, enum types and tables: made on first sight with the source's own column types and the key
 * as primary key, brought along where the shape changed since, otherwise compared with the shape. Runs inside the
 * merge's transaction, behind the progress lock.
 */
import { type ColumnShape, type TableShape, tableName } from '../../../src/connector/shape.ts';
import type { Session } from './client.ts';
import { checkOwner, compareTable, isNarrower, keyNames, refused } from './compare-table.ts';
import { ensureEnums } from './enums.ts';
import { describeEvolution, evolveStatements } from './evolve.ts';
import {
  completeRegister,
  type ExistingTable,
  readTables,
  registerTable,
  type TablesOwner,
} from './existing-tables.ts';
import { asSinkFailure } from './failures.ts';
import { type HouseColumns, refuseColumn, retiredColumn } from './house-columns.ts';
import type { Placement } from './placement.ts';
import { lockDefinitions } from './progress.ts';
import { quoteName, quoteTable, typeText } from './quote.ts';
import { ensureTypes } from './types.ts';

export interface TablesSetup {
  owner: TablesOwner;
  /** Labels of new enum types beyond the shapes', by quoted type. */
  labels: ReadonlyMap<string, ReadonlySet<string>>;
  placement: Placement;
  /** Name of the column for the time of deletion; null where deleted rows go. */
  deletedAt: string | null;
  /** Commit time of the Window, as a literal. */
  now: string;
  /** Quoted names of the tables that are to get their mark of retired rows. */
  marks: ReadonlySet<string>;
}

/** What the merge has to know of a table beyond its shape. */
export interface TableFacts {
  /** Columns held as text, because rows could not be cast. */
  texts: ReadonlySet<string>;
  /** It has the mark of retired rows. */
  retired: boolean;
  /** See ExistingTable. */
  otherUnique: boolean;
  /** A column has a narrower type than the source's. */
  narrowed: boolean;
}

/** The shape as the destination has it. */
export function heldShape(shape: TableShape, names: ReadonlySet<string> | undefined): TableShape {
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
 * @returns of each of these tables, by quoted name
 * @throws TidemarkError TM405 naming table and column, TM404 for a table that was dropped behind our back
 */
export async function ensureTables(
  session: Session,
  shapes: readonly TableShape[],
  setup: TablesSetup,
): Promise<Map<string, TableFacts>> {
  const { owner, placement } = setup;
  const places = shapes.map((shape) => ({ place: shape, source: placement.sourceOf(shape) }));
  // Looked at behind the lock: another sink may be making the same schema or type.
  await session.run(lockDefinitions);
  await completeRegister(session);
  await ensureEnums(session, shapes, owner.destination, setup.labels);
  await ensureTypes(session, shapes);
  const existing = await readTables(session, places, owner, placement);
  const schemas = new Set<string>();
  const statements: { sql: string; shape: TableShape }[] = [];
  const created: TableShape[] = [];
  const evolved: [TableShape, TableShape][] = [];
  for (const [i, shape] of shapes.entries()) {
    const found = existing[i]!;
    const add = (sql: string) => statements.push({ sql, shape });
    checkOwner(shape, found, owner, placement);
    const { merged } = found;
    const changed = merged !== null && shapeFingerprint(merged) !== shapeFingerprint(shape);
    if (found.kind === null) {
      if (!found.schemaExists && !schemas.has(shape.schema)) {
        schemas.add(shape.schema);
        add(`CREATE SCHEMA IF NOT EXISTS ${quoteName(shape.schema)}`);
      }
      add(createTable(shape));
      created.push(shape);
    } else compareTable(changed ? merged : shape, found);
    const house = houseStatements(shape, found, setup);
    for (const statement of house) add(statement);
    if (changed && found.kind !== null) {
      const kept = { retired: isMarked(found), deletedAt: quoted(setup.deletedAt), now: setup.now };
      for (const statement of evolveStatements(merged, shape, found.primaryKey, kept)) add(statement);
      evolved.push([merged, shape]);
    }
    if (!found.owner && found.kind !== null)
      owner.log('warn', 'merging into a table that Tidemark did not make', { table: tableName(shape) });
    if (!found.owner || changed || merged === null || found.deletedAt !== setup.deletedAt) {
      add(
        registerTable(
          {
            ...places[i]!,
            created: found.kind === null,
            history: false,
            shape: placement.shapeOf(shape),
            deletedAt: setup.deletedAt,
          },
          owner,
        ),
      );
    }
  }
  const facts = (tables: readonly ExistingTable[]) =>
    new Map(
      shapes.map((shape, i) => [
        quoteTable(shape),
        {
          texts: textColumns(shape, tables[i]!),
          retired: isMarked(tables[i]!) || setup.marks.has(quoteTable(shape)),
          otherUnique: tables[i]!.otherUnique,
          narrowed: isNarrowed(tables[i]!.merged ?? shape, tables[i]!),
        },
      ]),
    );
  if (statements.length === 0) return facts(existing);
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
  return facts(carried ? await readTables(session, places, owner, placement) : existing);
}

function isNarrowed(shape: TableShape, { columns }: ExistingTable): boolean {
  const types = new Map(columns.map(({ name, type }) => [name, type]));
  return shape.columns.some((column) => isNarrower(types.get(column.name) ?? '', typeText(shape, column)));
}

function isMarked(found: ExistingTable): boolean {
  return found.columns.some(({ name, type }) => name === retiredColumn && type === 'boolean');
}

function quoted(name: string | null): HouseColumns['deletedAt'] {
  return name === null ? null : quoteName(name);
}

/** The columns of our own that the table has to get. @throws TidemarkError TM405 */
function houseStatements(shape: TableShape, found: ExistingTable, setup: TablesSetup): string[] {
  const target = quoteTable(shape);
  const { deletedAt, marks } = setup;
  const alter = (what: string) => `ALTER TABLE ${target} ${what}`;
  const statements: string[] = [];
  if (found.deletedAt !== null && deletedAt === null) {
    const column = quoteName(found.deletedAt);
    throw refused(
      shape,
      'still has its deleted rows, but soft.deletes is off',
      `Set soft.deletes to true; or DELETE FROM ${target} WHERE ${column} IS NOT NULL; ${alter(`DROP COLUMN ${column}`)}; UPDATE _tidemark.tables SET deleted_at_column = NULL;`,
    );
  }
  if (deletedAt !== null) {
    refuseColumn(shape, deletedAt, 'Set soft.deletes.column to a name that no column of the source has.');
    const to = quoteName(deletedAt);
    if (found.deletedAt === null) statements.push(alter(`ADD COLUMN ${to} timestamp with time zone`));
    else if (found.deletedAt !== deletedAt)
      statements.push(alter(`RENAME COLUMN ${quoteName(found.deletedAt)} TO ${to}`));
  }
  if (marks.has(target) && !isMarked(found)) {
    refuseColumn(shape, retiredColumn, 'Rename that column in the source.');
    statements.push(alter(`ADD COLUMN ${quoteName(retiredColumn)} boolean`));
  }
  return statements;
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
