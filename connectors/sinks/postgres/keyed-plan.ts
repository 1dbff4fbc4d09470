/** The statements that merge one table with a key, whichever way its rows travel; see merge-keyed.ts. */
import { TidemarkError } from '../../../src/connector/failure.ts';
import { type TableShape, tableName } from '../../../src/connector/shape.ts';
import type { Cell, RowState } from '../../../src/connector/sink.ts';
import { lostRows } from './batch.ts';
import { binaryColumn } from './binary-cells.ts';
import type { BinaryColumn } from './binary-parts.ts';
import { binaryColumns } from './copy-target.ts';
import { emptyTable, type HouseColumns, inSource, letGo, retiredColumn } from './house-columns.ts';
import type { MergeRun } from './merge-run.ts';
import { hasCanonicalText, quoteName, quoteTable } from './quote.ts';
import { type StageColumn, stageColumns } from './stage.ts';

export type Upsert = Extract<RowState, { op: 'upsert' }>;

export interface PlanWay {
  /** A row that is upserted is written, also where it has nothing but its key (see sweep.ts). */
  rewrite: boolean;
  /** The target's types are the shape's, so that values may travel in their binary form. */
  binary: boolean;
}

/** Statements over relations that hold the Window's rows: temporary tables or VALUES lists, it does not matter. */
export class KeyedPlan {
  readonly shape: TableShape;
  readonly target: string;
  readonly house: HouseColumns;
  /** Quoted, in the shape's order, and the mark of retired rows where the table has it. */
  readonly columns: string[];
  readonly rowColumns: StageColumn[];
  readonly keyColumns: StageColumn[];
  readonly partialColumns: StageColumn[];
  /** Place in the key of each column, -1 for the others. */
  readonly #keyOf: number[];
  readonly #conflict: string;
  /** Two key texts may be one value: see hasCanonicalText. */
  readonly careful: boolean;
  /** Of whole rows; null where they travel as text. */
  readonly binary: readonly BinaryColumn[] | null;
  /** Columns that at least one partial row of this Window leaves unchanged. */
  readonly unchanged = new Set<number>();

  constructor(shape: TableShape, house: HouseColumns, { rewrite, binary }: PlanWay) {
    this.shape = shape;
    this.house = house;
    this.target = quoteTable(shape);
    this.columns = shape.columns.map((column) => quoteName(column.name));
    const keys = shape.keyColumns.map((i) => shape.columns[i]!);
    this.careful = !keys.every(hasCanonicalText);
    this.rowColumns = stageColumns(shape, 'c', shape.columns);
    const keyNames = shape.keyColumns.map((i) => this.columns[i]!);
    const columns = binary ? binaryColumns(shape) : null;
    const mark = house.retired ? [binaryColumn('boolean', false)!] : [];
    this.binary = columns && [...columns, ...mark];
    if (house.retired) {
      this.columns.push(quoteName(retiredColumn));
      this.rowColumns.push({ name: `c${shape.columns.length}`, type: 'boolean' });
    }
    this.keyColumns = stageColumns(shape, 'k', keys);
    this.partialColumns = [
      { name: 'unchanged', type: 'bit varying' },
      ...stageColumns(shape, 'f', keys),
      ...this.rowColumns,
    ];
    this.#keyOf = shape.columns.map((_, i) => shape.keyColumns.indexOf(i));
    // A key of equal value may have another text now, so then it is written as well.
    const all = this.careful || (rewrite && keyNames.length === shape.columns.length);
    const set = this.columns
      .filter((_, i) => all || this.#keyOf[i] === -1 || i >= shape.columns.length)
      .map((name) => `${name} = EXCLUDED.${name}`);
    if (house.deletedAt !== null) set.push(`${house.deletedAt} = NULL`);
    this.#conflict = `ON CONFLICT (${keyNames.join(', ')}) DO ${
      set.length === 0 ? 'NOTHING' : `UPDATE SET ${set.join(', ')}`
    }`;
  }

  /** The whole row, its key columns from the key; null where a value is unchanged and not known. */
  wholeRow({ values, key, retired }: Upsert): Cell[] | null {
    const row = new Array<Cell>(this.columns.length);
    const width = this.shape.columns.length;
    for (let i = 0; i < width; i++) {
      const k = this.#keyOf[i]!;
      const cell = k < 0 ? values[i] : key[k]!;
      if (cell === undefined) return null;
      row[i] = cell;
    }
    if (this.house.retired) row[width] = retired ? 't' : null;
    return row;
  }

  /** Mask of unchanged columns and of "may be absent", the supplying key, the row. @throws TidemarkError TM901 without a supplying key */
  partialRow({ values, key, fillFrom, mayBeAbsent, retired }: Upsert): Cell[] {
    if (!fillFrom) {
      throw new TidemarkError(
        'TM901',
        `${tableName(this.shape)}: a partial row came without the key that completes it`,
      );
    }
    let mask = '';
    const row = values.map((cell, i) => {
      const k = this.#keyOf[i]!;
      if (k >= 0) {
        mask += '0';
        return key[k]!;
      }
      mask += cell === undefined ? '1' : '0';
      if (cell === undefined) this.unchanged.add(i);
      return cell ?? null;
    });
    mask += mayBeAbsent ? '1' : '0';
    return [mask, ...fillFrom, ...row, ...(this.house.retired ? [retired ? 't' : null] : [])];
  }

  /** Its row had another key before the Window: what supplies it may be another row by the end of the Window. */
  isMoved({ key, fillFrom }: Upsert): boolean {
    return fillFrom?.some((cell, k) => cell !== key[k]) ?? false;
  }

  /** See emptyTable: rows of the table may stay where it is not a mere TRUNCATE. */
  get keepsRows(): boolean {
    return inSource(this.house) !== null;
  }

  truncate(): string {
    return emptyTable(this.target, this.house);
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
    return `SELECT FROM ${rows} WHERE get_bit(p.unchanged, ${this.shape.columns.length}) = 0
AND NOT EXISTS (SELECT FROM ${this.target} AS t WHERE ${this.#sourceMatch()})`;
  }

  #sourceMatch(): string {
    return this.#match('p.f');
  }

  /**
   * `rows` is a relation aliased g with keyColumns; `kept`, needed for careful plans, one aliased u with the keys of
   * all upserts: a key whose other text is upserted must not go.
   */
  remove(rows: string, kept: string | null): string {
    const { verb, from } = letGo(this.target, this.house);
    const match = this.#match('g.k');
    const same = this.keyColumns.map(({ name }) => `u.${name} = g.${name}`);
    const unless = kept === null ? '' : ` AND NOT EXISTS (SELECT FROM ${kept} WHERE ${same.join(' AND ')})`;
    return `${verb} ${from} ${rows} WHERE ${match}${unless}`;
  }

  /** `rows` is a relation aliased g with keyColumns. Touches one row per row of it, fewer where one is missing. */
  retire(rows: string): string {
    return `UPDATE ${this.target} AS t SET ${quoteName(retiredColumn)} = true FROM ${rows} WHERE ${this.#match('g.k')}`;
  }

  /** Rows t that are there, by the key in columns of another relation. */
  #match(prefix: string): string {
    const { deletedAt } = this.house;
    const key = this.shape.keyColumns.map((column, k) => `t.${this.columns[column]} = ${prefix}${k}`);
    return [...key, ...(deletedAt === null ? [] : [`t.${deletedAt} IS NULL`])].join(' AND ');
  }

  /** `rows` is a query that gives the table's columns. */
  upsert(rows: string): string {
    return `INSERT INTO ${this.target} (${this.columns.join(', ')}) ${rows} ${this.#conflict}`;
  }

  /** Adds the steps that have something to do. */
  steps(run: MergeRun, rows: StepRows): void {
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
    if (rows.retired !== null) {
      run.batch.add(shape, this.retire(rows.retired), ({ count }) => {
        if (count < rows.retirements) throw missingRetired(shape, rows.retirements - count);
      });
    }
    // Rows that were retired before the truncate are marked by now, and so they stay.
    if (rows.truncated) run.batch.add(shape, this.truncate());
    if (rows.gone !== null) run.batch.add(shape, this.remove(rows.gone, this.careful ? rows.kept : null));
    if (rows.whole !== null) run.batch.add(shape, this.upsert(rows.whole));
  }
}

/** Relations with the rows of each step, aliased as its statement wants it; null where there are none. */
export interface StepRows {
  partial: string | null;
  partials: number;
  /** So many of the partial rows may lack their source. */
  optional: number;
  retired: string | null;
  retirements: number;
  /** The table is emptied in between. */
  truncated: boolean;
  gone: string | null;
  kept: string | null;
  whole: string | null;
}

/** TM407, with the number of rows and the table only. */
export function missingSource(shape: TableShape, missing: number): TidemarkError {
  return lostRows(
    shape,
    missing,
    'updates left a column unchanged, but the row that has its value is missing',
  );
}

export function missingRetired(shape: TableShape, missing: number): TidemarkError {
  return lostRows(
    shape,
    missing,
    'rows were let go of by the source, but the destination does not have them',
  );
}
