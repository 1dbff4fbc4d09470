/**
 * Merges one table that has a key. Three steps, each one statement, skipped where it has nothing to do:
 *
 * 1. `fill`: partial rows, joined to the row that supplies their unchanged columns, are inserted or updated. It runs
 *    first and is one statement, so its snapshot is the target as it was before this Window, also where rows swap
 *    keys and each supplies the other.
 * 2. `remove`: rows whose key is gone.
 * 3. `upsert`: whole rows.
 *
 * A table whose share of the Window is small takes its rows along as VALUES lists; a large one copies them into
 * temporary tables, or straight into the target where that is empty.
 */
import type { Cell, MergeTable, RowState } from '../../../src/connector/sink.ts';
import { KeyedPlan, missingSource } from './keyed-plan.ts';
import type { MergeRun } from './merge-run.ts';
import { quoteCell } from './quote.ts';
import {
  CopyTarget,
  createStage,
  type StageColumn,
  smallCharacters,
  smallRows,
  valuesRelation,
} from './stage.ts';

/** Staged rows after which the planner's guess is not good enough. */
const analyzeRows = 1000;

export async function mergeKeyed(run: MergeRun, table: MergeTable): Promise<void> {
  const plan = new KeyedPlan(table.shape, table.snapshots.length > 0);
  let few: RowState[] | null = [];
  let characters = 0;
  let many: StagedTable | null = null;
  for await (const states of table.states()) {
    for (const state of states) {
      run.countState(state);
      if (few) {
        few.push(state);
        characters += weight(state);
        if (few.length <= smallRows && characters <= smallCharacters) continue;
        many = await StagedTable.open(run, plan, table.truncated);
        for (const early of few) await many.add(early);
        few = null;
      } else {
        const sending = many!.add(state);
        if (sending) await sending;
      }
    }
  }
  if (many) await many.finish();
  else mergeFew(run, plan, table.truncated, few ?? []);
  if (run.batch.full) await run.batch.flush();
}

function weight(state: RowState): number {
  let characters = 0;
  for (const cell of state.op === 'delete' ? state.key : state.values) characters += (cell?.length ?? 0) + 4;
  return characters;
}

function mergeFew(run: MergeRun, plan: KeyedPlan, truncated: boolean, states: readonly RowState[]): void {
  if (truncated) run.truncated(plan.shape, plan.truncate());
  if (states.length === 0) return;
  const whole: Cell[][] = [];
  const partial: Cell[][] = [];
  const gone: Cell[][] = [];
  const kept: Cell[][] = [];
  let optional = 0;
  for (const state of states) {
    if (state.op === 'delete') {
      gone.push(state.key);
      continue;
    }
    kept.push(state.key);
    const row = plan.wholeRow(state);
    if (row) whole.push(row);
    else {
      partial.push(plan.partialRow(state));
      if (state.mayBeAbsent) optional++;
    }
  }
  if (truncated && partial.length > optional) throw missingSource(plan.shape, partial.length - optional);
  plan.steps(run, {
    partial: partial.length === 0 ? null : valuesRelation('p', plan.partialColumns, partial),
    partials: partial.length,
    optional,
    gone: gone.length === 0 || truncated ? null : valuesRelation('g', plan.keyColumns, gone),
    kept: kept.length === 0 ? null : valuesRelation('u', plan.keyColumns, kept),
    // INSERT takes untyped literals as the column's type, so that no cast can cut a value.
    whole: whole.length === 0 ? null : `VALUES ${whole.map(valuesLine).join(',\n')}`,
  });
}

function valuesLine(row: readonly Cell[]): string {
  return `(${row.map(quoteCell).join(',')})`;
}

class StagedTable {
  readonly #run: MergeRun;
  readonly #plan: KeyedPlan;
  /** The target was empty: whole rows go straight into it, deletes have nothing to do, partial rows no source. */
  readonly #direct: boolean;
  readonly #stages = new Map<string, CopyTarget>();
  #missing = 0;
  /** Partial rows whose source may be missing. */
  #optional = 0;

  private constructor(run: MergeRun, plan: KeyedPlan, direct: boolean) {
    this.#run = run;
    this.#plan = plan;
    this.#direct = direct;
  }

  static async open(run: MergeRun, plan: KeyedPlan, truncated: boolean): Promise<StagedTable> {
    if (truncated) run.truncated(plan.shape, plan.truncate());
    await run.batch.flush();
    const direct = truncated || (await run.isEmpty(plan.shape));
    const staged = new StagedTable(run, plan, direct);
    if (direct)
      staged.#stages.set('whole', new CopyTarget(run.pipe, `${plan.target} (${plan.columns.join(', ')})`));
    return staged;
  }

  add(state: RowState): Promise<void> | undefined {
    const plan = this.#plan;
    if (state.op === 'delete') {
      return this.#direct ? undefined : this.#into('gone', plan.keyColumns, state.key);
    }
    const row = plan.wholeRow(state);
    if (row) return this.#into('whole', plan.rowColumns, row);
    if (this.#direct) {
      if (!state.mayBeAbsent) this.#missing++;
      return undefined;
    }
    if (state.mayBeAbsent) this.#optional++;
    return this.#into('partial', plan.partialColumns, plan.partialRow(state));
  }

  #into(stage: string, columns: readonly StageColumn[], cells: readonly Cell[]): Promise<void> | undefined {
    const target = this.#stages.get(stage);
    return target ? target.add(cells) : this.#create(stage, columns, cells);
  }

  async #create(stage: string, columns: readonly StageColumn[], cells: readonly Cell[]): Promise<void> {
    const name = this.#name(stage);
    await this.#run.execute(this.#plan.shape, createStage(name, columns));
    const target = new CopyTarget(this.#run.pipe, name);
    this.#stages.set(stage, target);
    await target.add(cells);
  }

  #name(stage: string): string {
    return `pg_temp.tidemark_${stage}_${this.#run.tableNumber}`;
  }

  async finish(): Promise<void> {
    const { shape } = this.#plan;
    for (const stage of this.#stages.values()) await stage.flush();
    await this.#run.pipe.drain();
    if (this.#missing > 0) throw missingSource(shape, this.#missing);
    if (this.#direct) return;
    const partials = this.#analyze('partial', 'f');
    const removed = this.#analyze('gone', 'k');
    const wholes = this.#stages.get('whole')?.rows ?? 0;
    const list = this.#plan.rowColumns.map(({ name }) => name).join(', ');
    this.#plan.steps(this.#run, {
      partial: partials === 0 ? null : `${this.#name('partial')} AS p`,
      partials,
      optional: this.#optional,
      gone: removed === 0 ? null : `${this.#name('gone')} AS g`,
      kept: this.#keptKeys(wholes, partials),
      whole: wholes === 0 ? null : `SELECT ${list} FROM ${this.#name('whole')}`,
    });
    // Now rather than with the next tables: its temporary tables are hot in the buffers.
    await this.#run.batch.flush();
  }

  /** Rows of a stage; statistics for its key columns where it is joined and large. */
  #analyze(stage: string, prefix: string): number {
    const rows = this.#stages.get(stage)?.rows ?? 0;
    if (rows > analyzeRows) {
      const keys = this.#plan.keyColumns.map((_, k) => `${prefix}${k}`);
      this.#run.batch.add(this.#plan.shape, `ANALYZE ${this.#name(stage)} (${keys.join(', ')})`);
    }
    return rows;
  }

  #keptKeys(wholes: number, partials: number): string | null {
    const keys = this.#plan.shape.keyColumns.map((column, k) => `c${column} AS k${k}`).join(', ');
    const parts = [
      ...(wholes > 0 ? [`SELECT ${keys} FROM ${this.#name('whole')}`] : []),
      ...(partials > 0 ? [`SELECT ${keys} FROM ${this.#name('partial')}`] : []),
    ];
    return parts.length === 0 ? null : `(${parts.join(' UNION ALL ')}) AS u`;
  }
}
