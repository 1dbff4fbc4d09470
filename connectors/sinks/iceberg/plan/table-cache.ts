/**
 * What is kept of tables' files on this machine from one Window to the next: copies of files, and indexes of keys. All of
 * it can be made again, so that it is taken away where it needs more room than it is given.
 */
import { rm } from 'node:fs/promises';
import { join } from 'node:path';
import { KeyIndex } from './key-index.ts';
import { LocalCopies } from './local-copies.ts';

/** Indexes that are open: each has a few files, and a sixteenth of a byte for every row in memory. */
const mostOpen = 64;

interface KeptIndex {
  folder: string;
  index: KeyIndex | null;
  bytes: number;
}

export class TableCache {
  readonly copies: LocalCopies;
  readonly #folder: string;
  readonly #mostBytes: number;
  readonly #onCrowded: (bytes: number) => void;
  /** By table; least recently used first. */
  readonly #indexes = new Map<string, KeptIndex>();

  /**
   * @param folder of its own, made when it is needed
   * @param onCrowded told where one table's index alone needs more than there is
   */
  constructor(folder: string, mostBytes: number, onCrowded: (bytes: number) => void = () => {}) {
    this.#folder = folder;
    this.#mostBytes = mostBytes;
    this.#onCrowded = onCrowded;
    this.copies = new LocalCopies(join(folder, 'copies'));
  }

  /** @param identity of what is indexed: the key's columns */
  async index(tableUuid: string, identity: string): Promise<KeyIndex> {
    const kept = this.#indexes.get(tableUuid) ?? {
      folder: join(this.#folder, 'keys', tableUuid),
      index: null,
      bytes: 0,
    };
    this.#indexes.delete(tableUuid);
    this.#indexes.set(tableUuid, kept);
    if (kept.index?.identity !== identity) {
      kept.index?.close();
      kept.index = await KeyIndex.open(kept.folder, identity);
    }
    return kept.index;
  }

  /** Between queries: copies may go. */
  trimCopies(): Promise<void> {
    return this.copies.trim(Math.max(0, this.#mostBytes - this.#indexBytes()));
  }

  /** Between Windows: indexes may go too. */
  async trim(): Promise<void> {
    let bytes = this.#indexBytes();
    for (const [table, kept] of this.#indexes) {
      if (kept.bytes <= this.#mostBytes) continue;
      this.#onCrowded(kept.bytes);
      bytes -= kept.bytes;
      await this.#remove(table, kept);
    }
    for (const [table, kept] of this.#indexes) {
      if (bytes <= this.#mostBytes) break;
      bytes -= kept.bytes;
      await this.#remove(table, kept);
    }
    for (const kept of [...this.#indexes.values()].slice(0, -mostOpen)) {
      kept.index?.close();
      kept.index = null;
    }
    await this.trimCopies();
  }

  async #remove(table: string, { index, folder }: KeptIndex): Promise<void> {
    this.#indexes.delete(table);
    index?.close();
    await rm(folder, { recursive: true, force: true });
  }

  #indexBytes(): number {
    let sum = 0;
    for (const kept of this.#indexes.values()) {
      kept.bytes = kept.index?.bytes ?? kept.bytes;
      sum += kept.bytes;
    }
    return sum;
  }

  close(): void {
    for (const { index } of this.#indexes.values()) index?.close();
    this.#indexes.clear();
  }
}
