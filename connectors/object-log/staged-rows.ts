/** A round of rows of a Window in tables of DuckDB's, typed and as text, and how they are read again. */
import type { DuckDBConnection } from '@duckdb/node-api';
import {
  type ColumnWriter,
  columnWriter,
  IntegerWriter,
  type RowSlot,
  StringWriter,
  TimestampWriter,
} from '../duckdb/column-writers.ts';
import { TypedAppender } from '../duckdb/typed-appender.ts';
import type { ChangeRow, NativeChange } from './change-row.ts';
import type { StoredColumn } from './fields.ts';
import { quoteName } from './sql-text.ts';
import { castRow, TextAppender, textColumns } from './staged-text.ts';

/** What DuckDB sets aside for a column of a table, whatever is in it. */
const columnBytes = 512 * 1024;

/** Rows that can be copied. */
export interface StagedSource {
  /** A FROM item. */
  from: string;
  /** SQL of the number of a row's part. */
  part: string;
  /** SQL of a data file's columns. */
  columns: string;
}

export interface StagedSettings {
  columns: readonly StoredColumn[];
  /** A part of it is given to each round. */
  memoryBytes: number;
}

export class StagedRows {
  readonly #staging: DuckDBConnection;
  readonly #columns: readonly StoredColumn[];
  readonly #typed: TypedRows | null;
  readonly #text: TextAppender;
  readonly #memoryBytes: number;
  #number = 0;
  #round: StagedRound;
  #bytes = 0;
  /** The round before this one becomes visible to the other connection. */
  #committed: Promise<unknown> = Promise.resolve();

  constructor({ columns, memoryBytes }: StagedSettings, staging: DuckDBConnection) {
    this.#staging = staging;
    this.#columns = columns;
    this.#memoryBytes = memoryBytes;
    // Two rounds may be there at a time.
    const narrow = columns.length * columnBytes * 2 <= memoryBytes / 4;
    this.#typed = narrow ? new TypedRows(columns) : null;
    this.#text = new TextAppender(columns);
    this.#round = new StagedRound(0, columns);
  }

  /** The round has had its part of the memory: text takes several times of its own when it is cast. */
  get full(): boolean {
    return this.#bytes >= this.#memoryBytes / (this.#round.hasText ? 32 : 8);
  }

  /** Gives a promise only when there is something to wait for. */
  add(row: ChangeRow | NativeChange, part: number): Promise<void> | undefined {
    this.#bytes += row.size;
    const round = this.#round;
    const seq = round.rows++;
    if (!('native' in row)) return this.#addText(row, part, seq);
    if (!this.#typed) return this.#addText(row.cells(), part, seq);
    if (round.hasTyped) return this.#addTyped(row, part, seq);
    return this.#begin('typed').then(() => this.#addTyped(row, part, seq));
  }

  #addTyped(row: NativeChange, part: number, seq: number): Promise<void> | undefined {
    return this.#typed!.add(row, part, seq) ? undefined : this.#addText(row.cells(), part, seq);
  }

  #addText(row: ChangeRow, part: number, seq: number): Promise<void> | undefined {
    if (this.#round.hasText) {
      this.#text.add(row, part, seq);
      return undefined;
    }
    return this.#begin('text').then(() => this.#text.add(row, part, seq));
  }

  /**
   * Not a temporary table: it is filled on one connection and read on the other. A round is one transaction: what is flushed
   * outside of one is copied once more, into the table, with twice the time in all.
   */
  async #begin(kind: 'typed' | 'text'): Promise<void> {
    const table = `${kind}_${this.#round.number}`;
    const columns = kind === 'typed' ? this.#typed!.definition : textColumns;
    if (!this.#round.hasTyped && !this.#round.hasText) {
      await this.#committed;
      await this.#staging.run('BEGIN');
    }
    await this.#staging.run(`CREATE TABLE ${table} (${columns})`);
    await (kind === 'typed' ? this.#typed!.appender : this.#text).into(this.#staging, table);
    if (kind === 'typed') this.#round.hasTyped = true;
    else this.#round.hasText = true;
  }

  /** Ends the round and begins another. */
  take(): StagedRound {
    const round = this.#round;
    if (round.hasTyped) this.#typed!.appender.end();
    if (round.hasText) this.#text.end();
    if (round.hasTyped || round.hasText) {
      round.committed = this.#staging.run('COMMIT');
      // Whoever reads the round waits for it.
      round.committed.catch(() => {});
      this.#committed = round.committed;
    }
    this.#number++;
    this.#round = new StagedRound(this.#number, this.#columns);
    this.#bytes = 0;
    return round;
  }
}

/** Names of what stands before a table's own columns in a typed row. */
const head = ['part', 'seq', '"_op"', '"_position"', '"_commit_time"'];

class TypedRows {
  readonly appender: TypedAppender;
  readonly definition: string;
  readonly #slot: RowSlot = { row: 0, fits: true, heapBytes: 0 };
  readonly #part = new IntegerWriter(this.#slot);
  readonly #seq = new IntegerWriter(this.#slot);
  readonly #op = new StringWriter(this.#slot);
  readonly #position = new StringWriter(this.#slot);
  readonly #commitTime = new TimestampWriter(this.#slot, true);
  readonly #columns: ColumnWriter[];
  readonly #ascii = Buffer.alloc(64);

  constructor(columns: readonly StoredColumn[]) {
    this.#columns = columns.map(({ storage }) => columnWriter(this.#slot, storage));
    const own = [this.#part, this.#seq, this.#op, this.#position, this.#commitTime];
    this.appender = new TypedAppender(this.#slot, [...own, ...this.#columns]);
    this.definition = this.appender.definition([...head, ...columns.map(({ field }) => quoteName(field))]);
  }

  /** Whether its columns hold the row. */
  add({ op, position, commitTimeUs, native }: NativeChange, part: number, seq: number): boolean {
    native.pass(this.#columns);
    if (!this.#slot.fits) {
      this.appender.dropRow();
      return false;
    }
    this.#part.integer(part);
    this.#seq.integer(seq);
    this.#write(this.#op, op);
    this.#write(this.#position, position);
    this.#commitTime.timestamp(Number(commitTimeUs));
    this.appender.endRow();
    return true;
  }

  #write(column: StringWriter, text: string): void {
    column.utf8(this.#ascii, 0, this.#ascii.write(text, 'latin1'));
  }
}

export class StagedRound {
  readonly number: number;
  readonly #columns: readonly StoredColumn[];
  rows = 0;
  hasTyped = false;
  hasText = false;
  committed: Promise<unknown> = Promise.resolve();

  constructor(number: number, columns: readonly StoredColumn[]) {
    this.number = number;
    this.#columns = columns;
  }

  /** In the order in which they came. @param apart each part's rows by themselves, so that they are found quickly */
  async source(connection: DuckDBConnection, apart: boolean): Promise<StagedSource> {
    const text = `text_${this.number}`;
    const typed = `typed_${this.number}`;
    await this.committed;
    if (!this.hasTyped) {
      const columns = castRow(this.#columns);
      if (!this.hasText) await connection.run(`CREATE TABLE ${text} (${textColumns})`);
      const from = apart ? await this.#ordered(connection, `SELECT * FROM ${text}`) : text;
      return { from, part: 'part', columns };
    }
    const columns = this.#fileColumns();
    if (!this.hasText && !apart) return { from: typed, part: 'part', columns };
    const rows = [`SELECT part, seq, ${columns} FROM ${typed}`];
    if (this.hasText) rows.push(`SELECT part, seq, ${castRow(this.#columns)} FROM ${text}`);
    const from = await this.#ordered(connection, rows.join(' UNION ALL '));
    return { from, part: 'part', columns: '* EXCLUDE (part, seq)' };
  }

  /** The columns of a data file, out of a typed row. */
  #fileColumns(): string {
    const absent = (name: string, type = 'VARCHAR') => `CAST(NULL AS ${type}) AS "${name}"`;
    return [
      '"_op"',
      '"_position"',
      '"_commit_time"',
      absent('_unchanged', 'VARCHAR[]'),
      absent('_previous_key', 'VARCHAR[]'),
      ...['_before', '_exact', '_image', '_before_image'].map((name) => absent(name)),
      ...this.#columns.map(({ field }) => quoteName(field)),
    ].join(', ');
  }

  async #ordered(connection: DuckDBConnection, query: string): Promise<string> {
    const sorted = `sorted_${this.number}`;
    await connection.run(`CREATE TABLE ${sorted} AS ${query} ORDER BY part, seq`);
    await this.#dropStaged(connection);
    return sorted;
  }

  async #dropStaged(connection: DuckDBConnection): Promise<void> {
    for (const kind of ['typed', 'text']) await connection.run(`DROP TABLE IF EXISTS ${kind}_${this.number}`);
  }

  async drop(connection: DuckDBConnection): Promise<void> {
    await connection.run(`DROP TABLE IF EXISTS sorted_${this.number}`);
    await this.#dropStaged(connection);
  }
}
