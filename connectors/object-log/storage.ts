/**
 * How a Postgres column is stored where files have types: the native type where it is a superset of the column's type,
 * else Postgres' own text.
 */
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

/** Of a type as format_type prints it. */
export type StorageOf = (type: string) => Storage;

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
