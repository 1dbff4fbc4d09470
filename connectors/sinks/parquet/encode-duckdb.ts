/**
 * The default encoder. Rows are appended as text to a temporary table; when that reaches half of the memory budget,
 * it is sorted by partition and every partition is copied to a Parquet file with the casts. So memory follows
 * parquet.memory.bytes whatever the Window's size, at the cost of one more file per partition and round.
 * (One staging table per Window with spilling, and COPY … PARTITION_BY, were tried: 400 MiB over the limit, and out of
 * memory at 500 partitions.)
 */
import { stat } from 'node:fs/promises';
import { join } from 'node:path';
import {
  BIGINT,
  type DuckDBAppender,
  type DuckDBConnection,
  DuckDBDataChunk,
  DuckDBInstance,
  type DuckDBValue,
  INTEGER,
  VARCHAR,
} from '@duckdb/node-api';
import type { ChangeRow } from './change-row.ts';
import { quoteName, quoteText, type StoredColumn } from './columns.ts';
import { duckdbFailure } from './duckdb-failure.ts';
import {
  type EncodedFile,
  type Encoder,
  type EncoderSettings,
  maxFileBytes,
  partitionOf,
} from './encoder.ts';

/** DuckDB's vector size. */
const chunkRows = 2048;
/** Chunks after which the appender's own buffer, which no limit counts, goes to the table. */
const flushChunks = 8;
const fixedColumns = 10;

interface Partition {
  tenant: string | null | undefined;
  date: string;
}

export class DuckdbEncoder implements Encoder {
  readonly #settings: EncoderSettings;
  readonly #instance: DuckDBInstance;
  readonly #connection: DuckDBConnection;
  readonly #files: EncodedFile[] = [];
  /** Characters of text after which a round is encoded. */
  readonly #roundBytes: number;
  readonly #chunk: DuckDBDataChunk;
  readonly #buffer: DuckDBValue[][];
  #appender: DuckDBAppender;
  #filled = 0;
  #chunks = 0;
  #bytes = 0;
  #partitions: Partition[] = [];
  #numbers = new Map<string, number>();

  private constructor(
    settings: EncoderSettings,
    instance: DuckDBInstance,
    connection: DuckDBConnection,
    appender: DuckDBAppender,
  ) {
    this.#settings = settings;
    this.#instance = instance;
    this.#connection = connection;
    this.#appender = appender;
    this.#roundBytes = Math.min(settings.memoryBytes / 2, maxFileBytes);
    const texts = settings.columns.length;
    this.#chunk = DuckDBDataChunk.create([
      INTEGER,
      BIGINT,
      ...new Array(fixedColumns - 2 + texts).fill(VARCHAR),
    ]);
    this.#buffer = Array.from({ length: fixedColumns + texts }, () => new Array<DuckDBValue>(chunkRows));
  }

  static async open(settings: EncoderSettings): Promise<DuckdbEncoder> {
    try {
      const instance = await DuckDBInstance.create(':memory:', {
        // One thread: the appender is the bottleneck, and each thread holds row groups of its own.
        threads: '1',
        memory_limit: `${settings.memoryBytes}B`,
        temp_directory: join(settings.folder, 'spill'),
        preserve_insertion_order: 'false',
        autoinstall_known_extensions: 'false',
        autoload_known_extensions: 'false',
      });
      const connection = await instance.connect();
      await connection.run("SET TimeZone = 'UTC'");
      await connection.run(stagingTable(settings.columns));
      return new DuckdbEncoder(settings, instance, connection, await connection.createAppender('staged'));
    } catch (error) {
      throw duckdbFailure(error, 'start the Parquet encoder');
    }
  }

  async write(rows: readonly ChangeRow[]): Promise<void> {
    try {
      for (const row of rows) {
        this.#put(row);
        if (this.#filled === chunkRows) this.#append();
        if (this.#bytes >= this.#roundBytes) await this.#encodeRound();
      }
    } catch (error) {
      throw duckdbFailure(error, 'stage rows');
    }
  }

  async finish(): Promise<EncodedFile[]> {
    try {
      await this.#encodeRound();
    } catch (error) {
      throw duckdbFailure(error, 'write a Parquet file');
    }
    return this.#files;
  }

  async close(): Promise<void> {
    this.#connection.closeSync();
    this.#instance.closeSync();
  }

  #put(row: ChangeRow): void {
    const identity = partitionOf(row);
    let number = this.#numbers.get(identity);
    if (number === undefined) {
      number = this.#partitions.length;
      this.#numbers.set(identity, number);
      this.#partitions.push({ tenant: row.tenant, date: row.date });
    }
    const at = this.#filled;
    const buffer = this.#buffer;
    buffer[0]![at] = number;
    buffer[1]![at] = row.commitTimeUs;
    buffer[2]![at] = row.op;
    buffer[3]![at] = row.position;
    buffer[4]![at] = row.unchanged && JSON.stringify(row.unchanged);
    buffer[5]![at] = row.previousKey && JSON.stringify(row.previousKey);
    buffer[6]![at] = row.before;
    buffer[7]![at] = row.exact;
    buffer[8]![at] = row.image;
    buffer[9]![at] = row.beforeImage;
    for (let index = 0; index < row.cells.length; index += 1) {
      buffer[fixedColumns + index]![at] = row.cells[index]!;
    }
    this.#filled += 1;
    this.#bytes += row.size;
  }

  #append(): void {
    const rows = this.#filled;
    if (rows === 0) return;
    this.#chunk.rowCount = rows;
    for (const [index, column] of this.#buffer.entries()) {
      this.#chunk.setColumnValues(index, rows === chunkRows ? column : column.slice(0, rows));
    }
    this.#appender.appendDataChunk(this.#chunk);
    // Without a reset the strings of every earlier chunk stay allocated.
    this.#chunk.reset();
    this.#filled = 0;
    this.#chunks += 1;
    if (this.#chunks % flushChunks === 0) this.#appender.flushSync();
  }

  async #encodeRound(): Promise<void> {
    this.#append();
    if (this.#bytes === 0) return;
    this.#appender.flushSync();
    this.#appender.closeSync();
    let table = 'staged';
    if (this.#partitions.length > 1) {
      // Sorted, so that each COPY below reads only its own row groups.
      await this.#connection.run('CREATE TEMP TABLE sorted AS SELECT * FROM staged ORDER BY part, position');
      await this.#connection.run('DROP TABLE staged');
      table = 'sorted';
    }
    for (const [number, partition] of this.#partitions.entries()) {
      const localPath = join(this.#settings.folder, `${this.#files.length}.parquet`);
      const result = await this.#connection.runAndReadAll(
        copyStatement(this.#settings, table, number, localPath),
      );
      const rows = Number(result.getRows()[0]![0]);
      this.#files.push({ localPath, rows, bytes: (await stat(localPath)).size, ...partition });
    }
    await this.#connection.run(`DROP TABLE ${table}`);
    await this.#connection.run(stagingTable(this.#settings.columns));
    this.#appender = await this.#connection.createAppender('staged');
    this.#partitions = [];
    this.#numbers = new Map();
    this.#bytes = 0;
  }
}

function stagingTable(columns: readonly StoredColumn[]): string {
  const cells = columns.map((_, index) => `, c${index} VARCHAR`).join('');
  return `CREATE TEMP TABLE staged (part INTEGER, commit_us BIGINT, op VARCHAR, position VARCHAR, unchanged VARCHAR,
    previous_key VARCHAR, before VARCHAR, exact VARCHAR, image VARCHAR, before_image VARCHAR${cells})`;
}

const codecs = { zstd: 'zstd', snappy: 'snappy', gzip: 'gzip', none: 'uncompressed' } as const;

function copyStatement(settings: EncoderSettings, table: string, part: number, path: string): string {
  const cells = settings.columns.map(
    ({ field, storage }, index) => `,\n    ${castFromText(`c${index}`, storage)} AS ${quoteName(field)}`,
  );
  return `COPY (SELECT op AS "_op", position AS "_position",
    CAST(make_timestamp(commit_us) AS TIMESTAMPTZ) AS "_commit_time",
    from_json(unchanged, '["VARCHAR"]') AS "_unchanged", from_json(previous_key, '["VARCHAR"]') AS "_previous_key",
    before AS "_before", exact AS "_exact", image AS "_image", before_image AS "_before_image"${cells.join('')}
    FROM ${table} WHERE part = ${part})
    TO ${quoteText(path)} (FORMAT parquet, COMPRESSION ${codecs[settings.compression]},
    ROW_GROUP_SIZE ${settings.rowGroupRows})`;
}

function castFromText(expression: string, { kind, duckdbType }: StoredColumn['storage']): string {
  if (kind === 'text') return expression;
  // Postgres prints bytea as \x followed by hexadecimal digits.
  if (kind === 'bytea') return `unhex(substr(${expression}, 3))`;
  return `CAST(${expression} AS ${duckdbType})`;
}
