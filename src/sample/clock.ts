/** The application's clock, in whole microseconds since 1970 (exact in a double until the year 2255). */
import type { Prng } from './prng.ts';

export const microsPerSecond = 1_000_000;
export const microsPerDay = 86_400 * microsPerSecond;

/** Where the virtual clock starts unless told otherwise. */
export const defaultStart = new Date('2026-01-05T08:00:00Z');

export class SampleClock {
  readonly #prng: Prng;
  readonly #wall: (() => number) | undefined;
  readonly #meanStep: number;
  #now: number;

  /**
   * With `wall` (milliseconds since 1970) the clock follows it; without, time is virtual: it starts at `start` and
   * every tick moves it on by a random step of `meanStep` microseconds on average.
   */
  constructor(prng: Prng, options: { start?: Date; wall?: () => number; meanStep?: number } = {}) {
    this.#prng = prng;
    this.#wall = options.wall;
    this.#meanStep = options.meanStep ?? microsPerSecond / 4;
    this.#now = (options.wall?.() ?? (options.start ?? defaultStart).getTime()) * 1000;
  }

  get now(): number {
    return this.#now;
  }

  /** Moves on, always by at least a microsecond, and returns the new time. */
  tick(): number {
    const next =
      this.#wall === undefined
        ? this.#now + Math.round(this.#prng.exponential(this.#meanStep))
        : this.#wall() * 1000 + this.#prng.integer(0, 999);
    this.#now = Math.max(this.#now + 1, Math.floor(next));
    return this.#now;
  }
}

/** ISO 8601 in UTC with six decimals, as Postgres reads it. */
export function timestamp(micros: number): string {
  const fraction = ((micros % microsPerSecond) + microsPerSecond) % microsPerSecond;
  const seconds = new Date((micros - fraction) / 1000).toISOString().slice(0, 19);
  return `${seconds}.${String(fraction).padStart(6, '0')}Z`;
}

/** The UTC day, YYYY-MM-DD. */
export function day(micros: number): string {
  return new Date(Math.floor(micros / 1000)).toISOString().slice(0, 10);
}
