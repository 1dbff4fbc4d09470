/**
 * Avro object container files, as manifests and manifest lists are. avsc encodes the records; its own reader and writer of
 * files are streams, and these files are whole in memory.
 */
import { randomBytes } from 'node:crypto';
import { deflateRawSync, inflateRawSync, zstdDecompressSync } from 'node:zlib';
import avro, { type Schema as AvscSchema, type Type as AvscType } from 'avsc';
import { TidemarkError } from '../../../../src/connector/failure.ts';
import { type Json, printJson } from '../catalog/exact-json.ts';
import { malformed, unsupported } from '../failures.ts';
import { readJson } from './json-reader.ts';
import { unpackSnappy } from './snappy.ts';

export interface AvroFile {
  /** As its writer wrote it, read back under the reader's names. */
  schema: Json;
  metadata: ReadonlyMap<string, string>;
  records: unknown[];
}

interface Header {
  magic: Buffer;
  meta: Record<string, Buffer>;
  sync: Buffer;
}

const magic = Buffer.from('Obj\u0001', 'latin1');
const syncLength = 16;
const headerType = avro.Type.forSchema({
  type: 'record',
  name: 'header',
  fields: [
    { name: 'magic', type: { type: 'fixed', name: 'magic', size: 4 } },
    { name: 'meta', type: { type: 'map', values: 'bytes' } },
    { name: 'sync', type: { type: 'fixed', name: 'sync', size: syncLength } },
  ],
});
const longType = avro.Type.forSchema('long');

/** Integers of 64 bits that are ids or column values: bigints. Where a schema of ours says `exact`. */
const exactLong = avro.types.LongType.__with({
  fromBuffer: (bytes: Buffer) => bytes.readBigInt64LE(),
  toBuffer: (value: bigint) => {
    const bytes = Buffer.alloc(8);
    bytes.writeBigInt64LE(value);
    return bytes;
  },
  fromJSON: (json: string | number) => BigInt(json),
  toJSON: (value: bigint) => Number(value),
  isValid: (value: unknown) => typeof value === 'bigint',
  compare: (left: bigint, right: bigint) => (left < right ? -1 : left > right ? 1 : 0),
});

/** The files of a table share a few schemas, and compiling one takes longer than reading a small file. */
const compiled = new Map<string, AvscType>();
const mostCompiled = 64;

function compile(schema: Json): AvscType {
  const text = printJson(schema);
  const known = compiled.get(text);
  if (known) return known;
  const type = avro.Type.forSchema(schema as AvscSchema, {
    wrapUnions: 'never',
    typeHook: (attributes) =>
      (attributes as { exact?: boolean } | null)?.exact === true ? exactLong : undefined,
  });
  if (compiled.size >= mostCompiled) compiled.delete(compiled.keys().next().value!);
  compiled.set(text, type);
  return type;
}

/** One block, deflated. */
export function writeAvroFile(
  schema: Json,
  metadata: Readonly<Record<string, string>>,
  records: readonly unknown[],
): Buffer {
  const type = compile(schema);
  const sync = randomBytes(syncLength);
  const meta = Object.fromEntries(
    Object.entries({
      ...metadata,
      'avro.schema': printJson(published(schema)),
      'avro.codec': 'deflate',
    }).map(([key, value]) => [key, Buffer.from(value, 'utf8')]),
  );
  const parts = [headerType.toBuffer({ magic, meta, sync })];
  if (records.length > 0) {
    const block = deflateRawSync(Buffer.concat(records.map((record) => type.toBuffer(record))));
    parts.push(longType.toBuffer(records.length), longType.toBuffer(block.length), block, sync);
  }
  return Buffer.concat(parts);
}

/** Without our own mark. */
function published(schema: Json): Json {
  if (Array.isArray(schema)) return schema.map(published);
  if (schema === null || typeof schema !== 'object') return schema;
  const { exact, ...rest } = schema;
  const entries = Object.entries(rest).map(([key, value]) => [key, published(value)] as const);
  if (exact === true && rest.logicalType === undefined) return 'long';
  return Object.fromEntries(entries);
}

/**
 * @param readAs gives the writer's schema with the reader's names and types, the encoding unchanged
 * @throws TidemarkError TM405
 */
export function readAvroFile(bytes: Buffer, what: string, readAs: (schema: Json) => Json): AvroFile {
  try {
    const { value, offset } = headerType.decode(bytes, 0) as { value: Header; offset: number };
    if (offset < 0 || !value.magic.equals(magic)) throw malformed(`${what} is no Avro file`);
    const metadata = new Map(Object.entries(value.meta).map(([key, each]) => [key, each.toString('utf8')]));
    const schema = readJson(metadata.get('avro.schema') ?? '', what);
    const type = compile(readAs(schema));
    const unpack = codecOf(metadata.get('avro.codec') ?? 'null', what);
    return { schema, metadata, records: readBlocks(bytes, offset, value.sync, type, unpack, what) };
  } catch (error) {
    throw error instanceof TidemarkError ? error : malformed(`${what} cannot be read as Avro`, error);
  }
}

function readBlocks(
  bytes: Buffer,
  start: number,
  sync: Buffer,
  type: AvscType,
  unpack: (block: Buffer) => Buffer,
  what: string,
): unknown[] {
  const records: unknown[] = [];
  for (let at = start; at < bytes.length; ) {
    const count = longType.decode(bytes, at) as { value: number; offset: number };
    const size = longType.decode(bytes, count.offset) as { value: number; offset: number };
    const end = size.offset + size.value;
    if (count.offset < 0 || size.offset < 0 || end + syncLength > bytes.length)
      throw malformed(`${what} ends within a block`);
    const block = unpack(bytes.subarray(size.offset, end));
    let position = 0;
    for (let index = 0; index < count.value; index += 1) {
      const record = type.decode(block, position) as { value: unknown; offset: number };
      if (record.offset < 0) throw malformed(`${what} ends within a record`);
      records.push(record.value);
      position = record.offset;
    }
    at = end + syncLength;
    if (!bytes.subarray(end, at).equals(sync)) throw malformed(`${what}: a block has another file's end`);
  }
  return records;
}

function codecOf(name: string, what: string): (block: Buffer) => Buffer {
  switch (name) {
    case 'null':
      return (block) => block;
    case 'deflate':
      return (block) => inflateRawSync(block);
    case 'zstandard':
      return (block) => zstdDecompressSync(block);
    case 'snappy':
      // Behind the block stands the checksum of what it holds.
      return (block) => unpackSnappy(block.subarray(0, -4));
    default:
      throw unsupported(
        `${what} is compressed with a codec that is not known`,
        'Set the table property write.metadata.compression-codec of its writer to gzip and rewrite the manifests.',
      );
  }
}
