/** The rows of a snapshot's data files: where those of a Window are, and all of them. */
import type { DuckDBConnection } from '@duckdb/node-api';
import { quoteText } from '../../../object-log/sql-text.ts';
import type { OpenTable } from '../lake.ts';
import type { LiveFile } from '../plan/live-file.ts';
import type { LiveFiles } from '../plan/live-files.ts';
import type { PositionTable } from '../plan/position-table.ts';
import { filesOfPartitions, type Keys } from '../plan/prune.ts';
import { columnName, type FieldColumn } from '../plan/read-columns.ts';
import { type KnownTable, RowFinder } from '../plan/row-finder.ts';
import type { TableCache } from '../plan/table-cache.ts';
import { TableColumns } from '../plan/table-columns.ts';
import type { Layout } from './layout.ts';

/** Files that one query reads. */
export const filesAtOnce = 64;

export class BaseRows {
  readonly #connection: DuckDBConnection;
  readonly #table: OpenTable;
  readonly #known: KnownTable;
  readonly #cache: TableCache;
  readonly #columns: TableColumns;
  readonly #deleted: string;

  /** @param deleted name for a table of deleted positions */
  constructor(
    connection: DuckDBConnection,
    table: OpenTable,
    known: KnownTable,
    cache: TableCache,
    deleted: string,
  ) {
    this.#connection = connection;
    this.#table = table;
    this.#known = known;
    this.#cache = cache;
    this.#columns = new TableColumns(connection, table, cache.copies);
    this.#deleted = deleted;
  }

  get live(): LiveFiles {
    return this.#known.live;
  }

  /**
   * Where rows of the keys are.
   * @param wanted a table with `rid` and the match columns
   * @param only where given: rows of these files alone
   */
  async find(layout: Layout, wanted: string, only?: ReadonlySet<LiveFile>): Promise<PositionTable> {
    const keys = keysOf(layout, wanted);
    const identity = JSON.stringify(keys.columns.map(({ id, exact }) => [id, exact]));
    const index = await this.#cache.index(this.#table.metadata['table-uuid'], identity);
    const finder = new RowFinder(this.#known, index, this.#columns, () => this.trim());
    return finder.find(keys, 'rid', only);
  }

  /** The data files that may hold rows like these, as far as partitions tell. @param wanted as of find() */
  candidates(layout: Layout, wanted: string): Promise<LiveFile[]> {
    return filesOfPartitions(this.#connection, keysOf(layout, wanted), this.live.dataFiles(), (file) =>
      this.#columns.partitionFields(file),
    );
  }

  /** The name of a table with `file_path` and `pos` of rows that are deleted in these files; it holds until the next call. */
  async deletedIn(files: readonly LiveFile[]): Promise<string> {
    await this.#known.deleted.toTable(files, this.#columns, this.#deleted);
    return this.#deleted;
  }

  /** SQL of all rows of the files, deleted ones too: `file_path`, `pos`, and the columns. */
  async scan(files: readonly LiveFile[], columns: readonly FieldColumn[]): Promise<string> {
    const scans: string[] = [];
    for (const file of files) {
      const rows = await this.#columns.select(file, columns);
      scans.push(`SELECT ${quoteText(file.path)} AS file_path, * FROM (${rows})`);
    }
    return scans.join(' UNION ALL ');
  }

  /** Between queries: copies of files that the last one read may go. */
  trim(): Promise<void> {
    return this.#cache.trimCopies();
  }
}

/** What the table's rows are told apart by, in a relation of the merge's. */
function keysOf({ matched, house }: Layout, relation: string): Keys {
  const columns = matched.map(({ fieldId, type, lossy }) => ({
    id: fieldId,
    type,
    exact: lossy ? house.exact : null,
  }));
  return { relation, columns, sql: columnName };
}

/** All that the merge knows of a row. */
export function layoutColumns({ columns, house }: Layout): FieldColumn[] {
  return [
    ...columns.map(({ fieldId, type }) => ({ id: fieldId, type })),
    { id: house.position, type: 'string' },
    { id: house.retired, type: 'boolean' },
    { id: house.exact, type: 'string' },
  ];
}
