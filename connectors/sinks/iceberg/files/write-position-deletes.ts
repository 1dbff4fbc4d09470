/** Position delete files (Iceberg specification, "Position Delete Files"). */
import { randomUUID } from 'node:crypto';
import { join } from 'node:path';
import type { DuckDBConnection } from '@duckdb/node-api';
import { quoteName, quoteText } from '../../../object-log/sql-text.ts';
import { type DataFile, fileContent } from '../spec/data-file.ts';
import { partitionPath } from '../spec/partition-path.ts';
import { type BoundPartitionField, type PartitionTuple, partitionKey } from '../spec/partition-spec.ts';
import type { Schema } from '../spec/schema.ts';
import { type FileColumn, fileColumns } from './file-columns.ts';
import type { MetricsMode } from './metrics-mode.ts';
import { eachRange } from './partition-ranges.ts';
import { fileMetrics } from './statistics.ts';
import type { WriteSettings, WrittenFile } from './write-data-files.ts';
import { type ParquetFile, writeParquet } from './write-parquet.ts';

export const deletePathId = 2147483546;
export const deletePositionId = 2147483545;

const deleteSchema: Schema = {
  type: 'struct',
  'schema-id': 0,
  fields: [
    { id: deletePathId, name: 'file_path', required: true, type: 'string' },
    { id: deletePositionId, name: 'pos', required: true, type: 'long' },
  ],
};

/** Whole: readers tell by equal bounds of the path that a delete file concerns one data file only. */
const wholeBounds: ReadonlyMap<number, MetricsMode> = new Map([
  [deletePathId, { kind: 'full' }],
  [deletePositionId, { kind: 'full' }],
]);

/** A data file that rows are deleted from. */
export interface DeleteTarget {
  path: string;
  specId: number;
  fields: readonly BoundPartitionField[];
  partition: PartitionTuple;
}

/**
 * `partition`: one file for all deletes of a partition, the fewest files to write; `file`: one for each data file, which
 * readers of another file of the partition need not open.
 */
export type DeleteGranularity = 'partition' | 'file';

/** A written delete file, with the spec whose manifests it belongs to. */
export interface WrittenDeletes extends WrittenFile {
  specId: number;
  /** Paths of the data files that it names. */
  targets: readonly string[];
}

/**
 * @param relation SQL with the columns `file_path` and `pos`
 * @param targets every data file that the relation names
 * @param dataLocation as of data files: delete files lie beside them
 */
export async function writePositionDeletes(
  connection: DuckDBConnection,
  relation: string,
  targets: readonly DeleteTarget[],
  dataLocation: string,
  granularity: DeleteGranularity,
  settings: WriteSettings,
): Promise<WrittenDeletes[]> {
  const columns = fileColumns(deleteSchema);
  const groups = groupTargets(targets, granularity);
  const written: WrittenDeletes[] = [];
  const names = quoteName(`delete groups ${randomUUID()}`);
  await connection.run(`CREATE TEMP TABLE ${names} (target VARCHAR, part INTEGER)`);
  try {
    await fillGroups(connection, names, groups);
    const rows = `SELECT CAST(file_path AS VARCHAR) AS file_path, CAST(pos AS BIGINT) AS pos, part
      FROM (SELECT DISTINCT file_path, pos FROM ${relation}) JOIN ${names} ON target = file_path`;
    await eachRange(connection, rows, ['part'], ['file_path', 'pos'], async ({ values, query }) => {
      const group = groups[Number(values[0])]!;
      const folder = join(settings.folder, `deletes-${written.length}`);
      const files = await writeParquet(
        connection,
        query,
        columns,
        folder,
        settings.targetFileBytes,
        settings,
      );
      for (const file of files) written.push(await describe(connection, file, columns, group, dataLocation));
    });
    return written;
  } finally {
    await connection.run(`DROP TABLE ${names}`);
  }
}

async function fillGroups(
  connection: DuckDBConnection,
  table: string,
  groups: readonly DeleteTarget[][],
): Promise<void> {
  const rows = groups.flatMap((group, part) => group.map(({ path }) => `(${quoteText(path)}, ${part})`));
  for (let start = 0; start < rows.length; start += 1000) {
    await connection.run(`INSERT INTO ${table} VALUES ${rows.slice(start, start + 1000).join(', ')}`);
  }
}

async function describe(
  connection: DuckDBConnection,
  { localPath, rows, bytes, reports }: ParquetFile,
  columns: readonly FileColumn[],
  group: readonly DeleteTarget[],
  dataLocation: string,
): Promise<WrittenDeletes> {
  const { specId, fields, partition } = group[0]!;
  const path = partitionPath(fields, partition);
  const parent = path === '' ? dataLocation : `${dataLocation}/${path}`;
  const targets = group.map((target) => target.path);
  const file: DataFile = {
    content: fileContent.positionDeletes,
    file_path: `${parent}/${randomUUID()}-deletes.parquet`,
    file_format: 'PARQUET',
    partition,
    record_count: rows,
    file_size_in_bytes: bytes,
    ...(await fileMetrics(connection, localPath, columns, wholeBounds, reports)),
    key_metadata: null,
    equality_ids: null,
    // The specification's: they have an order of their own.
    sort_order_id: null,
    referenced_data_file: targets.length === 1 ? targets[0]! : null,
  };
  return { file, localPath, specId, targets };
}

function groupTargets(targets: readonly DeleteTarget[], granularity: DeleteGranularity): DeleteTarget[][] {
  if (granularity === 'file') return targets.map((target) => [target]);
  const groups = new Map<string, DeleteTarget[]>();
  for (const target of targets) {
    const key = partitionKey(target.specId, target.partition);
    const group = groups.get(key);
    if (group) group.push(target);
    else groups.set(key, [target]);
  }
  return [...groups.values()];
}
