/**
 * Where the rows of a table are, by the hash of their key: a local cache that can be built from the table at any time, and
 * goes by the paths of its data files, which are immutable.
 *
 * It is a log-structured merge of sorted runs (key-run.ts), each at least four times as large as the next newer one, so
 * that there are few: looking a key up reads a block of each, and a row is written again a few times in its life.
 */
import { randomBytes, randomUUID } from 'node:crypto';
import { mkdir, open, readdir, readFile, rename, rm } from 'node:fs/promises';
import { basename, join } from 'node:path';
import { KeyRun } from './key-run.ts';
import { KeyRunWriter } from './key-run-writer.ts';
import { mergeRuns } from './merge-runs.ts';

/** A run holds at least so many times the entries of the next newer one. */
const growth = 4;

interface Saved {
  identity: string;
  salt: string;
  /** File names, oldest first. */
  runs: string[];
}

/** Null where there is none that can be read: the index is made anew then. */
async function readSaved(path: string): Promise<Saved | null> {
  try {
    return JSON.parse(await readFile(path, 'utf8')) as Saved;
  } catch {
    return null;
  }
}

export interface FoundKey {
  /** Index of the key among those that were asked for. */
  key: number;
  path: string;
  position: number;
}

export class KeyIndex {
  readonly #folder: string;
  /** Of what is indexed. */
  readonly identity: string;
  /** Oldest, which is the largest, first. */
  #runs: KeyRun[] = [];
  readonly #paths = new Map<number, string>();
  readonly #numbers = new Map<string, number>();
  #nextNumber = 0;

  /** Of the hashes (key-hash.ts): nobody else's to know. */
  salt = randomBytes(32).toString('hex');

  private constructor(folder: string, identity: string) {
    this.#folder = folder;
    this.identity = identity;
  }

  /**
   * Starts empty where the folder holds nothing of use.
   * @param identity what must be the same for the runs of earlier to be: the table, the columns of its key
   */
  static async open(folder: string, identity: string): Promise<KeyIndex> {
    await mkdir(folder, { recursive: true });
    const index = new KeyIndex(folder, identity);
    await index.#load();
    return index;
  }

  async #load(): Promise<void> {
    const saved = await readSaved(join(this.#folder, 'index.json'));
    const runs = saved?.identity === this.identity ? saved.runs : [];
    if (runs.length > 0) this.salt = saved!.salt;
    for (const name of runs) {
      const run = KeyRun.open(join(this.#folder, name));
      // What it answered for is not covered then, and is read from the table again.
      if (run) this.#take(run);
    }
    await this.#sweep();
  }

  #take(run: KeyRun): void {
    this.#runs.push(run);
    for (const [number, path] of run.files) {
      this.#paths.set(number, path);
      this.#numbers.set(path, number);
      this.#nextNumber = Math.max(this.#nextNumber, number + 1);
    }
  }

  /** Whether all rows of a data file are in the index. */
  covers(path: string): boolean {
    return this.#numbers.has(path);
  }

  get entries(): number {
    return this.#runs.reduce((sum, { entries }) => sum + entries, 0);
  }

  /** On the disk. */
  get bytes(): number {
    return this.#runs.reduce((sum, { bytes }) => sum + bytes, 0);
  }

  /**
   * Takes in data files.
   * @param write adds their entries in order; file numbers count from the given one, in the order of the paths
   * @param keep whether a data file is in the table still; others are left out when runs are merged. (Rows that are deleted
   * are not: a rollback may bring them back.)
   */
  async add(
    paths: readonly string[],
    write: (writer: KeyRunWriter, firstNumber: number) => Promise<void>,
    keep: (path: string) => boolean,
  ): Promise<void> {
    if (paths.length === 0) return;
    const first = this.#nextNumber;
    // It may have been emptied meanwhile: runs that are open are read on.
    await mkdir(this.#folder, { recursive: true });
    const file = this.#newRun();
    const writer = await KeyRunWriter.create(file);
    try {
      await write(writer, first);
      await writer.finish(new Map(paths.map((path, index) => [first + index, path])));
    } catch (error) {
      await writer.abandon();
      throw error;
    }
    this.#take(KeyRun.open(file)!);
    await this.#merge(keep);
    await this.#save();
  }

  #newRun(): string {
    return join(this.#folder, `${randomUUID()}.keys`);
  }

  async #merge(keep: (path: string) => boolean): Promise<void> {
    const runs = this.#runs;
    let from = runs.length - 1;
    for (let entries = runs[from]!.entries; from > 0 && runs[from - 1]!.entries < growth * entries; from -= 1)
      entries += runs[from - 1]!.entries;
    if (from === runs.length - 1) return;
    const merged = runs.slice(from);
    const live = new Map(
      merged.flatMap(({ files }) =>
        files.flatMap(([number, path]) => (keep(path) ? [[number, path] as const] : [])),
      ),
    );
    const file = this.#newRun();
    await mergeRuns(file, merged, live);
    for (const run of merged) {
      run.close();
      for (const [number, path] of run.files) {
        this.#paths.delete(number);
        this.#numbers.delete(path);
      }
    }
    this.#runs = runs.slice(0, from);
    this.#take(KeyRun.open(file)!);
  }

  async #save(): Promise<void> {
    const path = join(this.#folder, 'index.json');
    const runs = this.#runs.map((run) => basename(run.path));
    const handle = await open(`${path}.new`, 'w', 0o600);
    try {
      await handle.writeFile(
        JSON.stringify({ identity: this.identity, salt: this.salt, runs } satisfies Saved),
      );
      await handle.sync();
    } finally {
      await handle.close();
    }
    await rename(`${path}.new`, path);
    await this.#sweep();
  }

  /** Removes files that no index names. */
  async #sweep(): Promise<void> {
    const used = new Set(this.#runs.map((run) => basename(run.path)));
    for (const name of await readdir(this.#folder)) {
      if (/\.keys(\.new)?$/.test(name) && !used.has(name))
        await rm(join(this.#folder, name), { force: true });
    }
  }

  /** Every row of any covered file that has one of the keys. @param hashes of `count` keys, in order */
  find(hashes: Uint32Array, count: number): FoundKey[] {
    const found: FoundKey[] = [];
    for (const run of this.#runs) {
      run.find(hashes, count, (key, file, position) => {
        const path = this.#paths.get(file);
        if (path !== undefined) found.push({ key, path, position });
      });
    }
    return found;
  }

  /** It knows of no file any more. */
  async clear(): Promise<void> {
    this.close();
    await this.#save();
  }

  close(): void {
    for (const run of this.#runs) run.close();
    this.#runs = [];
    this.#paths.clear();
    this.#numbers.clear();
  }
}
