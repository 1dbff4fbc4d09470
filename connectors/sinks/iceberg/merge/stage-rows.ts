/**
 * Rows of a part of a Window in a table of DuckDB's: typed vectors of those in the form they travel in, text of the
 * others. Its columns are those of data files under staged names, and what the merge has to know of each row.
 */
import { type DuckDBConnection, INTEGER, VARCHAR } from '@duckdb/node-api';
import { TidemarkError } from '../../../../src/connector/failure.ts';
import { tableName } from '../../../../src/connector/shape.ts';
import type { Cell, NativeRow, PartialRow, RowCount, RowState } from '../../../../src/connector/sink.ts';
import { castFromText } from '../../../duckdb/cast-text.ts';
import { ChunkAppender } from '../../../duckdb/chunk-appender.ts';
import {
  type ColumnWriter,
  columnWriter,
  IntegerWriter,
  type RowSlot,
  StringWriter,
} from '../../../duckdb/column-writers.ts';
import { fitsDuckdb } from '../../../duckdb/fits.ts';
import { TypedAppender } from '../../../duckdb/typed-appender.ts';
import { duckdbType } from '../files/duckdb-type.ts';
import { columnName } from '../plan/read-columns.ts';
import type { LaidColumn, Layout } from './layout.ts';

export const rowKinds = { whole: 0, partial: 1, delete: 2, retire: 3 } as const;
type RowKind = (typeof rowKinds)[keyof typeof rowKinds];

/** Of a key that supplies a row's unchanged columns. */
export function fromName(fieldId: number): string {
  return `k${fieldId}`;
}

/** A table with more columns is staged as text alone: DuckDB sets half a MiB aside for a column of each table. */
const mostTypedColumns = 200;
/** What stands before the cells in a row's array. */
const head = ['kind', 'position', 'retired', 'optional', 'unchanged', 'exact', 'fromExact', 'n', 'absent'];

interface TextRow {
  kind: RowKind;
  position: string | null;
  values: PartialRow;
  retired?: boolean;
  optional?: boolean;
  from?: readonly Cell[] | null;
  n?: number;
  absent?: number;
}

export class StagedRows {
  readonly #connection: DuckDBConnection;
  readonly #layout: Layout;
  /** The view that shows the rows once they are all there. */
  readonly table: string;
  readonly #typed: TypedRows | null;
  readonly #text: ChunkAppender = new ChunkAppender([INTEGER, VARCHAR]);
  #hasTyped = false;
  #hasText = false;
  #rows = 0;
  /** Rows that take something from the row that is there. */
  partial = 0;

  constructor(connection: DuckDBConnection, layout: Layout, table: string) {
    this.#connection = connection;
    this.#layout = layout;
    this.table = table;
    this.#typed = layout.columns.length <= mostTypedColumns ? new TypedRows(layout) : null;
  }

  get rows(): number {
    return this.#rows;
  }

  /** Gives a promise only when there is something to wait for. */
  addState(state: RowState): Promise<void> | undefined {
    const { position } = state;
    if (state.op !== 'upsert') {
      const kind = state.op === 'delete' ? rowKinds.delete : rowKinds.retire;
      const from = state.op === 'retire' ? state.key : null;
      return this.#addText({ kind, position, values: this.#withKey([], state.key), from });
    }
    const { native, retired = false } = state;
    if (native && this.#typed) return this.#addNative(native, state);
    const values = this.#withKey(state.values, state.key);
    if (!values.includes(undefined))
      return this.#addText({ kind: rowKinds.whole, position, values, retired });
    const { fillFrom: from, mayBeAbsent: optional = false } = state;
    if (from === null) {
      const table = tableName(this.#layout.shape);
      throw new TidemarkError('TM901', `${table}: a partial row came without the key that completes it`);
    }
    return this.#addText({ kind: rowKinds.partial, position, values, retired, from, optional });
  }

  addCount({ values, count, mayBeAbsent = 0 }: RowCount, position: string): Promise<void> | undefined {
    return this.#addText({ kind: rowKinds.whole, position, values, n: count, absent: mayBeAbsent });
  }

  addWhole(values: readonly Cell[], position: string | null, retired: boolean): Promise<void> | undefined {
    return this.#addText({ kind: rowKinds.whole, position, values: [...values], retired, n: 1 });
  }

  #addNative(native: NativeRow, state: Extract<RowState, { op: 'upsert' }>): Promise<void> | undefined {
    const { position, retired = false } = state;
    const add = (): Promise<void> | undefined => {
      if (this.#typed!.add(native, this.#rows, position, retired)) {
        this.#rows += 1;
        return undefined;
      }
      return this.#addText({
        kind: rowKinds.whole,
        position,
        values: this.#withKey(state.values, state.key),
        retired,
      });
    };
    if (this.#hasTyped) return add();
    this.#hasTyped = true;
    return this.#typed!.begin(this.#connection, `${this.table}_typed`).then(add);
  }

  #withKey(values: PartialRow, key: readonly Cell[]): PartialRow {
    const row = this.#layout.columns.map((_, i) => values[i]);
    for (const [k, i] of this.#layout.shape.keyColumns.entries()) row[i] = key[k]!;
    return row;
  }

  #addText(row: TextRow): Promise<void> | undefined {
    if (this.#hasText) return this.#appendText(row);
    this.#hasText = true;
    const table = `${this.table}_text`;
    return this.#connection
      .run(`CREATE TEMP TABLE ${table} (rid INTEGER, texts VARCHAR)`)
      .then(() => this.#text.into(this.#connection, table))
      .then(() => this.#appendText(row));
  }

  #appendText({ kind, position, values, retired, optional, from, n, absent }: TextRow): undefined {
    const { columns, matched } = this.#layout;
    const unchanged: number[] = [];
    if (kind === rowKinds.partial || kind === rowKinds.retire) {
      this.partial += 1;
      for (const [i, value] of values.entries()) if (value === undefined) unchanged.push(columns[i]!.fieldId);
    }
    const own = split(columns, values);
    const supplier = from ? split(matched, from) : { cells: matched.map(() => null), exact: null };
    const texts = [
      kind,
      position,
      retired ?? kind === rowKinds.retire,
      optional ?? false,
      unchanged.length > 0 ? JSON.stringify(unchanged) : null,
      own.exact,
      supplier.exact,
      n ?? 1,
      absent ?? 0,
      ...supplier.cells,
      ...own.cells,
    ];
    this.#text.add([this.#rows, JSON.stringify(texts)]);
    this.#rows += 1;
    return undefined;
  }

  /** Those that came as text: all that take something from a row that is there. */
  get texts(): string {
    return `${this.table}_cast`;
  }

  /** All rows are there: `table` shows them, where they are. */
  async end(): Promise<void> {
    const { columns, matched, house } = this.#layout;
    const sources: string[] = [];
    const own = [...columns.map(({ fieldId }) => fieldId), house.position, house.retired, house.exact];
    if (this.#hasTyped) {
      await this.#typed!.end(this.#connection);
      const from = matched.map(
        ({ fieldId, type }) => `CAST(NULL AS ${duckdbType(type)}) AS ${fromName(fieldId)}`,
      );
      sources.push(`SELECT rid, CAST(0 AS TINYINT) AS kind, false AS optional, CAST(NULL AS INTEGER[]) AS unchanged,
        CAST(1 AS BIGINT) AS n, CAST(0 AS BIGINT) AS absent, CAST(NULL AS VARCHAR) AS from_exact, ${from.join(', ')},
        ${own.map((id) => (id === house.exact ? `CAST(NULL AS VARCHAR) AS ${columnName(id)}` : this.#typedColumn(id))).join(', ')}
        FROM ${this.table}_typed`);
    }
    if (this.#hasText || !this.#hasTyped) {
      if (this.#hasText) this.#text.end();
      else await this.#connection.run(`CREATE TEMP TABLE ${this.table}_text (rid INTEGER, texts VARCHAR)`);
      await this.#connection.run(`CREATE TEMP TABLE ${this.texts} AS ${this.#castText()}`);
      await this.#connection.run(`DROP TABLE ${this.table}_text`);
      sources.push(`SELECT * FROM ${this.texts}`);
    }
    await this.#connection.run(`CREATE TEMP VIEW ${this.table} AS ${sources.join(' UNION ALL ')}`);
  }

  async drop(): Promise<void> {
    await this.#connection.run(`DROP VIEW ${this.table}`);
    for (const each of [this.texts, `${this.table}_typed`])
      await this.#connection.run(`DROP TABLE IF EXISTS ${each}`);
  }

  #typedColumn(id: number): string {
    const column = this.#layout.columns.find(({ fieldId }) => fieldId === id);
    const name = columnName(id);
    // Iceberg has no integers of 16 bits.
    if (column?.storage.kind === 'smallint') return `CAST(${name} AS INTEGER) AS ${name}`;
    return id === this.#layout.house.retired ? `CAST(${name} AS BOOLEAN) AS ${name}` : name;
  }

  #castText(): string {
    const { columns, matched, house } = this.#layout;
    const text = (index: number) => `from_json(texts, '["VARCHAR"]')[${index + 1}]`;
    const at = (name: string) => text(head.indexOf(name));
    const cast = ({ storage, type }: LaidColumn, index: number) =>
      `CAST(${castFromText(text(index), storage)} AS ${duckdbType(type)})`;
    const from = matched.map((each, i) => `${cast(each, head.length + i)} AS ${fromName(each.fieldId)}`);
    const first = head.length + matched.length;
    return `SELECT rid, CAST(${at('kind')} AS TINYINT) AS kind, CAST(${at('optional')} AS BOOLEAN) AS optional,
      from_json(${at('unchanged')}, '["INTEGER"]') AS unchanged, CAST(${at('n')} AS BIGINT) AS n,
      CAST(${at('absent')} AS BIGINT) AS absent, ${at('fromExact')} AS from_exact, ${from.join(', ')},
      ${columns.map((each, i) => `${cast(each, first + i)} AS ${columnName(each.fieldId)}`).join(', ')},
      ${at('position')} AS ${columnName(house.position)}, CAST(${at('retired')} AS BOOLEAN) AS ${columnName(house.retired)},
      ${at('exact')} AS ${columnName(house.exact)}
      FROM ${this.table}_text`;
  }
}

/** Cells that have a place in their columns, and the others. */
function split(
  columns: readonly LaidColumn[],
  values: readonly (Cell | undefined)[],
): { cells: Cell[]; exact: string | null } {
  let exact: Record<string, string> | null = null;
  const cells = columns.map(({ storage, lossy, fieldId }, i): Cell => {
    const value = values[i] ?? null;
    if (value === null || !lossy || fitsDuckdb(storage, value)) return value;
    exact ??= {};
    exact[String(fieldId)] = value;
    return null;
  });
  return { cells, exact: exact && JSON.stringify(exact) };
}

/** Rows that have no other op than to be there. */
class TypedRows {
  readonly #appender: TypedAppender;
  readonly #names: string[];
  readonly #slot: RowSlot = { row: 0, fits: true, heapBytes: 0 };
  readonly #rid = new IntegerWriter(this.#slot);
  readonly #position = new StringWriter(this.#slot);
  readonly #retired = new IntegerWriter(this.#slot);
  readonly #columns: ColumnWriter[];
  readonly #ascii = Buffer.alloc(64);

  constructor({ columns, house }: Layout) {
    this.#columns = columns.map(({ storage }) => columnWriter(this.#slot, storage));
    this.#appender = new TypedAppender(this.#slot, [
      this.#rid,
      this.#position,
      this.#retired,
      ...this.#columns,
    ]);
    this.#names = [
      'rid',
      columnName(house.position),
      columnName(house.retired),
      ...columns.map(({ fieldId }) => columnName(fieldId)),
    ];
  }

  /** Until `end` in one transaction: what is flushed outside of one is copied once more, into the table. */
  async begin(connection: DuckDBConnection, table: string): Promise<void> {
    await connection.run('BEGIN');
    await connection.run(`CREATE TABLE ${table} (${this.#appender.definition(this.#names)})`);
    await this.#appender.into(connection, table);
  }

  /** Whether its columns hold the row. */
  add(native: NativeRow, rid: number, position: string, retired: boolean): boolean {
    native.pass(this.#columns);
    if (!this.#slot.fits) {
      this.#appender.dropRow();
      return false;
    }
    this.#rid.integer(rid);
    this.#position.utf8(this.#ascii, 0, this.#ascii.write(position, 'latin1'));
    this.#retired.integer(retired ? 1 : 0);
    this.#appender.endRow();
    return true;
  }

  async end(connection: DuckDBConnection): Promise<void> {
    this.#appender.end();
    await connection.run('COMMIT');
  }
}
