/** Several runs of the key index as one. */
import { setImmediate as pause } from 'node:timers/promises';
import type { KeyRun } from './key-run.ts';
import { compareHashes, entryWords, hashWords } from './key-run-format.ts';
import { KeyRunWriter } from './key-run-writer.ts';

/** Entries after which others get a turn. */
const turn = 100_000;

/** @param paths of the files that are of use still, by number; entries of others are left out */
export async function mergeRuns(
  path: string,
  runs: readonly KeyRun[],
  paths: ReadonlyMap<number, string>,
): Promise<void> {
  const writer = await KeyRunWriter.create(path);
  try {
    const cursors = runs.map((run) => new Cursor(run)).filter(({ ended }) => !ended);
    for (let count = 1; cursors.length > 0; count += 1) {
      let least = 0;
      // There are few runs: a heap would not be faster.
      for (let index = 1; index < cursors.length; index += 1) {
        const [one, other] = [cursors[index]!, cursors[least]!];
        if (compareHashes(one.words, one.at, other.words, other.at) < 0) least = index;
      }
      const cursor = cursors[least]!;
      const { words, at } = cursor;
      if (paths.has(words[at + hashWords]!) && writer.add(words, at)) await writer.flush();
      cursor.next();
      if (cursor.ended) cursors.splice(least, 1);
      if (count % turn === 0) await pause();
    }
    await writer.finish(paths);
  } catch (error) {
    await writer.abandon();
    throw error;
  }
}

class Cursor {
  words: Uint32Array = new Uint32Array(0);
  at = 0;
  ended = false;
  readonly #parts: Iterator<Uint32Array>;

  constructor(run: KeyRun) {
    this.#parts = run.parts()[Symbol.iterator]();
    this.next();
  }

  next(): void {
    this.at += entryWords;
    if (this.at < this.words.length) return;
    const { done, value } = this.#parts.next();
    this.ended = done === true;
    this.words = value ?? new Uint32Array(0);
    this.at = 0;
  }
}
