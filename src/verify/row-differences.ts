/**
 * Which rows differ: the second pass, over the buckets that differ. The source's rows are remembered as digests (about
 * 200 bytes each, whatever a row's size), the destination's are ticked off against them.
 */
import type { Row } from '../connector/sink.ts';
import { type BucketSums, bucketCount, bucketOf } from './bucket-sums.ts';
import type { KeyDifference } from './report.ts';
import { cellsText, digest, type RowLayout, rowPlace } from './row-digest.ts';

/** Longer cells of a table without a key are cut in the report. */
const shownCellLength = 200;

/** The rows that one pass can remember. */
export interface Selection {
  buckets: Uint8Array;
  /** Of these buckets one row in `every`, by another part of the key's hash. */
  every: number;
  /** True where every differing bucket is covered. */
  whole: boolean;
}

/** @param memoryRows how many of the source's rows may be remembered */
export function selectRows(source: BucketSums, differing: readonly number[], memoryRows: number): Selection {
  const buckets = new Uint8Array(bucketCount);
  let rows = 0;
  let taken = 0;
  for (const bucket of differing) {
    if (taken > 0 && rows + source.rowsIn(bucket) > memoryRows) break;
    buckets[bucket] = 1;
    rows += source.rowsIn(bucket);
    taken++;
  }
  const every = Math.max(1, Math.ceil(rows / memoryRows));
  return { buckets, every, whole: every === 1 && taken === differing.length };
}

interface Remembered {
  /** Digest of the whole row. */
  whole: string;
  count: number;
}

interface Shown {
  difference: KeyDifference;
  /** Digests of the destination's cells, where columns are still to be compared. */
  cells: (string | null)[] | null;
}

export class RowDifferences {
  readonly #layout: RowLayout;
  readonly #names: readonly string[];
  readonly #selection: Selection;
  readonly #limit: number;
  readonly #rows = new Map<string, Remembered>();
  readonly #extraShown = new Map<string, Shown>();
  readonly #differentShown = new Map<string, Shown>();
  missing = 0;
  extra = 0;
  different = 0;

  /** @param names of the shape's columns @param limit differences to show */
  constructor(layout: RowLayout, names: readonly string[], selection: Selection, limit: number) {
    this.#layout = layout;
    this.#names = names;
    this.#selection = selection;
    this.#limit = limit;
  }

  /** First all rows of the source, … */
  addSource(row: Row): void {
    const found = this.#identify(row);
    if (!found) return;
    const known = this.#rows.get(found.identity);
    if (known) known.count++;
    else this.#rows.set(found.identity, { whole: found.whole, count: 1 });
    this.missing++;
  }

  /** … then all of the destination. */
  addDestination(row: Row): void {
    const found = this.#identify(row);
    if (!found) return;
    const { identity, whole } = found;
    const known = this.#rows.get(identity);
    if (!known) {
      this.extra++;
      this.#show(this.#extraShown, identity, 'extra', row, false);
      return;
    }
    this.missing--;
    if (known.whole !== whole) {
      this.different++;
      this.#show(this.#differentShown, identity, 'different', row, true);
    }
    if (--known.count === 0) this.#rows.delete(identity);
  }

  /** The source's rows that a third pass has to look for. Call it once, after both sides. */
  startKeys(): KeySearch {
    const missing = new Map<string, Shown>();
    for (const [identity, { count }] of this.#rows) {
      if (missing.size >= this.#limit) break;
      missing.set(identity, { difference: difference('missing', {}, count), cells: null });
    }
    this.#rows.clear();
    const chosen = takeInTurns([missing, this.#extraShown, this.#differentShown], this.#limit);
    return new KeySearch(this.#layout, this.#names, chosen);
  }

  #identify(row: Row): { identity: string; whole: string } | null {
    const { all, key } = this.#layout;
    // Of most rows nothing but the bucket is needed, which for a table with a key costs no digest.
    const early = key.length === 0 ? digest(cellsText(row, all)) : '';
    const place = rowPlace(row, this.#layout, early);
    if (this.#selection.buckets[bucketOf(place)] === 0) return null;
    if ((place >>> 10) % this.#selection.every !== 0) return null;
    const whole = early || digest(cellsText(row, all));
    return { identity: identityOf(row, this.#layout, whole), whole };
  }

  #show(
    shown: Map<string, Shown>,
    identity: string,
    kind: KeyDifference['kind'],
    row: Row,
    withCells: boolean,
  ): void {
    const known = shown.get(identity);
    if (known) known.difference.count++;
    else if (shown.size < this.#limit) {
      shown.set(identity, {
        difference: difference(kind, keyOf(row, this.#layout, this.#names), 1),
        cells: withCells ? row.map((cell) => (cell === null ? null : digest(cell))) : null,
      });
    }
  }
}

/** The third pass, over the source: keys of missing rows and names of differing columns. */
export class KeySearch {
  readonly #layout: RowLayout;
  readonly #names: readonly string[];
  readonly #wanted: Map<string, Shown>;
  readonly #shown: Shown[];

  constructor(layout: RowLayout, names: readonly string[], chosen: [string, Shown][]) {
    this.#layout = layout;
    this.#names = names;
    this.#shown = chosen.map(([, shown]) => shown);
    this.#wanted = new Map(chosen.filter(([, { difference }]) => difference.kind !== 'extra'));
  }

  /** False: no pass is needed. */
  get open(): boolean {
    return this.#wanted.size > 0;
  }

  addSource(row: Row): void {
    const whole = this.#layout.key.length === 0 ? digest(cellsText(row, this.#layout.all)) : '';
    const shown = this.#wanted.get(identityOf(row, this.#layout, whole));
    if (!shown) return;
    shown.difference.key = keyOf(row, this.#layout, this.#names);
    if (!shown.cells) return;
    const cells = shown.cells;
    shown.difference.columns = this.#layout.all
      .filter((i) => (row[i] === null ? null : digest(row[i]!)) !== cells[i])
      .map((i) => this.#names[i]!);
  }

  get keys(): KeyDifference[] {
    return this.#shown.map(({ difference }) => difference);
  }
}

function identityOf(row: Row, { key }: RowLayout, whole: string): string {
  return key.length === 0 ? whole : digest(cellsText(row, key));
}

function difference(kind: KeyDifference['kind'], key: KeyDifference['key'], count: number): KeyDifference {
  return { kind, key, columns: [], count };
}

function keyOf(row: Row, { all, key }: RowLayout, names: readonly string[]): Record<string, string | null> {
  if (key.length > 0) return Object.fromEntries(key.map((i) => [names[i]!, row[i]!]));
  return Object.fromEntries(
    all.map((i) => {
      const cell = row[i]!;
      return [names[i]!, cell && cell.length > shownCellLength ? `${cell.slice(0, shownCellLength)}…` : cell];
    }),
  );
}

/** So that a thousand missing rows do not hide the one that differs. */
function takeInTurns(lists: Map<string, Shown>[], limit: number): [string, Shown][] {
  const queues = lists.map((list) => [...list]);
  const counts = queues.map(() => 0);
  for (let left = limit, before = -1; left > 0 && left !== before; ) {
    before = left;
    queues.forEach((queue, i) => {
      if (left > 0 && counts[i]! < queue.length) {
        counts[i]!++;
        left--;
      }
    });
  }
  return queues.flatMap((queue, i) => queue.slice(0, counts[i]));
}
