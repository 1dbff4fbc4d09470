/** The table's rows as Postgres prints them, read back from the data files by DuckDB. */
import { mkdir, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { type DuckDBConnection, DuckDBInstance } from '@duckdb/node-api';
import type { Position } from '../../../src/connector/position.ts';
import type { TableShape } from '../../../src/connector/shape.ts';
import type { Row } from '../../../src/connector/sink.ts';
import { assignFields, quoteName, quoteText, storedColumns } from './columns.ts';
import { duckdbFailure } from './duckdb-failure.ts';
import { latestViewStatements } from './latest-view.ts';
import { manifestFolder, parseManifestKey, tableFolder } from './layout.ts';
import { type Manifest, readManifest } from './manifest.ts';
import { listAll, type ObjectStore } from './object-store.ts';
import { postgresFloat } from './postgres-float.ts';

export interface ReadBackSettings {
  /** An empty folder of this read's own; removed at the end. */
  folder: string;
  /** DuckDB's memory limit, bytes; beyond it DuckDB spills to the folder. */
  memoryBytes: number;
}

/** Files downloaded at once. */
const downloads = 4;

/**
 * Rows of a table as of a Position, in batches of up to 2,048, in no particular order. Objects of an S3 store are
 * downloaded to the scratch folder first, so that needs the disk space of the table's files.
 * @throws TidemarkError TM401, TM402 (store), TM404 (a manifest or file is gone), TM406 (scratch disk or memory).
 */
export async function* readLatestRows(
  store: ObjectStore,
  unit: string,
  shape: TableShape,
  at: Position,
  settings: ReadBackSettings,
): AsyncIterable<Row[]> {
  await mkdir(settings.folder, { recursive: true });
  try {
    const { paths, newest } = await filesUpTo(store, unit, at, settings.folder);
    if (paths.length === 0 || newest === null) return;
    const fields = assignFields(shape, newest.fields);
    const table = {
      columns: storedColumns(shape, fields),
      keyColumns: shape.keyColumns,
      uniform: newest.uniform,
      reshaped: newest.reshaped,
    };
    const instance = await DuckDBInstance.create(':memory:', {
      threads: '1',
      memory_limit: `${settings.memoryBytes}B`,
      temp_directory: join(settings.folder, 'spill'),
      preserve_insertion_order: 'false',
      autoinstall_known_extensions: 'false',
      autoload_known_extensions: 'false',
    });
    try {
      const connection = await instance.connect();
      const few = await mergeFiles(connection, paths, settings.folder, newest.uniform);
      await prepare(connection, few, at, latestViewStatements(table, 'text'));
      const floats = table.columns.flatMap(({ storage }, index) =>
        storage.kind === 'real' || storage.kind === 'double' ? [[index, storage.kind] as const] : [],
      );
      const parts = shape.keyColumns.length === 0 ? 1 : await partsFor(connection, few, settings.memoryBytes);
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
          yield rows as Row[];
        }
      }
      connection.closeSync();
    } catch (error) {
      throw duckdbFailure(error, `read ${unit} back`);
    } finally {
      instance.closeSync();
    }
  } finally {
    await rm(settings.folder, { recursive: true, force: true });
  }
}

/** Files that DuckDB reads at once: it keeps buffers for every one of them, whatever the memory limit. */
const filesAtOnce = 64;

/**
 * Short Windows leave a table in thousands of small files, more than the memory limit has room to open. They are
 * copied together, so many at a time, before anything is computed. Row groups are bounded in bytes: by rows, DuckDB
 * would hold 122,880 of them, of whatever size.
 */
async function mergeFiles(
  connection: DuckDBConnection,
  paths: readonly string[],
  folder: string,
  uniform: boolean,
): Promise<readonly string[]> {
  if (paths.length <= filesAtOnce) return paths;
  const merged: string[] = [];
  for (let start = 0; start < paths.length; start += filesAtOnce) {
    const target = join(folder, `merged-${start}.parquet`);
    const files = paths
      .slice(start, start + filesAtOnce)
      .map(quoteText)
      .join(', ');
    await connection.run(
      `COPY (FROM read_parquet([${files}], union_by_name => ${!uniform}, hive_partitioning => false))
         TO ${quoteText(target)} (FORMAT parquet, COMPRESSION lz4_raw, ROW_GROUP_SIZE_BYTES '16MB')`,
    );
    merged.push(target);
  }
  return merged;
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
    `SELECT CAST(count(*) AS DOUBLE), CAST(${sizes.join(' + ')} AS DOUBLE) FROM ${files}
      WHERE "_op" IN ('c', 'u', 'r') AND coalesce(len("_unchanged"), 0) = 0`,
  );
  const looked = (Math.min(gaps, sources ?? 0) * (bytes ?? 0)) / Math.max(1, sources ?? 0);
  return Math.max(1, Math.ceil((6 * looked) / memoryBytes));
}

async function prepare(
  connection: DuckDBConnection,
  paths: readonly string[],
  at: Position,
  views: readonly string[],
): Promise<void> {
  await connection.run("SET TimeZone = 'UTC'");
  // The views' joins have what is small, or can go to disk, on their right. DuckDB knows nothing of the files' widths and
  // would build a hash table of all rows, whole.
  await connection.run("SET disabled_optimizers = 'build_side_probe_side'");
  await connection.run(`SET VARIABLE tidemark_files = [${paths.map(quoteText).join(', ')}]`);
  await connection.run(`SET VARIABLE tidemark_at = ${quoteText(at)}`);
  for (const view of views) await connection.run(view);
}

/** Local paths of the data files whose Window begins before `at`, and the newest of their manifests. */
async function filesUpTo(
  store: ObjectStore,
  unit: string,
  at: Position,
  folder: string,
): Promise<{ paths: string[]; newest: Manifest | null }> {
  const paths: string[] = [];
  const wanted: string[] = [];
  let newest: Manifest | null = null;
  walk: for await (const page of listAll(store, manifestFolder(unit))) {
    for (const key of page) {
      const name = parseManifestKey(key);
      if (name === null || name.fence !== null) continue;
      const manifest = await readManifest(store, unit, name.sequence);
      newest = manifest;
      // Every later Window begins later still.
      if (manifest.from >= at) break walk;
      wanted.push(...manifest.files.map(({ path }) => `${tableFolder(unit)}/${path}`));
    }
  }
  const remote: [string, string][] = [];
  for (const [number, key] of wanted.entries()) {
    const local = store.localPath(key);
    if (local !== null) paths.push(local);
    else remote.push([key, join(folder, `${number}.parquet`)]);
  }
  for (let start = 0; start < remote.length; start += downloads) {
    await Promise.all(
      remote.slice(start, start + downloads).map(([key, local]) => store.download(key, local)),
    );
  }
  return { paths: [...paths, ...remote.map(([, local]) => local)], newest };
}
