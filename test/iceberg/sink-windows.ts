/** Windows for the sink, by number. */
import { beforeEverything, formatPosition, type Position } from '../../src/connector/position.ts';
import type { TableShape } from '../../src/connector/shape.ts';
import type { MergeTable, MergeWindow, Row, RowState } from '../../src/connector/sink.ts';

export const position = (n: number) => formatPosition({ epoch: 1, lsn: BigInt(n), ordinal: 1 });

const nothing = {
  truncated: false,
  snapshots: [],
  async *states() {},
  async *counts() {},
  async *events() {},
} satisfies Omit<MergeTable, 'shape'>;

/** A Window of last states, of one table. */
export function windowOf(n: number, token: bigint, shape: TableShape, rows: RowState[]): MergeWindow {
  return windowOfTables(n, token, [statesOf(shape, rows)]);
}

export function windowOfTables(n: number, token: bigint, tables: MergeTable[]): MergeWindow {
  const from: Position = n === 1 ? beforeEverything : position(n - 1);
  return {
    sourceId: 'source',
    destination: 'lake',
    unit: '*',
    sequence: n,
    from,
    to: position(n),
    fencingToken: token,
    commitTimeUs: 1n,
    tables,
    sweeps: [],
  };
}

/** With the same rows as Changes, for the history. */
export function statesOf(shape: TableShape, rows: RowState[]): MergeTable {
  return {
    ...nothing,
    shape,
    async *states() {
      yield rows;
    },
    async *events() {
      yield rows.map((row) => ({
        op: row.op === 'upsert' ? ('u' as const) : ('d' as const),
        position: row.position,
        commitTimeUs: 1n,
        key: row.key,
        values: row.op === 'upsert' ? row.values : shape.columns.map(() => undefined),
        previousKey: null,
        before: null,
      }));
    },
  };
}

/** Copies of a row more, or fewer, of a table without a key. */
export function countsOf(shape: TableShape, rows: [Row, number][]): MergeTable {
  return {
    ...nothing,
    shape,
    async *counts() {
      yield rows.map(([values, count]) => ({ values, count }));
    },
  };
}

export function upsert(n: number, key: Row, values: Row): RowState {
  return { op: 'upsert', key, values, fillFrom: null, position: position(n) };
}
