/**
 * Rows of data files that delete files of the snapshot took away, as a bit for each row. A delete file is read when a row of
 * a data file is found that it may concern, and once: what it says of other data files is noted too.
 */
import { quoteText } from '../../../object-log/sql-text.ts';
import { malformed } from '../failures.ts';
import { deletePathId, deletePositionId } from '../files/write-position-deletes.ts';
import { fileContent } from '../spec/data-file.ts';
import type { LiveFile } from './live-file.ts';
import type { LiveChange, LiveFiles } from './live-files.ts';
import { PositionTable } from './position-table.ts';
import { columnName } from './read-columns.ts';
import type { TableColumns } from './table-columns.ts';

/** Delete files that DuckDB reads with one query. */
const filesAtOnce = 64;
const schema = `MAP {${deletePathId}: {name: 'file_path', type: 'VARCHAR', default_value: NULL},
  ${deletePositionId}: {name: 'pos', type: 'BIGINT', default_value: NULL}}`;

const bitsOf = Uint8Array.from({ length: 256 }, (_, byte) => byte.toString(2).replaceAll('0', '').length);

export class DeletedPositions {
  readonly #live: LiveFiles;
  /** By path of the data file. */
  readonly #bits = new Map<string, Uint8Array>();
  /** Position delete files whose rows are all in the bits. */
  readonly #read = new Set<string>();
  /** By path of a delete file: the data files whose bits have something of it. */
  readonly #targets = new Map<string, Set<string>>();
  /** The reverse. */
  readonly #applied = new Map<string, Set<string>>();

  /** @param live of a table that it has not gone through yet, or no farther than this knows */
  constructor(live: LiveFiles) {
    this.#live = live;
    live.follow((change) => this.#changed(change));
  }

  /**
   * Forgets data files that left the table, and those whose deletes did: a rollback or a rewrite. They are put together
   * again when they are asked for.
   */
  #changed({ added, removed }: LiveChange): void {
    for (const { path } of removed) {
      this.#forget(path);
      for (const target of [...(this.#targets.get(path) ?? [])]) this.#forget(target);
      this.#targets.delete(path);
      this.#read.delete(path);
    }
    // One that comes back was not there when its deletes were read.
    for (const file of added) {
      if (file.content === fileContent.data)
        for (const { path } of this.#live.deletesOf(file)) this.#read.delete(path);
    }
  }

  /** Every delete file that names the data file is read again. */
  #forget(path: string): void {
    this.#bits.delete(path);
    for (const each of this.#applied.get(path) ?? []) {
      this.#read.delete(each);
      this.#targets.get(each)?.delete(path);
    }
    this.#applied.delete(path);
  }

  isDeleted(path: string, position: number): boolean {
    const bits = this.#bits.get(path);
    return bits !== undefined && (bits[position >>> 3]! & (1 << (position & 7))) !== 0;
  }

  /** Rows of the file that are deleted, where load() was asked for it. */
  count(path: string): number {
    let sum = 0;
    for (const byte of this.#bits.get(path) ?? []) sum += bitsOf[byte]!;
    return sum;
  }

  /** Position delete files that were read whole and name no data file that is in the table but for these. */
  namingOnly(gone: ReadonlySet<string>): string[] {
    const found: string[] = [];
    for (const path of this.#read) {
      if (![...(this.#targets.get(path) ?? [])].some((target) => !gone.has(target))) found.push(path);
    }
    return found;
  }

  /**
   * Makes isDeleted() answer for these data files; of others it knows some deleted rows only.
   * @param columns of the table's files, to read deletes with
   */
  async load(files: readonly LiveFile[], columns: TableColumns): Promise<void> {
    const unread = new Set<LiveFile>();
    for (const file of files) {
      for (const each of this.#live.deletesOf(file)) {
        if (each.content !== fileContent.positionDeletes) await this.#applyEquality(file, each, columns);
        else if (!this.#read.has(each.path)) unread.add(each);
      }
    }
    const list = [...unread];
    for (let start = 0; start < list.length; start += filesAtOnce)
      await this.#applyPositions(list.slice(start, start + filesAtOnce), columns);
  }

  /** A temporary table with `file_path` and `pos` of all rows of the files that are deleted. */
  async toTable(files: readonly LiveFile[], columns: TableColumns, name: string): Promise<void> {
    await this.load(files, columns);
    const positions = new PositionTable();
    for (const { path, records } of files) {
      if (!this.#bits.has(path)) continue;
      for (let row = 0; row < records; row += 1) if (this.isDeleted(path, row)) positions.add(0, path, row);
    }
    await positions.toTable(columns.connection, name);
  }

  async #applyPositions(deletes: readonly LiveFile[], columns: TableColumns): Promise<void> {
    const paths = await Promise.all(deletes.map((each) => columns.whole(each)));
    const parts = paths.map(
      (path, index) =>
        `SELECT ${index}, file_path, pos FROM read_parquet(${quoteText(path)}, hive_partitioning => false, schema => ${schema})`,
    );
    const result = await columns.connection.stream(parts.join(' UNION ALL '));
    for (;;) {
      const chunk = await result.fetchChunk();
      if (chunk === null || chunk.rowCount === 0) break;
      const [numbers, targets, positions] = [0, 1, 2].map((column) => chunk.getColumnValues(column));
      for (let row = 0; row < chunk.rowCount; row += 1) {
        const number = Number(numbers![row]);
        const target = targets![row] as string;
        const file = this.#live.dataFile(target);
        if (!file || !concerns(deletes[number]!, file)) continue;
        this.#set(file, Number(positions![row]));
        this.#note(file.path, deletes[number]!.path);
      }
    }
    for (const { path } of deletes) this.#read.add(path);
  }

  /** Two rows are equal where their columns are, nulls too. */
  async #applyEquality(file: LiveFile, deletes: LiveFile, columns: TableColumns): Promise<void> {
    if (this.#applied.get(file.path)?.has(deletes.path)) return;
    const fields = (deletes.equalityIds ?? []).map((id) => {
      const field = columns.field(id);
      if (!field)
        throw malformed(`the delete file ${deletes.path} names the column ${id}, which no schema has`);
      return field;
    });
    const equal = fields.map((field) => {
      const name = columnName(field.id);
      return `data.${name} IS NOT DISTINCT FROM gone.${name}`;
    });
    const result = await columns.connection.runAndReadAll(
      `SELECT pos FROM (${await columns.select(file, fields)}) data
         WHERE EXISTS (FROM (${await columns.select(deletes, fields)}) gone WHERE ${equal.join(' AND ')})`,
    );
    for (const [position] of result.getRows()) this.#set(file, Number(position));
    this.#note(file.path, deletes.path);
  }

  #note(target: string, deletes: string): void {
    const [targets, applied] = [this.#targets.get(deletes), this.#applied.get(target)];
    if (targets) targets.add(target);
    else this.#targets.set(deletes, new Set([target]));
    if (applied) applied.add(deletes);
    else this.#applied.set(target, new Set([deletes]));
  }

  #set(file: LiveFile, position: number): void {
    if (!(position >= 0 && position < file.records))
      throw malformed(`a delete file names a row that ${file.path} does not have`);
    let bits = this.#bits.get(file.path);
    if (!bits) {
      bits = new Uint8Array(Math.ceil(file.records / 8));
      this.#bits.set(file.path, bits);
    }
    bits[position >>> 3]! |= 1 << (position & 7);
  }
}

function concerns(deletes: LiveFile, data: LiveFile): boolean {
  return data.sequence <= deletes.sequence && data.partitionKey === deletes.partitionKey;
}
