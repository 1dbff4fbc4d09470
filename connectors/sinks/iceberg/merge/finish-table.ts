/** The files of a merged table, on this machine still, and the change that they make. */
import { mkdir } from 'node:fs/promises';
import type { DuckDBConnection } from '@duckdb/node-api';
import { dataLocation } from '../commit/locations.ts';
import type { TableChange } from '../commit/table-change.ts';
import { metricsModes } from '../files/metrics-mode.ts';
import { type WriteSettings, type WrittenFile, writeDataFiles } from '../files/write-data-files.ts';
import { type DeleteGranularity, writePositionDeletes } from '../files/write-position-deletes.ts';
import { columnName } from '../plan/read-columns.ts';
import { boundSpec } from '../plan/table-reader.ts';
import { currentSchema, type TableMetadata } from '../spec/table-metadata.ts';
import type { TableMerge } from './table-merge.ts';

export interface FinishedRows extends Pick<TableChange, 'added' | 'removed'> {
  files: WrittenFile[];
}

export interface FinishedDeletes extends Pick<TableChange, 'deletes'> {
  files: WrittenFile[];
}

export interface FinishSettings extends Omit<WriteSettings, 'folder'> {
  /** A new folder of this call's own. */
  folder: string;
  granularity: DeleteGranularity;
}

/** @param metadata with the schema that the files have */
export async function finishRows(
  connection: DuckDBConnection,
  merge: TableMerge,
  metadata: TableMetadata,
  settings: FinishSettings,
): Promise<FinishedRows> {
  const { layout } = merge;
  const schema = currentSchema(metadata);
  const specId = metadata['default-spec-id'];
  const fields = boundSpec(metadata, specId);
  const keys = layout.keyIds;
  const needed = new Set([...keys, ...fields.map(({ sourceId }) => sourceId)]);
  const own = new Set([...layout.columns.map(({ fieldId }) => fieldId), ...Object.values(layout.house)]);
  await mkdir(settings.folder, { recursive: true });
  const added = await writeDataFiles(
    connection,
    merge.added,
    {
      schema,
      fields,
      sortedBy: keys,
      sortOrderId: null,
      modes: metricsModes(schema.fields, metadata.properties, needed),
      dataLocation: dataLocation(metadata),
    },
    settings,
    ({ id }) => (own.has(id) ? columnName(id) : null),
  );
  return {
    added: added.map(({ file }) => ({ file, specId })),
    removed: merge.emptied ? [...merge.base.live.dataFiles()].map(({ path }) => path) : [],
    files: added,
  };
}

/** On the snapshot that the base is at. */
export async function finishDeletes(
  connection: DuckDBConnection,
  merge: TableMerge,
  metadata: TableMetadata,
  { granularity, ...settings }: FinishSettings,
): Promise<FinishedDeletes> {
  const targets = await targetsOf(connection, merge, metadata);
  if (targets.length === 0) return { deletes: [], files: [] };
  await mkdir(settings.folder, { recursive: true });
  const files = await writePositionDeletes(
    connection,
    `(SELECT DISTINCT file_path, pos FROM ${merge.gone})`,
    targets,
    dataLocation(metadata),
    granularity,
    settings,
  );
  const deletes = files.map(({ file, specId, targets: paths }) => ({ file, specId, targets: paths }));
  return { deletes, files };
}

async function targetsOf(connection: DuckDBConnection, merge: TableMerge, metadata: TableMetadata) {
  const paths = await connection.runAndReadAll(`SELECT DISTINCT file_path FROM ${merge.gone}`);
  return paths.getRows().map(([path]) => {
    const file = merge.base.live.dataFile(path as string)!;
    const { specId, partition } = file;
    return { path: file.path, specId, fields: boundSpec(metadata, specId), partition };
  });
}
