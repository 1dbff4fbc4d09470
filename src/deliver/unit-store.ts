/**
 * A Unit's part of the window store. Rows wait in memory as long as there is room and nobody needs SQL over them;
 * then all of them are spilled, and so is what comes after them, until the mark has passed all of it.
 */
import type { DuckDBConnection } from '@duckdb/node-api';
import type { Position } from '../connector/position.ts';
import { HeldRows } from './held-rows.ts';
import type { SpilledRows } from './spilled-rows.ts';
import type { IncomingChange, Range, StoredChange, TopicContent, WithheldKey } from './stored-change.ts';

export interface StoreAccess {
  connect(): Promise<DuckDBConnection>;
  /** Where value files go. */
  directory: string;
  /** @throws TidemarkError TM406 */
  checkRoom(bytes: number): void;
  /** Whether that much more may be held in memory. */
  mayHold(bytes: number): boolean;
}

/** Objects of so many records live at a time: more of them would outlive the nursery. */
const heldAtATime = 500;
/** What is spilled is flushed each time, which costs the same for many. */
const spilledAtATime = 5000;

export class UnitStore {
  readonly #name: string;
  readonly #access: StoreAccess;
  readonly #held = new HeldRows();
  #spilled: SpilledRows | null = null;
  #bytesPerRow = 500;
  #last: Promise<unknown> = Promise.resolve();

  constructor(name: string, access: StoreAccess) {
    this.#name = name;
    this.#access = access;
  }

  /** Of values, keys and rows. */
  get bytes(): number {
    return this.#held.bytes + (this.#spilled?.bytes ?? 0);
  }

  /** What a row takes, as seen lately. */
  get bytesPerRow(): number {
    return this.#bytesPerRow;
  }

  /** Rows that are best appended together. */
  get rowsAtATime(): number {
    return this.#reading ? spilledAtATime : heldAtATime;
  }

  /** What comes now may wait in memory: nothing that it would go after is spilled. */
  get inMemory(): boolean {
    return this.#reading === null;
  }

  /** Of what is in memory. */
  get heldBytes(): number {
    return this.#held.bytes;
  }

  /** All Changes or none. @throws TidemarkError TM406 when the store or its disk is full */
  async append(changes: readonly IncomingChange[]): Promise<void> {
    if (changes.length > 0) await this.#append(changes, true);
  }

  /** All Changes or none, in memory. @returns whether there was room, and `inMemory` */
  async appendInMemory(changes: readonly IncomingChange[]): Promise<boolean> {
    return changes.length === 0 || this.#append(changes, false);
  }

  #append(changes: readonly IncomingChange[], spills: boolean): Promise<boolean> {
    return this.#alone(async () => {
      const bytes = HeldRows.bytesOf(changes);
      this.#bytesPerRow += (bytes / changes.length - this.#bytesPerRow) * 0.2;
      if (!this.#reading && this.#access.mayHold(bytes)) {
        this.#held.append(changes);
        return true;
      }
      if (!spills) return false;
      this.#access.checkRoom(bytes);
      const spilled = await this.#spill();
      await spilled.append(changes);
      return true;
    });
  }

  /**
   * Per topic, in order, the parts of the range in which its schema is one and the same; empty when the range holds
   * nothing. A change of shape takes effect for all rows at once, so what comes before and after it is merged apart.
   */
  async content(range: Range): Promise<TopicContent[]> {
    if (this.#reading) return (await this.spilled()).content(range);
    const held = this.#held.content(range);
    if (held) return held.map((one) => ({ ...one, range: { ...range }, borrows: false }));
    return (await this.spilled()).content(range);
  }

  /**
   * Changes of one topic in chunks, ordered by Position, or with those of one key together, in order of Position.
   * Truncates stand once per partition; where keys stand together they are left out. Where key changes borrow values,
   * keys are in order.
   */
  async *read(range: Range, topic: number, order: 'key' | 'position'): AsyncIterable<StoredChange[]> {
    yield* (this.#reading ?? this.#held).read(range, topic, order);
  }

  /** All rows, where SQL reaches them. */
  spilled(): Promise<SpilledRows> {
    return this.#alone(() => this.#spill());
  }

  /** From now on Changes of these keys within their Positions are left out of whatever else is read. */
  async withhold(keys: readonly WithheldKey[]): Promise<void> {
    if (keys.length > 0) await (await this.spilled()).withhold(keys);
    else await this.#spilled?.withhold(keys);
  }

  /** Frees what lies at or below `mark`. */
  release(mark: Position): Promise<void> {
    return this.#alone(async () => {
      this.#held.release(mark);
      await this.#spilled?.release(mark);
    });
  }

  /** Frees everything; the Unit can be used again. */
  clear(): Promise<void> {
    return this.#alone(async () => {
      this.#held.clear();
      await this.#spilled?.clear();
    });
  }

  /** Where all rows are once they were spilled, or are about to be: what a full disk kept in memory goes there first. */
  get #reading(): SpilledRows | null {
    return this.#spilled?.empty === false ? this.#spilled : null;
  }

  async #spill(): Promise<SpilledRows> {
    // Loaded by those who need it: DuckDB takes tens of mebibytes.
    this.#spilled ??= new (await import('./spilled-rows.ts')).SpilledRows(this.#name, this.#access);
    const spilled = this.#spilled;
    for (const changes of this.#held.drain(spilledAtATime)) await spilled.append(changes);
    return spilled;
  }

  /** One change of the store after the other. */
  #alone<T>(work: () => Promise<T>): Promise<T> {
    const done = this.#last.then(work, work);
    this.#last = done.catch(() => {});
    return done;
  }
}
