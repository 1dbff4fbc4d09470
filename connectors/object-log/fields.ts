/**
 * Which field of the data files holds a Postgres column, over all the shapes that its table had. Fields are given alike
 * in every format; how a format stores a type, it says with a StorageOf.
 */
import type { ColumnShape, TableShape } from '../../src/connector/shape.ts';
import { foldCase } from '../values/fold-case.ts';
import { type Storage, type StorageOf, storageOf } from './storage.ts';

/** The columns that Tidemark adds, in file order; `_image` and `_before_image` are set for keyless tables only. */
export const metadataColumns = [
  ['_op', 'VARCHAR'],
  ['_position', 'VARCHAR'],
  ['_commit_time', 'TIMESTAMPTZ'],
  ['_unchanged', 'VARCHAR[]'],
  ['_previous_key', 'VARCHAR[]'],
  ['_before', 'VARCHAR'],
  ['_exact', 'VARCHAR'],
  ['_image', 'VARCHAR'],
  ['_before_image', 'VARCHAR'],
] as const;

// Besides the metadata, the view's own names, and a name that JavaScript objects cannot hold as a plain key.
const reserved = [
  ...metadataColumns.map(([name]) => name as string),
  '_key',
  '_old_key',
  '_at',
  '_part',
  '_retired',
  // When an Iceberg table took it, and its partition.
  '_ingest_time',
  '_ingest_day',
  '__proto__',
];

/** The name of a Postgres column in the data files. */
export interface FieldName {
  name: string;
  field: string;
  /** What tells the column from others of its name: ColumnShape.number and TableShape.oid. */
  number?: number;
  oid?: number;
  /** The Postgres type that the field was made for. */
  type?: string;
  /** Values are stored as Postgres' text, whatever the type: earlier ones could not all be cast to it. */
  asText?: true;
  /** Position just before the first Change that has the field; absent: the table began with it. */
  since?: string;
  /** What the column has in Changes up to `since`, where it is in none of them; absent: NULL. */
  missing?: string;
  /** The field that the column had up to `since`, under another type. */
  earlier?: string;
}

/** A field of the files, under a type. */
export interface Held {
  field: string;
  storage: Storage;
}

/** How Changes up to `until` have the column. */
export interface EarlierForm {
  until: string;
  /** Their field, or the value that all of them have. */
  held: Held | { value: string | null };
}

export interface StoredColumn extends FieldName {
  storage: Storage;
  key: boolean;
  /** The native type that its Postgres type has, where earlier values of another type are cast to it. */
  castTo?: Storage;
  /** Its name in the views. */
  shown: string;
  /** Newest first. */
  forms: EarlierForm[];
}

/**
 * Gives every column its field. A field is the column's own name, or, where that would meet a metadata column or
 * another field when case is ignored (DuckDB ignores it), the name with `~2`, `~3`, … behind it. Fields given
 * earlier are kept, those of dropped columns too, so that one field never holds two columns of a table's history, nor
 * two types that are stored in different ways.
 * @param since Position just before the first Change of this shape
 */
export function assignFields(
  { columns, oid }: Pick<TableShape, 'columns' | 'oid'>,
  earlier: readonly FieldName[],
  since?: string,
): FieldName[] {
  const fields = earlier.map((each) => ({ ...each }));
  const taken = new Set([...reserved, ...fields.map(({ field }) => field)].map((name) => foldCase(name)));
  // A made-up name must not take the own name of a column that comes later in the list.
  const own = new Set(columns.map(({ name }) => foldCase(name)));
  const current = currentFields(fields);
  // A table that was made anew has none of the old one's rows: its columns may go on in the fields of the same name.
  const oids = new Set(fields.flatMap((each) => each.oid ?? []));
  const anew = oid !== undefined && oids.size > 0 && !oids.has(oid);
  const found = columns.map((column) => current.find((each) => isField(each, column, oid, anew)));
  for (const [i, column] of columns.entries()) {
    const { name, number, missing } = column;
    const type = storedType(column);
    const known = found[i];
    const identity = { ...(number === undefined ? {} : { number }), ...(oid === undefined ? {} : { oid }) };
    if (known && storedAlike(known.type ?? type, type)) {
      Object.assign(known, { name, type, ...identity });
      continue;
    }
    let field = name;
    for (let suffix = 2; taken.has(foldCase(field)); suffix += 1) {
      field = `${name}~${suffix}`;
      if (own.has(foldCase(field))) field = name;
    }
    taken.add(foldCase(field));
    const before = since === undefined || anew || earlier.length === 0;
    fields.push({
      name,
      field,
      type,
      ...identity,
      ...(before ? {} : { since }),
      ...(before || known || missing === undefined ? {} : { missing }),
      ...(before || !known ? {} : { earlier: known.field }),
      ...(before ||
      !known ||
      !column.carried ||
      alwaysCasts(storageOfField(known, type, storageOf), storageOf(type))
        ? {}
        : { asText: true as const }),
    });
  }
  return fields;
}

/** Without those that another field of the same column replaced. */
function currentFields(fields: readonly FieldName[]): FieldName[] {
  const replaced = new Set(fields.map(({ earlier }) => earlier));
  return fields.filter(({ field }) => !replaced.has(field)).reverse();
}

function isField(field: FieldName, column: ColumnShape, oid: number | undefined, anew: boolean): boolean {
  if (field.oid !== undefined && oid !== undefined && field.oid !== oid)
    return anew && field.name === column.name;
  if (field.number !== undefined && column.number !== undefined) return field.number === column.number;
  return field.name === column.name;
}

/** A domain is stored as the type under it. */
function storedType({ base, type }: Pick<ColumnShape, 'base' | 'type'>): string {
  return base ?? type;
}

function storedAlike(before: string, after: string): boolean {
  return storageOf(before).duckdbType === storageOf(after).duckdbType;
}

/** @param otherwise the column's type now, for a field that does not say its own */
export function storageOfField({ type, asText }: FieldName, otherwise: string, stored: StorageOf): Storage {
  return stored(asText ? 'text' : (type ?? otherwise));
}

/** Whether DuckDB casts every value of a native column to the other type, and to what Postgres casts it to. */
function alwaysCasts(from: Storage, to: Storage): boolean {
  const digits = { smallint: 5, integer: 10, bigint: 19 }[from.kind as 'smallint' | 'integer' | 'bigint'];
  const float = to.kind === 'double' || (to.kind === 'real' && from.kind !== 'bigint');
  if (digits !== undefined) return float || (to.kind === 'decimal' && to.integerDigits >= digits);
  if (from.kind === 'decimal' || from.kind === 'real') return to.kind === 'double';
  return from.kind === 'date' && to.kind === 'timestamp';
}

/** The shape's columns with their fields, in the shape's order. */
export function storedColumns(
  shape: Pick<TableShape, 'columns' | 'oid'>,
  fields: readonly FieldName[],
  stored: StorageOf,
): StoredColumn[] {
  const current = currentFields(fields);
  const byField = new Map(fields.map((each) => [each.field, each]));
  const shown = new Map(shownNames(shape.columns));
  return shape.columns.map((column) => {
    const found = current.find((each) => isField(each, column, shape.oid, false))!;
    const forms: EarlierForm[] = [];
    for (let at = found; at.since !== undefined; ) {
      const earlier = at.earlier === undefined ? undefined : byField.get(at.earlier);
      if (!earlier) {
        forms.push({ until: at.since, held: { value: at.missing ?? null } });
        break;
      }
      const { field } = earlier;
      forms.push({
        until: at.since,
        held: { field, storage: storageOfField(earlier, storedType(column), stored) },
      });
      at = earlier;
    }
    return {
      ...found,
      name: column.name,
      storage: storageOfField(found, storedType(column), stored),
      ...(column.carried && forms.some(({ held }) => 'field' in held)
        ? { castTo: storageOf(storedType(column)) }
        : {}),
      key: column.key,
      shown: shown.get(column.name)!,
      forms,
    };
  });
}

/** As the fields of a table that began with these columns. */
function shownNames(columns: readonly ColumnShape[]): [string, string][] {
  const plain = columns.map(({ name, key, nullable, ...column }) => ({
    name,
    type: storedType(column),
    key,
    nullable,
  }));
  return assignFields({ columns: plain }, []).map(({ name, field }) => [name, field]);
}
