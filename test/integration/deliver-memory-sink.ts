/**
 * A destination in memory, or in a file that survives the process: all or nothing per Window, fenced by token, and
 * strict about everything that the SDK promises a sink.
 */
import { existsSync, readFileSync, renameSync, writeFileSync } from 'node:fs';
import { type RefusedRow, RefusedRows, TidemarkError } from '../../src/connector/failure.ts';
import type { Position } from '../../src/connector/position.ts';
import { tableName } from '../../src/connector/shape.ts';
import type { Held, MergeSink, MergeWindow, Receipt, Row, SinkKind } from '../../src/connector/sink.ts';

interface Contents {
  held: Record<string, { position: Position; sequence: number; fencingToken: string }>;
  /** Table to key (JSON) to row. */
  rows: Record<string, Record<string, Row>>;
  /** Table to keys (JSON) of rows that the source let go of. */
  retired: Record<string, string[]>;
  /** Table without a key to row (JSON) to number of copies. */
  copies: Record<string, Record<string, number>>;
  windows: { unit: string; sequence: number; from: string; to: string; alreadyHeld: boolean }[];
}

export class MemoryStore {
  contents: Contents = { held: {}, rows: {}, retired: {}, copies: {}, windows: [] };
  readonly #file: string | null;
  /** Throws instead of merging, while set. */
  refuse: TidemarkError | null = null;
  /** Rows that the destination does not take. */
  refuseRow: (table: string, row: Row) => boolean = () => false;
  /** Awaited in the middle of every merge. */
  duringMerge: (window: MergeWindow) => Promise<void> = async () => {};
  /** Rows are counted, not kept: for very large Windows. */
  countOnly = false;
  counted = 0;

  constructor(file: string | null = null) {
    this.#file = file;
    this.load();
  }

  load(): void {
    if (this.#file && existsSync(this.#file))
      this.contents = JSON.parse(readFileSync(this.#file, 'utf8')) as Contents;
  }

  commit(contents: Contents): void {
    this.contents = contents;
    if (!this.#file) return;
    writeFileSync(`${this.#file}.new`, JSON.stringify(contents));
    renameSync(`${this.#file}.new`, this.#file);
  }

  dump(): Record<string, string[]> {
    const result: Record<string, string[]> = {};
    for (const [table, rows] of Object.entries(this.contents.rows))
      result[table] = Object.values(rows)
        .map((row) => JSON.stringify(row))
        .sort();
    for (const [table, copies] of Object.entries(this.contents.copies))
      result[table] = Object.entries(copies)
        .flatMap(([image, count]) => new Array(count).fill(image) as string[])
        .sort();
    return result;
  }
}

/** @param store of the one destination, or of each: two that shared one would find the other's Windows in it */
export function memorySink(
  store: MemoryStore | ((destination: string) => MemoryStore),
  unit: SinkKind['unit'] = 'destination',
): SinkKind {
  const storeOf = typeof store === 'function' ? store : () => store;
  return {
    name: 'memory',
    unit,
    options: {},
    check: async () => [],
    open: async (context) => open(storeOf(context.destination), (name) => context.failpoint(name)),
  };
}

function open(store: MemoryStore, failpoint: (name: string) => Promise<void>): MergeSink {
  return {
    mode: 'merge',
    async held(unit): Promise<Held | null> {
      const held = store.contents.held[unit];
      return held ? { ...held, fencingToken: BigInt(held.fencingToken) } : null;
    },
    async mergeWindow(window): Promise<Receipt> {
      if (store.refuse) throw store.refuse;
      const held = store.contents.held[window.unit];
      if (held && BigInt(held.fencingToken) > window.fencingToken)
        throw new TidemarkError('TM403', 'fenced by a newer worker');
      // Other Units merge at the same time: what is theirs must not be put back.
      const next: Contents = { held: {}, rows: {}, retired: {}, copies: {}, windows: [] };
      const alreadyHeld = held !== undefined && held.sequence >= window.sequence;
      next.windows.push({
        unit: window.unit,
        sequence: window.sequence,
        from: window.from,
        to: window.to,
        alreadyHeld,
      });
      const rows = { upserted: 0, deleted: 0, appended: 0 };
      if (!alreadyHeld) {
        if ((held?.sequence ?? 0) + 1 !== window.sequence)
          throw new Error(`sequence ${window.sequence} after ${held?.sequence ?? 0}`);
        if (held && held.position > window.from) throw new Error('the Window overlaps what is held');
        for (const table of window.tables) await mergeTable(store, next, table, rows);
        next.held[window.unit] = {
          position: window.to,
          sequence: window.sequence,
          fencingToken: window.fencingToken.toString(),
        };
      }
      await store.duringMerge(window);
      await failpoint('mid-merge');
      // As a database would, in the same transaction as the commit.
      store.load();
      const now = store.contents.held[window.unit];
      if (now && BigInt(now.fencingToken) > window.fencingToken && !store.countOnly)
        throw new TidemarkError('TM403', 'fenced by a newer worker');
      store.commit({
        held: { ...store.contents.held, ...next.held },
        rows: { ...store.contents.rows, ...next.rows },
        retired: { ...store.contents.retired, ...next.retired },
        copies: { ...store.contents.copies, ...next.copies },
        windows: [...store.contents.windows, ...next.windows],
      });
      return {
        position: window.to,
        rows,
        bytes: 0,
        contentHash: '',
        commitId: `${window.sequence}`,
        alreadyHeld,
      };
    },
    async *readTable(shape) {
      yield Object.values(store.contents.rows[tableName(shape)] ?? {});
    },
    close: async () => {},
  };
}

async function mergeTable(
  store: MemoryStore,
  next: Contents,
  table: MergeWindow['tables'][number],
  totals: Receipt['rows'],
): Promise<void> {
  const name = tableName(table.shape);
  if (table.shape.keyColumns.length === 0) {
    const copies = table.truncated ? {} : { ...(next.copies[name] ?? store.contents.copies[name]) };
    next.copies[name] = copies;
    for await (const batch of table.counts()) {
      for (const { values, count } of batch) {
        const image = JSON.stringify(values);
        const sum = (copies[image] ?? 0) + count;
        if (sum < 0) throw new Error(`${name}: fewer than no copies`);
        if (sum === 0) delete copies[image];
        else copies[image] = sum;
      }
    }
    return;
  }
  // A table may come several times in a Window: what the part before left is merged into.
  const before = next.rows[name] ?? store.contents.rows[name] ?? {};
  const retired = new Set(next.retired[name] ?? store.contents.retired[name]);
  const base = table.truncated
    ? Object.fromEntries(Object.entries(before).filter(([key]) => retired.has(key)))
    : before;
  const width = table.shape.columns.length;
  const after: Record<string, Row> = store.countOnly
    ? base
    : Object.fromEntries(
        Object.entries(base).map(([key, row]) => [
          key,
          [...row, ...new Array<null>(Math.max(0, width - row.length)).fill(null)],
        ]),
      );
  const seen = new Set<string>();
  const refused: RefusedRow[] = [];
  for await (const batch of table.states()) {
    if (store.countOnly) {
      store.counted += batch.length;
      totals.upserted += batch.length;
      continue;
    }
    for (const state of batch) {
      const key = JSON.stringify(state.key);
      if (seen.has(key)) throw new Error(`${name}: a key came twice`);
      seen.add(key);
      if (state.op === 'delete') {
        delete after[key];
        retired.delete(key);
        totals.deleted++;
        continue;
      }
      if (state.op === 'retire') {
        if (!after[key]) throw new TidemarkError('TM407', 'a retired row is not here');
        retired.add(key);
        continue;
      }
      const fill = state.fillFrom && base[JSON.stringify(state.fillFrom)];
      if (state.values.includes(undefined) && !fill) throw new TidemarkError('TM407', 'nothing to fill from');
      const row = state.values.map((cell, i) => (cell === undefined ? fill![i]! : cell));
      if (store.refuseRow(name, row))
        refused.push({ table: table.shape, position: state.position, reason: 'not today' });
      after[key] = row;
      if (state.retired) retired.add(key);
      else retired.delete(key);
      totals.upserted++;
    }
  }
  if (refused.length > 0) throw new RefusedRows(refused);
  next.rows[name] = after;
  next.retired[name] = [...retired];
}
