/**
 * A table's next layout and schema (Iceberg specification, "Schema Evolution"). What Iceberg can do by field id, the files
 * stay as they are for: add, drop, rename, reorder, widen. What it cannot (another type, a default for rows from before the
 * column: format version 2 has none) takes the rows written anew.
 */
import { TidemarkError } from '../../../../src/connector/failure.ts';
import { sameText } from '../../../../src/connector/recast.ts';
import { type ColumnShape, type TableShape, tableName } from '../../../../src/connector/shape.ts';
import { madeAnew, pairColumns } from '../../../../src/connector/shape-versions.ts';
import type { Cell } from '../../../../src/connector/sink.ts';
import { foldCase } from '../../../values/fold-case.ts';
import { recast } from '../../../values/recast.ts';
import { unsupported } from '../failures.ts';
import type { PartitionSpec } from '../spec/partition-spec.ts';
import { highestFieldId, type NestedField, type Schema, sameSchema } from '../spec/schema.ts';
import type { TableMetadata } from '../spec/table-metadata.ts';
import { canPromote } from '../spec/types.ts';
import { columnStorage, type HouseFields, houseNames, houseTypes, icebergType, Layout } from './layout.ts';

/** How the rows that are there get the new layout. */
export type RowsChange =
  /** By field id: nothing is to be done. */
  | { kind: 'kept' }
  /** They are of another table. */
  | { kind: 'gone' }
  /** Written anew: for each new column where its cell comes from. */
  | { kind: 'rewritten'; cells: CellSource[] };

export type CellSource = { from: number; cast: (text: string) => string } | { constant: Cell };

export interface NextLayout {
  layout: Layout;
  schema: Schema;
  lastColumnId: number;
  schemaChanged: boolean;
  rows: RowsChange;
}

/** What of a table's metadata its next schema has to go by. */
export type SchemaBounds = Pick<TableMetadata, 'partition-specs' | 'sort-orders'>;

/** @param before null where no Window was merged into the table yet */
export function nextLayout(
  before: Layout | null,
  current: Schema,
  lastColumnId: number,
  shape: TableShape,
  bounds: SchemaBounds = { 'partition-specs': [], 'sort-orders': [] },
): NextLayout {
  const ids = new FieldIds(Math.max(lastColumnId, highestFieldId(current)));
  const found = before ? follow(before, shape, ids) : adopt(current, shape, ids);
  const house = before?.house ?? houseOf(current, ids);
  const layout = new Layout(shape, found.ids, house);
  const schema = schemaOf(layout, before, current, found.rows.kind === 'gone', bounds);
  return {
    layout,
    schema,
    lastColumnId: ids.last,
    schemaChanged: !sameSchema(current, schema),
    rows: found.rows,
  };
}

/**
 * Fields of columns that go on in another field, by the field that they had at first.
 * @param before the same, up to the layout `from`
 */
export function movedFields(
  before: ReadonlyMap<number, number>,
  from: Layout,
  { layout }: NextLayout,
): Map<number, number> {
  const fieldOf = ({ columns, shape }: Layout, column: ColumnShape) =>
    columns[shape.columns.indexOf(column)]!.fieldId;
  const step = new Map(
    pairColumns(from.shape, layout.shape).kept.map(([old, now]) => [
      fieldOf(from, old),
      fieldOf(layout, now),
    ]),
  );
  const first = new Map([...before].map(([old, now]) => [now, old]));
  return new Map([...step].map(([old, now]) => [first.get(old) ?? old, now]));
}

class FieldIds {
  last: number;

  constructor(last: number) {
    this.last = last;
  }

  next(): number {
    this.last += 1;
    return this.last;
  }
}

interface Followed {
  ids: number[];
  rows: RowsChange;
}

/** A table that somebody else made: fields of the columns' names go on as theirs. */
function adopt(current: Schema, shape: TableShape, ids: FieldIds): Followed {
  const names = fieldNames(shape);
  const found = shape.columns.map((column, i) => {
    const field = current.fields.find(({ name }) => name === names[i]);
    if (!field) return ids.next();
    const type = icebergType(columnStorage(column));
    if (typeof field.type === 'string' && canPromote(field.type, type)) return field.id;
    throw unsupported(
      `${tableName(shape)}: the Iceberg table has the column ${JSON.stringify(names[i])} as ${printType(field)}, and it would have to be ${type}`,
      'Rename or drop the column in the Iceberg table, or give the destination another namespace.',
    );
  });
  return { ids: found, rows: { kind: 'kept' } };
}

function printType({ type }: NestedField): string {
  return typeof type === 'string' ? type : type.type;
}

function follow(before: Layout, shape: TableShape, ids: FieldIds): Followed {
  if (madeAnew(before.shape, shape))
    return { ids: shape.columns.map(() => ids.next()), rows: { kind: 'gone' } };
  const { kept, added } = pairColumns(before.shape, shape);
  const earlier = new Map(kept.map(([old, column]) => [column, before.shape.columns.indexOf(old)]));
  let rewritten = added.some(({ missing }) => missing !== undefined);
  const found = shape.columns.map((column) => {
    const index = earlier.get(column);
    if (index === undefined) return ids.next();
    const old = before.columns[index]!;
    const type = icebergType(columnStorage(column));
    if (!canPromote(old.type, type)) {
      rewritten = true;
      return ids.next();
    }
    if (!keepsValues(old.column, column)) rewritten = true;
    return old.fieldId;
  });
  if (!rewritten) return { ids: found, rows: { kind: 'kept' } };
  const cells = shape.columns.map((column): CellSource => {
    const from = earlier.get(column);
    if (from === undefined) return { constant: column.missing ?? null };
    const old = before.shape.columns[from]!;
    const cast = keepsValues(old, column) ? (text: string) => text : recast(old, column);
    if (cast === null) refuseCast(shape, old, column);
    return { from, cast };
  });
  return { ids: found, rows: { kind: 'rewritten', cells } };
}

/** Of columns whose types can be promoted: a value read in the new type is what Postgres made of it. */
function keepsValues(before: ColumnShape, after: ColumnShape): boolean {
  const [from, to] = [before.base ?? before.type, after.base ?? after.type];
  return from === to || sameText(before, after) || (from === 'real' && to === 'double precision');
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

function houseOf(current: Schema, ids: FieldIds): HouseFields {
  const idOf = (name: string) => current.fields.find((each) => each.name === name)?.id ?? ids.next();
  return {
    position: idOf(houseNames.position),
    retired: idOf(houseNames.retired),
    exact: idOf(houseNames.exact),
  };
}

/**
 * The names that columns have in the table: their own, or, where that would meet another one when case is ignored (DuckDB
 * and Spark ignore it), with `~2`, `~3`, … behind it.
 */
export function fieldNames({ columns }: TableShape): string[] {
  const house: string[] = Object.values(houseNames);
  const taken = new Set(house);
  const own = new Set(columns.map(({ name }) => foldCase(name)));
  return columns.map(({ name }) => {
    let field = name;
    for (let suffix = 2; taken.has(foldCase(field)); suffix += 1) {
      field = `${name}~${suffix}`;
      if (own.has(foldCase(field))) field = name;
    }
    taken.add(foldCase(field));
    return field;
  });
}

/** The columns in their order, ours behind them, and then what somebody else added to the table. */
function schemaOf(
  layout: Layout,
  before: Layout | null,
  current: Schema,
  gone: boolean,
  { 'partition-specs': specs, 'sort-orders': orders }: SchemaBounds,
): Schema {
  const { shape, house } = layout;
  const dropped = droppedOf(layout, before);
  // Catalogs refuse a schema without a column that a sort order works on, or ever did.
  const sorted = new Set(orders.flatMap((order) => order.fields.map((each) => each['source-id'])));
  const left = current.fields.filter(({ id }) => dropped.has(id) && sorted.has(id));
  const names = besidePartitions(fieldNames(shape), layout, left, specs);
  const known = new Map(current.fields.map((field) => [field.id, field]));
  const keys = new Set(layout.keyed ? layout.matched.map(({ fieldId }) => fieldId) : []);
  const fields = layout.columns.map(({ fieldId, type, lossy }, i): NestedField => {
    const field = known.get(fieldId);
    // A column that was optional stays so, as its files may have nulls.
    const fresh = field === undefined && (before === null || gone) && current.fields.length === 0;
    const required = keys.has(fieldId) && !lossy && (field?.required ?? fresh);
    return { id: fieldId, name: names[i]!, required, type, ...docOf(field) };
  });
  for (const each of ['position', 'retired', 'exact'] as const)
    fields.push({ id: house[each], name: houseNames[each], required: false, type: houseTypes[each] });
  const ours = new Set([...fields.map(({ id }) => id), ...dropped]);
  const taken = new Set(fields.map(({ name }) => foldCase(name)));
  for (const field of left) {
    let { name } = field;
    while (taken.has(foldCase(name))) name += '~';
    taken.add(foldCase(name));
    fields.push({ ...field, name, required: false });
  }
  for (const field of current.fields) {
    if (ours.has(field.id)) continue;
    if (field.required || taken.has(foldCase(field.name))) {
      throw unsupported(
        `${shape.schema}.${shape.name}: the Iceberg table has a column of somebody else’s, ${JSON.stringify(field.name)}, that is in the way`,
        'Make it optional, or rename or drop it in the Iceberg table.',
      );
    }
    fields.push(field);
  }
  const identifiers = fields.filter(({ id, required }) => required && keys.has(id)).map(({ id }) => id);
  return {
    type: 'struct',
    'schema-id': current['schema-id'],
    // All of the key or nothing: a part of it tells no rows apart.
    ...(identifiers.length === keys.size && keys.size > 0 ? { 'identifier-field-ids': identifiers } : {}),
    fields,
  };
}

/** Fields of columns that the source has no more. */
function droppedOf({ columns }: Layout, before: Layout | null): Set<number> {
  const kept = new Set(columns.map(({ fieldId }) => fieldId));
  return new Set(before?.columns.flatMap(({ fieldId }) => (kept.has(fieldId) ? [] : [fieldId])) ?? []);
}

/** A column may have a partition field's name only where it is what that works on; catalogs refuse the table else. */
function besidePartitions(
  names: readonly string[],
  { columns }: Layout,
  left: readonly NestedField[],
  specs: readonly PartitionSpec[],
): string[] {
  const there = new Set([...columns.map(({ fieldId }) => fieldId), ...left.map(({ id }) => id)]);
  const parts = specs.flatMap(({ fields }) => fields).filter((each) => there.has(each['source-id']));
  const taken = new Set([...names, ...parts.map(({ name }) => name)].map(foldCase));
  return names.map((name, i) => {
    if (parts.every((part) => part.name !== name || part['source-id'] === columns[i]!.fieldId)) return name;
    let suffix = 2;
    while (taken.has(foldCase(`${name}~${suffix}`))) suffix += 1;
    taken.add(foldCase(`${name}~${suffix}`));
    return `${name}~${suffix}`;
  });
}

function docOf(field: NestedField | undefined): { doc: string } | Record<string, never> {
  return field?.doc === undefined ? {} : { doc: field.doc };
}
