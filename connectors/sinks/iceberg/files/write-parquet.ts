/** One COPY to one or more Parquet files with field ids, and what DuckDB reports of them. */
import { mkdir } from 'node:fs/promises';
import type { DuckDBConnection } from '@duckdb/node-api';
import { dictionaryLimit } from '../../../object-log/dictionary-limit.ts';
import { quoteText } from '../../../object-log/sql-text.ts';
import { type FileColumn, fieldIds } from './file-columns.ts';
import { writePlainIntegers } from './plain-integers.ts';
import type { ColumnReport } from './statistics.ts';

export interface ParquetSettings {
  memoryBytes: number;
  rowGroupRows: number;
}

export interface ParquetFile {
  localPath: string;
  rows: number;
  bytes: number;
  /** By the column's name. */
  reports: ReadonlyMap<string, ColumnReport>;
}

/** Of every row group, whatever its rows: a reader holds a column of one in memory, unpacked. */
const rowGroupBytes = '16MB';

/**
 * In the order of the query, a file after another; none where the query has no rows.
 * @param folder a new one
 * @param fileBytes about which a file is ended; it ends with a row group
 */
export async function writeParquet(
  connection: DuckDBConnection,
  query: string,
  columns: readonly FileColumn[],
  folder: string,
  fileBytes: number,
  { memoryBytes, rowGroupRows }: ParquetSettings,
): Promise<ParquetFile[]> {
  await mkdir(folder, { recursive: true });
  const result = await connection.runAndReadAll(`COPY (${query}) TO ${quoteText(folder)} (
    FORMAT parquet, COMPRESSION zstd, FIELD_IDS ${fieldIds(columns)}, RETURN_STATS,
    FILE_SIZE_BYTES '${Math.max(1, Math.floor(fileBytes))}B', OVERWRITE_OR_IGNORE,
    ROW_GROUP_SIZE ${rowGroupRows}, ROW_GROUP_SIZE_BYTES '${rowGroupBytes}', ${dictionaryLimit(columns.length, memoryBytes)})`);
  const names = new Map(columns.map(({ name }) => [reportName(name), name]));
  const written = (result.getRowObjectsJson() as unknown as Returned[]).filter(
    ({ count }) => Number(count) > 0,
  );
  return Promise.all(
    written.map(async ({ filename, count, column_statistics: statistics }) => ({
      localPath: filename,
      rows: Number(count),
      bytes: await writePlainIntegers(filename),
      reports: new Map(
        statistics.flatMap(({ key, value }) => {
          const name = names.get(key);
          return name === undefined
            ? []
            : [[name, new Map(value.map((each) => [each.key, each.value]))] as const];
        }),
      ),
    })),
  );
}

interface Returned {
  filename: string;
  count: string;
  column_statistics: { key: string; value: { key: string; value: string }[] }[];
}

/** A column as RETURN_STATS names it; those within nested types have a path, and are not looked for. */
function reportName(name: string): string {
  return `"${name.replaceAll('"', '""')}"`;
}
