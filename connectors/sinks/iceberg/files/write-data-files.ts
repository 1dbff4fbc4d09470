/** Rows of a DuckDB relation as data files: each in one partition, sorted, of about a target size. */
import { randomUUID } from 'node:crypto';
import { join } from 'node:path';
import type { DuckDBConnection } from '@duckdb/node-api';
import { quoteName } from '../../../object-log/sql-text.ts';
import { type DataFile, fileContent } from '../spec/data-file.ts';
import { partitionPath } from '../spec/partition-path.ts';
import type { BoundPartitionField, PartitionTuple } from '../spec/partition-spec.ts';
import type { Schema } from '../spec/schema.ts';
import { fromDuckdb } from './duckdb-values.ts';
import {
  type ColumnSource,
  columnByName,
  type FileColumn,
  fileColumns,
  selectColumns,
} from './file-columns.ts';
import type { MetricsMode } from './metrics-mode.ts';
import { eachRange } from './partition-ranges.ts';
import { partitionValue } from './partition-sql.ts';
import { fileMetrics } from './statistics.ts';
import { type ParquetFile, type ParquetSettings, writeParquet } from './write-parquet.ts';

export interface DataFileTable {
  schema: Schema;
  /** Of the spec that rows are partitioned by. */
  fields: readonly BoundPartitionField[];
  /** Field ids of the columns that a file's rows are sorted by. */
  sortedBy: readonly number[];
  /** Of the table's sort order where `sortedBy` is that; null: the files say nothing of their order. */
  sortOrderId: number | null;
  modes: ReadonlyMap<number, MetricsMode>;
  /** Location of the folder for data files, without a slash at the end. */
  dataLocation: string;
}

export interface WriteSettings extends ParquetSettings {
  /** An empty folder of this call's own. */
  folder: string;
  targetFileBytes: number;
}

/** A file that is on this machine until it is uploaded to where the manifest says it is. */
export interface WrittenFile {
  file: DataFile;
  localPath: string;
}

/**
 * @param connection of openDatabase()
 * @param relation SQL that can stand behind FROM
 * @param source which column of the relation holds a field
 */
export async function writeDataFiles(
  connection: DuckDBConnection,
  relation: string,
  table: DataFileTable,
  settings: WriteSettings,
  source: ColumnSource = columnByName,
): Promise<WrittenFile[]> {
  const columns = fileColumns(table.schema);
  const select = selectColumns(columns, source);
  const keys = table.sortedBy.map((id) => quoteName(columns.find(({ field }) => field.id === id)!.name));
  if (table.fields.length === 0) {
    const order = keys.length === 0 ? '' : ` ORDER BY ${keys.join(', ')}`;
    const query = `SELECT * FROM (SELECT ${select} FROM ${relation})${order}`;
    return writePartition(connection, query, columns, [], table, settings, '0');
  }
  const values = table.fields.map((field, index) => {
    const column = table.schema.fields.find(({ id }) => id === field.sourceId);
    // A column that was dropped since, or one within a struct: nothing of it can be told from the relation.
    const from = column ? (source(column) ?? 'NULL') : 'NULL';
    return `${partitionValue(connection, field, from)} AS ${partName(index)}`;
  });
  const rows = `SELECT ${select}, ${values.join(', ')} FROM ${relation}`;
  const parts = table.fields.map((_, index) => partName(index));
  const written: WrittenFile[] = [];
  let number = 0;
  await eachRange(connection, rows, parts, keys, async ({ values: partition, query }) => {
    const tuple = partition.map(fromDuckdb);
    written.push(
      ...(await writePartition(connection, query, columns, tuple, table, settings, String(number))),
    );
    number += 1;
  });
  return written;
}

function partName(index: number): string {
  return quoteName(`partition ${index}~`);
}

/** The rows of a query, in its order, a file after another. @param name of a folder that is not there yet */
export async function writePartition(
  connection: DuckDBConnection,
  query: string,
  columns: readonly FileColumn[],
  partition: PartitionTuple,
  table: DataFileTable,
  settings: WriteSettings,
  name: string,
): Promise<WrittenFile[]> {
  const folder = join(settings.folder, name);
  const files = await writeParquet(connection, query, columns, folder, settings.targetFileBytes, settings);
  const path = partitionPath(table.fields, partition);
  const parent = path === '' ? table.dataLocation : `${table.dataLocation}/${path}`;
  const written: WrittenFile[] = [];
  for (const file of files) {
    const location = `${parent}/${randomUUID()}.parquet`;
    const dataFile = await describe(connection, file, location, columns, partition, table);
    written.push({ localPath: file.localPath, file: dataFile });
  }
  return written;
}

async function describe(
  connection: DuckDBConnection,
  { localPath, rows, bytes, reports }: ParquetFile,
  location: string,
  columns: readonly FileColumn[],
  partition: PartitionTuple,
  table: DataFileTable,
): Promise<DataFile> {
  return {
    content: fileContent.data,
    file_path: location,
    file_format: 'PARQUET',
    partition,
    record_count: rows,
    file_size_in_bytes: bytes,
    ...(await fileMetrics(connection, localPath, columns, table.modes, reports)),
    key_metadata: null,
    equality_ids: null,
    sort_order_id: table.sortOrderId,
    referenced_data_file: null,
  };
}
