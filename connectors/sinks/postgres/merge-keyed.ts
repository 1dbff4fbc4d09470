/**
 * Merges one table that has a key. Its steps, each one statement, skipped where it has nothing to do:
 *
 * 1. `fill`: partial rows, joined to the row that supplies their unchanged columns, are inserted or updated. It runs
 *    first and is one statement, so its snapshot is the target as it was before this Window, also where rows swap
 *    keys and each supplies the other.
 * 2. `retire`: rows that the source let go of get their mark. Before the truncate: it leaves them.
 * 3. `truncate`.
 * 4. `remove`: rows whose key is gone.
 * 5. `upsert`: whole rows.
 *
 * A table whose share of the Window is small takes its rows along as VALUES lists; a large one copies them, see
 * staged-table.ts.
 */
import type { Cell, MergeTable, RowState } from '../../../src/connector/sink.ts';
import { type HouseColumns, MissingMark } from './house-columns.ts';
import { KeyedPlan, missingSource } from './keyed-plan.ts';
import type { MergeRun } from './merge-run.ts';
import { quoteCell } from './quote.ts';
import { copyLine, smallCharacters, smallRows, valuesRelation } from './stage.ts';
import { StagedTable } from './staged-table.ts';

export interface KeyedWay {
  house: HouseColumns;
  /** Strictly step by step; otherwise whole rows may be written as they come. */
  ordered: boolean;
  /** See PlanWay. */
  binary: boolean;
}

/** @throws MissingMark, MissingOrder: the merge has to start over */
export async function mergeKeyed(
  run: MergeRun,
  table: MergeTable,
  { house, ordered, binary }: KeyedWay,
): Promise<void> {
  const plan = new KeyedPlan(table.shape, house, { rewrite: table.snapshots.length > 0, binary });
  if (table.truncated) run.countTruncate(table.shape);
  let few: RowState[] | null = [];
  let characters = 0;
  let many: StagedTable | null = null;
  for await (const states of table.states()) {
    for (const state of states) {
      if (!house.retired && isRetired(state)) throw new MissingMark(plan.target);
      if (few) {
        few.push(state);
        characters += weight(state);
        if (few.length <= smallRows && characters <= smallCharacters) continue;
        many = await StagedTable.open(run, plan, { truncated: table.truncated, ordered });
        for (const early of few) {
          const sending = many.add(early);
          if (sending) await sending;
        }
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

function isRetired(state: RowState): boolean {
  return state.op === 'retire' || (state.op === 'upsert' && state.retired === true);
}

function weight(state: RowState): number {
  if (state.op === 'upsert' && state.native) return state.native.bytes.length;
  let characters = 0;
  for (const cell of state.op === 'upsert' ? state.values : state.key) characters += (cell?.length ?? 0) + 4;
  return characters;
}

function mergeFew(run: MergeRun, plan: KeyedPlan, truncated: boolean, states: readonly RowState[]): void {
  const rows: Record<'whole' | 'partial' | 'retired' | 'gone' | 'kept', Cell[][]> = {
    whole: [],
    partial: [],
    retired: [],
    gone: [],
    kept: [],
  };
  let optional = 0;
  let missing = 0;
  for (const state of states) {
    if (state.op !== 'upsert') {
      run.count(state.op, copyLine(state.key));
      (state.op === 'retire' ? rows.retired : rows.gone).push(state.key);
      continue;
    }
    rows.kept.push(state.key);
    const whole = plan.wholeRow(state);
    const row = whole ?? plan.partialRow(state);
    if (state.native) run.countNative(state.native);
    else run.count('upsert', copyLine(row));
    if (whole) rows.whole.push(whole);
    else if (truncated && !state.retired) missing += state.mayBeAbsent ? 0 : 1;
    else {
      rows.partial.push(row);
      if (state.mayBeAbsent) optional++;
    }
  }
  if (missing > 0) throw missingSource(plan.shape, missing);
  const relation = (alias: string, columns: KeyedPlan['keyColumns'], cells: Cell[][]) =>
    cells.length === 0 ? null : valuesRelation(alias, columns, cells);
  plan.steps(run, {
    partial: relation('p', plan.partialColumns, rows.partial),
    partials: rows.partial.length,
    optional,
    retired: relation('g', plan.keyColumns, rows.retired),
    retirements: rows.retired.length,
    truncated,
    gone: truncated && !plan.house.retired ? null : relation('g', plan.keyColumns, rows.gone),
    kept: relation('u', plan.keyColumns, rows.kept),
    whole: rows.whole.length === 0 ? null : valuesRows(rows.whole),
  });
}

/** INSERT takes untyped literals as the column's type, so that no cast can cut a value. */
export function valuesRows(rows: readonly (readonly Cell[])[]): string {
  return `VALUES ${rows.map((row) => `(${row.map(quoteCell).join(',')})`).join(',\n')}`;
}
