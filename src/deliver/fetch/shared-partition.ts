/** One partition, and everybody who reads it: what an answer brings goes to all whom it can serve. */

import type { PartitionAnswer } from '../../platform/kafka-fetch/fetch-request.ts';
import { readRecordSet } from '../../platform/kafka-fetch/record-set.ts';
import type { Budget } from './budget.ts';
import type { Cursor } from './cursor.ts';

export class SharedPartition {
  readonly topic: string;
  readonly partition: number;
  readonly #cursors = new Set<Cursor>();
  /** Where it ended when it was last asked. */
  #stableEnd = 0;
  /** The offset that was asked for last. */
  #asked = -1;

  constructor(topic: string, partition: number) {
    this.topic = topic;
    this.partition = partition;
  }

  get name(): string {
    return `${this.topic}/${this.partition}`;
  }

  join(cursor: Cursor): void {
    this.#cursors.add(cursor);
  }

  /** @returns whether nobody reads it any more */
  leave(cursor: Cursor): boolean {
    return this.#cursors.delete(cursor) && this.#cursors.size === 0;
  }

  get wanted(): boolean {
    for (const cursor of this.#cursors) if (cursor.hungry) return true;
    return false;
  }

  /** Somebody wants what is known to be there. */
  get behind(): boolean {
    for (const cursor of this.#cursors) if (cursor.hungry && cursor.fetched < this.#stableEnd) return true;
    return false;
  }

  /**
   * Where to read next: those who are behind take turns, so that one that has far to go does not keep the others waiting;
   * at the end all stand at the same place. Null: nobody wants anything.
   */
  nextOffset(): number | null {
    const wanted = [
      ...new Set([...this.#cursors].filter(({ hungry }) => hungry).map(({ fetched }) => fetched)),
    ];
    if (wanted.length === 0) return null;
    wanted.sort((a, b) => a - b);
    const behind = wanted.filter((offset) => offset < this.#stableEnd);
    const list = behind.length > 0 ? behind : wanted;
    this.#asked = list.find((offset) => offset > this.#asked) ?? list[0]!;
    return this.#asked;
  }

  /** The log does not have this offset. */
  displaced(offset: number): void {
    for (const cursor of [...this.#cursors]) if (cursor.fetched === offset) cursor.displaced();
  }

  /** @param budget what the records are counted in until everybody has taken them @returns whether it brought anything */
  async take(
    offset: number,
    { aborted, stableEnd, recordSet }: PartitionAnswer,
    budget: Budget,
  ): Promise<boolean> {
    this.#stableEnd = stableEnd;
    if (recordSet.length === 0) return false;
    const { records, end, bytes } = await readRecordSet(recordSet, offset, aborted, this.name);
    if (end === null || end <= offset) return false;
    const readers = [...this.#cursors].filter(
      (cursor) => cursor.hungry && cursor.fetched >= offset && cursor.fetched < end,
    );
    if (readers.length === 0) return true;
    const done = budget.hold(bytes, readers.length);
    for (const cursor of readers) cursor.push({ records, end, done });
    return true;
  }
}
