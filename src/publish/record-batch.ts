/** Kafka's record batch, magic 2 (Kafka documentation, "Message Format"), around records that are there already. */
import { promisify } from 'node:util';
import { gzip, zstdCompress } from 'node:zlib';
import { crc32c } from '@node-rs/crc32';
import { headerBytes, type RecordRun } from './record-run.ts';

export interface BatchIdentity {
  producerId: bigint;
  producerEpoch: number;
  /** Sequence number of the first record in its partition. */
  baseSequence: number;
  /** Milliseconds since 1970 UTC. */
  timestampMs: number;
}

export type Compression = 'none' | 'gzip' | 'zstd';

/** From the attributes to the end: what the checksum covers. */
const checkedFrom = 21;
const transactional = 0x10;
const codecs: Record<Compression, number> = { none: 0, gzip: 1, zstd: 4 };
const compressGzip = promisify(gzip);
const compressZstd = promisify(zstdCompress);

/** A run as one batch; without compression a view of the run's own bytes. */
export async function encodeRecordBatch(
  { out, count }: RecordRun,
  identity: BatchIdentity,
  compression: Compression,
): Promise<Buffer> {
  let batch = out.bytes.subarray(0, out.position);
  if (compression !== 'none') {
    const records = batch.subarray(headerBytes);
    const packed = compression === 'gzip' ? await compressGzip(records) : await compressZstd(records);
    batch = Buffer.concat([batch.subarray(0, headerBytes), packed]);
  }
  writeHeader(batch, count, identity, codecs[compression] | transactional);
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
  batch.writeUInt32BE(crc32c(batch.subarray(checkedFrom)), 17);
}
