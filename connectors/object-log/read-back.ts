/** The table's rows as Postgres prints them, read back from the data files by DuckDB. */
import { mkdir, rm } from 'node:fs/promises';
import { join } from 'node:path';
import type { DuckDBConnection, DuckDBValue } from '@duckdb/node-api';
import type { Position } from '../../src/connector/position.ts';
import { type TableShape, unitName } from '../../src/connector/shape.ts';
import type { Row } from '../../src/connector/sink.ts';
import { lendInstance } from '../duckdb/instances.ts';
import { dictionaryLimit } from './dictionary-limit.ts';
import { duckdbFailure } from './duckdb-failure.ts';
import { assignFields, storedColumns } from './fields.ts';
import type { LogFormat, ReadFiles } from './format.ts';
import { heldFields, latestViewStatements, type ViewTable } from './latest-view.ts';
import { filesUpTo } from './live-files.ts';
import { localFiles } from './local-files.ts';
import type { ManifestFile } from './manifest.ts';
import type { ObjectStore } from './object-store.ts';
import { postgresFloat } from './postgres-float.ts';
import { quoteName, quoteText } from './sql-text.ts';

/** A join of a table's changes with their newest ones; 1,000,000 rows of 300 bytes pass with half of this. */
const minReadBytes = 256 * 1024 * 1024;
/** What DuckDB holds for a column whatever its rows: a table of 1,000 columns needs 500 MiB. */
const readBytesPerColumn = 320 * 1024;

/** Memory that DuckDB needs to read a table back. */
export function leastReadBytes({ columns }: TableShape): number {
  return minReadBytes + readBytesPerColumn * columns.length;
}

export interface ReadBackSettings {
  /** An empty folder of this read's own; removed at the end. */
  folder: string;
  /** DuckDB's memory limit, bytes; beyond it DuckDB spills to the folder. */
  memoryBytes: number;
  /** The option that says it. */
  memoryKey: string;
}

/**
 * Rows of a table as of a Position, in batches of up to 2,048, in no particular order. Objects of an S3 store are
 * downloaded to the scratch folder first, so that needs the disk space of the table's files.
 * @param retired takes the rows that the source let go of; null: they are among the others
 * @throws TidemarkError TM401, TM402 (store), TM404 (a manifest or file is gone), TM406 (scratch disk or memory).
 */
export async function* readLatestRows(
  store: ObjectStore,
  format: LogFormat,
  shape: TableShape,
  at: Position,
  settings: ReadBackSettings,
  retired: ((rows: Row[]) => void) | null = null,
): AsyncIterable<Row[]> {
  const unit = unitName(shape);
  await mkdir(settings.folder, { recursive: true });
  try {
    const { files, newest } = await filesUpTo(store, unit, at);
    if (files.length === 0 || newest === null) return;
    const paths = await localFiles(store, unit, files, settings.folder, format.extension);
    const fields = assignFields(shape, newest.fields);
    const columns = storedColumns(shape, fields, format.storageOf);
    const { uniform, reshaped } = newest;
    const read = { columns, held: heldFields(columns), uniform, longestLine: longestOf(files) };
    const instance = await lendInstance(settings);
    try {
      const connection = await instance.connect();
      const few = await mergeFiles(connection, paths, settings, format, read);
      const table = { columns, keyColumns: shape.keyColumns, reshaped };
      const source = few === paths ? format.relation({ ...read, paths: listOf(few) }) : parquetRelation(few);
      yield* latestRows(
        connection,
        { table, source, paths: few, at, memoryBytes: settings.memoryBytes },
        retired,
      );
      connection.closeSync();
    } catch (error) {
      throw duckdbFailure(error, `read ${unit} back`, settings.memoryKey);
    } finally {
      // A setting of its queries is the instance's.
      instance.close();
    }
  } finally {
    await rm(settings.folder, { recursive: true, force: true });
  }
}

export interface LatestRows {
  table: ViewTable;
  /** SQL of the relation over the Changes. */
  source: string;
  /** The Parquet files that it reads. */
  paths: readonly string[];
  at: Position;
  /** DuckDB's memory limit, bytes. */
  memoryBytes: number;
}

/** The rows that the Changes of a relation leave, as readLatestRows gives them. */
export async function* latestRows(
  connection: DuckDBConnection,
  { table, source, paths, at, memoryBytes }: LatestRows,
  retired: ((rows: Row[]) => void) | null,
): AsyncIterable<Row[]> {
  const { columns, keyColumns } = table;
  await prepare(connection, at, latestViewStatements(table, 'text', source));
  const floats = columns.flatMap(({ storage }, index) =>
    storage.kind === 'real' || storage.kind === 'double' ? [[index, storage.kind] as const] : [],
  );
  const parts = keyColumns.length === 0 ? 1 : await partsFor(connection, paths, memoryBytes);
  for (let part = 0; part < parts; part += 1) {
    await connection.run(`SET VARIABLE tidemark_parts = ${parts}`);
    await connection.run(`SET VARIABLE tidemark_part = ${part}`);
    const result = await connection.stream('FROM tidemark_latest');
    for (;;) {
      const chunk = await result.fetchChunk();
      if (chunk === null || chunk.rowCount === 0) break;
      // Every column is text but the floats, which DuckDB would spell in its own way.
      const rows = chunk.getRows();
      for (const [index, kind] of floats) {
        for (const row of rows) {
          const value = row[index];
          if (typeof value === 'number') row[index] = postgresFloat(value, kind);
        }
      }
      yield keyColumns.length === 0 ? (rows as Row[]) : withoutMark(rows, retired);
    }
  }
}

/** @param rows with a last cell that says whether the row was let go of, which is taken off */
function withoutMark(rows: DuckDBValue[][], retired: ((rows: Row[]) => void) | null): Row[] {
  const kept: Row[] = [];
  for (const row of rows) {
    const mark = row.pop() as boolean;
    if (mark && retired) retired([row as Row]);
    else kept.push(row as Row);
  }
  return kept;
}

/** Files that DuckDB reads at once: it keeps buffers for every one of them, whatever the memory limit. */
const filesAtOnce = 64;

/**
 * Short Windows leave a table in thousands of small files, more than the memory limit has room to open. They are
 * copied together, so many at a time, before anything is computed; so are those that cannot be gone through directly.
 * Row groups are bounded in bytes: by rows, DuckDB would hold 122,880 of them, of whatever size.
 */
async function mergeFiles(
  connection: DuckDBConnection,
  paths: readonly string[],
  { folder, memoryBytes }: ReadBackSettings,
  format: LogFormat,
  read: Omit<ReadFiles, 'paths'>,
): Promise<readonly string[]> {
  if (format.direct && paths.length <= filesAtOnce) return paths;
  const merged: string[] = [];
  for (let start = 0; start < paths.length; start += filesAtOnce) {
    const target = join(folder, `merged-${start}.parquet`);
    const source = format.relation({ ...read, paths: listOf(paths.slice(start, start + filesAtOnce)) });
    await connection.run(
      `COPY (${source}) TO ${quoteText(target)}
         (FORMAT parquet, COMPRESSION lz4_raw, ROW_GROUP_SIZE_BYTES '16MB',
          ${dictionaryLimit(read.held.length, memoryBytes)})`,
    );
    merged.push(target);
  }
  return merged;
}

/** Of files that all have every column. */
export function parquetRelation(paths: readonly string[]): string {
  return `FROM read_parquet(${listOf(paths)}, hive_partitioning => false)`;
}

function listOf(paths: readonly string[]): string {
  return `[${paths.map(quoteText).join(', ')}]`;
}

function longestOf(files: readonly ManifestFile[]): string {
  return String(files.reduce((longest, { longestLine = 0 }) => Math.max(longest, longestLine), 0));
}

/**
 * How often the files are gone through, each time for another part of the keys: the values that rows left unchanged are
 * looked up in an aggregate, which has to fit into memory. What the files say of their sizes is not asked: not every
 * writer says it, and of what packs well it is a fraction.
 */
async function partsFor(
  connection: DuckDBConnection,
  paths: readonly string[],
  memoryBytes: number,
): Promise<number> {
  const files = `read_parquet([${paths.map(quoteText).join(', ')}], union_by_name => true, hive_partitioning => false)`;
  const first = async (sql: string) =>
    (await connection.runAndReadAll(sql)).getRows()[0] as (number | null)[];
  const [gaps] = await first(
    `SELECT CAST(count(*) FILTER (WHERE len("_unchanged") > 0) AS DOUBLE) FROM ${files}`,
  );
  if (!gaps) return 1;
  const described = (await connection.runAndReadAll(`DESCRIBE FROM ${files}`)).getRows() as [
    string,
    string,
  ][];
  const lengths: Record<string, string> = { VARCHAR: 'strlen', BLOB: 'octet_length' };
  const sizes = described.flatMap(([name, type]) =>
    lengths[type] ? [`coalesce(sum(${lengths[type]}(${quoteName(name)})), 0)`] : [],
  );
  const [sources, bytes] = await first(
    // A list, because a sum of 1,000 terms is too deep an expression.
    `SELECT CAST(count(*) AS DOUBLE), CAST(list_sum([${sizes.join(', ')}]) AS DOUBLE) FROM ${files}
      WHERE "_op" IN ('c', 'u', 'r') AND coalesce(len("_unchanged"), 0) = 0`,
  );
  const looked = (Math.min(gaps, sources ?? 0) * (bytes ?? 0)) / Math.max(1, sources ?? 0);
  return Math.max(1, Math.ceil((6 * looked) / memoryBytes));
}

async function prepare(connection: DuckDBConnection, at: Position, views: readonly string[]): Promise<void> {
  await connection.run("SET TimeZone = 'UTC'");
  // The views' joins have what is small, or can go to disk, on their right. DuckDB knows nothing of the files' widths and
  // would build a hash table of all rows, whole.
  await connection.run("SET disabled_optimizers = 'build_side_probe_side'");
  await connection.run(`SET VARIABLE tidemark_at = ${quoteText(at)}`);
  for (const view of views) await connection.run(view);
}
