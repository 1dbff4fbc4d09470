/**
 * Beside a table its history (`history`): every Change as it happened, written in the merge's transaction. It only grows, in
 * rows and in columns: a column that the source dropped stays, a renamed one is a column more, and one whose type changed
 * in a way that older texts may not follow becomes text.
 */

import { sameText } from '../../../src/connector/recast.ts';
import { type ColumnShape, type TableId, type TableShape, tableName } from '../../../src/connector/shape.ts';
import type { Cell, MergeTable, PartialRow, RowEvent } from '../../../src/connector/sink.ts';
import type { Session } from './client.ts';
import { refused } from './compare-table.ts';
import { CopyTarget } from './copy-target.ts';
import {
  completeRegister,
  type ExistingTable,
  readTables,
  registerTable,
  type TablesOwner,
} from './existing-tables.ts';
import { asSinkFailure } from './failures.ts';
import { refuseColumn, timestampText } from './house-columns.ts';
import type { MergeRun } from './merge-run.ts';
import type { Placement } from './placement.ts';
import { canonicalType, quoteName, quoteTable, typeText } from './quote.ts';

const ownColumns = {
  _tidemark_op: 'text NOT NULL',
  _tidemark_position: 'text COLLATE "C" NOT NULL',
  _tidemark_committed_at: 'timestamp with time zone NOT NULL',
  _tidemark_old_key: 'jsonb',
  _tidemark_unchanged: 'text[]',
};
const ownNames = Object.keys(ownColumns);

function historyOf({ schema, name }: TableId, suffix: string): TableId {
  return { schema, name: `${name}${suffix}` };
}

/** Makes the histories that are missing and gives them what columns they lack. @throws TidemarkError TM405 */
export async function ensureHistories(
  session: Session,
  shapes: readonly TableShape[],
  suffix: string,
  owner: TablesOwner,
  placement: Placement,
): Promise<void> {
  await completeRegister(session);
  const places = shapes.map((shape) => ({
    place: historyOf(shape, suffix),
    source: placement.sourceOf(shape),
  }));
  const existing = await readTables(session, places, owner, placement);
  const statements: { sql: string; shape: TableShape }[] = [];
  for (const [i, shape] of shapes.entries()) {
    const found = existing[i]!;
    const { place, source } = places[i]!;
    for (const name of ownNames) refuseColumn(shape, name, 'Turn history off, or rename that column.');
    checkPlace(shape, place, found, owner, source);
    if (found.kind === null) {
      const registration = { place, source, created: true, history: true, shape: null, deletedAt: null };
      statements.push({ shape, sql: createHistory(place, shape) });
      statements.push({ shape, sql: registerTable(registration, owner) });
    } else for (const sql of widenHistory(place, shape, found)) statements.push({ shape, sql });
  }
  if (statements.length === 0) return;
  try {
    await session.run(...statements.map(({ sql }) => sql));
  } catch (error) {
    const failed = statements[(error as { completed?: number }).completed ?? 0];
    throw asSinkFailure(error, owner.destination, [failed?.shape ?? shapes[0]!]);
  }
}

function checkPlace(
  shape: TableShape,
  place: TableId,
  { kind, owner: found }: ExistingTable,
  { sourceId, destination }: TablesOwner,
  source: TableId,
): void {
  const remedy = `Set history.suffix to an ending that makes no table's name, or rename ${quoteTable(place)} in the destination.`;
  if (found && !found.history) {
    throw refused(
      shape,
      `has a history called ${tableName(place)}, which is the name of a table of the source`,
      remedy,
    );
  }
  const ours =
    found?.sourceId === sourceId &&
    found.destination === destination &&
    quoteTable(found.source) === quoteTable(source);
  if (kind !== null && !ours)
    throw refused(shape, `has a history called ${tableName(place)}, which is another table`, remedy);
}

function createHistory(place: TableId, shape: TableShape): string {
  const columns = [
    ...Object.entries(ownColumns).map(([name, type]) => `${name} ${type}`),
    ...shape.columns.map((column) => `${quoteName(column.name)} ${typeText(shape, column)}`),
  ];
  return `CREATE TABLE ${quoteTable(place)} (\n  ${columns.join(',\n  ')}\n)`;
}

function widenHistory(place: TableId, shape: TableShape, { columns }: ExistingTable): string[] {
  const types = new Map(columns.map(({ name, type }) => [name, type]));
  const alter = (what: string) => `ALTER TABLE ${quoteTable(place)} ${what}`;
  return shape.columns.flatMap((column) => {
    const name = quoteName(column.name);
    const type = typeText(shape, column);
    const held = types.get(column.name);
    if (held === undefined) return [alter(`ADD COLUMN ${name} ${type}`)];
    if (held === 'text' || canonicalType(held) === canonicalType(type)) return [];
    const before: ColumnShape = { name: column.name, type: held, key: false, nullable: true };
    const wider = sameText(before, { ...before, type }) ? type : 'text';
    return [alter(`ALTER COLUMN ${name} TYPE ${wider} USING ${name}::${wider}`)];
  });
}

/** Every Change of the table's part of the Window, in order. */
export async function appendHistory(run: MergeRun, table: MergeTable, suffix: string): Promise<void> {
  const { shape } = table;
  const columns = [...ownNames, ...shape.columns.map(({ name }) => quoteName(name))];
  const target = new CopyTarget(run.pipe, `${quoteTable(historyOf(shape, suffix))} (${columns.join(', ')})`);
  await run.batch.flush();
  for await (const events of table.events()) {
    for (const event of events) {
      const sending = target.add(historyRow(event, shape));
      if (sending) await sending;
    }
  }
  await target.flush();
  await run.pipe.drain();
}

/** Cells in the order of the columns above. */
export function historyRow(event: RowEvent, shape: TableShape): Cell[] {
  const { op, position, commitTimeUs, key, values, previousKey, before } = event;
  const keyed = new Map(shape.keyColumns.map((column, k) => [column, key[k]]));
  const row: PartialRow = shape.columns.map((_, i) => keyed.get(i) ?? values[i]);
  const whole = op !== 'd' && values.length > 0;
  const unchanged = whole ? shape.columns.filter((_, i) => row[i] === undefined).map(({ name }) => name) : [];
  return [
    op,
    position,
    timestampText(commitTimeUs),
    oldKey(shape, previousKey, before),
    unchanged.length === 0 ? null : `{${unchanged.map(arrayItem).join(',')}}`,
    ...row.map((cell) => cell ?? null),
  ];
}

/** The former key by name; of a table without a key, whose rows nothing else tells apart, the whole former row. */
function oldKey(shape: TableShape, previousKey: Cell[] | null, before: PartialRow | null): string | null {
  const columns = previousKey ? shape.keyColumns : [...shape.columns.keys()];
  const cells = previousKey ?? before;
  if (!cells) return null;
  return JSON.stringify(
    Object.fromEntries(columns.map((column, i) => [shape.columns[column]!.name, cells[i] ?? null])),
  );
}

/** An element of an array's text (PostgreSQL manual, "Array Input and Output Syntax"). */
function arrayItem(text: string): string {
  return `"${text.replace(/["\\]/g, '\\$&')}"`;
}
