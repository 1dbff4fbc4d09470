/**
 * Kafka's record batch, magic 2 (Kafka documentation, "Message Format"), from messages to bytes in one pass over a
 * buffer of the right size.
 */
import { promisify } from 'node:util';
import { gzip, zstdCompress } from 'node:zlib';
import { crc32c } from '@platformatic/kafka';
import type { Message } from 'kafkajs';

export interface BatchIdentity {
  producerId: bigint;
  producerEpoch: number;
  /** Sequence number of the first record in its partition. */
  baseSequence: number;
  /** Milliseconds since 1970 UTC. */
  timestampMs: number;
}

export type Compression = 'none' | 'gzip' | 'zstd';

const headerBytes = 61;
/** From the attributes to the end: what the checksum covers. */
const checkedFrom = 21;
const transactional = 0x10;
const codecs: Record<Compression, number> = { none: 0, gzip: 1, zstd: 4 };
const compressGzip = promisify(gzip);
const compressZstd = promisify(zstdCompress);

/** One partition's records as one batch. */
export async function encodeRecordBatch(
  messages: readonly Message[],
  identity: BatchIdentity,
  compression: Compression,
): Promise<Buffer> {
  let room = headerBytes;
  for (const message of messages) room += roomFor(message);
  const bytes = Buffer.allocUnsafe(room);
  let at = headerBytes;
  for (let i = 0; i < messages.length; i++) at = writeRecord(bytes, at, messages[i]!, i);
  let batch = bytes.subarray(0, at);
  if (compression !== 'none') {
    const records = bytes.subarray(headerBytes, at);
    const packed = compression === 'gzip' ? await compressGzip(records) : await compressZstd(records);
    batch = Buffer.concat([bytes.subarray(0, headerBytes), packed]);
  }
  writeHeader(batch, messages.length, identity, codecs[compression] | transactional);
  return batch;
}

function writeHeader(batch: Buffer, count: number, identity: BatchIdentity, attributes: number): void {
  batch.writeBigInt64BE(0n, 0); // base offset: the broker's to fill in
  batch.writeInt32BE(batch.length - 12, 8); // length of what follows
  batch.writeInt32BE(-1, 12); // partition leader epoch: the broker's to fill in
  batch[16] = 2; // magic
  batch.writeInt16BE(attributes, 21);
  batch.writeInt32BE(count - 1, 23); // last offset delta
  batch.writeBigInt64BE(BigInt(identity.timestampMs), 27);
  batch.writeBigInt64BE(BigInt(identity.timestampMs), 35);
  batch.writeBigInt64BE(identity.producerId, 43);
  batch.writeInt16BE(identity.producerEpoch, 51);
  batch.writeInt32BE(identity.baseSequence, 53);
  batch.writeInt32BE(count, 57);
  batch.writeUInt32BE(crc32c(batch.subarray(checkedFrom)) >>> 0, 17);
}

/** An upper bound: every varint at its widest. */
function roomFor({ key, value, headers }: Message): number {
  let room = 40 + (key?.length ?? 0) + (value?.length ?? 0);
  if (typeof key === 'string') room += key.length * 2;
  for (const name in headers) room += 10 + name.length * 3 + (headers[name] as Buffer | string).length * 3;
  return room;
}

/** Key, value and headers are written behind five bytes that then take the record's length. */
function writeRecord(
  bytes: Buffer,
  start: number,
  { key, value, headers }: Message,
  offsetDelta: number,
): number {
  let at = start + 5;
  bytes[at++] = 0; // attributes: none are defined
  bytes[at++] = 0; // timestamp delta
  at = writeVarint(bytes, at, offsetDelta);
  at = writeBytes(bytes, at, key ?? null);
  at = writeBytes(bytes, at, value ?? null);
  let count = 0;
  for (const _ in headers) count++;
  at = writeVarint(bytes, at, count);
  for (const name in headers) {
    at = writeBytes(bytes, at, name);
    at = writeBytes(bytes, at, headers[name] as Buffer | string);
  }
  const length = at - start - 5;
  const width = varintWidth(length);
  // Move the record up to its length: at most four bytes, so that the copy stays in cache.
  if (width < 5) bytes.copyWithin(start + width, start + 5, at);
  writeVarint(bytes, start, length);
  return start + width + length;
}

function writeBytes(bytes: Buffer, at: number, value: Buffer | string | null): number {
  if (value === null) {
    bytes[at] = 1; // length -1
    return at + 1;
  }
  if (typeof value === 'string') {
    const length = Buffer.byteLength(value);
    at = writeVarint(bytes, at, length);
    bytes.write(value, at, length, 'utf8');
    return at + length;
  }
  at = writeVarint(bytes, at, value.length);
  bytes.set(value, at);
  return at + value.length;
}

function varintWidth(value: number): number {
  const n = value * 2;
  return n < 0x80 ? 1 : n < 0x4000 ? 2 : n < 0x200000 ? 3 : n < 0x10000000 ? 4 : 5;
}

/** Zig-zag varint of a count or length. */
function writeVarint(bytes: Buffer, at: number, value: number): number {
  let n = value * 2;
  while (n > 127) {
    bytes[at++] = (n % 128) | 0x80;
    n = Math.floor(n / 128);
  }
  bytes[at++] = n;
  return at;
}
