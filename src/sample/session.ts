/** One database connection of the application: transactions, multi-row inserts, and a count of what they changed. */
import type { Client, QueryResult } from 'pg';
import type { Row, Table } from './rows.ts';

export interface RowCounts {
  inserts: number;
  updates: number;
  deletes: number;
  /** Statements, not rows. */
  truncates: number;
}

/** Rows changed per table, as the server reported them. Rows that a foreign key's cascade deletes are not counted. */
export type TableCounts = Partial<Record<Table, RowCounts>>;

/** Rows per statement, largest first: a few shapes to prepare, instead of one for every possible number of rows. */
const chunkSizes = [128, 64, 32, 16, 8, 4, 2, 1];

export class Session {
  readonly #client: Client;
  #counts: TableCounts = {};
  #onCommit: (() => void)[] = [];
  #savepoint: { counts: TableCounts; hooks: number } | undefined;
  readonly #inserts = new Map<string, string>();
  readonly #names = new Map<string, string>();

  constructor(client: Client) {
    this.#client = client;
  }

  async begin(): Promise<void> {
    this.#counts = {};
    this.#onCommit = [];
    this.#savepoint = undefined;
    await this.#client.query('BEGIN');
  }

  /** Commits, lets the worker remember what is now true, and returns what the transaction changed. */
  async commit(): Promise<TableCounts> {
    await this.#client.query('COMMIT');
    for (const hook of this.#onCommit) hook();
    return this.#counts;
  }

  async rollback(): Promise<void> {
    await this.#client.query('ROLLBACK');
  }

  async savepoint(): Promise<void> {
    await this.#client.query('SAVEPOINT step');
    this.#savepoint = { counts: structuredClone(this.#counts), hooks: this.#onCommit.length };
  }

  async rollbackToSavepoint(): Promise<void> {
    await this.#client.query('ROLLBACK TO SAVEPOINT step');
    this.#counts = structuredClone(this.#savepoint!.counts);
    this.#onCommit.length = this.#savepoint!.hooks;
  }

  /** Runs once the transaction has committed, and never when it (or its savepoint) was rolled back. */
  afterCommit(hook: () => void): void {
    this.#onCommit.push(hook);
  }

  async insert(table: Table, rows: readonly Row[]): Promise<void> {
    let from = 0;
    for (const size of chunkSizes) {
      for (; rows.length - from >= size; from += size)
        await this.#insertChunk(table, rows.slice(from, from + size));
    }
    this.#count(table).inserts += rows.length;
  }

  /** Returns the number of rows changed. */
  async update(table: Table, assignments: string, values: readonly unknown[]): Promise<number> {
    const result = await this.#prepared(`UPDATE app.${table} SET ${assignments}`, values);
    this.#count(table).updates += result.rowCount ?? 0;
    return result.rowCount ?? 0;
  }

  /** Returns the number of rows deleted. */
  async delete(table: Table, condition: string, values: readonly unknown[]): Promise<number> {
    const result = await this.#client.query(
      `DELETE FROM app.${table} WHERE ${condition}`,
      values as unknown[],
    );
    this.#count(table).deletes += result.rowCount ?? 0;
    return result.rowCount ?? 0;
  }

  async truncate(table: Table, restartIdentity: boolean): Promise<void> {
    await this.#client.query(`TRUNCATE app.${table}${restartIdentity ? ' RESTART IDENTITY' : ''}`);
    this.#count(table).truncates++;
  }

  async #insertChunk(table: Table, rows: readonly Row[]): Promise<void> {
    const columns = Object.keys(rows[0]!);
    const shape = `${table} ${rows.length}`;
    let text = this.#inserts.get(shape);
    if (text === undefined) {
      let parameter = 0;
      const tuples = rows.map(() => `(${columns.map(() => `$${++parameter}`).join(', ')})`);
      text = `INSERT INTO app.${table} (${columns.join(', ')}) VALUES ${tuples.join(', ')}`;
      this.#inserts.set(shape, text);
    }
    const values: unknown[] = [];
    for (const row of rows) for (const column of columns) values.push(row[column]);
    await this.#prepared(text, values);
  }

  /** Statements repeat, so each text is parsed by the server once per connection. */
  #prepared(text: string, values: readonly unknown[]): Promise<QueryResult> {
    let name = this.#names.get(text);
    if (name === undefined) {
      name = `sample_${this.#names.size}`;
      this.#names.set(text, name);
    }
    return this.#client.query({ name, text, values: values as unknown[] });
  }

  #count(table: Table): RowCounts {
    this.#counts[table] ??= { inserts: 0, updates: 0, deletes: 0, truncates: 0 };
    return this.#counts[table];
  }
}
