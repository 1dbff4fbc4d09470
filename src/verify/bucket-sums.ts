/**
 * One side's rows of a table as 1024 buckets, each a count and the 128-bit sum of its rows' digests: 24 KiB whatever
 * the table's size. A row's bucket follows from its key, so a row that differs makes exactly its own bucket differ.
 */
import type { Row } from '../connector/sink.ts';
import { cellsText, digest, digestLane, type RowLayout, rowPlace } from './row-digest.ts';

export const bucketCount = 1024;
const bucketMask = bucketCount - 1;

export function bucketOf(place: number): number {
  return place & bucketMask;
}

export class BucketSums {
  readonly #layout: RowLayout;
  readonly #counts = new Float64Array(bucketCount);
  /** Four lanes of 32 bits per bucket, the most significant first. */
  readonly #lanes = new Uint32Array(bucketCount * 4);
  #rows = 0;

  constructor(layout: RowLayout) {
    this.#layout = layout;
  }

  add(row: Row): void {
    const whole = digest(cellsText(row, this.#layout.all));
    const bucket = bucketOf(rowPlace(row, this.#layout, whole));
    this.#rows++;
    this.#counts[bucket]!++;
    let carry = 0;
    for (let lane = 3; lane >= 0; lane--) {
      const at = bucket * 4 + lane;
      const sum = this.#lanes[at]! + digestLane(whole, lane) + carry;
      this.#lanes[at] = sum;
      carry = sum > 0xffffffff ? 1 : 0;
    }
  }

  get rows(): number {
    return this.#rows;
  }

  rowsIn(bucket: number): number {
    return this.#counts[bucket]!;
  }

  /** RowHash over all rows: the sum of the buckets modulo 2^128, 32 hexadecimal digits. */
  get hex(): string {
    let total = 0n;
    for (let at = 0; at < this.#lanes.length; at += 4) {
      let sum = 0n;
      for (let lane = 0; lane < 4; lane++) sum = (sum << 32n) | BigInt(this.#lanes[at + lane]!);
      total += sum;
    }
    return (total & ((1n << 128n) - 1n)).toString(16).padStart(32, '0');
  }

  /** The buckets in which the two sides do not hold the same multiset of rows. */
  differing(other: BucketSums): number[] {
    const found: number[] = [];
    for (let bucket = 0; bucket < bucketCount; bucket++) {
      let same = this.#counts[bucket] === other.#counts[bucket];
      for (let at = bucket * 4; same && at < bucket * 4 + 4; at++)
        same = this.#lanes[at] === other.#lanes[at];
      if (!same) found.push(bucket);
    }
    return found;
  }
}
