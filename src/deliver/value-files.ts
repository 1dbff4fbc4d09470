/**
 * Record values of a Unit, in plain files: written once in the order they came, read back one at a time when a row
 * is looked into, so that a Window of rows of any size needs memory for one of them. A file is deleted when the mark
 * has passed all that is in it.
 *
 * Why not in DuckDB beside the rest: its sort carries the whole row and ran out of 128 MiB with 1,000,000 rows of
 * 1 KiB, and a result chunk is 2,048 rows however large. Reads are synchronous: 2 µs each from the page cache, where
 * the asynchronous call takes 15; whoever reads many awaits the next chunk of DuckDB in between.
 */
import { closeSync, openSync, readSync, unlinkSync, write } from 'node:fs';
import { join } from 'node:path';
import { promisify } from 'node:util';
import type { Position } from '../connector/position.ts';

const writeAsync = promisify(write);

/** Where a value lies. */
export interface Place {
  file: number;
  offset: number;
}

interface ValueFile {
  path: string;
  descriptor: number;
  bytes: number;
  /** Greatest Position in it. */
  last: Position;
}

const fileBytes = 64 << 20;

export class ValueFiles {
  readonly #directory: string;
  readonly #name: string;
  readonly #files = new Map<number, ValueFile>();
  #current = -1;

  /** @param directory exists and is the Unit's own, or shared by Units of other names */
  constructor(directory: string, name: string) {
    this.#directory = directory;
    this.#name = name;
  }

  get bytes(): number {
    let bytes = 0;
    for (const file of this.#files.values()) bytes += file.bytes;
    return bytes;
  }

  /**
   * Appends values that belong together; what a failed call wrote is written over by the next.
   * @param last greatest Position among them
   * @returns the place of the first; the others follow it without a gap
   */
  async append(values: readonly Buffer[], last: Position): Promise<Place> {
    const file = this.#open(last);
    const start = file.bytes;
    let offset = start;
    for (let i = 0; i < values.length; ) {
      // A mebibyte per write: one copy is cheaper than a thousand system calls.
      let bytes = 0;
      let end = i;
      while (end < values.length && (end === i || bytes + values[end]!.length <= 1 << 20))
        bytes += values[end++]!.length;
      const block = end === i + 1 ? values[i]! : Buffer.concat(values.slice(i, end), bytes);
      for (let written = 0; written < block.length; ) {
        const { bytesWritten } = await writeAsync(
          file.descriptor,
          block,
          written,
          block.length - written,
          offset + written,
        );
        written += bytesWritten;
      }
      offset += block.length;
      i = end;
    }
    file.bytes = offset;
    if (last > file.last) file.last = last;
    return { file: this.#current, offset: start };
  }

  read({ file, offset }: Place, length: number): Buffer {
    const found = this.#files.get(file);
    if (!found) throw new Error('a released value was asked for');
    const bytes = Buffer.allocUnsafe(length);
    for (let done = 0; done < length; ) {
      const count = readSync(found.descriptor, bytes, done, length - done, offset + done);
      if (count === 0) throw new Error('a value file ends too early');
      done += count;
    }
    return bytes;
  }

  release(mark: Position): void {
    for (const [number, file] of this.#files) if (file.last <= mark) this.#delete(number, file);
  }

  clear(): void {
    for (const [number, file] of this.#files) this.#delete(number, file);
  }

  #open(last: Position): ValueFile {
    const current = this.#files.get(this.#current);
    if (current && current.bytes < fileBytes) return current;
    const number = ++this.#current;
    const path = join(this.#directory, `${this.#name}-${number}.values`);
    const file = { path, descriptor: openSync(path, 'w+', 0o600), bytes: 0, last };
    this.#files.set(number, file);
    return file;
  }

  #delete(number: number, { path, descriptor }: ValueFile): void {
    this.#files.delete(number);
    closeSync(descriptor);
    unlinkSync(path);
  }
}
