/** Rows of data files on their way into a table of DuckDB's: many of few files, so a path is kept once. */
import { BIGINT, type DuckDBConnection, INTEGER, VARCHAR } from '@duckdb/node-api';
import { ChunkAppender } from '../../../duckdb/chunk-appender.ts';

export class PositionTable {
  readonly #ids: number[] = [];
  readonly #files: number[] = [];
  readonly #positions: number[] = [];
  readonly #numbers = new Map<string, number>();

  get count(): number {
    return this.#ids.length;
  }

  /** @param id of 31 bits, whatever it names */
  add(id: number, path: string, position: number): void {
    let number = this.#numbers.get(path);
    if (number === undefined) {
      number = this.#numbers.size;
      this.#numbers.set(path, number);
    }
    this.#ids.push(id);
    this.#files.push(number);
    this.#positions.push(position);
  }

  /** A temporary table with the columns `rid` (the id), `file_path` and `pos`, in place of one of that name. */
  async toTable(connection: DuckDBConnection, name: string): Promise<void> {
    const [rows, paths] = [`${name}_rows`, `${name}_paths`];
    await connection.run(
      `CREATE OR REPLACE TEMP TABLE ${rows} (rid INTEGER, file INTEGER, pos BIGINT);
       CREATE OR REPLACE TEMP TABLE ${paths} (file INTEGER, file_path VARCHAR)`,
    );
    const appended = new ChunkAppender([INTEGER, INTEGER, BIGINT]);
    await appended.into(connection, rows);
    for (const [row, id] of this.#ids.entries())
      appended.add([id, this.#files[row]!, BigInt(this.#positions[row]!)]);
    appended.end();
    const named = new ChunkAppender([INTEGER, VARCHAR]);
    await named.into(connection, paths);
    for (const [path, number] of this.#numbers) named.add([number, path]);
    named.end();
    await connection.run(
      `CREATE OR REPLACE TEMP TABLE ${name} AS SELECT rid, file_path, pos FROM ${rows} JOIN ${paths} USING (file);
       DROP TABLE ${rows}; DROP TABLE ${paths}`,
    );
  }
}
