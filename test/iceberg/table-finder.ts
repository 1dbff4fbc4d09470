/** The finder of rows over a local table: what the sink keeps of a table between Windows, without the sink. */
import { join } from 'node:path';
import type { DuckDBConnection } from '@duckdb/node-api';
import { quoteName } from '../../connectors/object-log/sql-text.ts';
import type { WrittenFile } from '../../connectors/sinks/iceberg/files/write-data-files.ts';
import type { DeleteTarget } from '../../connectors/sinks/iceberg/files/write-position-deletes.ts';
import { DeletedPositions } from '../../connectors/sinks/iceberg/plan/deleted-positions.ts';
import { LiveFiles } from '../../connectors/sinks/iceberg/plan/live-files.ts';
import type { ReadableStore } from '../../connectors/sinks/iceberg/plan/local-copies.ts';
import { RowFinder } from '../../connectors/sinks/iceberg/plan/row-finder.ts';
import { TableCache } from '../../connectors/sinks/iceberg/plan/table-cache.ts';
import { TableColumns } from '../../connectors/sinks/iceberg/plan/table-columns.ts';
import { boundSpec } from '../../connectors/sinks/iceberg/plan/table-reader.ts';
import { fieldById } from '../../connectors/sinks/iceberg/spec/schema.ts';
import type { PrimitiveType } from '../../connectors/sinks/iceberg/spec/types.ts';
import type { LocalTable } from './local-table.ts';

const table = 'found_rows';

export interface Found {
  key: number;
  path: string;
  position: number;
}

type Subject = Pick<LocalTable, 'folder' | 'database' | 'metadata' | 'schema' | 'keyIds'> & {
  store: ReadableStore;
};

export class TableFinder {
  readonly #table: Subject;
  readonly #store: ReadableStore;
  readonly #exact: number | null;
  readonly #deleted: DeletedPositions;
  readonly #cache: TableCache;
  readonly live: LiveFiles;

  private constructor(local: Subject, store: ReadableStore, exact: number | null, mostBytes: number) {
    this.#table = local;
    this.#store = store;
    this.#exact = exact;
    this.live = new LiveFiles(store, new Set(local.keyIds));
    this.#deleted = new DeletedPositions(this.live);
    this.#cache = new TableCache(TableFinder.folder(local), mostBytes);
  }

  /** Of its index and its copies. */
  static folder({ folder }: Pick<Subject, 'folder'>): string {
    return join(folder, 'finder');
  }

  /** @param exact id of the column that holds what the types of the key's cannot */
  static async open(
    local: Subject,
    {
      exact = null,
      store = local.store,
      mostBytes = 2 ** 31,
    }: { exact?: number | null; store?: ReadableStore; mostBytes?: number } = {},
  ): Promise<TableFinder> {
    const finder = new TableFinder(local, store, exact, mostBytes);
    await finder.advance();
    return finder;
  }

  close(): void {
    this.#cache.close();
  }

  /** To the table's current snapshot. */
  async advance(): Promise<void> {
    await this.live.advance(this.#table.metadata);
  }

  /** Files that were written here. */
  async keep(files: readonly WrittenFile[]): Promise<void> {
    for (const { file, localPath } of files)
      await this.#cache.copies.keep(file.file_path, localPath, file.file_size_in_bytes);
  }

  /** As between Windows. */
  trim(): Promise<void> {
    return this.#cache.trim();
  }

  get columns(): TableColumns {
    const { metadata, database } = this.#table;
    return new TableColumns(database.connection, { store: this.#store, metadata }, this.#cache.copies);
  }

  /** Leaves a table of `rid`, `file_path` and `pos`. @param relation with the key's columns by name @returns its name */
  async find(relation: string, id: string): Promise<string> {
    const { metadata, schema, keyIds, database } = this.#table;
    const index = await this.#cache.index(metadata['table-uuid'], 'test');
    const finder = new RowFinder({ live: this.live, deleted: this.#deleted }, index, this.columns, () =>
      this.#cache.trimCopies(),
    );
    const columns = keyIds.map((keyId) => ({
      id: keyId,
      type: fieldById(schema, keyId)!.type as PrimitiveType,
      exact: this.#exact,
    }));
    const sql = (fieldId: number) => quoteName(fieldById(schema, fieldId)!.name);
    const found = await finder.find({ relation, columns, sql }, id);
    await found.toTable(database.connection, table);
    return table;
  }

  async rows(name: string): Promise<Found[]> {
    const { connection }: { connection: DuckDBConnection } = this.#table.database;
    const result = await connection.runAndReadAll(`SELECT rid, file_path, pos FROM ${name}`);
    return result.getRows().map(([key, path, position]) => ({
      key: Number(key),
      path: String(path),
      position: Number(position),
    }));
  }

  /** Of all live data files, without those that deletes took away. */
  async countRows(): Promise<number> {
    const files = [...this.live.dataFiles()];
    await this.#deleted.toTable(files, this.columns, 'deleted_rows');
    const result = await this.#table.database.connection.runAndReadAll('SELECT count(*) FROM deleted_rows');
    return files.reduce((sum, { records }) => sum + records, 0) - Number(result.getRows()[0]![0]);
  }

  targets(rows: readonly Found[]): DeleteTarget[] {
    return [...new Set(rows.map(({ path }) => path))].map((path) => {
      const { specId, partition } = this.live.dataFile(path)!;
      return { path, specId, partition, fields: boundSpec(this.#table.metadata, specId) };
    });
  }
}
