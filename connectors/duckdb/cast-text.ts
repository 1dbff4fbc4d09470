/** Postgres' own text in the column types of DuckDB's. */
import type { Storage } from '../object-log/storage.ts';

/** SQL of a text's value in the type that its column is stored in. @param expression SQL of the text */
export function castFromText(expression: string, { kind, duckdbType }: Storage): string {
  if (kind === 'text') return expression;
  // Postgres prints bytea as \x followed by hexadecimal digits.
  if (kind === 'bytea') return `unhex(substr(${expression}, 3))`;
  return `CAST(${expression} AS ${duckdbType})`;
}

/** SQL of a value as Postgres prints it; of a float the number, which postgresFloat() prints. */
export function printToText(column: string, { kind }: Pick<Storage, 'kind'>): string {
  switch (kind) {
    case 'text':
    case 'real':
    case 'double':
      return column;
    case 'boolean':
      return `CASE ${column} WHEN true THEN 't' WHEN false THEN 'f' END`;
    case 'bytea':
      return `'\\x' || lower(hex(${column}))`;
    default:
      return `CAST(${column} AS VARCHAR)`;
  }
}
