/**
 * The default encoder. Rows are appended to a staging table: typed vectors of those in the form they travel in (staged-rows.ts),
 * text of the others. A small Window is copied from there to one Parquet file per partition. A larger one goes by rounds:
 * whenever a part of the memory budget is staged it becomes a sorted piece on disk, while the next rows are staged, and at
 * the end every partition is copied out of all pieces. So memory follows parquet.memory.bytes whatever the Window's size,
 * and a partition still gets one file.
 * (Tried before: one staging table with spilling, 400 MiB over the limit; COPY … PARTITION_BY, out of memory at 500
 * partitions.)
 */
import { stat } from 'node:fs/promises';
import { join } from 'node:path';
import type { DuckDBConnection } from '@duckdb/node-api';
import { type LentInstance, lendInstance } from '../../duckdb/instances.ts';
import type { ChangeRow, NativeChange } from '../../object-log/change-row.ts';
import {
  type DataFile,
  type FileEncoder,
  type FileEncoderSettings,
  maxFileBytes,
} from '../../object-log/data-file.ts';
import { dictionaryLimit } from '../../object-log/dictionary-limit.ts';
import { duckdbFailure } from '../../object-log/duckdb-failure.ts';
import { quoteText } from '../../object-log/sql-text.ts';
import { type StagedRound, StagedRows, type StagedSource } from '../../object-log/staged-rows.ts';
import { type EncoderSettings, memoryKey } from './options.ts';

/** Of the pieces on disk: small, so that a part's rows are found without reading many others. */
const pieceRowGroupRows = 8192;
/** Their rows are looked for in all that is staged: with 5 parts at 0.8 µs a row less than to sort it, with 30 at the same. */
const fewParts = 8;
/** Of every row group, whatever its rows: a reader holds a column of one in memory, unpacked, and often several. */
const rowGroupBytes = '16MB';

/** What becomes one file: the rows of a partition, up to maxFileBytes of text. */
interface Part {
  tenant: string | null | undefined;
  date: string;
  /** Characters of text. */
  size: number;
}

export class DuckdbEncoder implements FileEncoder {
  readonly #settings: EncoderSettings;
  readonly #instance: LentInstance;
  /** Of the appenders, whose calls wait for whatever else their connection is doing. */
  readonly #staging: DuckDBConnection;
  readonly #connection: DuckDBConnection;
  readonly #rows: StagedRows;
  readonly #pieces: string[] = [];
  readonly #parts: Part[] = [];
  /** By date and tenant: the part that takes the partition's next row. No text is put together for each row. */
  readonly #current = new Map<string, Map<string | null | undefined, number>>();
  #last: (Pick<Part, 'tenant' | 'date'> & { number: number; part: Part }) | null = null;
  #round = 0;
  #finished = false;
  /** The piece of the round before this one. */
  #writing: Promise<void> = Promise.resolve();

  private constructor(
    settings: EncoderSettings,
    instance: LentInstance,
    staging: DuckDBConnection,
    connection: DuckDBConnection,
  ) {
    this.#settings = settings;
    this.#instance = instance;
    this.#staging = staging;
    this.#connection = connection;
    this.#rows = new StagedRows(settings, staging);
  }

  static async open(settings: EncoderSettings): Promise<DuckdbEncoder> {
    try {
      const instance = await lendInstance(settings);
      const connection = await instance.connect();
      const staging = await instance.connect();
      await connection.run("SET TimeZone = 'UTC'");
      return new DuckdbEncoder(settings, instance, staging, connection);
    } catch (error) {
      throw duckdbFailure(error, 'start the Parquet encoder', memoryKey);
    }
  }

  write(rows: readonly ChangeRow[]): Promise<void> {
    return this.writeNative(rows);
  }

  async writeNative(rows: readonly (ChangeRow | NativeChange)[]): Promise<void> {
    try {
      for (const row of rows) {
        const waiting = this.#rows.add(row, this.#partOf(row));
        if (waiting) await waiting;
        if (this.#rows.full) await this.#endRound();
      }
    } catch (error) {
      throw duckdbFailure(error, 'stage rows', memoryKey);
    }
  }

  async finish(): Promise<DataFile[]> {
    try {
      const files = await this.#copyParts(await this.#staged());
      this.#finished = true;
      return files;
    } catch (error) {
      throw duckdbFailure(error, 'write a Parquet file', memoryKey);
    }
  }

  async #staged(): Promise<StagedSource> {
    const last = this.#rows.take();
    if (this.#round === 0) return last.source(this.#connection, this.#parts.length > fewParts);
    await this.#writing;
    if (last.rows > 0) await this.#writePiece(last);
    const pieces = `read_parquet([${this.#pieces.map(quoteText).join(', ')}])`;
    return { from: pieces, part: '"_part"', columns: '* EXCLUDE ("_part")' };
  }

  async close(): Promise<void> {
    await this.#writing.catch(() => {});
    this.#staging.closeSync();
    this.#connection.closeSync();
    if (this.#finished) this.#instance.giveBack();
    else this.#instance.close();
  }

  #partOf(row: ChangeRow | NativeChange): number {
    const last = this.#last;
    // Consecutive rows mostly share their partition.
    if (last && last.tenant === row.tenant && last.date === row.date && last.part.size < maxFileBytes) {
      last.part.size += row.size;
      return last.number;
    }
    let ofDate = this.#current.get(row.date);
    if (!ofDate) {
      ofDate = new Map();
      this.#current.set(row.date, ofDate);
    }
    let number = ofDate.get(row.tenant);
    if (number === undefined || this.#parts[number]!.size >= maxFileBytes) {
      number = this.#parts.length;
      ofDate.set(row.tenant, number);
      this.#parts.push({ tenant: row.tenant, date: row.date, size: 0 });
    }
    const part = this.#parts[number]!;
    part.size += row.size;
    this.#last = { tenant: row.tenant, date: row.date, number, part };
    return number;
  }

  /** Begins to turn what is staged into a piece, and starts over. Two rounds are in memory at most. */
  async #endRound(): Promise<void> {
    const round = this.#rows.take();
    await this.#writing;
    this.#writing = this.#writePiece(round);
    // It is waited for at the end of the next round, or of all.
    this.#writing.catch(() => {});
    this.#round += 1;
  }

  async #writePiece(round: StagedRound): Promise<void> {
    const { from, part, columns } = await round.source(this.#connection, this.#parts.length > 1);
    const path = join(this.#settings.folder, `piece-${this.#pieces.length}.parquet`);
    this.#pieces.push(path);
    await this.#connection.run(`COPY (SELECT ${part} AS "_part", ${columns} FROM ${from})
      TO ${quoteText(path)} (FORMAT parquet, COMPRESSION snappy, ROW_GROUP_SIZE ${pieceRowGroupRows},
      ROW_GROUP_SIZE_BYTES '${rowGroupBytes}',
      ${dictionaryLimit(this.#settings.columns.length, this.#settings.memoryBytes)})`);
    await round.drop(this.#connection);
  }

  async #copyParts({ from, part, columns }: StagedSource): Promise<DataFile[]> {
    const { folder } = this.#settings;
    const files: DataFile[] = [];
    for (const [number, { tenant, date }] of this.#parts.entries()) {
      const localPath = join(folder, `${number}.parquet`);
      const result = await this.#connection.runAndReadAll(`COPY (
        SELECT ${columns} FROM ${from} WHERE ${part} = ${number})
        TO ${quoteText(localPath)}
        (FORMAT parquet, ${copyOptions(this.#settings, this.#settings.columns.length)})`);
      const rows = Number(result.getRows()[0]![0]);
      files.push({ localPath, rows, bytes: (await stat(localPath)).size, tenant, date });
    }
    return files;
  }
}

/** Of a data file. */
export function copyOptions(
  settings: Omit<EncoderSettings, keyof FileEncoderSettings>,
  columns: number,
): string {
  const { compression, rowGroupRows, memoryBytes } = settings;
  return `COMPRESSION ${codecs[compression]}, ROW_GROUP_SIZE ${rowGroupRows}, ROW_GROUP_SIZE_BYTES '${rowGroupBytes}',
    ${dictionaryLimit(columns, memoryBytes)}`;
}

const codecs = { zstd: 'zstd', snappy: 'snappy', gzip: 'gzip', none: 'uncompressed' } as const;
