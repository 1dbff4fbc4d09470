/**
 * A sorted run of the key index: where the rows of some data files are, by the hash of their key. It is a local file that
 * is written once (key-run-format.ts). Looking up a key reads one block of it.
 */
import { closeSync, fstatSync, openSync, readSync } from 'node:fs';
import {
  blockBytes,
  blockEntries,
  compareHashes,
  entryBytes,
  entryWords,
  type Footer,
  hashWords,
  magic,
  manyBlocks,
  type RunFile,
  trailerBytes,
} from './key-run-format.ts';

/** Called for every entry with the hash of a key. */
export type Match = (key: number, file: number, position: number) => void;

/** The blocks of one run at a time: looking up is not interrupted, and there are many runs. */
const words = new Uint32Array(manyBlocks * blockEntries * entryWords);
const bytesOfWords = Buffer.from(words.buffer);

export class KeyRun {
  readonly path: string;
  readonly entries: number;
  readonly files: readonly RunFile[];
  readonly bytes: number;
  readonly #descriptor: number;
  readonly #fences: Uint32Array;
  /** Blocks that are read: `#entriesRead` entries from the first one on. */
  #first = 0;
  #end = 0;
  #entriesRead = 0;

  private constructor(
    path: string,
    bytes: number,
    descriptor: number,
    { entries, files }: Footer,
    fences: Uint32Array,
  ) {
    this.path = path;
    this.entries = entries;
    this.files = files;
    this.bytes = bytes;
    this.#descriptor = descriptor;
    this.#fences = fences;
  }

  /** Null where the file is not a whole run. */
  static open(path: string): KeyRun | null {
    let descriptor: number;
    try {
      descriptor = openSync(path, 'r');
    } catch {
      return null;
    }
    let run: KeyRun | null = null;
    try {
      run = readRun(path, descriptor);
    } catch {
      // A footer that is no JSON.
    }
    if (run === null) closeSync(descriptor);
    return run;

    function readRun(name: string, file: number): KeyRun | null {
      const { size } = fstatSync(file);
      const trailer = readAt(file, Math.max(0, size - trailerBytes), trailerBytes);
      if (trailer?.toString('latin1', 8) !== magic) return null;
      const length = trailer.readUInt32LE();
      const text = readAt(file, size - trailerBytes - length, length);
      if (text === null) return null;
      const footer = JSON.parse(text.toString('utf8')) as Footer;
      const blocks = Math.ceil(footer.entries / blockEntries);
      if (size !== footer.entries * entryBytes + blocks * 4 + length + trailerBytes) return null;
      const fences = readAt(file, footer.entries * entryBytes, blocks * 4);
      if (fences === null) return null;
      return new KeyRun(name, size, file, footer, wordsOf(fences));
    }
  }

  close(): void {
    closeSync(this.#descriptor);
  }

  /** @param hashes of `count` keys, in order */
  find(hashes: Uint32Array, count: number, match: Match): void {
    // Many keys meet most blocks anyway: then they are read by the hundred.
    const ahead = count * 8 > this.#fences.length ? manyBlocks : 1;
    this.#end = 0;
    for (let key = 0; key < count; key += 1) this.#findOne(hashes, key, ahead, match);
  }

  #findOne(hashes: Uint32Array, key: number, ahead: number, match: Match): void {
    const fences = this.#fences;
    const top = hashes[key * hashWords]!;
    // The last block that begins below the hash, or the first of all: entries of one hash may begin in the block before.
    let low = 0;
    let high = fences.length;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if (fences[middle]! < top) low = middle + 1;
      else high = middle;
    }
    for (let block = Math.max(0, low - 1); block < fences.length; block += 1) {
      if (fences[block]! > top) return;
      if (block < this.#first || block >= this.#end) this.#load(block, ahead);
      if (this.#findInBlock(block, hashes, key, match)) return;
    }
  }

  /** @returns true where an entry lies beyond the key */
  #findInBlock(block: number, hashes: Uint32Array, key: number, match: Match): boolean {
    const start = (block - this.#first) * blockEntries;
    const end = Math.min(start + blockEntries, this.#entriesRead);
    let low = start;
    let high = end;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if (compareHashes(words, middle * entryWords, hashes, key * hashWords) < 0) low = middle + 1;
      else high = middle;
    }
    for (let entry = low; entry < end; entry += 1) {
      const at = entry * entryWords;
      if (compareHashes(words, at, hashes, key * hashWords) !== 0) return true;
      match(key, words[at + hashWords]!, words[at + hashWords + 1]!);
    }
    return false;
  }

  #load(block: number, count: number): void {
    const first = block * blockBytes;
    const bytes = Math.min(count * blockBytes, this.entries * entryBytes - first);
    if (!fill(this.#descriptor, bytesOfWords, first, bytes)) throw cutShort();
    this.#first = block;
    this.#end = block + count;
    this.#entriesRead = bytes / entryBytes;
  }

  /** All entries in order, in parts. */
  *parts(): Iterable<Uint32Array> {
    const step = manyBlocks * blockBytes;
    const total = this.entries * entryBytes;
    for (let start = 0; start < total; start += step) {
      const buffer = readAt(this.#descriptor, start, Math.min(step, total - start));
      if (buffer === null) throw cutShort();
      yield wordsOf(buffer);
    }
  }
}

function readAt(descriptor: number, position: number, length: number): Buffer | null {
  // Not of the pool: its words must begin at a multiple of four.
  const buffer = Buffer.from(new ArrayBuffer(length));
  return position >= 0 && fill(descriptor, buffer, position, length) ? buffer : null;
}

/** @returns false where the file ends before */
function fill(descriptor: number, buffer: Buffer, position: number, length: number): boolean {
  for (let filled = 0; filled < length; ) {
    const read = readSync(descriptor, buffer, filled, length - filled, position + filled);
    if (read === 0) return false;
    filled += read;
  }
  return true;
}

function cutShort(): Error {
  return new Error('a run of the key index was cut short');
}

function wordsOf(buffer: Buffer): Uint32Array {
  return new Uint32Array(buffer.buffer, 0, buffer.length / 4);
}
