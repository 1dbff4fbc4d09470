/** A written Parquet file's statistics in the form that a manifest has them. */
import type { DuckDBConnection, DuckDBValue } from '@duckdb/node-api';
import { quoteName, quoteText } from '../../../object-log/sql-text.ts';
import type { DataFile } from '../spec/data-file.ts';
import { valueToBytes } from '../spec/single-value.ts';
import { truncateLower, truncateUpper } from '../spec/truncate-bound.ts';
import type { PrimitiveType, Value } from '../spec/types.ts';
import { fromDuckdb, fromText } from './duckdb-values.ts';
import type { FileColumn } from './file-columns.ts';
import type { MetricsMode } from './metrics-mode.ts';

/** COPY's own account of a column (RETURN_STATS): `num_values`, `null_count`, `min`, …, all as text. */
export type ColumnReport = ReadonlyMap<string, string>;

type Metrics = Pick<
  DataFile,
  | 'column_sizes'
  | 'value_counts'
  | 'null_value_counts'
  | 'nan_value_counts'
  | 'lower_bounds'
  | 'upper_bounds'
  | 'split_offsets'
>;

interface Bounds {
  lower: Value | null;
  upper: Value | null;
  nans: number | null;
}

/**
 * @param reports by the column's name in the file
 * @param path of the local file: what its footer does not say is read from it
 */
export async function fileMetrics(
  connection: DuckDBConnection,
  path: string,
  columns: readonly FileColumn[],
  modes: ReadonlyMap<number, MetricsMode>,
  reports: ReadonlyMap<string, ColumnReport>,
): Promise<Metrics> {
  const sizes = new Map<number, number>();
  const values = new Map<number, number>();
  const nulls = new Map<number, number>();
  const nans = new Map<number, number>();
  const lower = new Map<number, Uint8Array>();
  const upper = new Map<number, Uint8Array>();
  const measured = columns.filter(({ field }) => (modes.get(field.id)?.kind ?? 'none') !== 'none');
  const known = await boundsOf(connection, path, measured, modes, reports);
  for (const { field, name } of measured) {
    const { id } = field;
    const type = field.type as PrimitiveType;
    const report = reports.get(name)!;
    sizes.set(id, Number(report.get('column_size_bytes')));
    values.set(id, Number(report.get('num_values')));
    nulls.set(id, Number(report.get('null_count')));
    const bounds = known.get(name)!;
    if (bounds.nans !== null) nans.set(id, bounds.nans);
    const mode = modes.get(id)!;
    if (mode.kind === 'counts') continue;
    const width = mode.kind === 'truncate' ? mode.width : Number.POSITIVE_INFINITY;
    if (bounds.lower !== null) lower.set(id, valueToBytes(type, truncateLower(type, bounds.lower, width)));
    const above = bounds.upper === null ? null : truncateUpper(type, bounds.upper, width);
    if (above !== null) upper.set(id, valueToBytes(type, above));
  }
  return {
    column_sizes: sizes,
    value_counts: values,
    null_value_counts: nulls,
    nan_value_counts: nans,
    lower_bounds: lower,
    upper_bounds: upper,
    split_offsets: await rowGroupOffsets(connection, path),
  };
}

/**
 * What the footer has; the file is asked for the rest: NaN counts of columns that have some, and bounds of texts beyond
 * 256 bytes, which DuckDB's footer may lack.
 */
async function boundsOf(
  connection: DuckDBConnection,
  path: string,
  columns: readonly FileColumn[],
  modes: ReadonlyMap<number, MetricsMode>,
  reports: ReadonlyMap<string, ColumnReport>,
): Promise<Map<string, Bounds>> {
  const known = new Map<string, Bounds>();
  const asked: FileColumn[] = [];
  for (const column of columns) {
    const report = reports.get(column.name)!;
    const type = column.field.type as PrimitiveType;
    const float = type === 'float' || type === 'double';
    const empty = report.get('num_values') === report.get('null_count');
    const [min, max] = [report.get('min'), report.get('max')];
    const mode = modes.get(column.field.id)!;
    const exact = mode.kind !== 'full' || Math.max(longest(min), longest(max)) < footerBytes;
    const complete =
      empty || (exact && min !== undefined && max !== undefined && report.get('has_nan') !== 'true');
    known.set(column.name, {
      lower: !empty && min !== undefined ? fromText(type, min) : null,
      upper: !empty && max !== undefined ? fromText(type, max) : null,
      nans: float ? 0 : null,
    });
    if (!complete) asked.push(column);
  }
  if (asked.length > 0) await askFile(connection, path, asked, modes, known);
  for (const bounds of known.values()) spanZero(bounds);
  return known;
}

/** Where DuckDB cuts texts and bytes in a footer. */
const footerBytes = 256;

/** Bytes of a text; of bytes, which are in hexadecimal, twice as many: those are asked for too early. */
function longest(text: string | undefined): number {
  return Buffer.byteLength(text ?? '', 'utf8');
}

async function askFile(
  connection: DuckDBConnection,
  path: string,
  columns: readonly FileColumn[],
  modes: ReadonlyMap<number, MetricsMode>,
  known: Map<string, Bounds>,
): Promise<void> {
  const selected = columns.flatMap(({ field, name }) => {
    const column = quoteName(name);
    if (field.type === 'float' || field.type === 'double') {
      // Not FILTER, for which DuckDB rearranges every column once for every aggregate.
      const number = `CASE WHEN NOT isnan(${column}) THEN ${column} END`;
      return [`min(${number})`, `max(${number})`, `count_if(isnan(${column}))`];
    }
    const mode = modes.get(field.id)!;
    // One code point more than is kept tells whether something was cut off.
    const text =
      field.type === 'string' && mode.kind === 'truncate' ? `left(${column}, ${mode.width + 1})` : column;
    return [`min(${text})`, `max(${text})`, 'NULL'];
  });
  const result = await connection.runAndReadAll(`SELECT ${selected.join(', ')} FROM ${parquetFile(path)}`);
  const row = result.getRows()[0] as DuckDBValue[];
  for (const [index, { name }] of columns.entries()) {
    const [lower, upper, nans] = row.slice(index * 3, index * 3 + 3);
    known.set(name, {
      lower: fromDuckdb(lower!),
      upper: fromDuckdb(upper!),
      nans: nans === null ? null : Number(nans),
    });
  }
}

/** DuckDB takes -0 and 0 for the same, and either may be the bound that it tells. */
function spanZero(bounds: Bounds): void {
  if (bounds.lower === 0) bounds.lower = -0;
  if (Object.is(bounds.upper, -0)) bounds.upper = 0;
}

async function rowGroupOffsets(connection: DuckDBConnection, path: string): Promise<number[]> {
  const result = await connection.runAndReadAll(
    `SELECT min(least(data_page_offset, coalesce(dictionary_page_offset, data_page_offset)))
       FROM parquet_metadata(${quoteText(path)}) GROUP BY row_group_id ORDER BY 1`,
  );
  return result.getRows().map(([offset]) => Number(offset));
}

export function parquetFile(path: string): string {
  return `read_parquet(${quoteText(path)}, hive_partitioning => false)`;
}
