/** The hash of a row's key, in SQL; the same whichever of a column's types, before or after a promotion, it is read as. */
import { quoteText } from '../../../object-log/sql-text.ts';
import { type PrimitiveType, typeKind } from '../spec/types.ts';

export interface KeyColumn {
  id: number;
  type: PrimitiveType;
  /**
   * Id of a column of JSON objects: where this column is null and the object has an entry of its id, that entry is the
   * value's text, as the type cannot hold it (infinity, NaN).
   */
  exact: number | null;
}

/** SQL that gives a column's value, by its field id. */
export type ColumnSql = (id: number) => string;

/**
 * SQL of an integer of 128 bits, of which 96 are used. Two keys are taken for one if these are equal: that happens by chance
 * once in 10^14 Windows of a million keys and a table of a billion rows. The salt keeps it from happening on purpose: who
 * does not know it cannot choose two keys that meet. (md5 takes 0.1 µs a row, sha256 and its digits 0.5.)
 */
export function keyHash(columns: readonly KeyColumn[], sql: ColumnSql, salt: string): string {
  const parts = columns.map((column) => {
    const text = valueText(column, sql);
    // With its length, so that no two keys are the same text; null is a value like others.
    return columns.length === 1
      ? `coalesce('=' || ${text}, '')`
      : `coalesce(length(${text}) || ':' || ${text}, 'null')`;
  });
  return `md5_number(${quoteText(salt)} || ${parts.join(` || ',' || `)})`;
}

/** SQL that selects the words of `hash` in its order, and what is behind it. @param rows SQL with that column */
export function sortedWords(rows: string, rest: string): string {
  const word = (shift: number) => `CAST((hash >> ${shift}) & 4294967295 AS UINTEGER)`;
  return `SELECT ${[word(96), word(64), word(32)].join(', ')}, ${rest} FROM (${rows}) ORDER BY hash`;
}

function valueText({ id, type, exact }: KeyColumn, sql: ColumnSql): string {
  const text = nativeText(type, sql(id));
  return exact === null ? text : `coalesce(${text}, json_extract_string(${sql(exact)}, '/${id}'))`;
}

function nativeText(type: PrimitiveType, value: string): string {
  switch (typeKind(type)) {
    case 'float':
    case 'double':
      // As a double, and with -0 as 0: Postgres takes them for equal.
      return `CAST(CAST(${value} AS DOUBLE) + 0 AS VARCHAR)`;
    case 'timestamp':
    case 'timestamptz':
      return `CAST(epoch_us(${value}) AS VARCHAR)`;
    case 'binary':
      return `hex(${value})`;
    default:
      return `CAST(${value} AS VARCHAR)`;
  }
}
