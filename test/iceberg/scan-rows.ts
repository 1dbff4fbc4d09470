/** The slow, obvious twin of scan planning: every live row of a table, by reading all of its files. */
import { quoteText } from '../../connectors/object-log/sql-text.ts';
import { entriesOf, manifestsOf } from '../../connectors/sinks/iceberg/plan/table-reader.ts';
import type { ManifestEntry } from '../../connectors/sinks/iceberg/spec/manifest.ts';
import { isUnpartitioned, partitionKey } from '../../connectors/sinks/iceberg/spec/partition-spec.ts';
import { fieldById } from '../../connectors/sinks/iceberg/spec/schema.ts';
import { currentSnapshot, specById } from '../../connectors/sinks/iceberg/spec/table-metadata.ts';
import type { LocalTable } from './local-table.ts';

export interface ScannedRow {
  path: string;
  position: number;
  /** Of the columns that were asked for, as DuckDB prints them. */
  cells: (string | null)[];
}

interface ScannedFile extends ManifestEntry {
  specId: number;
}

/** @param columns names */
export async function scanRows(table: LocalTable, columns: readonly string[]): Promise<ScannedRow[]> {
  const files: ScannedFile[] = [];
  for (const manifest of await manifestsOf(table.store, currentSnapshot(table.metadata))) {
    const specId = manifest.partition_spec_id;
    for (const entry of await entriesOf(table.store, table.metadata, manifest)) {
      if (entry.status !== 2) files.push({ ...entry, specId });
    }
  }
  const rows: ScannedRow[] = [];
  for (const file of files.filter(({ data_file: { content } }) => content === 0)) {
    const gone = await deletedRows(table, file, files);
    for (const row of await readRows(table, file, columns)) if (!gone(row)) rows.push(row);
  }
  return rows;
}

async function readRows(
  table: LocalTable,
  file: ScannedFile,
  columns: readonly string[],
): Promise<ScannedRow[]> {
  const { file_path: path } = file.data_file;
  const selected = columns.map((name) => `CAST("${name.replaceAll('"', '""')}" AS VARCHAR)`).join(', ');
  const result = await table.database.connection.runAndReadAll(
    `SELECT file_row_number, ${selected} FROM read_parquet(${quoteText(table.localPath(path))}, file_row_number = true)`,
  );
  return result
    .getRows()
    .map(([position, ...cells]) => ({ path, position: Number(position), cells: cells as (string | null)[] }));
}

async function deletedRows(
  table: LocalTable,
  file: ScannedFile,
  files: readonly ScannedFile[],
): Promise<(row: ScannedRow) => boolean> {
  const positions = new Set<number>();
  const equal: ((row: ScannedRow) => boolean)[] = [];
  const partition = partitionKey(file.specId, file.data_file.partition);
  for (const each of files) {
    const { content, equality_ids: ids } = each.data_file;
    const near = partitionKey(each.specId, each.data_file.partition) === partition;
    if (content === 1 && near && file.sequence_number <= each.sequence_number) {
      for (const { cells } of await readRows(table, each, ['file_path', 'pos'])) {
        if (cells[0] === file.data_file.file_path) positions.add(Number(cells[1]));
      }
    }
    const everywhere = isUnpartitioned(specById(table.metadata, each.specId));
    if (content === 2 && (near || everywhere) && file.sequence_number < each.sequence_number) {
      const names = ids!.map((id) => fieldById(table.schema, id)!.name);
      const keys = new Set((await readRows(table, each, names)).map(({ cells }) => JSON.stringify(cells)));
      const own = await readRows(table, file, names);
      const dead = new Set(
        own.filter(({ cells }) => keys.has(JSON.stringify(cells))).map(({ position }) => position),
      );
      equal.push(({ position }) => dead.has(position));
    }
  }
  return (row) => positions.has(row.position) || equal.some((dead) => dead(row));
}
