/**
 * The sample's only source of randomness, so that a seed replays a run. Small and fast, not for secrets: four 32-bit
 * words of state in the manner of "small fast counting" generators, filled from the seed by a 32-bit mixer.
 */
export class Prng {
  #a: number;
  #b: number;
  #c: number;
  #counter = 1;

  /** Equal seeds give equal streams. A text seed names a stream: `${seed}/worker-3`. */
  constructor(seed: number | string) {
    const text = String(seed);
    let state = 0x811c9dc5;
    for (let i = 0; i < text.length; i++) state = Math.imul(state ^ text.charCodeAt(i), 0x01000193);
    const next = () => {
      state = (state + 0x9e3779b9) | 0;
      return mix(state);
    };
    this.#a = next();
    this.#b = next();
    this.#c = next();
    // Neighbouring seeds differ in few bits; the first outputs are thrown away until they have spread.
    for (let i = 0; i < 12; i++) this.uint32();
  }

  uint32(): number {
    const sum = (this.#a + this.#b + this.#counter) | 0;
    this.#counter = (this.#counter + 1) | 0;
    this.#a = this.#b ^ (this.#b >>> 9);
    this.#b = (this.#c + (this.#c << 3)) | 0;
    this.#c = (((this.#c << 21) | (this.#c >>> 11)) + sum) | 0;
    return sum >>> 0;
  }

  /** Uniform in [0, 1), with 53 random bits. */
  unit(): number {
    return ((this.uint32() >>> 5) * 0x4000000 + (this.uint32() >>> 6)) / 0x20000000000000;
  }

  /** Uniform whole number, both ends included. */
  integer(low: number, high: number): number {
    return low + Math.floor(this.unit() * (high - low + 1));
  }

  chance(probability: number): boolean {
    return this.uint32() < probability * 0x100000000;
  }

  pick<T>(list: readonly T[]): T {
    return list[this.integer(0, list.length - 1)]!;
  }

  /** Up to `count` different elements, in their order in the list. */
  some<T>(list: readonly T[], count: number): T[] {
    const left = [...list];
    while (left.length > count) left.splice(this.integer(0, left.length - 1), 1);
    return left;
  }

  /** Mean of the exponential distribution it draws from: waiting times. */
  exponential(mean: number): number {
    return -mean * Math.log(1 - this.unit());
  }

  /** Skewed towards small values with a long tail: durations of human work. Median e^mu. */
  logNormal(mu: number, sigma: number): number {
    const radius = Math.sqrt(-2 * Math.log(1 - this.unit()));
    return Math.exp(mu + sigma * radius * Math.cos(2 * Math.PI * this.unit()));
  }

  bytes(length: number): Buffer {
    const buffer = Buffer.allocUnsafe(length);
    let at = 0;
    for (; at + 4 <= length; at += 4) buffer.writeUInt32LE(this.uint32(), at);
    for (; at < length; at++) buffer[at] = this.uint32() >>> 24;
    return buffer;
  }

  /** A version 4 UUID whose bits come from this stream. */
  uuid(): string {
    const hex = this.bytes(16).toString('hex');
    const variant = '89ab'[this.uint32() & 3]!;
    return `${hex.slice(0, 8)}-${hex.slice(8, 12)}-4${hex.slice(13, 16)}-${variant}${hex.slice(17, 20)}-${hex.slice(20)}`;
  }
}

function mix(value: number): number {
  let mixed = value;
  mixed = Math.imul(mixed ^ (mixed >>> 16), 0x21f0aaad);
  mixed = Math.imul(mixed ^ (mixed >>> 15), 0x735a2d97);
  return (mixed ^ (mixed >>> 15)) >>> 0;
}

/** Draws whole numbers 0 … weights.length − 1 in proportion to the weights (none negative, at least one positive). */
export class Weighted {
  readonly #limits: number[] = [];
  readonly #total: number;

  constructor(weights: readonly number[]) {
    let sum = 0;
    for (const weight of weights) {
      sum += weight;
      this.#limits.push(sum);
    }
    this.#total = sum;
  }

  draw(prng: Prng): number {
    const mark = prng.unit() * this.#total;
    let low = 0;
    let high = this.#limits.length - 1;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (this.#limits[middle]! > mark) high = middle;
      else low = middle + 1;
    }
    return low;
  }
}

/** A few large and many small: the n-th of `count` gets weight 1 / n. */
export function skewed(count: number): Weighted {
  return new Weighted(Array.from({ length: count }, (_, index) => 1 / (index + 1)));
}
