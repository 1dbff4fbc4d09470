/**
 * Values in the forms that they travel in, to the vectors that DuckDB keeps a column's values in (duckdb.h, "duckdb_vector"):
 * one writer for each column, 2,048 rows at a time, without a call into DuckDB for every value.
 */
import {
  BIGINT,
  BLOB,
  BOOLEAN,
  DATE,
  DECIMAL,
  DOUBLE,
  type DuckDBType,
  FLOAT,
  INTEGER,
  SMALLINT,
  TIMESTAMP,
  TIMESTAMPTZ,
  UUID,
  VARCHAR,
} from '@duckdb/node-api';
import type { CellReceiver } from '../../src/connector/native-row.ts';
import { uuidBytes } from '../../src/connector/uuid-bytes.ts';
import type { Storage } from '../object-log/storage.ts';

/** DuckDB's vector size. */
export const vectorRows = 2048;

/** The row that is being written, of all columns. */
export interface RowSlot {
  /** Its place in the vectors. */
  row: number;
  /** Unset by a value that its column does not hold; what is written of the row then does not count. */
  fits: boolean;
  /** Of long strings in all columns. */
  heapBytes: number;
}

export abstract class ColumnWriter implements CellReceiver {
  readonly type: DuckDBType;
  /** A bit for every row, set where it has a value. */
  readonly validity = new Uint8Array(vectorRows / 8).fill(255);
  readonly data: DataView;
  protected readonly slot: RowSlot;

  protected constructor(slot: RowSlot, type: DuckDBType, width: number) {
    this.slot = slot;
    this.type = type;
    this.data = new DataView(new ArrayBuffer(vectorRows * width));
  }

  nothing(): void {
    const { row } = this.slot;
    this.validity[row >> 3]! &= ~(1 << (row & 7));
  }

  /** A column that holds no text has no place for a value that comes as one. */
  text(_cell: string): void {
    this.slot.fits = false;
  }

  protected valid(): number {
    const { row } = this.slot;
    this.validity[row >> 3]! |= 1 << (row & 7);
    return row;
  }

  protected int64(row: number, value: number): void {
    this.data.setInt32(row * 8, value | 0, true);
    this.data.setInt32(row * 8 + 4, Math.floor(value / 0x1_0000_0000), true);
  }
}

class BooleanWriter extends ColumnWriter {
  constructor(slot: RowSlot) {
    super(slot, BOOLEAN, 1);
  }

  boolean(value: boolean): void {
    this.data.setUint8(this.valid(), value ? 1 : 0);
  }
}

class SmallintWriter extends ColumnWriter {
  constructor(slot: RowSlot) {
    super(slot, SMALLINT, 2);
  }

  integer(value: number): void {
    if (value < -0x8000 || value > 0x7fff) this.slot.fits = false;
    else this.data.setInt16(this.valid() * 2, value, true);
  }
}

export class IntegerWriter extends ColumnWriter {
  constructor(slot: RowSlot) {
    super(slot, INTEGER, 4);
  }

  integer(value: number): void {
    if (value !== (value | 0)) this.slot.fits = false;
    else this.data.setInt32(this.valid() * 4, value, true);
  }
}

class BigintWriter extends ColumnWriter {
  constructor(slot: RowSlot) {
    super(slot, BIGINT, 8);
  }

  integer(value: number): void {
    this.int64(this.valid(), value);
  }
}

/** Parquet's dictionaries take -0 and 0 for one value, so that a -0 has no place in a column. */
class RealWriter extends ColumnWriter {
  constructor(slot: RowSlot) {
    super(slot, FLOAT, 4);
  }

  real(value: number): void {
    if (Object.is(value, -0)) this.slot.fits = false;
    else this.data.setFloat32(this.valid() * 4, value, true);
  }
}

class DoubleWriter extends ColumnWriter {
  constructor(slot: RowSlot) {
    super(slot, DOUBLE, 8);
  }

  double(value: number): void {
    if (Object.is(value, -0)) this.slot.fits = false;
    else this.data.setFloat64(this.valid() * 8, value, true);
  }
}

/** Bytes of a decimal by its digits. */
function decimalWidth(digits: number): 2 | 4 | 8 | 16 {
  return digits <= 4 ? 2 : digits <= 9 ? 4 : digits <= 18 ? 8 : 16;
}

class DecimalWriter extends ColumnWriter {
  readonly #scale: number;
  readonly #limit: number;
  readonly #width: number;

  constructor(slot: RowSlot, { integerDigits, scale }: Storage) {
    super(slot, DECIMAL(integerDigits + scale, scale), decimalWidth(integerDigits + scale));
    this.#scale = scale;
    this.#limit = 10 ** (integerDigits + scale);
    this.#width = decimalWidth(integerDigits + scale);
  }

  decimal(value: number, scale: number): void {
    if (scale !== this.#scale || Math.abs(value) >= this.#limit) {
      this.slot.fits = false;
      return;
    }
    const row = this.valid();
    const { data } = this;
    if (this.#width === 2) data.setInt16(row * 2, value, true);
    else if (this.#width === 4) data.setInt32(row * 4, value, true);
    else if (this.#width === 8) this.int64(row, value);
    else {
      this.int64(row * 2, value);
      const sign = value < 0 ? -1 : 0;
      data.setInt32(row * 16 + 8, sign, true);
      data.setInt32(row * 16 + 12, sign, true);
    }
  }
}

/** Days from 1970-01-01 to 0001-01-01 and to 9999-12-31: the years that every reader of files takes. */
const firstDay = -719_162;
const lastDay = 2_932_896;

class DateWriter extends ColumnWriter {
  constructor(slot: RowSlot) {
    super(slot, DATE, 4);
  }

  date(days: number): void {
    if (days < firstDay || days > lastDay) this.slot.fits = false;
    else this.data.setInt32(this.valid() * 4, days, true);
  }
}

export class TimestampWriter extends ColumnWriter {
  constructor(slot: RowSlot, zoned: boolean) {
    super(slot, zoned ? TIMESTAMPTZ : TIMESTAMP, 8);
  }

  /** Of exact microseconds, none is outside the years 1 to 9999. */
  timestamp(micros: number): void {
    this.int64(this.valid(), micros);
  }
}

/** As a number of 128 bits whose highest bit is inverted. */
class UuidWriter extends ColumnWriter {
  constructor(slot: RowSlot) {
    super(slot, UUID, 16);
  }

  utf8(bytes: Buffer, start: number, end: number): void {
    const at = this.valid() * 16;
    if (!uuidBytes(bytes, start, end, uuid, 0)) this.slot.fits = false;
    uuid[0]! ^= 0x80;
    for (let i = 0; i < 16; i++) this.data.setUint8(at + 15 - i, uuid[i]!);
  }
}

const uuid = new Uint8Array(16);

/** A string of up to so many bytes stands in the vector itself, a longer one in a heap (duckdb.h, "duckdb_string_t"). */
const inlined = 12;
const stringWidth = 16;

/** What strings and bytes have in common. */
export abstract class HeapWriter extends ColumnWriter {
  /** Bytes of the longer ones, one after the other; the vector has where each begins. */
  heap = Buffer.allocUnsafeSlow(1 << 14);
  used = 0;
  readonly #bytes: Uint8Array;

  protected constructor(slot: RowSlot, type: typeof VARCHAR | typeof BLOB) {
    super(slot, type, stringWidth);
    this.#bytes = new Uint8Array(this.data.buffer);
  }

  protected put(bytes: Buffer, start: number, end: number): void {
    const at = this.valid() * stringWidth;
    const length = end - start;
    this.data.setUint32(at, length, true);
    if (length <= inlined) {
      for (let i = 0; i < inlined; i++) this.#bytes[at + 4 + i] = i < length ? bytes[start + i]! : 0;
      return;
    }
    for (let i = 0; i < 4; i++) this.#bytes[at + 4 + i] = bytes[start + i]!;
    if (this.used + length > this.heap.length) this.#grow(length);
    this.data.setUint32(at + 8, this.used, true);
    bytes.copy(this.heap, this.used, start, end);
    this.used += length;
    this.slot.heapBytes += length;
  }

  #grow(more: number): void {
    const larger = Buffer.allocUnsafeSlow(Math.max(this.heap.length * 2, this.used + more));
    larger.set(this.heap.subarray(0, this.used));
    this.heap = larger;
  }

  /** A vector's entries, once it is known where DuckDB has the heap. */
  placed(rows: number, heapAt: bigint): ArrayBuffer {
    const { data } = this;
    const entries = this.#bytes.slice(0, rows * stringWidth).buffer;
    const view = new DataView(entries);
    for (let at = 0; at < rows * stringWidth; at += stringWidth) {
      if (data.getUint32(at, true) > inlined)
        view.setBigUint64(at + 8, heapAt + BigInt(data.getUint32(at + 8, true)), true);
    }
    return entries;
  }

  empty(): void {
    this.used = 0;
    // One long row is not to be kept for ever.
    if (this.heap.length > 1 << 22) this.heap = Buffer.allocUnsafeSlow(1 << 14);
  }
}

/** Where texts become bytes. */
let scratch = Buffer.alloc(1 << 10);

export class StringWriter extends HeapWriter {
  constructor(slot: RowSlot) {
    super(slot, VARCHAR);
  }

  utf8(bytes: Buffer, start: number, end: number): void {
    this.put(bytes, start, end);
  }

  override text(cell: string): void {
    if (cell.length * 3 > scratch.length) scratch = Buffer.alloc(cell.length * 3);
    this.put(scratch, 0, scratch.write(cell));
  }
}

/** Takes no text: of bytea that is in hexadecimal digits. */
class BlobWriter extends HeapWriter {
  constructor(slot: RowSlot) {
    super(slot, BLOB);
  }

  binary(bytes: Buffer, start: number, end: number): void {
    this.put(bytes, start, end);
  }
}

export function columnWriter(slot: RowSlot, storage: Storage): ColumnWriter {
  switch (storage.kind) {
    case 'boolean':
      return new BooleanWriter(slot);
    case 'smallint':
      return new SmallintWriter(slot);
    case 'integer':
      return new IntegerWriter(slot);
    case 'bigint':
      return new BigintWriter(slot);
    case 'real':
      return new RealWriter(slot);
    case 'double':
      return new DoubleWriter(slot);
    case 'decimal':
      return new DecimalWriter(slot, storage);
    case 'date':
      return new DateWriter(slot);
    case 'timestamp':
    case 'timestamptz':
      return new TimestampWriter(slot, storage.kind === 'timestamptz');
    case 'uuid':
      return new UuidWriter(slot);
    case 'bytea':
      return new BlobWriter(slot);
    case 'text':
      return new StringWriter(slot);
  }
}
