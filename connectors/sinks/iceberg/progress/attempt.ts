/**
 * What one attempt at a Window wrote or is about to write. It is recorded in the store before the first file is, so that a
 * later owner finds what a crash left behind (sweep.ts); small files wait for that in memory.
 */
import { randomUUID } from 'node:crypto';
import type { TableIdentifier } from '../catalog/catalog.ts';
import { printJson } from '../catalog/exact-json.ts';
import { metadataLocation } from '../commit/locations.ts';
import type { FileStore } from '../file-store.ts';
import type { WrittenFile } from '../files/write-data-files.ts';
import type { OpenTable } from '../lake.ts';
import type { TableMetadata } from '../spec/table-metadata.ts';

export interface AttemptedTable {
  identifier: TableIdentifier;
  uuid: string;
  snapshotId: string;
  files: string[];
}

export interface AttemptRecord {
  id: string;
  sequence: number;
  token: string;
  tables: AttemptedTable[];
}

/** With a slash at the end. */
export function attemptsLocation(progress: TableMetadata): string {
  return `${metadataLocation(progress)}/tidemark-attempts/`;
}

/** Files that go to a table once they are recorded. */
export class PendingFiles {
  readonly #store: FileStore;
  readonly #bodies = new Map<string, Buffer>();
  readonly #local: WrittenFile[] = [];
  readonly locations: string[] = [];
  bytes = 0;

  constructor(store: FileStore) {
    this.#store = store;
  }

  async get(location: string): Promise<Buffer | null> {
    return this.#bodies.get(location) ?? this.#store.get(location);
  }

  async put(location: string, body: Buffer): Promise<void> {
    this.#bodies.set(location, body);
    this.locations.push(location);
    this.bytes += body.length;
  }

  addLocal(files: readonly WrittenFile[]): void {
    for (const each of files) {
      this.#local.push(each);
      this.locations.push(each.file.file_path);
      this.bytes += each.file.file_size_in_bytes;
    }
  }

  async upload(): Promise<void> {
    const work = [
      ...this.#local.splice(0).map((each) => () => this.#store.putFile(each.file.file_path, each.localPath)),
      ...[...this.#bodies].map(
        ([location, body]) =>
          () =>
            this.#store.put(location, body),
      ),
    ];
    this.#bodies.clear();
    // Several at a time: each is a round trip or more.
    const next = async (): Promise<void> => {
      for (let each = work.shift(); each; each = work.shift()) await each();
    };
    await Promise.all(Array.from({ length: 8 }, next));
  }

  async remove(): Promise<void> {
    await this.#store.delete(this.locations);
  }
}

export class Attempt {
  readonly id: string;
  readonly #sequence: number;
  readonly #token: bigint;
  readonly #store: FileStore;
  readonly #location: string;
  readonly #tables: { table: OpenTable; snapshotId: bigint; files: PendingFiles }[] = [];
  /** Locations of files that were replaced by others before the commit. */
  readonly #replaced: string[] = [];
  #recorded = false;
  /** The catalog was asked: from then on only the tables can tell what became of it. */
  sent = false;

  constructor(progress: OpenTable, sequence: number, token: bigint) {
    this.id = `${sequence}-${token}-${randomUUID()}`;
    this.#sequence = sequence;
    this.#token = token;
    this.#store = progress.store;
    this.#location = `${attemptsLocation(progress.metadata)}${this.id}.json`;
  }

  add(table: OpenTable, snapshotId: bigint, files: PendingFiles): void {
    this.#tables.push({ table, snapshotId, files });
  }

  /** The table's commit was prepared anew. @param unused files of the commit before */
  replace(table: OpenTable, snapshotId: bigint, unused: readonly string[]): void {
    const uuid = table.metadata['table-uuid'];
    for (const each of this.#tables)
      if (each.table.metadata['table-uuid'] === uuid) each.snapshotId = snapshotId;
    this.#replaced.push(...unused);
  }

  get bytes(): number {
    return this.#tables.reduce((sum, { files }) => sum + files.bytes, 0);
  }

  /** Records all files, then writes them. */
  async upload(): Promise<void> {
    const record: AttemptRecord = {
      id: this.id,
      sequence: this.#sequence,
      token: String(this.#token),
      tables: this.#tables.map(({ table, snapshotId, files }) => ({
        identifier: table.identifier,
        uuid: table.metadata['table-uuid'],
        snapshotId: String(snapshotId),
        files: files.locations,
      })),
    };
    await this.#store.put(this.#location, Buffer.from(printJson(record)));
    this.#recorded = true;
    for (const { files } of this.#tables) await files.upload();
  }

  /** It is in the tables. @param unused locations of what earlier tries at the commit wrote */
  async committed(unused: readonly string[]): Promise<void> {
    const useless = new Set([...unused, ...this.#replaced]);
    for (const { table, files } of this.#tables) {
      const own = files.locations.filter((each) => useless.has(each));
      if (own.length > 0) await table.store.delete(own);
    }
    await this.#store.delete([this.#location]);
  }

  /** Nothing of it can come into the tables any more. */
  async abandon(): Promise<void> {
    if (!this.#recorded || this.sent) return;
    for (const { files } of this.#tables) await files.remove();
    await this.#store.delete([this.#location]);
  }
}
