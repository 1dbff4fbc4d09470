/** One Parquet file of several of the same writer. */
import { join } from 'node:path';
import type { DuckDBConnection } from '@duckdb/node-api';
import { TidemarkError } from '../../../src/connector/failure.ts';
import { lendInstance } from '../../duckdb/instances.ts';
import type { FileEncoderSettings } from '../../object-log/data-file.ts';
import { dictionaryLimit } from '../../object-log/dictionary-limit.ts';
import { duckdbFailure } from '../../object-log/duckdb-failure.ts';
import type { MergeFiles } from '../../object-log/format.ts';
import { quoteText } from '../../object-log/sql-text.ts';
import { copyOptions } from './encode-duckdb.ts';
import { type EncoderSettings, memoryKey } from './options.ts';

/** Files that DuckDB reads at once: it keeps buffers for every one of them, whatever the memory limit. */
const filesAtOnce = 64;

/**
 * Columns that only some files have are NULL in the rows of the others; a field never has two types in files of one
 * writer.
 * @throws TidemarkError TM901 where the sources do not have the rows that the manifests say.
 */
export async function mergeParquet(
  { sources, target, folder, rows }: MergeFiles,
  settings: Omit<EncoderSettings, keyof FileEncoderSettings>,
): Promise<void> {
  try {
    const instance = await lendInstance({ memoryBytes: settings.memoryBytes, folder });
    try {
      const connection = await instance.connect();
      const columns = await columnsOf(connection, sources.at(-1)!);
      const limit = dictionaryLimit(columns, settings.memoryBytes);
      const quick = `COMPRESSION lz4_raw, ROW_GROUP_SIZE_BYTES '16MB', ${limit}`;
      let files = sources;
      while (files.length > filesAtOnce) files = await inGroups(connection, files, folder, quick);
      const merged = await copyTogether(connection, files, target, copyOptions(settings, columns));
      if (merged !== rows) {
        throw new TidemarkError('TM901', `files with ${rows} rows by their manifests have ${merged}`);
      }
      connection.closeSync();
    } finally {
      instance.close();
    }
  } catch (error) {
    throw duckdbFailure(error, 'merge Parquet files', memoryKey);
  }
}

async function columnsOf(connection: DuckDBConnection, file: string): Promise<number> {
  return (await connection.runAndReadAll(`DESCRIBE FROM read_parquet(${quoteText(file)})`)).currentRowCount;
}

async function inGroups(
  connection: DuckDBConnection,
  files: readonly string[],
  folder: string,
  options: string,
): Promise<string[]> {
  const groups: string[] = [];
  for (let start = 0; start < files.length; start += filesAtOnce) {
    const target = join(folder, `group-${files.length}-${start}.parquet`);
    const group = files.slice(start, start + filesAtOnce);
    await copyTogether(connection, group, target, options);
    groups.push(target);
  }
  return groups;
}

async function copyTogether(
  connection: DuckDBConnection,
  files: readonly string[],
  target: string,
  options: string,
): Promise<number> {
  const list = files.map(quoteText).join(', ');
  const result = await connection.runAndReadAll(
    `COPY (FROM read_parquet([${list}], union_by_name => true, hive_partitioning => false))
       TO ${quoteText(target)} (FORMAT parquet, ${options})`,
  );
  return Number(result.getRows()[0]![0]);
}
