/** Rows that a recall could not bring back so far, each with its reason; another destination may have it yet. */
import { createHash } from 'node:crypto';
import type { TableShape } from '../connector/shape.ts';
import type { Row } from '../connector/sink.ts';
import { TidemarkError } from '../platform/errors.ts';
import type { ColumnsDiffer } from './row-columns.ts';

export interface Refusal {
  /** As row_key of the Tombstone. */
  key: string;
  reason: string;
  destination: string | null;
  /** Where the destination has another row: both by the names of their columns. */
  columns?: ColumnsDiffer;
  /** Columns in which it differs from the row that another destination has. */
  differing?: string[];
}

/** With more of them something is wrong with all of it. */
const mostRefusals = 100_000;
/** Of so many, what a destination has in each column is kept, as a digest. */
const mostCompared = 1000;
const shown = 100;

export class Refusals {
  readonly #byKey = new Map<string, Refusal>();
  readonly #digests = new Map<string, Map<string, string>>();
  #untold: { reason: string; rows: number } | null = null;

  /** Rows with a Tombstone that is open. */
  get atDestinations(): number {
    let rows = 0;
    for (const { destination } of this.#byKey.values()) if (destination !== null) rows++;
    return rows;
  }

  /** @throws TidemarkError TM508 */
  add(refusal: Refusal): void {
    this.#byKey.set(refusal.key, refusal);
    if (this.#byKey.size <= mostRefusals) return;
    throw new TidemarkError(
      'TM508',
      `the recall stops: ${mostRefusals} rows were refused, the last one because ${refusal.reason}`,
    );
  }

  addDiffering(key: string, destination: string, columns: ColumnsDiffer, shape: TableShape, row: Row): void {
    const lacks = columns.missing.length > 0;
    const reason = lacks
      ? `${destination} does not have all of its columns any more`
      : `${destination} does not hand it back as it was`;
    if (!this.#byKey.has(key)) this.add({ key, reason, destination, columns });
    if (this.#digests.size < mostCompared && !this.#digests.has(key))
      this.#digests.set(key, digestsOf(shape, row));
  }

  /** @returns which destination had it otherwise, and in which columns; null: none, or it is not known any more */
  differing(key: string, shape: TableShape, row: Row): Pick<Refusal, 'destination' | 'differing'> | null {
    const before = this.#digests.get(key);
    if (!before) return null;
    const now = digestsOf(shape, row);
    const differing = [...new Set([...before.keys(), ...now.keys()])].filter(
      (name) => before.get(name) !== now.get(name),
    );
    return { destination: this.#byKey.get(key)?.destination ?? null, differing };
  }

  /** It came back after all. */
  remove(key: string): void {
    this.#byKey.delete(key);
    this.#digests.delete(key);
  }

  addUntold(keys: readonly string[], rows: number, reason: string): void {
    this.#untold = { reason, rows };
    for (const key of keys) {
      if (rows === 0 || this.#byKey.size >= shown) break;
      if (this.#byKey.has(key)) continue;
      this.#byKey.set(key, { key, reason, destination: null });
      this.#untold.rows--;
      rows--;
    }
  }

  summary(): { refused: Record<string, number>; refusals: Refusal[] } {
    const refused: Record<string, number> = {};
    for (const { reason } of this.#byKey.values()) refused[reason] = (refused[reason] ?? 0) + 1;
    if (this.#untold && this.#untold.rows > 0)
      refused[this.#untold.reason] = (refused[this.#untold.reason] ?? 0) + this.#untold.rows;
    return { refused, refusals: [...this.#byKey.values()].slice(0, shown) };
  }
}

function digestsOf(shape: TableShape, row: Row): Map<string, string> {
  return new Map(
    shape.columns.map(({ name }, i) => {
      const cell = row[i] ?? null;
      return [name, cell === null ? '' : createHash('sha256').update(cell).digest('base64')];
    }),
  );
}
