/**
 * From commit to readable, per destination, and percentiles over transactions.
 *
 * A transaction is readable in a destination from the moment at which every Unit's high-water mark has passed its
 * Position, which is when the Receipt of the Window that holds it is in the ledger; a destination whose tables are
 * Units of their own counts as readable up to its slowest table. Position and commit time are the source's own, from
 * the WAL. Every Progress names the newest commit that it covers: where it covers several, the others are taken to have
 * committed evenly between the Progress before and this one (milliseconds apart under load). So every Window weighs
 * as much as the transactions in it, and each of them counts with its own age, not with that of the newest.
 */
import type { Position } from '../connector/position.ts';

interface Point {
  position: Position;
  /** Milliseconds since 1970. */
  firstMs: number;
  lastMs: number;
  transactions: number;
}

/** Transactions that wait longer than this are kept with less detail: a destination may be down for hours. */
const mostPoints = 20_000;

export class CommitLatency {
  #waiting: Point[] = [];
  #from = 0;
  #histogram = new Histogram();
  #before = new Histogram();
  #lastMs: number | null = null;

  /** So many transactions more are in Kafka, the newest of them with this Position and commit time. */
  published(position: Position, commitMs: number, transactions: number): void {
    const before = this.#lastMs ?? commitMs;
    this.#lastMs = Math.max(before, commitMs);
    if (transactions <= 0) return;
    this.#waiting.push({ position, firstMs: before, lastMs: this.#lastMs, transactions });
    if (this.#waiting.length - this.#from > mostPoints) this.#thin();
  }

  /** Everything up to `mark` is readable since `atMs`. */
  readable(mark: Position, atMs: number): void {
    while (this.#from < this.#waiting.length && this.#waiting[this.#from]!.position <= mark) {
      const { firstMs, lastMs, transactions } = this.#waiting[this.#from++]!;
      const steps = Math.min(transactions, 100);
      for (let i = 1; i <= steps; i++) {
        const commitMs = firstMs + ((lastMs - firstMs) * i) / steps;
        this.#histogram.add(Math.max(0, atMs - commitMs), transactions / steps);
      }
    }
    if (this.#from > 1000) {
      this.#waiting = this.#waiting.slice(this.#from);
      this.#from = 0;
    }
  }

  /** Forgets what was measured before the last call of this; two calls in a row forget everything but what waits. */
  turn(): void {
    this.#before = this.#histogram;
    this.#histogram = new Histogram();
  }

  /** Milliseconds, or null where nothing was measured. */
  percentile(fraction: number): number | null {
    return Histogram.joined(this.#before, this.#histogram).percentile(fraction);
  }

  /** Joins neighbours in pairs; the joined ones become readable with the later of both. */
  #thin(): void {
    const thinner: Point[] = [];
    for (let i = this.#from; i < this.#waiting.length; i += 2) {
      const first = this.#waiting[i]!;
      const second = this.#waiting[i + 1];
      thinner.push(
        second
          ? { ...second, firstMs: first.firstMs, transactions: first.transactions + second.transactions }
          : first,
      );
    }
    this.#waiting = thinner;
    this.#from = 0;
  }
}

/** Each bucket ends one per cent above the one before, so that days of samples fit into a few hundred numbers. */
const step = Math.log(1.01);

/** Weighted samples in milliseconds. */
export class Histogram {
  readonly #buckets = new Map<number, number>();
  #total = 0;
  #highest = 0;

  static joined(...parts: readonly Histogram[]): Histogram {
    const whole = new Histogram();
    for (const part of parts) {
      for (const [bucket, weight] of part.#buckets) whole.#count(bucket, weight);
      whole.#highest = Math.max(whole.#highest, part.#highest);
    }
    return whole;
  }

  add(milliseconds: number, weight = 1): void {
    this.#count(Math.ceil(Math.log(Math.max(milliseconds, 0.1)) / step), weight);
    this.#highest = Math.max(this.#highest, milliseconds);
  }

  #count(bucket: number, weight: number): void {
    this.#buckets.set(bucket, (this.#buckets.get(bucket) ?? 0) + weight);
    this.#total += weight;
  }

  /** Nearest rank, at most one per cent too high and never too low; null without a sample. */
  percentile(fraction: number): number | null {
    if (this.#total === 0) return null;
    let seen = 0;
    for (const bucket of [...this.#buckets.keys()].sort((a, b) => a - b)) {
      seen += this.#buckets.get(bucket)!;
      // Weights are sums of fractions, so a rank may be missed by a rounding error.
      if (seen >= fraction * this.#total - 1e-6) return Math.min(Math.exp(bucket * step), this.#highest);
    }
    return this.#highest;
  }
}
