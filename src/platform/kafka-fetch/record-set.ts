/**
 * The record batches of a Fetch answer (Kafka documentation, "Message Format", magic 2), as whoever reads committed sees
 * them: without what was aborted and without markers. kafkajs decodes them too, at several times the cost a record: this
 * one leaves keys, values and headers where they are in the batch's bytes.
 */
import { promisify } from 'node:util';
import { gunzip, zstdDecompress } from 'node:zlib';
import { crc32c } from '@node-rs/crc32';
import { TidemarkError } from '../errors.ts';

export interface FetchedRecord {
  offset: number;
  key: Buffer | null;
  value: Buffer | null;
  /** Hands over the headers that have a value, in order. */
  readHeaders(to: HeaderReceiver): void;
}

export interface HeaderReceiver {
  /** @param bytes hold the value from `start` to `end`, and more */
  header(name: string, bytes: Buffer, start: number, end: number): void;
}

/** The first header of that name; undefined where there is none, or one without a value. */
export function headerOf(record: FetchedRecord, name: string): Buffer | undefined {
  let found: Buffer | undefined;
  record.readHeaders({
    header(each, bytes, start, end) {
      if (each === name) found ??= bytes.subarray(start, end);
    },
  });
  return found;
}

/** One entry of a Fetch answer's aborted transactions. */
export interface AbortedTransaction {
  producerId: bigint;
  firstOffset: number;
}

export interface RecordSet {
  /** Read anew by every iteration: nothing but the batches' bytes stays in memory. */
  records: Iterable<FetchedRecord>;
  /** Offset after the last whole batch; null: there is no whole batch. */
  end: number | null;
  /** What the records keep in memory. */
  bytes: number;
}

const unzip = promisify(gunzip);
const unzstd = promisify(zstdDecompress);

/** From the base offset to the first record. */
const batchHeaderBytes = 61;
const lengthAt = 8;
const magicAt = 16;
const checksumAt = 17;
/** What the checksum covers. */
const checkedFrom = 21;
const transactional = 0x10;
const control = 0x20;
const abortMarker = 0;

/**
 * @param bytes whole batches, the last of which may be cut off
 * @param from records before it are left out: a batch is fetched whole
 * @throws TidemarkError TM301 for bytes that are not what the producer sent, and for a compression that we cannot read
 */
export async function readRecordSet(
  bytes: Buffer,
  from: number,
  aborted: readonly AbortedTransaction[],
  where: string,
): Promise<RecordSet> {
  const batches: Batch[] = [];
  const filter = new AbortedFilter(aborted);
  let end: number | null = null;
  let kept = 0;
  for (let at = 0; at + batchHeaderBytes <= bytes.length; ) {
    const size = 12 + bytes.readInt32BE(at + lengthAt);
    if (at + size > bytes.length) break;
    const batch = bytes.subarray(at, at + size);
    at += size;
    if (batch[magicAt] !== 2) throw broken(where, `format ${batch[magicAt]} of its records is not known`);
    if (crc32c(batch.subarray(checkedFrom)) !== batch.readUInt32BE(checksumAt))
      throw broken(where, 'the checksum of a batch is wrong');
    const baseOffset = Number(batch.readBigInt64BE(0));
    const attributes = batch.readInt16BE(21);
    end = baseOffset + batch.readInt32BE(23) + 1;
    const producerId = batch.readBigInt64BE(43);
    const payload = await unpacked(batch.subarray(batchHeaderBytes), attributes & 7, where);
    if ((attributes & control) !== 0) filter.marker(producerId, baseOffset, payload);
    else if (end > from && !((attributes & transactional) !== 0 && filter.drops(producerId, baseOffset))) {
      batches.push({ payload, count: batch.readInt32BE(57), baseOffset });
      kept += payload.length;
    }
  }
  return { records: new Records(batches, from), end, bytes: kept };
}

async function unpacked(payload: Buffer, codec: number, where: string): Promise<Buffer> {
  if (codec === 0) return payload;
  if (codec === 1) return unzip(payload);
  if (codec === 4) return unzstd(payload);
  const name = codec === 2 ? 'snappy' : codec === 3 ? 'lz4' : `codec ${codec}`;
  throw new TidemarkError('TM301', `${where} is compressed with ${name}`, {
    remedy:
      'Set compression.type of the topic to producer, zstd or gzip, and let what is compressed otherwise expire.',
  });
}

/** Which batches were aborted: from a transaction's first offset to its producer's next marker. */
class AbortedFilter {
  readonly #ahead: AbortedTransaction[];
  readonly #open = new Set<bigint>();

  constructor(aborted: readonly AbortedTransaction[]) {
    this.#ahead = [...aborted].sort((a, b) => a.firstOffset - b.firstOffset);
  }

  drops(producerId: bigint, baseOffset: number): boolean {
    this.#reach(baseOffset);
    return this.#open.has(producerId);
  }

  #reach(offset: number): void {
    while (this.#ahead[0] && this.#ahead[0].firstOffset <= offset)
      this.#open.add(this.#ahead.shift()!.producerId);
  }

  marker(producerId: bigint, offset: number, payload: Buffer): void {
    // Where reading began behind the last record of a transaction, its marker is the first that is met of it.
    this.#reach(offset);
    const reader = new RecordReader(payload);
    // Length, attributes, timestamp and offset deltas; then a key of two numbers: version and type.
    reader.varint();
    reader.at++;
    reader.varint();
    reader.varint();
    const key = reader.bytes();
    if (key && key.readInt16BE(2) === abortMarker) this.#open.delete(producerId);
  }
}

interface Batch {
  payload: Buffer;
  count: number;
  baseOffset: number;
}

/** Of batches, from an offset on. */
class Records implements Iterable<FetchedRecord> {
  readonly #batches: readonly Batch[];
  readonly #from: number;

  constructor(batches: readonly Batch[], from: number) {
    this.#batches = batches;
    this.#from = from;
  }

  *[Symbol.iterator](): Generator<FetchedRecord> {
    for (const { payload, count, baseOffset } of this.#batches) {
      const reader = new RecordReader(payload);
      for (let i = 0; i < count; i++) {
        const length = reader.varint();
        const next = reader.at + length;
        reader.at++; // attributes: none is in use
        reader.varint(); // timestamp delta
        const offset = baseOffset + reader.varint();
        if (offset >= this.#from) {
          const key = reader.bytes();
          const value = reader.bytes();
          yield new BatchRecord(offset, key, value, payload, reader.at);
        }
        reader.at = next;
      }
    }
  }
}

class BatchRecord implements FetchedRecord {
  readonly offset: number;
  readonly key: Buffer | null;
  readonly value: Buffer | null;
  readonly #payload: Buffer;
  readonly #headersAt: number;

  constructor(offset: number, key: Buffer | null, value: Buffer | null, payload: Buffer, headersAt: number) {
    this.offset = offset;
    this.key = key;
    this.value = value;
    this.#payload = payload;
    this.#headersAt = headersAt;
  }

  readHeaders(to: HeaderReceiver): void {
    const reader = new RecordReader(this.#payload);
    reader.at = this.#headersAt;
    for (let left = reader.varint(); left > 0; left--) {
      const length = reader.varint();
      const name = headerName(this.#payload, reader.at, length);
      reader.at += length;
      const size = reader.varint();
      if (size >= 0) to.header(name, this.#payload, reader.at, reader.at + size);
      if (size > 0) reader.at += size;
    }
  }
}

/** Names met before: records have the same few. */
const knownNames: string[] = [];
const mostKnownNames = 32;

function headerName(bytes: Buffer, at: number, length: number): string {
  for (const name of knownNames) if (name.length === length && matches(bytes, at, name)) return name;
  const name = bytes.toString('utf8', at, at + length);
  // Of ASCII alone: others have another length in bytes.
  if (knownNames.length < mostKnownNames && name.length === length) knownNames.push(name);
  return name;
}

/** From the end, where names differ. */
function matches(bytes: Buffer, at: number, name: string): boolean {
  for (let i = name.length - 1; i >= 0; i--) if (bytes[at + i] !== name.charCodeAt(i)) return false;
  return true;
}

class RecordReader {
  at = 0;
  readonly #bytes: Buffer;

  constructor(bytes: Buffer) {
    this.#bytes = bytes;
  }

  /** Zigzag, of at most 53 bits: timestamps may take more than 32. */
  varint(): number {
    const bytes = this.#bytes;
    let byte = bytes[this.at++]!;
    if (byte < 0x80) return (byte >>> 1) ^ -(byte & 1);
    let value = byte & 0x7f;
    for (let factor = 0x80; ; factor *= 0x80) {
      byte = bytes[this.at++]!;
      value += (byte & 0x7f) * factor;
      if (byte < 0x80) break;
    }
    return value % 2 === 0 ? value / 2 : -(value + 1) / 2;
  }

  /** With the length before them; null for a length of -1. */
  bytes(): Buffer | null {
    const length = this.varint();
    if (length < 0) return null;
    const start = this.at;
    this.at += length;
    return this.#bytes.subarray(start, this.at);
  }
}

function broken(where: string, what: string): TidemarkError {
  return new TidemarkError('TM301', `${where}: ${what}`, {
    remedy: 'A disk or a network damaged it. Where another replica is in order, make it the leader.',
  });
}
