/** Which data files may hold a row with one of many keys: by the values of their partition, and by their bounds. */
import type { DuckDBConnection } from '@duckdb/node-api';
import { fromDuckdb } from '../files/duckdb-values.ts';
import { partitionValue } from '../files/partition-sql.ts';
import { type BoundPartitionField, partitionKey } from '../spec/partition-spec.ts';
import { valueFromBytes } from '../spec/single-value.ts';
import { typeKind } from '../spec/types.ts';
import type { ColumnSql, KeyColumn } from './key-hash.ts';
import type { LiveFile } from './live-file.ts';
import { literal } from './read-columns.ts';

export interface Keys {
  /** SQL that can stand behind FROM. */
  relation: string;
  columns: readonly KeyColumn[];
  /** A column of the relation. */
  sql: ColumnSql;
}

/** Files whose bounds are in the text of one query. */
const filesAtOnce = 1000;
/** Bounds leave NaN out, and where -0 is to go is a matter of opinion. */
const unbounded = ['float', 'double'];

/** @param fieldsOf the partition fields of a file's spec */
export async function filesOfPartitions(
  connection: DuckDBConnection,
  keys: Keys,
  files: Iterable<LiveFile>,
  fieldsOf: (file: LiveFile) => readonly BoundPartitionField[],
): Promise<LiveFile[]> {
  const found: LiveFile[] = [];
  for (const own of Map.groupBy(files, ({ specId }) => specId).values()) {
    const known = fieldsOf(own[0]!).flatMap((field, index) => {
      const column = keys.columns.find(({ id }) => id === field.sourceId);
      const { kind } = field.transform;
      // A wider type of a later schema may have values that the transform of the earlier one does not take.
      if (column?.type !== field.sourceType || kind === 'unknown' || kind === 'void') return [];
      return [{ index, value: partitionValue(connection, field, keys.sql(field.sourceId)) }];
    });
    if (known.length === 0) {
      found.push(...own);
      continue;
    }
    const rows = await connection.runAndReadAll(
      `SELECT DISTINCT ${known.map(({ value }) => value).join(', ')} FROM ${keys.relation}`,
    );
    const tuples = new Set(rows.getRows().map((row) => partitionKey(0, row.map(fromDuckdb))));
    const tupleOf = ({ partition }: LiveFile) =>
      partitionKey(
        0,
        known.map(({ index }) => partition[index] ?? null),
      );
    found.push(...own.filter((file) => tuples.has(tupleOf(file))));
  }
  return found;
}

export async function filesWithinBounds(
  connection: DuckDBConnection,
  keys: Keys,
  files: readonly LiveFile[],
): Promise<LiveFile[]> {
  let left = files;
  for (const column of keys.columns) left = await withinBounds(connection, keys, column, left);
  return [...left];
}

async function withinBounds(
  connection: DuckDBConnection,
  { relation, sql }: Keys,
  { id, type }: KeyColumn,
  files: readonly LiveFile[],
): Promise<readonly LiveFile[]> {
  if (unbounded.includes(typeKind(type))) return files;
  const found = new Set<LiveFile>();
  const ranges: string[] = [];
  for (const [i, file] of files.entries()) {
    const [lower, upper] = [file.lower.get(id), file.upper.get(id)];
    if (lower && upper)
      ranges.push(
        `(${i}, ${literal(type, valueFromBytes(type, lower))}, ${literal(type, valueFromBytes(type, upper))})`,
      );
    else found.add(file);
  }
  if (ranges.length === 0) return files;
  const nulls = await connection.runAndReadAll(`SELECT count(*) - count(${sql(id)}) FROM ${relation}`);
  // A null has no place between bounds.
  if (Number(nulls.getRows()[0]![0]) > 0) return files;
  for (let start = 0; start < ranges.length; start += filesAtOnce) {
    // The least value that is not below the file is enough to tell.
    const result = await connection.runAndReadAll(
      `SELECT f.i FROM (VALUES ${ranges.slice(start, start + filesAtOnce).join(', ')}) AS f(i, lower, upper)
         ASOF JOIN (SELECT DISTINCT ${sql(id)} AS v FROM ${relation}) AS k ON f.lower <= k.v WHERE k.v <= f.upper`,
    );
    for (const [i] of result.getRows()) found.add(files[Number(i)]!);
  }
  return files.filter((file) => found.has(file));
}
