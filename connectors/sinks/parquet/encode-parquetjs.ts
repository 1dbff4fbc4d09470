/**
 * The encoder without DuckDB. What parquetjs cannot hold is text (decimals, uuids) or goes to `_exact` (columns.ts says
 * what). Rows are first spooled to one file of JSON lines per data file; at the end one parquetjs writer after the other
 * makes them Parquet. (A writer per partition side by side was tried: the metadata of their row groups alone took
 * 700 MiB at 200 tenants.)
 */
import { createReadStream } from 'node:fs';
import { appendFile, rm, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { setImmediate } from 'node:timers/promises';
import parquet, { type ParquetField, type ParquetSchema } from 'parquetjs-lite';
import { TidemarkError } from '../../../src/connector/failure.ts';
import { beforeJson } from '../../object-log/before-json.ts';
import type { ChangeRow } from '../../object-log/change-row.ts';
import { type DataFile, type FileEncoder, maxFileBytes } from '../../object-log/data-file.ts';
import type { StoredColumn } from '../../object-log/fields.ts';
import { partitionOf } from '../../object-log/partition.ts';
import type { Storage } from '../../object-log/storage.ts';
import type { EncoderSettings } from './options.ts';

const maxRowGroupRows = 5_000;
/** Measured: what a buffered cell costs beside its text (its buffer, two levels, an entry in a set of values). */
const bytesPerCell = 600;
const bytesPerCharacter = 3;
/** Characters of spooled lines held in memory over all files. */
const spoolCharacters = 8 * 1024 * 1024;

/** What becomes one file: the rows of a partition, up to maxFileBytes of text. */
interface Part {
  file: DataFile;
  spool: string;
  /** Characters of text. */
  size: number;
  lines: string[];
}

/** A ChangeRow on its way over the disk: JSON has no bigint. */
type SpooledRow = Omit<ChangeRow, 'commitTimeUs' | 'tenant' | 'date' | 'before'> & {
  commitTimeUs: string;
  before: string | null;
};

export class ParquetjsEncoder implements FileEncoder {
  readonly #settings: EncoderSettings;
  readonly #schema: ParquetSchema;
  readonly #rowGroupRows: number;
  readonly #parts: Part[] = [];
  /** The part that takes a partition's next row. */
  readonly #current = new Map<string, Part>();
  #held = 0;

  constructor(settings: EncoderSettings) {
    this.#settings = settings;
    this.#schema = schemaOf(settings);
    this.#rowGroupRows = Math.min(settings.rowGroupRows, maxRowGroupRows);
  }

  async write(rows: readonly ChangeRow[]): Promise<void> {
    try {
      for (const row of rows) {
        this.#put(row);
        if (this.#held > spoolCharacters) await this.#spool();
      }
    } catch (error) {
      throw failure(error);
    }
  }

  async finish(): Promise<DataFile[]> {
    try {
      await this.#spool();
      for (const part of this.#parts) await this.#encode(part);
    } catch (error) {
      throw failure(error);
    }
    return this.#parts.map(({ file }) => file);
  }

  async close(): Promise<void> {}

  #put(row: ChangeRow): void {
    const identity = partitionOf(row);
    let part = this.#current.get(identity);
    if (part === undefined || part.size >= maxFileBytes) {
      const path = join(this.#settings.folder, String(this.#parts.length));
      const { tenant, date } = row;
      const file = { localPath: `${path}.parquet`, rows: 0, bytes: 0, tenant, date };
      part = { file, spool: `${path}.jsonl`, size: 0, lines: [] };
      this.#parts.push(part);
      this.#current.set(identity, part);
    }
    const { tenant: _tenant, date: _date, ...rest } = row;
    const before = beforeJson(this.#settings.columns, row);
    const spooled: SpooledRow = { ...rest, before, commitTimeUs: String(row.commitTimeUs) };
    // readline also ends a line at these two, which JSON leaves as they are.
    const json = JSON.stringify(spooled).replace(/[\u2028\u2029]/g, (char) =>
      char === '\u2028' ? '\\u2028' : '\\u2029',
    );
    const line = `${json}\n`;
    part.lines.push(line);
    part.size += row.size;
    part.file.rows += 1;
    this.#held += line.length;
  }

  async #spool(): Promise<void> {
    for (const part of this.#parts) {
      if (part.lines.length === 0) continue;
      await appendFile(part.spool, part.lines.join(''));
      part.lines = [];
    }
    this.#held = 0;
  }

  async #encode({ file, spool }: Part): Promise<void> {
    const { columns, memoryBytes } = this.#settings;
    const writer = await parquet.ParquetWriter.openFile(this.#schema, file.localPath, {
      rowGroupSize: this.#rowGroupRows,
      // Version 1 pages: some readers do not know the second.
      useDataPageV2: false,
    });
    let rows = 0;
    let buffered = 0;
    for await (const line of createInterface({ input: createReadStream(spool), crlfDelay: Infinity })) {
      const row = JSON.parse(line) as SpooledRow;
      rows += 1;
      buffered += bytesPerCell * (columns.length + 9) + bytesPerCharacter * row.size;
      // A row group of large rows ends before its number of rows is reached.
      const full = rows === this.#rowGroupRows || buffered > memoryBytes / 8;
      if (full) writer.setRowGroupSize(1);
      await writer.appendRow(recordOf(row, columns));
      if (!full) continue;
      writer.setRowGroupSize(this.#rowGroupRows);
      rows = 0;
      buffered = 0;
      await setImmediate();
    }
    await writer.close();
    await rm(spool);
    file.bytes = (await stat(file.localPath)).size;
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

function recordOf(row: SpooledRow, columns: readonly StoredColumn[]): Record<string, unknown> {
  const record = Object.create(null) as Record<string, unknown>;
  record._op = row.op;
  record._position = row.position;
  record._commit_time = BigInt(row.commitTimeUs);
  if (row.unchanged) record._unchanged = row.unchanged;
  if (row.previousKey) record._previous_key = row.previousKey;
  if (row.before !== null) record._before = row.before;
  if (row.exact !== null) record._exact = row.exact;
  if (row.image !== null) record._image = row.image;
  if (row.beforeImage !== null) record._before_image = row.beforeImage;
  for (const [index, { field, storage }] of columns.entries()) {
    // What the Change does not show is null after the spool.
    const text = row.cells[index] ?? null;
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
