/**
 * The window store: Changes that were read from Kafka and not delivered yet. They wait in memory (held-rows.ts) up to a
 * limit. Beyond it what is sorted and joined (keys, Positions) is in DuckDB, in memory up to another limit and in
 * temporary files beyond that; the values are in plain files (value-files.ts). One per destination. It is a cache of
 * Kafka: wiped at start, rebuilt from the mark.
 *
 * DuckDB runs in memory with a temp_directory, not on a database file: its tables spill in the same way, and appends
 * measured 370 to 420 k rows/s against 75 to 105 k (1,000,000 rows of 470 bytes), for want of a write-ahead log. One
 * thread: a sort with two needs twice the memory, and the reader of the rows is one thread anyway. One table per
 * Unit: a sort over a union of tables keeps a run of its own for each, and then runs out of memory.
 */
import { mkdir, rm } from 'node:fs/promises';
import { join } from 'node:path';
import type { DuckDBInstance } from '@duckdb/node-api';
import { TidemarkError } from '../platform/errors.ts';
import { UnitStore } from './unit-store.ts';

/** Below this DuckDB cannot sort: its blocks are 256 KiB and a sort pins some dozens of them. */
const leastMemoryBytes = 64 << 20;

export interface WindowStoreOptions {
  /** Of this destination alone; wiped. */
  directory: string;
  /** What DuckDB may take, once something is spilled. */
  memoryBytes: number;
  /** Rows that may wait in memory before they are. */
  heldBytes: number;
  /** Cap on what is stored: values, keys and a fixed cost per row. */
  maxBytes: number;
}

export class WindowStore {
  readonly #options: WindowStoreOptions;
  #instance: Promise<DuckDBInstance> | null = null;
  readonly #units = new Map<string, UnitStore>();
  #serial = 0;

  private constructor(options: WindowStoreOptions) {
    this.#options = options;
  }

  /** @throws TidemarkError TM406 when the directory cannot be used */
  static async open(options: WindowStoreOptions): Promise<WindowStore> {
    try {
      await rm(options.directory, { recursive: true, force: true });
      await mkdir(options.directory, { recursive: true });
      return new WindowStore(options);
    } catch (error) {
      throw storeError(error);
    }
  }

  /** Bytes of all Units. */
  get bytes(): number {
    let bytes = 0;
    for (const unit of this.#units.values()) bytes += unit.bytes;
    return bytes;
  }

  unit(name: string): UnitStore {
    let unit = this.#units.get(name);
    if (!unit) {
      unit = new UnitStore(`unit_${this.#serial++}`, {
        connect: async () => (await this.#opened()).connect(),
        directory: this.#options.directory,
        checkRoom: (bytes) => this.#checkRoom(bytes),
        mayHold: (bytes) => this.#heldBytes + bytes <= this.#options.heldBytes && this.#hasRoom(bytes),
      });
      this.#units.set(name, unit);
    }
    return unit;
  }

  /** Forgets a Unit and all its rows. */
  async drop(name: string): Promise<void> {
    const unit = this.#units.get(name);
    this.#units.delete(name);
    await unit?.clear();
  }

  async close(): Promise<void> {
    for (const name of [...this.#units.keys()]) await this.drop(name).catch(() => {});
    await this.#instance?.then((instance) => instance.closeSync());
    await rm(this.#options.directory, { recursive: true, force: true });
  }

  get #heldBytes(): number {
    let bytes = 0;
    for (const unit of this.#units.values()) bytes += unit.heldBytes;
    return bytes;
  }

  /** When it is first needed: many destinations never spill, and it takes tens of mebibytes. */
  #opened(): Promise<DuckDBInstance> {
    this.#instance ??= this.#openDuckDb().catch((error) => {
      this.#instance = null;
      throw storeError(error);
    });
    return this.#instance;
  }

  async #openDuckDb(): Promise<DuckDBInstance> {
    const { DuckDBInstance } = await import('@duckdb/node-api');
    const { directory, memoryBytes, maxBytes } = this.#options;
    return DuckDBInstance.create(':memory:', {
      memory_limit: `${Math.max(memoryBytes, leastMemoryBytes)}B`,
      temp_directory: join(directory, 'spill'),
      // Sorting a Window needs as much again, for the time of the sort.
      max_temp_directory_size: `${maxBytes * 2}B`,
      threads: '1',
      preserve_insertion_order: 'false',
    });
  }

  #hasRoom(bytes: number): boolean {
    return this.bytes + bytes <= this.#options.maxBytes;
  }

  #checkRoom(bytes: number): void {
    if (this.#hasRoom(bytes)) return;
    const mebibytes = Math.floor(this.#options.maxBytes / 2 ** 20);
    throw new TidemarkError('TM406', `the window store holds as much as it may (${mebibytes} MiB)`, {
      remedy:
        'Raise deliver.spill.max.bytes; or shorten the cadence or lower window.max.records, unless one transaction alone is larger.',
    });
  }
}

/** What DuckDB or the file system threw as TM406; an error of ours passes through. */
export function storeError(error: unknown): TidemarkError {
  if (error instanceof TidemarkError) return error;
  const text = error instanceof Error ? error.message : '';
  const code = (error as { code?: unknown } | null)?.code;
  if (code === 'ENOSPC' || /no space left on device/i.test(text)) {
    return new TidemarkError('TM406', 'the disk of the window store is full', { cause: error });
  }
  if (/max_temp_directory_size|failed to offload|temp_directory/i.test(text)) {
    return new TidemarkError('TM406', 'the window store may not use more disk', { cause: error });
  }
  if (/out of memory/i.test(text)) {
    return new TidemarkError('TM406', 'the window store has too little memory for this Window', {
      cause: error,
      remedy: 'Raise deliver.spill.memory.bytes.',
    });
  }
  // DuckDB quotes values in some messages; its error type is enough here.
  const kind = /^[A-Za-z ]{3,40} Error/.exec(text)?.[0] ?? 'an error';
  return new TidemarkError('TM406', `the window store failed: ${typeof code === 'string' ? code : kind}`, {
    cause: error,
  });
}
