/** Rows of plain values into a table of DuckDB's, a chunk at a time: for few columns, such as one text that holds a row. */
import type { DuckDBConnection, DuckDBType, DuckDBValue } from '@duckdb/node-api';
import { vectorRows } from './column-writers.ts';
import { TableAppender } from './table-appender.ts';

/** Characters of text in a chunk that is not filled up. */
const mostCharacters = 8 << 20;

export class ChunkAppender {
  readonly #table: TableAppender;
  readonly #buffer: DuckDBValue[][];
  #filled = 0;
  #characters = 0;

  constructor(types: readonly DuckDBType[]) {
    this.#table = new TableAppender(types);
    this.#buffer = types.map(() => new Array<DuckDBValue>(vectorRows));
  }

  /** From now on rows go there: a table that has just these columns. */
  into(connection: DuckDBConnection, table: string): Promise<void> {
    return this.#table.into(connection, table);
  }

  add(row: readonly DuckDBValue[]): void {
    const at = this.#filled++;
    for (const [i, value] of row.entries()) {
      this.#buffer[i]![at] = value;
      if (typeof value === 'string') this.#characters += value.length;
    }
    if (this.#filled === vectorRows || this.#characters > mostCharacters) this.#append();
  }

  #append(): void {
    const rows = this.#filled;
    if (rows === 0) return;
    const { chunk } = this.#table;
    chunk.rowCount = rows;
    for (const [index, column] of this.#buffer.entries()) {
      chunk.setColumnValues(index, rows === vectorRows ? column : column.slice(0, rows));
      column.fill(null);
    }
    this.#table.append();
    this.#filled = 0;
    this.#characters = 0;
  }

  /** All rows are in the table. */
  end(): void {
    this.#append();
    this.#table.end();
  }
}
