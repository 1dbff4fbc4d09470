/**
 * The encoder without DuckDB: one parquetjs writer per open partition. What it cannot hold is text (decimals,
 * uuids) or goes to `_exact` (columns.ts says what). It keeps a row group of JavaScript values per writer, at some
 * 600 bytes a cell, so when all of them together pass a sixteenth of the memory budget, row groups are ended early.
 */
import { stat } from 'node:fs/promises';
import { join } from 'node:path';
import parquet, { type ParquetField, type ParquetSchema, type ParquetWriter } from 'parquetjs-lite';
import { TidemarkError } from '../../../src/connector/failure.ts';
import type { ChangeRow } from './change-row.ts';
import type { Storage, StoredColumn } from './columns.ts';
import {
  type EncodedFile,
  type Encoder,
  type EncoderSettings,
  maxFileBytes,
  partitionOf,
} from './encoder.ts';

const maxRowGroupRows = 5_000;
/** Each has a file open. */
const maxWriters = 200;
/** Measured: what a buffered cell costs beside its text (its buffer, two levels, an entry in a set of values). */
const bytesPerCell = 600;
const bytesPerCharacter = 3;
const metadataCells = 9;

interface OpenFile {
  writer: ParquetWriter;
  file: EncodedFile;
  /** Estimated bytes of memory in the open row group. */
  buffered: number;
  rowsInGroup: number;
  /** Characters in the whole file. */
  total: number;
}

export class ParquetjsEncoder implements Encoder {
  readonly #settings: EncoderSettings;
  readonly #schema: ParquetSchema;
  readonly #rowGroupRows: number;
  readonly #open = new Map<string, OpenFile>();
  readonly #files: EncodedFile[] = [];
  #buffered = 0;

  constructor(settings: EncoderSettings) {
    this.#settings = settings;
    this.#schema = schemaOf(settings);
    this.#rowGroupRows = Math.min(settings.rowGroupRows, maxRowGroupRows);
  }

  async write(rows: readonly ChangeRow[]): Promise<void> {
    try {
      for (const row of rows) await this.#put(row);
    } catch (error) {
      throw failure(error);
    }
  }

  async finish(): Promise<EncodedFile[]> {
    try {
      for (const identity of [...this.#open.keys()]) await this.#finishFile(identity);
    } catch (error) {
      throw failure(error);
    }
    return this.#files;
  }

  async close(): Promise<void> {
    for (const { writer } of this.#open.values()) await writer.close().catch(() => {});
    this.#open.clear();
  }

  async #put(row: ChangeRow): Promise<void> {
    const identity = partitionOf(row);
    let open = this.#open.get(identity);
    if (open === undefined) {
      if (this.#open.size >= maxWriters) await this.#finishFullest(identity);
      open = await this.#start(row);
      this.#open.set(identity, open);
    }
    const cost = bytesPerCell * (row.cells.length + metadataCells) + bytesPerCharacter * row.size;
    const budget = this.#settings.memoryBytes / 16;
    // A writer ends its row group when it comes by with more than its share; one that grew large and then stays away
    // has its file finished.
    const full = this.#buffered + cost > budget;
    const flush = full && open.buffered + cost >= this.#buffered / this.#open.size;
    if (this.#buffered > 1.5 * budget) await this.#finishFullest(identity);
    if (flush) open.writer.setRowGroupSize(1);
    await open.writer.appendRow(recordOf(row, this.#settings.columns));
    if (flush) open.writer.setRowGroupSize(this.#rowGroupRows);
    open.file.rows += 1;
    open.total += row.size;
    open.rowsInGroup += 1;
    open.buffered += cost;
    this.#buffered += cost;
    if (flush || open.rowsInGroup === this.#rowGroupRows) {
      this.#buffered -= open.buffered;
      open.buffered = 0;
      open.rowsInGroup = 0;
    }
    if (open.total >= maxFileBytes) await this.#finishFile(identity);
  }

  async #start({ tenant, date }: ChangeRow): Promise<OpenFile> {
    const number = this.#files.length + this.#open.size;
    const localPath = join(this.#settings.folder, `${number}-${this.#open.size}.parquet`);
    const writer = await parquet.ParquetWriter.openFile(this.#schema, localPath, {
      rowGroupSize: this.#rowGroupRows,
      // Version 1 pages: some readers do not know the second.
      useDataPageV2: false,
    });
    return {
      writer,
      file: { localPath, rows: 0, bytes: 0, tenant, date },
      buffered: 0,
      rowsInGroup: 0,
      total: 0,
    };
  }

  async #finishFullest(except: string): Promise<void> {
    let fullest: string | null = null;
    let most = -1;
    for (const [identity, { buffered }] of this.#open) {
      if (identity !== except && buffered > most) [fullest, most] = [identity, buffered];
    }
    if (fullest !== null) await this.#finishFile(fullest);
  }

  async #finishFile(identity: string): Promise<void> {
    const { writer, file, buffered } = this.#open.get(identity)!;
    this.#open.delete(identity);
    this.#buffered -= buffered;
    await writer.close();
    file.bytes = (await stat(file.localPath)).size;
    this.#files.push(file);
  }
}

/** parquetjs throws texts that quote the value: only the kind of failure may leave. */
function failure(error: unknown): TidemarkError {
  if (error instanceof TidemarkError) return error;
  const code = (error as NodeJS.ErrnoException | null)?.code;
  if (typeof code === 'string') {
    return new TidemarkError('TM406', `cannot write a Parquet file to the scratch directory: ${code}`);
  }
  return new TidemarkError('TM405', "parquetjs refused a value of a column's type");
}

const types: Partial<Record<Storage['kind'], string>> = {
  smallint: 'INT_16',
  integer: 'INT_32',
  bigint: 'INT_64',
  boolean: 'BOOLEAN',
  real: 'FLOAT',
  double: 'DOUBLE',
  date: 'DATE',
  timestamp: 'TIMESTAMP_MICROS',
  timestamptz: 'TIMESTAMP_MICROS',
  bytea: 'BYTE_ARRAY',
};

function schemaOf({ columns, compression }: EncoderSettings): ParquetSchema {
  const codec = compression === 'none' ? 'UNCOMPRESSED' : compression.toUpperCase();
  const field = (type: string, more: Partial<ParquetField> = { optional: true }): ParquetField => ({
    type,
    compression: codec,
    // parquetjs orders text by UTF-16 units, so its minimum and maximum would let readers skip matching rows.
    statistics: false,
    ...more,
  });
  const fields: Record<string, ParquetField> = {
    _op: field('UTF8'),
    _position: field('UTF8'),
    _commit_time: field('TIMESTAMP_MICROS'),
    _unchanged: field('UTF8', { repeated: true }),
    _previous_key: field('UTF8', { repeated: true }),
    _before: field('UTF8'),
    _exact: field('UTF8'),
    _image: field('UTF8'),
    _before_image: field('UTF8'),
  };
  for (const { field: name, storage } of columns) fields[name] = field(types[storage.kind] ?? 'UTF8');
  return new parquet.ParquetSchema(fields);
}

function recordOf(row: ChangeRow, columns: readonly StoredColumn[]): Record<string, unknown> {
  const record = Object.create(null) as Record<string, unknown>;
  record._op = row.op;
  record._position = row.position;
  record._commit_time = row.commitTimeUs;
  if (row.unchanged) record._unchanged = row.unchanged;
  if (row.previousKey) record._previous_key = row.previousKey;
  if (row.before !== null) record._before = row.before;
  if (row.exact !== null) record._exact = row.exact;
  if (row.image !== null) record._image = row.image;
  if (row.beforeImage !== null) record._before_image = row.beforeImage;
  for (const [index, { field, storage }] of columns.entries()) {
    const text = row.cells[index]!;
    if (text !== null) record[field] = nativeValue(storage.kind, text);
  }
  return record;
}

function nativeValue(kind: Storage['kind'], text: string): unknown {
  switch (kind) {
    case 'boolean':
      return text === 't';
    case 'date':
      return Date.parse(`${text}T00:00:00Z`) / 86_400_000;
    case 'timestamp':
    case 'timestamptz':
      return microseconds(text);
    case 'bytea':
      return Buffer.from(text.slice(2), 'hex');
    default:
      return text;
  }
}

/** Microseconds since 1970 of `YYYY-MM-DD hh:mm:ss[.ffffff][+00]`. */
function microseconds(text: string): bigint {
  const seconds = Date.parse(`${text.slice(0, 10)}T${text.slice(11, 19)}Z`) / 1000;
  const fraction = /^\.(\d{1,6})/.exec(text.slice(19))?.[1] ?? '';
  return BigInt(seconds) * 1_000_000n + BigInt(fraction.padEnd(6, '0'));
}
