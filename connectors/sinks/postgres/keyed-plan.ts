/** The statements that merge one table with a key, whichever way its rows travel; see merge-keyed.ts. */
import { TidemarkError } from '../../../src/connector/failure.ts';
import { type TableShape, tableName } from '../../../src/connector/shape.ts';
import type { Cell, RowState } from '../../../src/connector/sink.ts';
import { lostRows } from './batch.ts';
import type { MergeRun } from './merge-run.ts';
import { hasCanonicalText, quoteName, quoteTable } from './quote.ts';
import { type StageColumn, stageColumns } from './stage.ts';

type Upsert = Extract<RowState, { op: 'upsert' }>;

/** Statements over relations that hold the Window's rows: temporary tables or VALUES lists, it does not matter. */
export class KeyedPlan {
  readonly shape: TableShape;
  readonly target: string;
  /** Quoted, in the shape's order. */
  readonly columns: string[];
  readonly rowColumns: StageColumn[];
  readonly keyColumns: StageColumn[];
  readonly partialColumns: StageColumn[];
  readonly #keyOf: Map<number, number>;
  readonly #conflict: string;
  /** Two key texts may be one value: see hasCanonicalText. */
  readonly careful: boolean;
  /** Columns that at least one partial row of this Window leaves unchanged. */
  readonly unchanged = new Set<number>();

  /** @param rewrite a row that is upserted is written, also where it has nothing but its key (see sweep.ts) */
  constructor(shape: TableShape, rewrite: boolean) {
    this.shape = shape;
    this.target = quoteTable(shape);
    this.columns = shape.columns.map((column) => quoteName(column.name));
    const keys = shape.keyColumns.map((i) => shape.columns[i]!);
    this.careful = !keys.every(hasCanonicalText);
    this.rowColumns = stageColumns(shape, 'c', shape.columns);
    this.keyColumns = stageColumns(shape, 'k', keys);
    this.partialColumns = [
      { name: 'unchanged', type: 'bit varying' },
      ...stageColumns(shape, 'f', keys),
      ...this.rowColumns,
    ];
    this.#keyOf = new Map(shape.keyColumns.map((column, k) => [column, k]));
    const keyNames = shape.keyColumns.map((i) => this.columns[i]!);
    // A key of equal value may have another text now, so then it is written as well.
    const all = this.careful || (rewrite && this.#keyOf.size === this.columns.length);
    const set = this.columns.filter((_, i) => all || !this.#keyOf.has(i));
    this.#conflict = `ON CONFLICT (${keyNames.join(', ')}) DO ${
      set.length === 0
        ? 'NOTHING'
        : `UPDATE SET ${set.map((name) => `${name} = EXCLUDED.${name}`).join(', ')}`
    }`;
  }

  /** The whole row, its key columns from the key; null where a value is unchanged and not known. */
  wholeRow(state: Upsert): Cell[] | null {
    const { values, key } = state;
    for (let i = 0; i < values.length; i++) if (values[i] === undefined && !this.#keyOf.has(i)) return null;
    return this.#withKey(values as Cell[], key);
  }

  /** Mask of unchanged columns and of "may be absent", the supplying key, the row. @throws TidemarkError TM901 without a supplying key */
  partialRow(state: Upsert): Cell[] {
    if (!state.fillFrom) {
      throw new TidemarkError(
        'TM901',
        `${tableName(this.shape)}: a partial row came without the key that completes it`,
      );
    }
    let mask = '';
    const values = state.values.map((cell, i) => {
      const unchanged = cell === undefined && !this.#keyOf.has(i);
      if (unchanged) this.unchanged.add(i);
      mask += unchanged ? '1' : '0';
      return cell ?? null;
    });
    mask += state.mayBeAbsent ? '1' : '0';
    return [mask, ...state.fillFrom, ...this.#withKey(values, state.key)];
  }

  #withKey(values: Cell[], key: readonly Cell[]): Cell[] {
    const row = values.slice();
    for (const [column, k] of this.#keyOf) row[column] = key[k]!;
    return row;
  }

  truncate(): string {
    return `TRUNCATE ${this.target}`;
  }

  /** `rows` is a relation aliased p with partialColumns. Touches one row per row of it, fewer where one is missing. */
  fill(rows: string): string {
    const cells = this.columns.map((name, i) =>
      this.unchanged.has(i)
        ? `CASE get_bit(p.unchanged, ${i}) WHEN 1 THEN t.${name} ELSE p.c${i} END`
        : `p.c${i}`,
    );
    return `INSERT INTO ${this.target} (${this.columns.join(', ')})
SELECT ${cells.join(', ')} FROM ${rows} JOIN ${this.target} AS t ON ${this.#sourceMatch()} ${this.#conflict}`;
  }

  /** A row for each of `rows` (as for `fill`) that must have a source and has none; `fill` leaves out the others. */
  withoutSource(rows: string): string {
    return `SELECT FROM ${rows} WHERE get_bit(p.unchanged, ${this.columns.length}) = 0
AND NOT EXISTS (SELECT FROM ${this.target} AS t WHERE ${this.#sourceMatch()})`;
  }

  #sourceMatch(): string {
    return this.shape.keyColumns.map((column, k) => `t.${this.columns[column]} = p.f${k}`).join(' AND ');
  }

  /**
   * `rows` is a relation aliased g with keyColumns; `kept`, needed for careful plans, one aliased u with the keys of
   * all upserts: a key whose other text is upserted must not go.
   */
  remove(rows: string, kept: string | null): string {
    const match = this.shape.keyColumns.map((column, k) => `t.${this.columns[column]} = g.k${k}`);
    const same = this.keyColumns.map(({ name }) => `u.${name} = g.${name}`);
    const unless = kept === null ? '' : ` AND NOT EXISTS (SELECT FROM ${kept} WHERE ${same.join(' AND ')})`;
    return `DELETE FROM ${this.target} AS t USING ${rows} WHERE ${match.join(' AND ')}${unless}`;
  }

  /** `rows` is a query that gives the table's columns. */
  upsert(rows: string): string {
    return `INSERT INTO ${this.target} (${this.columns.join(', ')}) ${rows} ${this.#conflict}`;
  }

  /** Adds the steps that have something to do. */
  steps(
    run: MergeRun,
    rows: {
      partial: string | null;
      partials: number;
      /** So many of them may lack their source. */
      optional: number;
      gone: string | null;
      kept: string | null;
      whole: string | null;
    },
  ): void {
    const { shape } = this;
    if (rows.partial !== null) {
      if (rows.optional > 0) {
        run.batch.add(shape, this.withoutSource(rows.partial), ({ count }) => {
          if (count > 0) throw missingSource(shape, count);
        });
      }
      run.batch.add(shape, this.fill(rows.partial), ({ count }) => {
        if (rows.optional === 0 && count < rows.partials) throw missingSource(shape, rows.partials - count);
      });
    }
    if (rows.gone !== null) run.batch.add(shape, this.remove(rows.gone, this.careful ? rows.kept : null));
    if (rows.whole !== null) run.batch.add(shape, this.upsert(rows.whole));
  }
}

/** TM407, with the number of rows and the table only. */
export function missingSource(shape: TableShape, missing: number): TidemarkError {
  return lostRows(
    shape,
    missing,
    'updates left a column unchanged, but the row that has its value is missing',
  );
}
