/** Writing a run of the key index (key-run-format.ts). */
import { type FileHandle, open, rename } from 'node:fs/promises';
import {
  blockBytes,
  blockEntries,
  entryWords,
  type Footer,
  hashWords,
  magic,
  manyBlocks,
  type RunFile,
  trailerBytes,
} from './key-run-format.ts';

/** Takes entries in the order of their hashes. */
export class KeyRunWriter {
  readonly #path: string;
  readonly #handle: FileHandle;
  readonly #buffer = new Uint32Array((manyBlocks * blockBytes) / 4);
  readonly #counts = new Map<number, number>();
  readonly #fences: number[] = [];
  #filled = 0;
  #entries = 0;

  private constructor(path: string, handle: FileHandle) {
    this.#path = path;
    this.#handle = handle;
  }

  static async create(path: string): Promise<KeyRunWriter> {
    return new KeyRunWriter(path, await open(`${path}.new`, 'w'));
  }

  /** @returns true where the buffer is full: flush() then */
  add(words: Uint32Array, at: number): boolean {
    if (this.#entries % blockEntries === 0) this.#fences.push(words[at]!);
    for (let word = 0; word < entryWords; word += 1) this.#buffer[this.#filled + word] = words[at + word]!;
    this.#filled += entryWords;
    this.#entries += 1;
    const file = words[at + hashWords]!;
    this.#counts.set(file, (this.#counts.get(file) ?? 0) + 1);
    return this.#filled === this.#buffer.length;
  }

  async flush(): Promise<void> {
    await this.#handle.write(Buffer.from(this.#buffer.buffer, 0, this.#filled * 4));
    this.#filled = 0;
  }

  /** @param paths by number; files without a row are in the run too: it answers for them */
  async finish(paths: ReadonlyMap<number, string>): Promise<void> {
    await this.flush();
    await this.#handle.write(Buffer.from(Uint32Array.from(this.#fences).buffer));
    const files = [...paths].map(([number, path]): RunFile => [number, path, this.#counts.get(number) ?? 0]);
    const footer = Buffer.from(JSON.stringify({ entries: this.#entries, files } satisfies Footer));
    const trailer = Buffer.alloc(trailerBytes);
    trailer.writeUInt32LE(footer.length);
    trailer.write(magic, 8, 'latin1');
    await this.#handle.write(Buffer.concat([footer, trailer]));
    // A crash must not leave a run under its name that is cut short.
    await this.#handle.sync();
    await this.#handle.close();
    await rename(`${this.#path}.new`, this.#path);
  }

  async abandon(): Promise<void> {
    await this.#handle.close();
  }
}
