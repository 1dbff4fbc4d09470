/**
 * How far a Window has come that failed on the way, for as long as this process lives: a retry goes on behind what was
 * acknowledged. After a crash nothing is known, and the Window is sent again whole.
 */
import type { AppendWindow } from '../../../src/connector/sink.ts';

export class WindowProgress {
  /** Bytes of the requests that were acknowledged. */
  bytes = 0;
  /** Places of refused events: their lane went on behind them, yet nobody acknowledged them. */
  readonly #refused = new Set<string>();
  readonly #window: Pick<AppendWindow, 'sequence' | 'from' | 'to'>;
  readonly #settled: string[];

  constructor({ sequence, from, to }: AppendWindow, lanes: number) {
    this.#window = { sequence, from, to };
    this.#settled = new Array(lanes).fill('');
  }

  isOf({ sequence, from, to }: AppendWindow): boolean {
    const ours = this.#window;
    return ours.sequence === sequence && ours.from === from && ours.to === to;
  }

  /** Acknowledged, and with them everything before them in the lane that was not refused. */
  accept(lane: number, places: readonly string[]): void {
    if (this.#refused.size > 0) for (const place of places) this.#refused.delete(place);
    this.#settle(lane, places.at(-1)!);
  }

  refuse(lane: number, place: string): void {
    this.#refused.add(place);
    this.#settle(lane, place);
  }

  /** A refused event that comes again was not put away, so it is tried again, before what follows it. */
  hasSettled(lane: number, place: string): boolean {
    return place <= this.#settled[lane]! && !this.#refused.has(place);
  }

  /** A refused event that is tried again lies behind what was settled since. */
  #settle(lane: number, place: string): void {
    if (place > this.#settled[lane]!) this.#settled[lane] = place;
  }
}
