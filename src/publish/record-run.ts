/**
 * Records of one partition, one behind the other in Kafka's format, behind room for the batch's header: a record is
 * written where it is sent from. Whoever writes a value writes it straight into `out`.
 */
import { ByteReader, ByteWriter } from './byte-writer.ts';

/** Room for what a record batch has before its records. */
export const headerBytes = 61;

/** A run's first buffer; it grows with what comes. */
const firstBytes = 16 << 10;
/** Buffers that have grown are used again: to grow costs a copy, and fresh memory is touched for the first time. */
const spares: Buffer[] = [];
let spareBytes = 0;
const mostSpareBytes = 32 << 20;
const largestSpare = 4 << 20;
/** Records have headers and an envelope beside the row: about this much. */
const usualFrame = 400;

export type HeaderValue = Buffer | string;

export class RecordRun {
  readonly topic: string;
  readonly partition: number;
  readonly out: ByteWriter;
  count = 0;
  /** What the batch remembers of the run: how long it was at a boundary, and before the Change that is written now. */
  boundary = { serial: -1, position: 0, count: 0 };
  change = { serial: -1, position: 0, count: 0 };
  #recordAt = 0;
  #valueAt = 0;
  /** Lengths are written into as many bytes as they are expected to need; else what comes after them has to move. */
  #slot = 2;

  constructor(topic: string, partition: number) {
    this.topic = topic;
    this.partition = partition;
    const spare = spares.pop();
    if (spare) spareBytes -= spare.length;
    this.out = new ByteWriter(firstBytes, spare);
    this.out.position = headerBytes;
  }

  /** Its bytes may be another run's from now on: nobody has a view of them any more. */
  release(): void {
    const { bytes } = this.out;
    if (bytes.length <= firstBytes || bytes.length > largestSpare) return;
    if (spareBytes + bytes.length > mostSpareBytes) return;
    spares.push(bytes);
    spareBytes += bytes.length;
  }

  /** Of the records, in bytes. */
  get bytes(): number {
    return this.out.position - headerBytes;
  }

  /**
   * A record begins, with its key; its value comes next.
   * @param keyLength -1: none
   * @param rowBytes of the value, about
   */
  begin(key: Buffer | null, keyLength: number, rowBytes = 0): void {
    const { out } = this;
    this.#recordAt = out.position;
    this.#slot = varintWidth(rowBytes + usualFrame);
    out.ensure(this.#slot + 2 + 10);
    out.position += this.#slot;
    out.bytes[out.position++] = 0; // attributes: none are defined
    out.bytes[out.position++] = 0; // timestamp delta
    out.long(this.count);
    out.long(key ? keyLength : -1);
    if (key) out.raw(key, 0, keyLength);
  }

  beginValue(): void {
    const { out } = this;
    out.ensure(this.#slot);
    out.position += this.#slot;
    this.#valueAt = out.position;
  }

  /** @returns the value's length in bytes */
  endValue(): number {
    const length = this.out.position - this.#valueAt;
    this.#putLength(this.#valueAt, length);
    return length;
  }

  noValue(): void {
    this.out.byte(1); // length -1
  }

  /** @returns the record's length in bytes */
  end(): number {
    const from = this.#recordAt + this.#slot;
    this.#putLength(from, this.out.position - from);
    this.count++;
    return this.out.position - this.#recordAt;
  }

  /** A whole record. @returns its length in bytes */
  add(
    key: Buffer | null,
    value: Buffer | null,
    headers: readonly (readonly [name: string, value: HeaderValue])[],
  ): number {
    const { out } = this;
    this.begin(key, key?.length ?? -1);
    if (value) out.lengthPrefixed(value, 0, value.length);
    else this.noValue();
    out.long(headers.length);
    for (const [name, of] of headers) this.header(name, of);
    return this.end();
  }

  /** One of the headers, whose number comes before the first. */
  header(name: string, value: HeaderValue): void {
    const { out } = this;
    out.text(name);
    if (typeof value === 'string') out.text(value);
    else out.lengthPrefixed(value, 0, value.length);
  }

  /** Forgets what came after. */
  truncate({ position, count }: { position: number; count: number }): void {
    this.out.position = position;
    this.out.inexact = false;
    this.count = count;
  }

  /** Takes the records from there on: a record says which it is of its batch, so each is written anew. */
  cut(at: { position: number; count: number }): RecordRun {
    const rest = new RecordRun(this.topic, this.partition);
    const { bytes, position: end } = this.out;
    const reader = new ByteReader(bytes, at.position);
    while (reader.position < end) rest.#take(reader);
    this.truncate(at);
    return rest;
  }

  #take(reader: ByteReader): void {
    const length = reader.long();
    const body = reader.position;
    const end = body + length;
    reader.position += 2;
    reader.long(); // offset delta
    const { bytes, position: rest } = reader;
    const { out } = this;
    out.long(2 + varintWidth(this.count) + end - rest);
    out.raw(bytes, body, body + 2);
    out.long(this.count);
    out.raw(bytes, rest, end);
    this.count++;
    reader.position = end;
  }

  /** Moves what was written where the slot is not as wide as the length. */
  #putLength(start: number, length: number): void {
    const { out } = this;
    const slot = this.#slot;
    const width = varintWidth(length);
    if (width !== slot) {
      if (width > slot) out.ensure(width - slot);
      out.bytes.copyWithin(start + width - slot, start, start + length);
      out.position += width - slot;
    }
    writeVarint(out.bytes, start - slot, length);
  }
}

export interface ReadRecord {
  key: Buffer | null;
  value: Buffer | null;
  headers: Record<string, Buffer>;
}

/** Each record as views of the run's bytes. */
export function* readRecords({ out, count }: RecordRun): Generator<ReadRecord> {
  const reader = new ByteReader(out.bytes, headerBytes);
  const field = () => {
    const length = reader.long();
    if (length < 0) return null;
    reader.position += length;
    return reader.bytes.subarray(reader.position - length, reader.position);
  };
  for (let i = 0; i < count; i++) {
    reader.long(); // length
    reader.position += 2;
    reader.long(); // offset delta
    const key = field();
    const value = field();
    const headers: Record<string, Buffer> = {};
    for (let left = reader.long(); left > 0; left--) headers[reader.text()] = reader.lengthPrefixed();
    yield { key, value, headers };
  }
}

/** Bytes of a zig-zag varint. */
function varintWidth(value: number): number {
  const n = value * 2;
  return n < 0x80 ? 1 : n < 0x4000 ? 2 : n < 0x200000 ? 3 : n < 0x10000000 ? 4 : 5;
}

/** Zig-zag varint of a count or length. @returns where it ends */
function writeVarint(bytes: Buffer, at: number, value: number): number {
  let n = value * 2;
  while (n > 127) {
    bytes[at++] = (n % 128) | 0x80;
    n = Math.floor(n / 128);
  }
  bytes[at++] = n;
  return at;
}
