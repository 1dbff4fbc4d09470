/**
 * The rows of some data files, without those that are deleted, in the order in which they are written again. Each says where
 * it came from: a row that somebody deletes meanwhile is found in the new files by that, whatever the table's key.
 */
import { mkdir } from 'node:fs/promises';
import type { DuckDBConnection } from '@duckdb/node-api';
import { quoteName, quoteText } from '../../../object-log/sql-text.ts';
import { dataLocation } from '../commit/locations.ts';
import { malformed } from '../failures.ts';
import { fromDuckdb } from '../files/duckdb-values.ts';
import { fileColumns, selectColumns } from '../files/file-columns.ts';
import { metricsModes } from '../files/metrics-mode.ts';
import { partitionValue } from '../files/partition-sql.ts';
import { type WriteSettings, type WrittenFile, writePartition } from '../files/write-data-files.ts';
import {
  type DeleteTarget,
  type WrittenDeletes,
  writePositionDeletes,
} from '../files/write-position-deletes.ts';
import type { OpenTable } from '../lake.ts';
import type { DeletedPositions } from '../plan/deleted-positions.ts';
import type { LiveFile } from '../plan/live-file.ts';
import { PositionTable } from '../plan/position-table.ts';
import { columnName } from '../plan/read-columns.ts';
import type { TableColumns } from '../plan/table-columns.ts';
import { boundSpec } from '../plan/table-reader.ts';
import { currentSchema, type TableMetadata } from '../spec/table-metadata.ts';
import { type RowOrder, rowOrder } from './row-order.ts';

/** Rows of the staging table, from a row id on, that are a file now. */
interface Piece {
  file: WrittenFile;
  target: DeleteTarget;
  firstRow: number;
}

const staged = 'upkeep_staged';
const deletedRows = 'upkeep_deleted';
const pieces = 'upkeep_pieces';

export class StagedFiles {
  readonly #connection: DuckDBConnection;
  readonly #metadata: TableMetadata;
  readonly #files: readonly LiveFile[];
  readonly #order: RowOrder;
  readonly #written: Piece[] = [];

  private constructor(
    connection: DuckDBConnection,
    metadata: TableMetadata,
    files: readonly LiveFile[],
    order: RowOrder,
  ) {
    this.#connection = connection;
    this.#metadata = metadata;
    this.#files = files;
    this.#order = order;
  }

  static async stage(
    { metadata }: OpenTable,
    files: readonly LiveFile[],
    columns: TableColumns,
    deleted: DeletedPositions,
  ): Promise<StagedFiles> {
    const { connection } = columns;
    const { fields } = currentSchema(metadata);
    const order = rowOrder(metadata);
    await deletedTable(files, columns, deleted);
    const scans: string[] = [];
    for (const [number, file] of files.entries())
      scans.push(`SELECT ${number} AS source, * FROM (${await columns.select(file, fields)})`);
    const parts = boundSpec(metadata, metadata['default-spec-id']).map((field, index) => {
      const known = fields.some(({ id }) => id === field.sourceId);
      const from = known ? columnName(field.sourceId) : 'NULL';
      return `${partitionValue(connection, field, from)} AS ${partName(index)}`;
    });
    const by = [...parts.map((_, index) => partName(index)), ...order.sql];
    await connection.run(`CREATE OR REPLACE TEMP TABLE ${staged} AS
      SELECT ${['*', ...parts].join(', ')} FROM (${scans.join(' UNION ALL ')}) AS r
      WHERE NOT EXISTS (SELECT 1 FROM ${deletedRows} AS d WHERE d.rid = r.source AND d.pos = r.pos)
      ${by.length === 0 ? '' : `ORDER BY ${by.join(', ')}`}`);
    return new StagedFiles(connection, metadata, files, order);
  }

  /** With the table's schema and partition spec as they are now. @param settings of a folder of this call's own */
  async write(settings: WriteSettings): Promise<WrittenFile[]> {
    const metadata = this.#metadata;
    await mkdir(settings.folder, { recursive: true });
    const schema = currentSchema(metadata);
    const specId = metadata['default-spec-id'];
    const fields = boundSpec(metadata, specId);
    const columns = fileColumns(schema);
    const select = selectColumns(columns, ({ id }) => columnName(id));
    const needed = new Set([...this.#order.fieldIds, ...fields.map(({ sourceId }) => sourceId)]);
    const table = {
      schema,
      fields,
      sortedBy: this.#order.fieldIds,
      sortOrderId: this.#order.id,
      modes: metricsModes(schema.fields, metadata.properties, needed),
      dataLocation: dataLocation(metadata),
    };
    const parts = fields.map((_, index) => partName(index));
    const found = await this.#connection.runAndReadAll(
      `SELECT ${[...parts, 'min(rowid)', 'max(rowid)'].join(', ')} FROM ${staged}
        ${parts.length === 0 ? 'HAVING count(*) > 0' : 'GROUP BY ALL'} ORDER BY min(rowid)`,
    );
    for (const [number, row] of found.getRows().entries()) {
      const [first, last] = row.slice(-2).map(Number) as [number, number];
      const partition = row.slice(0, -2).map(fromDuckdb);
      const query = `SELECT ${select} FROM ${staged} WHERE rowid BETWEEN ${first} AND ${last}`;
      const written = await writePartition(
        this.#connection,
        query,
        columns,
        partition,
        table,
        settings,
        String(number),
      );
      let firstRow = first;
      for (const file of written.sort(byNumber)) {
        const target = { path: file.file.file_path, specId, fields, partition };
        this.#written.push({ file, target, firstRow });
        firstRow += file.file.record_count;
      }
      if (firstRow !== last + 1) throw malformed('a compaction wrote another number of rows than it read');
    }
    return this.#written.map(({ file }) => file);
  }

  /**
   * Deletes in the new files for rows that were deleted since they were staged.
   * @param deleted of the table as it is now, of which the files are part still
   */
  async laterDeletes(
    columns: TableColumns,
    deleted: DeletedPositions,
    settings: WriteSettings,
  ): Promise<WrittenDeletes[]> {
    await deletedTable(this.#files, columns, deleted);
    const values = this.#written.map(
      ({ file: { file }, firstRow }) =>
        `(${quoteText(file.file_path)}, ${firstRow}, ${firstRow + file.record_count - 1})`,
    );
    if (values.length === 0) return [];
    await this.#connection.run(`CREATE OR REPLACE TEMP TABLE ${pieces} AS
      SELECT p.file_path, s.row_id - p.first_row AS pos
      FROM (SELECT t.rowid AS row_id FROM ${staged} AS t JOIN ${deletedRows} AS d ON d.rid = t.source AND d.pos = t.pos) AS s
      JOIN (VALUES ${values.join(', ')}) AS p (file_path, first_row, last_row) ON s.row_id BETWEEN p.first_row AND p.last_row`);
    const paths = await this.#connection.runAndReadAll(`SELECT DISTINCT file_path FROM ${pieces}`);
    const named = new Set(paths.getRows().map(([path]) => path as string));
    if (named.size === 0) return [];
    const targets = this.#written.filter(({ target }) => named.has(target.path)).map(({ target }) => target);
    await mkdir(settings.folder, { recursive: true });
    return writePositionDeletes(
      this.#connection,
      pieces,
      targets,
      dataLocation(this.#metadata),
      'partition',
      settings,
    );
  }
}

/** The rows of the files that are deleted: `rid`, the file's number, and `pos`. */
async function deletedTable(
  files: readonly LiveFile[],
  columns: TableColumns,
  deleted: DeletedPositions,
): Promise<void> {
  await deleted.load(files, columns);
  const positions = new PositionTable();
  for (const [number, { path, records }] of files.entries()) {
    if (deleted.count(path) === 0) continue;
    for (let row = 0; row < records; row += 1)
      if (deleted.isDeleted(path, row)) positions.add(number, path, row);
  }
  await positions.toTable(columns.connection, deletedRows);
}

/** DuckDB numbers the files of a COPY. */
function byNumber(one: WrittenFile, other: WrittenFile): number {
  const number = ({ localPath }: WrittenFile) => Number(/(\d+)\.parquet$/.exec(localPath)?.[1] ?? 0);
  return number(one) - number(other);
}

function partName(index: number): string {
  return quoteName(`partition ${index}~`);
}
