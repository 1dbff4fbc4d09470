/**
 * From commit to readable, per destination. Every transaction of the workload is noted when its COMMIT returned; it
 * counts as readable in a destination when the high-water mark of every Unit has passed that moment. The client's
 * clock is the server's (one machine), and a mark's time is the newest commit it covers, so a transaction is never
 * counted too early; it may be counted late by the interval at which marks are looked at.
 */
export class CommitLatency {
  /** Commit times that are not yet readable, milliseconds since 1970, ascending. */
  #waiting: number[] = [];
  #from = 0;
  #samples: number[] = [];

  committed(atMs: number): void {
    this.#waiting.push(atMs);
  }

  /** Everything that committed up to `markMs` is readable at `nowMs`. */
  readable(markMs: number, nowMs: number): void {
    while (this.#from < this.#waiting.length && this.#waiting[this.#from]! <= markMs) {
      this.#samples.push(nowMs - this.#waiting[this.#from]!);
      this.#from++;
    }
    if (this.#from > 10000) {
      this.#waiting = this.#waiting.slice(this.#from);
      this.#from = 0;
    }
    // An endless demo keeps the newest.
    if (this.#samples.length > 50000) this.#samples = this.#samples.slice(-20000);
  }

  /** Milliseconds, or null without a sample. */
  percentile(fraction: number): number | null {
    return percentile(this.#samples, fraction);
  }
}

/** Nearest-rank percentile. */
export function percentile(samples: readonly number[], fraction: number): number | null {
  if (samples.length === 0) return null;
  const sorted = [...samples].sort((a, b) => a - b);
  return sorted[Math.max(0, Math.ceil(fraction * sorted.length) - 1)]!;
}
