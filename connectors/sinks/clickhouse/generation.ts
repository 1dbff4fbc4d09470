/**
 * Tables behind a view: made, copied and brought to another shape beside the visible one, which they replace at once
 * when the Window is committed.
 */
import { TidemarkError } from '../../../src/connector/failure.ts';
import { type ColumnShape, type TableShape, tableName } from '../../../src/connector/shape.ts';
import { pairColumns } from '../../../src/connector/shape-versions.ts';
import type { Cell, Position, Row } from '../../../src/connector/sink.ts';
import { recast } from '../../values/recast.ts';
import { Blocks } from './blocks.ts';
import { Layout, rowOf, type StoredColumn } from './layout.ts';
import { quoteText } from './names.ts';
import type { Generation, Unit } from './unit.ts';
import { versionOf } from './version.ts';

export interface Maker {
  unit: Unit;
  token: bigint;
  /** Of this attempt; tells its tables and blocks from those of every other. */
  attempt: string;
  blockBytes: number;
  /** The next table's number. */
  next(): number;
}

export async function createGeneration(maker: Maker, layout: Layout): Promise<Generation> {
  const { unit } = maker;
  const rows = nextRows(maker);
  await unit.server.run(layout.create(unit.server.table(rows)), unit.name);
  return { rows, layout };
}

function nextRows({ unit, token, attempt, next }: Maker): string {
  return unit.names.rows(token, `${attempt}_${next()}`);
}

/** Shares the files of the other's parts; and its defaults, which stand for columns that a part is older than. */
export async function cloneGeneration(maker: Maker, { rows, layout }: Generation): Promise<Generation> {
  const { server, name } = maker.unit;
  const clone: Generation = { rows: nextRows(maker), layout };
  await server.run(`CREATE TABLE ${server.table(clone.rows)} AS ${server.table(rows)}`, name);
  await server.run(
    `ALTER TABLE ${server.table(clone.rows)} ATTACH PARTITION tuple() FROM ${server.table(rows)}`,
    name,
  );
  return clone;
}

/** The rows that outlast a truncate. */
export async function keepRetired(maker: Maker, from: Generation): Promise<Generation> {
  const { server, name } = maker.unit;
  const kept = await createGeneration(maker, from.layout);
  if (from.layout.keyed) {
    const columns = from.layout.names.join(', ');
    await server.run(
      `INSERT INTO ${server.table(kept.rows)} (${columns}) SELECT ${columns} FROM ${server.table(from.rows)} FINAL WHERE _kind = 0 AND _retired = 1`,
      name,
    );
  }
  return kept;
}

/** A first layout: columns are numbered in their order. */
export function newLayout(unit: Unit, shape: TableShape): Layout {
  const ids = shape.columns.map((_, i) => `c${i + 1}`);
  const few = ids.filter((_, i) => unit.hasFew(shape, shape.columns[i]!.name));
  return new Layout(shape, ids, ids.length + 1, few);
}

/**
 * The rows in another shape. Columns that are added and dropped cost nothing for each row; another key, another type and
 * any change of a table without a key read and write them all.
 * @param at for rows that have no Position so far
 * @throws TidemarkError TM405 for a cast that is not known
 */
export async function evolve(
  maker: Maker,
  from: Generation,
  shape: TableShape,
  at: Position,
): Promise<Generation> {
  const { unit } = maker;
  const before = from.layout;
  const { kept, added, dropped } = pairColumns(before.shape, shape);
  const old = new Map(before.columns.map((stored) => [stored.column, stored]));
  const was = shape.columns.map((column) => {
    const pair = kept.find(([, now]) => now === column);
    return pair && old.get(pair[0])!;
  });
  const few = (ids: readonly string[]) =>
    ids.filter((_, i) =>
      was[i] ? before.few.includes(was[i].id) : unit.hasFew(shape, shape.columns[i]!.name),
    );
  const numbered = shape.columns.map((_, i) => `c${i}`);
  const trial = new Layout(shape, numbered, 0, few(numbered));
  let nextId = before.nextId;
  const ids = trial.columns.map(({ storage, required }, i) => {
    const alike =
      was[i] !== undefined &&
      was[i].storage.nullableType === storage.nullableType &&
      was[i].required === required;
    return alike ? was[i]!.id : `c${nextId++}`;
  });
  const layout = new Layout(shape, ids, nextId, few(ids));
  const sorts = (of: Layout) => of.sort.map(({ name, storage }) => `${name} ${storage.type}`).join();
  const inPlace =
    before.keyed &&
    layout.keyed &&
    sorts(before) === sorts(layout) &&
    kept.every(([then, now]) => {
      const [left, right] = [old.get(then)!, layout.columns[shape.columns.indexOf(now)]!];
      return left.id === right.id && isSameText(then, now);
    });
  if (inPlace) {
    const clone = await cloneGeneration(maker, from);
    await alterColumns(
      unit,
      clone.rows,
      layout,
      added,
      dropped.map((column) => old.get(column)!.id),
    );
    return { rows: clone.rows, layout };
  }
  return copyRows(maker, from, layout, at);
}

function isSameText(before: ColumnShape, after: ColumnShape): boolean {
  const cast = recast(before, after);
  return cast !== null && cast('1') === '1' && cast('t') === 't' && cast('a ') === 'a ';
}

async function alterColumns(
  unit: Unit,
  table: string,
  layout: Layout,
  added: readonly ColumnShape[],
  dropped: readonly string[],
): Promise<void> {
  const { server } = unit;
  const steps: string[] = [];
  const beside: string[] = [];
  for (const stored of layout.columns) {
    if (!added.includes(stored.column)) continue;
    const { id, storage, column } = stored;
    const missing: Cell = column.missing ?? null;
    const field = missing === null ? null : storage.write(missing);
    // Fields are escaped as literals are, but for the quote.
    const value =
      field === null ? '' : ` DEFAULT CAST('${field.replace(/'/g, "\\'")}' AS ${storage.nullableType})`;
    steps.push(`ADD COLUMN ${id} ${storage.nullableType}${value}`);
    if (field === null && (missing !== null || storage.empty !== '\\N')) {
      beside.push(
        `${quoteText(id)}, CAST(${missing === null ? 'NULL' : quoteText(missing)} AS Nullable(String))`,
      );
    }
  }
  if (steps.length > 0) await server.run(`ALTER TABLE ${server.table(table)} ${steps.join(', ')}`, unit.name);
  if (dropped.length > 0) {
    // The column is gone at once; its files go in the background, which takes seconds on a busy server.
    const drops = dropped.map((id) => `DROP COLUMN ${id}`).join(', ');
    await server.run(
      `ALTER TABLE ${server.table(table)} ${drops} SETTINGS alter_sync = 0, mutations_sync = 0`,
      unit.name,
    );
  }
  if (beside.length > 0) {
    await server.run(
      `ALTER TABLE ${server.table(table)} UPDATE _exact = mapConcat(_exact, CAST(map(${beside.join(', ')}) AS Map(LowCardinality(String), Nullable(String)))) WHERE _kind = 0`,
      unit.name,
    );
  }
}

async function copyRows(maker: Maker, from: Generation, layout: Layout, at: Position): Promise<Generation> {
  const { unit } = maker;
  const { server, name } = unit;
  const before = from.layout;
  const { shape } = layout;
  const { kept } = pairColumns(before.shape, shape);
  const old = new Map(before.columns.map((stored) => [stored.column, stored]));
  const read: StoredColumn[] = kept.map(([was]) => old.get(was)!);
  const casts = kept.map(([was, now]) => recast(was, now) ?? refuseCast(shape, was, now));
  const places = kept.map(([, now]) => shape.columns.indexOf(now));
  const missing: Row = shape.columns.map((column) => column.missing ?? null);

  const made = await createGeneration(maker, layout);
  const blocks = new Blocks({
    server,
    table: made.rows,
    columns: layout.names,
    blockBytes: maker.blockBytes,
    token: `${maker.attempt}/${made.rows}`,
    about: name,
  });
  const marks = before.keyed ? ['_version', '_retired'] : ['_copies', '_copies'];
  const select = `SELECT ${[...before.selection(read), ...marks].join(', ')} FROM ${server.table(from.rows)} FINAL WHERE _kind = 0${before.keyed ? '' : ' AND _copies > 0'}`;
  try {
    for await (const batch of server.stream(select, name)) {
      for (const fields of batch) {
        const values = missing.slice();
        for (const [i, cell] of rowOf(read, fields).entries()) {
          values[places[i]!] = cell === null ? null : casts[i]!(cell);
        }
        const [mark, second] = fields.slice(-2) as [string, string];
        const line = layout.keyed
          ? layout.keyedLine(values, keyOf(shape, values), {
              version: before.keyed ? mark : versionOf(at),
              retired: before.keyed && second === '1',
            })
          : layout.keylessLine(values, before.keyed ? '1' : mark);
        const sending = blocks.add(line);
        if (sending) await sending;
      }
    }
    await blocks.flush();
  } finally {
    await blocks.settle();
  }
  return made;
}

function keyOf(shape: TableShape, values: Row): Row {
  return shape.keyColumns.map((i) => {
    const cell = values[i]!;
    if (cell !== null) return cell;
    throw new TidemarkError(
      'TM405',
      `${tableName(shape)}: rows have no value for the new key column ${JSON.stringify(shape.columns[i]!.name)}`,
      {
        remedy: 'Rebuild the table: give it to a new destination, whose snapshot brings it whole.',
      },
    );
  });
}

function refuseCast(shape: TableShape, before: ColumnShape, after: ColumnShape): never {
  throw new TidemarkError(
    'TM405',
    `${tableName(shape)}: column ${JSON.stringify(after.name)} went from ${before.type} to ${after.type}, and what its rows have now cannot be told from what they had`,
    {
      remedy: `Rebuild the table: give it to a new destination, whose snapshot brings it whole. For such changes to come, set on.incompatible.change: text in the rule of ${tableName(shape)}.`,
    },
  );
}
