/**
 * Where the rows of given keys are in a table: file and position, without those that are deleted already.
 *
 * A key is looked up in the index of all rows (key-index.ts). Partition values and bounds decide which data files have to be
 * in it: a table whose partition is part of its key is read for the partitions of the keys only, and one whose keys grow
 * with time for its newest files. What others append, compact or roll back needs nothing: the index goes by the paths of
 * files, and which of them are live is known from the snapshot.
 *
 * Measured with random uuids, CPU ms for 100, 10,000 and 100,000 keys, half of them in the table: the index takes 4, 15 and 80
 * in a table of 1 M rows and 4, 24 and 110 in one of 10 M; scanning the key columns of the Parquet files, which a random
 * key may be in any of, 11, 19, 30 and 89, 170, 190; a table of hashes in DuckDB, which joins by scanning, 7, 14, 23 and
 * 55, 110, 150. A row costs 0.6 µs to be indexed; 6 µs in SQLite, which takes 7 µs to look up a key.
 */
import type { DeletedPositions } from './deleted-positions.ts';
import { hashedRows } from './hash-stream.ts';
import { indexFiles } from './index-files.ts';
import { type KeyColumn, keyHash, sortedWords } from './key-hash.ts';
import type { FoundKey, KeyIndex } from './key-index.ts';
import { hashWords } from './key-run-format.ts';
import type { LiveFile } from './live-file.ts';
import type { LiveFiles } from './live-files.ts';
import { PositionTable } from './position-table.ts';
import { filesOfPartitions, filesWithinBounds, type Keys } from './prune.ts';
import type { FieldColumn } from './read-columns.ts';
import type { TableColumns } from './table-columns.ts';

/** Keys that are looked up together. */
const slice = 262_144;
/** Files whose columns are on this machine at the same time, on the way into the index. */
const filesAtOnce = 64;

interface Match {
  id: number;
  file: LiveFile;
  position: number;
}

export interface KnownTable {
  live: LiveFiles;
  deleted: DeletedPositions;
}

export class RowFinder {
  readonly #live: LiveFiles;
  readonly #deleted: DeletedPositions;
  readonly #index: KeyIndex;
  readonly #columns: TableColumns;
  readonly #trim: () => Promise<void>;

  /** @param trim makes room for copies of files, between queries */
  constructor(
    { live, deleted }: KnownTable,
    index: KeyIndex,
    columns: TableColumns,
    trim: () => Promise<void>,
  ) {
    this.#live = live;
    this.#deleted = deleted;
    this.#index = index;
    this.#columns = columns;
    this.#trim = trim;
  }

  /**
   * @param keys of a relation of the columns' connection
   * @param id SQL of an integer of 31 bits that names a key in the answer; a key has more than one row where the table has
   * its row twice
   * @param only where given: rows of these files alone
   */
  async find(keys: Keys, id: string, only?: ReadonlySet<LiveFile>): Promise<PositionTable> {
    await this.#cover(keys, only);
    const found = new PositionTable();
    if (this.#index.entries === 0) return found;
    const matches = await this.#look(keys, id, only);
    await this.#deleted.load([...new Set(matches.map(({ file }) => file))], this.#columns);
    for (const match of matches) {
      const { path } = match.file;
      if (!this.#deleted.isDeleted(path, match.position)) found.add(match.id, path, match.position);
    }
    return found;
  }

  /** Brings into the index what may hold one of the keys. */
  async #cover(keys: Keys, only?: ReadonlySet<LiveFile>): Promise<void> {
    const files = [...(only ?? this.#live.dataFiles())].filter(({ path }) => !this.#index.covers(path));
    if (files.length === 0) return;
    const { connection } = this.#columns;
    const fieldsOf = (file: LiveFile) => this.#columns.partitionFields(file);
    const near = await filesOfPartitions(connection, keys, files, fieldsOf);
    const missing = await filesWithinBounds(connection, keys, near);
    const wanted = fieldsOfKey(keys.columns);
    for (let start = 0; start < missing.length; start += filesAtOnce) {
      const group = [];
      for (const file of missing.slice(start, start + filesAtOnce)) {
        const { path, records } = file;
        group.push({ path, records, select: await this.#columns.select(file, wanted) });
      }
      await indexFiles(connection, this.#index, group, keys.columns, this.#isLive);
      await this.#trim();
    }
  }

  async #look(keys: Keys, id: string, only?: ReadonlySet<LiveFile>): Promise<Match[]> {
    const matches: Match[] = [];
    const hash = keyHash(keys.columns, keys.sql, this.#index.salt);
    const rowsOf = `SELECT ${hash} AS hash, CAST(${id} AS INTEGER) AS id FROM ${keys.relation}`;
    const hashes = new Uint32Array(slice * hashWords);
    let ids: number[] = [];
    const lookUp = async () => {
      for (const { key, path, position } of await this.#inIndex(hashes, ids.length)) {
        const file = this.#live.dataFile(path);
        if (file && (!only || only.has(file))) matches.push({ id: ids[key]!, file, position });
      }
      ids = [];
    };
    for await (const { rows, words, columns } of hashedRows(
      this.#columns.connection,
      sortedWords(rowsOf, 'id'),
    )) {
      if (ids.length + rows > slice) await lookUp();
      hashes.set(words, ids.length * hashWords);
      for (let row = 0; row < rows; row += 1) ids.push(columns[0]!.getItem(row) as number);
    }
    await lookUp();
    return matches;
  }

  async #inIndex(hashes: Uint32Array, count: number): Promise<FoundKey[]> {
    try {
      return this.#index.find(hashes, count);
    } catch (error) {
      // A disk that lost something of it: the next try builds it anew.
      await this.#index.clear();
      throw error;
    }
  }

  readonly #isLive = (path: string): boolean => this.#live.dataFile(path) !== undefined;
}

function fieldsOfKey(columns: readonly KeyColumn[]): FieldColumn[] {
  const fields: FieldColumn[] = columns.map(({ id, type }) => ({ id, type }));
  const exact = new Set(columns.flatMap((column) => column.exact ?? []));
  return [...fields, ...[...exact].map((id) => ({ id, type: 'string' as const }))];
}
