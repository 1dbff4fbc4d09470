/** Two versions of a table's shape side by side: which column is which. */
import type { ColumnShape, TableShape } from './shape.ts';

export interface ColumnPairs {
  /** The same column in both, the older first. */
  kept: [ColumnShape, ColumnShape][];
  added: ColumnShape[];
  dropped: ColumnShape[];
}

/** Columns are the same where their numbers are; where a number is not known, where their names are. */
export function pairColumns(before: TableShape, after: TableShape): ColumnPairs {
  const kept: ColumnPairs['kept'] = [];
  const added: ColumnShape[] = [];
  const left = new Set(before.columns);
  const anew = madeAnew(before, after);
  for (const column of after.columns) {
    const earlier = before.columns.find((each) => sameColumn(each, column, anew));
    if (earlier) {
      kept.push([earlier, column]);
      left.delete(earlier);
    } else added.push(column);
  }
  return { kept, added, dropped: [...left] };
}

/** Numbers mean nothing across tables. */
function sameColumn(left: ColumnShape, right: ColumnShape, anew: boolean): boolean {
  if (!anew && left.number !== undefined && right.number !== undefined) return left.number === right.number;
  return left.name === right.name;
}

/** A table that was dropped and made again under its name: none of its rows is the old one's. */
export function madeAnew(before: TableShape, after: TableShape): boolean {
  return before.oid !== undefined && after.oid !== undefined && before.oid !== after.oid;
}
