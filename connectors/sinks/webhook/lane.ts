/**
 * Events of one lane, cut into batches in the order in which they come: one batch is under way while the next one
 * fills. Where a batch ends depends on nothing but the events before it, so every attempt cuts alike.
 */
import type { OutgoingEvent } from './event.ts';

export interface BatchLimits {
  maxEvents: number;
  /** Of the body; a larger event makes a batch of its own. */
  maxBytes: number;
}

export class Lane {
  readonly #limits: BatchLimits;
  readonly #deliver: (events: OutgoingEvent[]) => Promise<void>;
  #filling: OutgoingEvent[] = [];
  #bytes = 1;
  #flight: Promise<void> = Promise.resolve();

  /** @param deliver resolves when the events are settled; called for one batch at a time */
  constructor(limits: BatchLimits, deliver: (events: OutgoingEvent[]) => Promise<void>) {
    this.#limits = limits;
    this.#deliver = deliver;
  }

  /** Waits while a batch is under way and another one is full. @throws what delivering threw */
  async add(event: OutgoingEvent): Promise<void> {
    const { maxEvents, maxBytes } = this.#limits;
    if (this.#filling.length > 0 && this.#bytes + event.bytes + 1 > maxBytes) await this.#flush();
    this.#filling.push(event);
    this.#bytes += event.bytes + 1;
    if (this.#filling.length >= maxEvents) await this.#flush();
  }

  /** Delivers what is left. @throws what delivering threw */
  async finish(): Promise<void> {
    if (this.#filling.length > 0) await this.#flush();
    await this.#flight;
  }

  /** Resolves when nothing is under way any more, however it ended. */
  async ended(): Promise<void> {
    await this.#flight.catch(() => undefined);
  }

  async #flush(): Promise<void> {
    await this.#flight;
    const batch = this.#filling;
    this.#filling = [];
    this.#bytes = 1;
    this.#flight = this.#deliver(batch);
    // Whoever waits next learns of it; until then it is not unhandled.
    this.#flight.catch(() => undefined);
  }
}

/** The same lane for the same key, always. FNV-1a over UTF-16 units. */
export function laneOf(key: string, lanes: number): number {
  if (lanes === 1 || key === '') return 0;
  let hash = 0x811c9dc5;
  for (let index = 0; index < key.length; index += 1) {
    hash = Math.imul(hash ^ key.charCodeAt(index), 0x01000193);
  }
  return (hash >>> 0) % lanes;
}
