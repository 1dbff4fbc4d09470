/** Where somebody reads a partition: what was fetched waits here until it is taken, one batch beside the one in work. */
import type { FetchedRecord } from '../../platform/kafka-fetch/record-set.ts';

export interface CursorOwner {
  /**
   * Records in order; none where only markers or aborted ones were there. False: not taken, and the reading ends. Must not throw.
   * @param records some may lie before `from`: they are not meant
   * @param end offset after the last of them
   */
  take(records: Iterable<FetchedRecord>, from: number, end: number): Promise<boolean>;
  /** The log begins later or ends earlier than `expected`: the reading has ended. */
  displaced(expected: number): void;
}

/** A reading under way. */
export interface Reading {
  /** Offset of the next record, behind those that were taken; null: it has ended. */
  readonly position: number | null;
  /** Stops or goes on fetching, for back-pressure. */
  setPaused(paused: boolean): void;
  close(): void;
}

/** Of one answer. */
export interface FetchedBatch {
  /** Some may lie before what is wanted here. */
  records: Iterable<FetchedRecord>;
  /** Offset after the last of them. */
  end: number;
  /** To be called when they are not needed any more. */
  done(): void;
}

/** More than this many batches do not wait. */
const mostWaiting = 1;

export class Cursor implements Reading {
  /** Behind what was fetched. */
  fetched: number;
  #taken: number;
  readonly #owner: CursorOwner;
  readonly #changed: () => void;
  #waiting: (FetchedBatch & { from: number })[] = [];
  #taking = false;
  #paused = false;
  #closed = false;

  /** @param changed it may be hungry now, or has ended */
  constructor(offset: number, owner: CursorOwner, changed: () => void) {
    this.fetched = offset;
    this.#taken = offset;
    this.#owner = owner;
    this.#changed = changed;
  }

  get position(): number | null {
    return this.#closed ? null : this.#taken;
  }

  get closed(): boolean {
    return this.#closed;
  }

  get hungry(): boolean {
    return !this.#closed && !this.#paused && this.#waiting.length < mostWaiting;
  }

  setPaused(paused: boolean): void {
    if (this.#paused === paused) return;
    this.#paused = paused;
    if (!paused) this.#changed();
  }

  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    for (const { done } of this.#waiting) done();
    this.#waiting = [];
    this.#changed();
  }

  displaced(): void {
    if (this.#closed) return;
    const expected = this.#taken;
    this.close();
    this.#owner.displaced(expected);
  }

  push({ records, end, done }: FetchedBatch): void {
    this.#waiting.push({ records, from: this.fetched, end, done });
    this.fetched = end;
    if (!this.#taking) void this.#take();
  }

  async #take(): Promise<void> {
    this.#taking = true;
    for (let next = this.#waiting.shift(); next; next = this.#waiting.shift()) {
      this.#changed();
      const { records, from, end, done } = next;
      const taken = await this.#owner.take(records, from, end).finally(done);
      if (this.#closed) break;
      if (!taken) {
        this.close();
        break;
      }
      this.#taken = end;
    }
    this.#taking = false;
  }
}
