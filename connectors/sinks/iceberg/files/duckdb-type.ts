/** Iceberg types in DuckDB: what a column is cast to before it is written, and what it is read as. */
import { quoteName } from '../../../object-log/sql-text.ts';
import { unsupported } from '../failures.ts';
import type { Type } from '../spec/schema.ts';
import { typeKind } from '../spec/types.ts';

const plain: Record<string, string> = {
  boolean: 'BOOLEAN',
  int: 'INTEGER',
  long: 'BIGINT',
  float: 'FLOAT',
  double: 'DOUBLE',
  date: 'DATE',
  time: 'TIME',
  timestamp: 'TIMESTAMP',
  timestamptz: 'TIMESTAMPTZ',
  string: 'VARCHAR',
  uuid: 'UUID',
  binary: 'BLOB',
};

/** @throws TidemarkError TM405 for `fixed`: DuckDB has no such type, and Parquet files of it would be wrong. */
export function duckdbType(type: Type): string {
  if (typeof type === 'string') {
    const kind = typeKind(type);
    if (kind === 'decimal') return type.toUpperCase();
    const name = plain[kind];
    if (name !== undefined) return name;
    throw unsupported(
      `columns of type ${type} cannot be written`,
      'Take the column out of the table, or give the sink a table of its own.',
    );
  }
  if (type.type === 'list') return `${duckdbType(type.element)}[]`;
  if (type.type === 'map') return `MAP(${duckdbType(type.key)}, ${duckdbType(type.value)})`;
  return `STRUCT(${type.fields.map(({ name, type: inner }) => `${quoteName(name)} ${duckdbType(inner)}`).join(', ')})`;
}
