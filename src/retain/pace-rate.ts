/** How many rows a second may go, by what the source was like over the last second. */

/** What the source was like over about a second. */
export interface PaceSample {
  /** Transactions a second of the database that were not ours. */
  others: number;
  /** How long the slow ones of our small transactions took; null: there were none. */
  slowMs: number | null;
}

/** Fewer of others' transactions a second: nobody is there that could be disturbed. Reader and delivery have a few. */
export const nobody = 30;
/** By how much small transactions may take longer while rows go: beyond `most` fewer go, below `fine` more. */
const slower = { most: 1.25, fine: 1.1 };
/** What no application feels, where transactions take next to nothing. */
const unfeltMs = 0.2;
const change = { back: 0.6, forth: 1.25, alone: 2 };
const rates = { first: 1000, least: 20 };
const restsKept = 3;

export class PaceRate {
  /** Rows a second. */
  current = rates.first;
  /** How long small transactions take while nothing goes: the last looks at that. */
  #rests: number[] = [];
  /** The same while rows go, evened out. */
  #going: number | null = null;

  get knowsRest(): boolean {
    return this.#rests.length > 0;
  }

  atRest({ slowMs }: PaceSample): void {
    if (slowMs !== null) this.#rests = [...this.#rests, slowMs].slice(-restsKept);
  }

  /** @param most that the policy allows */
  whileGoing({ others, slowMs }: PaceSample, most: number): void {
    const factor = others < nobody ? this.#alone() : this.#beside(slowMs);
    this.current = Math.max(rates.least, Math.min(Math.max(most, rates.least), this.current * factor));
  }

  #alone(): number {
    this.#rests = [];
    this.#going = null;
    return change.alone;
  }

  #beside(slowMs: number | null): number {
    if (slowMs === null || !this.knowsRest) return 1;
    this.#going = this.#going === null ? slowMs : (this.#going + slowMs) / 2;
    const rest = this.#rests.toSorted((a, b) => a - b)[this.#rests.length >> 1]!;
    if (this.#going > slower.most * rest + unfeltMs) return change.back;
    return this.#going < slower.fine * rest + unfeltMs ? change.forth : 1;
  }
}
