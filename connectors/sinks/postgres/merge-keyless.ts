/**
 * Merges one table without a key: so many copies of a row image more, or fewer. An image is found by the text of its
 * whole row, printed by the server on both sides, so that types without equality (json, xml, point) match too.
 * Removing costs one pass over the target, whatever the number of images: a hash join on the text.
 */

import type { TableShape } from '../../../src/connector/shape.ts';
import type { MergeTable, RowCount } from '../../../src/connector/sink.ts';
import { lostRows } from './batch.ts';
import { binaryColumns, CopyTarget, RowCopy } from './copy-target.ts';
import { emptyTable, type HouseColumns, inSource, letGo } from './house-columns.ts';
import type { MergeRun } from './merge-run.ts';
import { quoteCell, quoteName, quoteTable } from './quote.ts';
import {
  createStage,
  type StageColumn,
  smallCharacters,
  smallRows,
  stageColumns,
  valuesRelation,
} from './stage.ts';

const analyzeRows = 1000;

export async function mergeKeyless(
  run: MergeRun,
  table: MergeTable,
  { house, binary }: { house: HouseColumns; binary: boolean },
): Promise<void> {
  const { shape } = table;
  const target = quoteTable(shape);
  const columns = shape.columns.map((column) => quoteName(column.name));
  const removals = new Removals(run, shape, house);
  const into = `${target} (${columns.join(', ')})`;
  const additions = new RowCopy(run.pipe, into, binary ? binaryColumns(shape) : null, () => undefined);
  let few: RowCount[] | null = [];
  let rows = 0;
  let characters = 0;

  if (table.truncated) {
    run.countTruncate(shape);
    run.batch.add(shape, emptyTable(target, house));
  }
  const stage = async ({ values, count, mayBeAbsent = 0 }: RowCount) => {
    if (count < 0) return removals.add(values, -count, mayBeAbsent);
    for (let copy = 0; copy < count; copy++) {
      const sending = additions.add(values);
      if (sending) await sending;
    }
  };
  for await (const counts of table.counts()) {
    for (const row of counts) {
      run.countRows(row);
      if (table.truncated) {
        if (-row.count > (row.mayBeAbsent ?? 0)) removals.refuse(-row.count - (row.mayBeAbsent ?? 0));
        if (row.count < 0) continue;
      }
      if (!few) {
        await stage(row);
        continue;
      }
      few.push(row);
      rows += Math.max(row.count, 1);
      characters +=
        Math.max(row.count, 1) * row.values.reduce((sum, cell) => sum + (cell?.length ?? 0) + 4, 0);
      if (rows <= smallRows && characters <= smallCharacters) continue;
      // The truncate must come before the first row that goes straight into the target.
      await run.batch.flush();
      for (const early of few) await stage(early);
      few = null;
    }
  }

  if (few) {
    removals.addFew(few.filter(({ count }) => count < 0));
    const lines = few.flatMap(({ values, count }) =>
      Array.from({ length: Math.max(count, 0) }, () => `(${values.map(quoteCell).join(',')})`),
    );
    if (lines.length > 0) run.batch.add(shape, `INSERT INTO ${into} VALUES ${lines.join(',\n')}`);
  } else {
    await additions.flush();
    await removals.finish();
  }
  if (run.batch.full) await run.batch.flush();
}

/** Copies to remove. Added copies may already be in the target: no image is both added and removed in a Window. */
class Removals {
  readonly #run: MergeRun;
  readonly #shape: TableShape;
  readonly #house: HouseColumns;
  readonly #columns: StageColumn[];
  #stage: CopyTarget | null = null;
  #wanted = 0;

  constructor(run: MergeRun, shape: TableShape, house: HouseColumns) {
    this.#run = run;
    this.#shape = shape;
    this.#house = house;
    this.#columns = [{ name: 'n', type: 'bigint' }, ...stageColumns(shape, 'c', shape.columns)];
  }

  /** @throws TidemarkError TM407: the truncate left nothing to remove */
  refuse(copies: number): never {
    throw lostRows(this.#shape, copies, 'rows were removed, but the destination does not have them');
  }

  async add(values: readonly (string | null)[], copies: number, mayBeAbsent: number): Promise<void> {
    if (!this.#stage) {
      await this.#run.execute(this.#shape, createStage(this.#name, this.#columns));
      this.#stage = new CopyTarget(this.#run.pipe, this.#name);
    }
    this.#wanted += copies - mayBeAbsent;
    await this.#stage.add([String(copies), ...values]);
  }

  get #name(): string {
    return `pg_temp.tidemark_fewer_${this.#run.tableNumber}`;
  }

  addFew(counts: readonly RowCount[]): void {
    if (counts.length === 0) return;
    for (const { count, mayBeAbsent = 0 } of counts) this.#wanted -= count + mayBeAbsent;
    const rows = counts.map(({ values, count }) => [String(-count), ...values]);
    this.#remove(valuesRelation('s', this.#columns, rows));
  }

  async finish(): Promise<void> {
    await this.#stage?.flush();
    await this.#run.pipe.drain();
    if (!this.#stage) return;
    if (this.#stage.rows > analyzeRows) this.#run.batch.add(this.#shape, `ANALYZE ${this.#name} (n)`);
    this.#remove(`${this.#name} AS s`);
    await this.#run.batch.flush();
  }

  /** Of the copies of an image any will do, so the first `n` found go. */
  #remove(rows: string): void {
    const target = quoteTable(this.#shape);
    const staged = this.#columns.slice(1).map(({ name }) => `s.${name}`);
    const stored = this.#shape.columns.map((column) => `t.${quoteName(column.name)}`);
    const there = inSource(this.#house, 't.');
    const { verb, from } = letGo(target, this.#house);
    const sql = `WITH fewer AS (
  SELECT ROW(${staged.join(', ')})::text COLLATE "C" AS image, sum(s.n) AS n FROM ${rows} GROUP BY 1
), found AS (
  SELECT t.ctid AS id, row_number() OVER (PARTITION BY fewer.image) AS copy, fewer.n
  FROM ${target} AS t JOIN fewer ON ROW(${stored.join(', ')})::text COLLATE "C" = fewer.image${there === null ? '' : ` WHERE ${there}`}
)
${verb} ${from} found WHERE t.ctid = found.id AND found.copy <= found.n`;
    const wanted = this.#wanted;
    this.#run.batch.add(this.#shape, sql, ({ count }) => {
      if (count < wanted) {
        throw lostRows(
          this.#shape,
          wanted - count,
          'rows were removed, but the destination does not have them',
        );
      }
    });
  }
}
