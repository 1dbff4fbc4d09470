/**
 * How a Postgres column is stored in a data file: the native type where it is a superset of the column's type,
 * else Postgres' own text. A value outside its native type goes to `_exact` as text, with NULL in the column.
 */
import type { ColumnShape } from '../../../src/connector/shape.ts';
import type { EncoderName } from './options.ts';

export type StorageKind =
  | 'smallint'
  | 'integer'
  | 'bigint'
  | 'boolean'
  | 'real'
  | 'double'
  | 'decimal'
  | 'date'
  | 'timestamp'
  | 'timestamptz'
  | 'bytea'
  | 'uuid'
  | 'text';

export interface Storage {
  kind: StorageKind;
  /** DuckDB's name of the type. */
  duckdbType: string;
  /** Of a decimal: digits before and after the point. */
  integerDigits: number;
  scale: number;
}

const plain: Record<string, [StorageKind, string]> = {
  smallint: ['smallint', 'SMALLINT'],
  integer: ['integer', 'INTEGER'],
  bigint: ['bigint', 'BIGINT'],
  boolean: ['boolean', 'BOOLEAN'],
  real: ['real', 'FLOAT'],
  'double precision': ['double', 'DOUBLE'],
  date: ['date', 'DATE'],
  'timestamp without time zone': ['timestamp', 'TIMESTAMP'],
  'timestamp with time zone': ['timestamptz', 'TIMESTAMPTZ'],
  bytea: ['bytea', 'BLOB'],
  uuid: ['uuid', 'UUID'],
};

/** Storage of a type as format_type prints it; whatever is not known is text. */
export function storageOf(type: string): Storage {
  const [kind, duckdbType] = plain[type.replace(/^timestamp\(\d\) /, 'timestamp ')] ?? ['text', 'VARCHAR'];
  const numeric = /^numeric\((\d+)(?:,(-?\d+))?\)$/.exec(type);
  if (numeric) {
    const scale = Number(numeric[2] ?? 0);
    // At least one digit before the point: DuckDB prints DECIMAL(5,5) as `.12345`, Postgres as `0.12345`.
    const precision = Math.max(Number(numeric[1]), scale + 1);
    if (scale >= 0 && precision <= 38) {
      return {
        kind: 'decimal',
        duckdbType: `DECIMAL(${precision},${scale})`,
        integerDigits: precision - scale,
        scale,
      };
    }
  }
  return { kind, duckdbType, integerDigits: 0, scale: 0 };
}

/**
 * Whether the native column gives this value's text back. Dates and timestamps are native in the years 1 to 9999.
 * parquetjs has no integers beyond 2^53, nothing before 1970 and no NaN; decimals and uuids are text there.
 */
export function fitsNatively(storage: Storage, value: string, encoder: EncoderName): boolean {
  const js = encoder === 'parquetjs';
  switch (storage.kind) {
    case 'bigint':
      return !js || value.length <= 15;
    case 'real':
    case 'double':
      // DuckDB's Parquet dictionary takes -0 and 0 for one value and writes whichever came first.
      return value !== '-0' && (!js || value !== 'NaN');
    case 'decimal':
      return fitsDecimal(storage, value);
    case 'date':
      return value.length === 10 && value.charCodeAt(4) === 45 && (!js || value >= '1970');
    case 'timestamp':
    case 'timestamptz':
      // 45 is `-`: five-digit years, `infinity` and `-infinity` have something else there.
      return (
        value.charCodeAt(4) === 45 && value.charCodeAt(value.length - 1) !== 67 && (!js || value >= '1970')
      );
    default:
      return true;
  }
}

/** Digits only, exactly the column's scale, and not more digits than the type holds: NaN and Infinity are out. */
function fitsDecimal({ integerDigits, scale }: Storage, value: string): boolean {
  const start = value.charCodeAt(0) === 45 ? 1 : 0;
  const first = value.charCodeAt(start);
  if (!(first >= 48 && first <= 57)) return false;
  const point = scale === 0 ? value.length : value.length - scale - 1;
  if (scale > 0 && value.charCodeAt(point) !== 46) return false;
  if (scale === 0 && value.includes('.')) return false;
  return point > start && point - start <= integerDigits;
}

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
  '__proto__',
];

/** The name of a Postgres column in the data files. */
export interface FieldName {
  name: string;
  field: string;
}

export interface StoredColumn extends FieldName {
  storage: Storage;
  key: boolean;
}

/**
 * Gives every column its field. A field is the column's own name, or, where that would meet a metadata column or
 * another field when case is ignored (DuckDB ignores it), the name with `~2`, `~3`, … behind it. Fields given
 * earlier are kept, those of dropped columns too, so that one field never holds two columns of a table's history.
 */
export function assignFields(columns: readonly ColumnShape[], earlier: readonly FieldName[]): FieldName[] {
  const fields = new Map(earlier.map(({ name, field }) => [name, field]));
  const taken = new Set([...reserved, ...fields.values()].map((name) => name.toLowerCase()));
  // A made-up name must not take the own name of a column that comes later in the list.
  const own = new Set(columns.map(({ name }) => name.toLowerCase()));
  for (const { name } of columns) {
    if (fields.has(name)) continue;
    let field = name;
    for (let number = 2; taken.has(field.toLowerCase()); number += 1) {
      field = `${name}~${number}`;
      if (own.has(field.toLowerCase())) field = name;
    }
    taken.add(field.toLowerCase());
    fields.set(name, field);
  }
  return [...fields].map(([name, field]) => ({ name, field }));
}

/** The shape's columns with their fields, in the shape's order. */
export function storedColumns(columns: readonly ColumnShape[], fields: readonly FieldName[]): StoredColumn[] {
  const byName = new Map(fields.map(({ name, field }) => [name, field]));
  return columns.map(({ name, type, base, key }) => ({
    name,
    field: byName.get(name)!,
    storage: storageOf(base ?? type),
    key,
  }));
}

/** An identifier in DuckDB's SQL. */
export function quoteName(name: string): string {
  return `"${name.replaceAll('"', '""')}"`;
}

/** A text literal in DuckDB's SQL. */
export function quoteText(text: string): string {
  return `'${text.replaceAll("'", "''")}'`;
}
