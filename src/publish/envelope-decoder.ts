/** Kafka record to rows of Postgres text: the consumers' end of the wire. */

import type { CellReceiver } from '../connector/native-row.ts';
import type { TableShape } from '../connector/shape.ts';
import type { Cell, PartialRow, Row } from '../connector/sink.ts';
import { TidemarkError } from '../platform/errors.ts';
import { columnCodecs, formerFields, shapeOfSchema } from './avro-schema.ts';
import { type Skip, skipLong, skipOf, skipText } from './avro-skip.ts';
import { ByteReader } from './byte-writer.ts';
import type { Codec } from './types/codec.ts';
import { safeLong } from './types/integers.ts';

export type EnvelopeOp = 'c' | 'u' | 'd' | 't' | 'r' | 'e';

/** What an envelope says beside its rows, and where these begin. */
export interface EnvelopeFrame {
  op: EnvelopeOp;
  /** Commit time of the Transaction, microseconds since 1970 UTC. */
  commitTimeUs: bigint;
  /** Offsets in the bytes; -1 where there is no such row. */
  beforeAt: number;
  beforeEnd: number;
  afterAt: number;
  afterEnd: number;
}

export interface DecodedChange extends Pick<EnvelopeFrame, 'op' | 'commitTimeUs'> {
  before: Row | null;
  after: Row | null;
}

export interface EnvelopeDecoder {
  shape: TableShape;
  /** @param start where the whole Kafka value begins in the bytes, with its registry header */
  frame(bytes: Buffer, start: number, end: number): EnvelopeFrame;
  /** Where the row after the change begins; -1 for a delete, an eviction and a truncate. */
  afterAt(bytes: Buffer, start: number, end: number): number;
  /** @param at where a row begins */
  row(bytes: Buffer, at: number): Row;
  /** As `row`, to receivers. @returns where it ends; -1 where there are fewer of them than columns */
  pass(bytes: Buffer, at: number, to: readonly (CellReceiver | null)[]): number;
  /** Where a row ends. */
  rowEnd(bytes: Buffer, at: number): number;
  /** All of it. @param value the whole Kafka value */
  decode(value: Buffer): DecodedChange;
}

/** Id in the registry wire format's header. @throws TidemarkError TM206 when there is none. */
export function schemaIdOf(bytes: Buffer): number {
  if (bytes.length < 5 || bytes[0] !== 0)
    throw new TidemarkError('TM206', 'a record is not in the registry wire format');
  return bytes.readUInt32BE(1);
}

/** What skips a column's value: cheaply where its Avro type tells how. */
function skipColumn(codec: Codec): Skip {
  return skipOf(codec.schema) ?? ((reader) => void codec.decode(reader));
}

function passCell(codec: Codec): NonNullable<Codec['pass']> {
  return codec.pass?.bind(codec) ?? ((reader, to) => to.text(codec.decode(reader)));
}

export function compileEnvelopeDecoder(schemaJson: string): EnvelopeDecoder {
  const shape = shapeOfSchema(schemaJson);
  const codecs = columnCodecs(shape);
  const passes = codecs.map(passCell);
  const skips = codecs.map(skipColumn);
  const nullable = shape.columns.map((column) => column.nullable);
  const former = formerFields(shape).length;
  const reader = new ByteReader(Buffer.alloc(0));
  const readTime = rememberedLong();

  const skipRow = () => {
    for (let i = 0; i < skips.length; i++) if (!nullable[i] || reader.byte() !== 0) skips[i]!(reader);
    reader.position += former;
  };
  const begin = (bytes: Buffer, at: number) => {
    reader.bytes = bytes;
    reader.position = at;
  };
  /** Of a union with null; the reader is past the row then. */
  const rowAt = () => {
    if (reader.byte() === 0) return -1;
    const at = reader.position;
    skipRow();
    return at;
  };
  const optional = (skip: Skip) => {
    if (reader.byte() !== 0) skip(reader);
  };

  const decoder: EnvelopeDecoder = {
    shape,
    frame(bytes, start, end) {
      begin(bytes, start + 5);
      const beforeAt = rowAt();
      const beforeEnd = reader.position;
      const afterAt = rowAt();
      const afterEnd = reader.position;
      for (let i = 0; i < 3; i++) skipText(reader); // version, connector, name
      skipLong(reader); // ts_ms
      if (reader.byte() === 0) skipText(reader); // snapshot: the union's first branch is the string
      skipText(reader); // db
      optional(skipText); // sequence
      const commitTimeUs = reader.byte() === 0 ? 0n : readTime(reader);
      optional(skipLong); // ts_ns
      skipText(reader); // schema
      skipText(reader); // table
      for (let i = 0; i < 3; i++) optional(skipLong); // txId, lsn, xmin
      if (reader.byte() !== 0)
        throw new TidemarkError(
          'TM206',
          'an envelope carries a transaction block, which this version does not write',
        );
      // An Avro string of one character.
      const op = reader.byte() === 2 ? ops[reader.byte()] : undefined;
      if (op === undefined) throw new TidemarkError('TM206', 'an envelope has an unknown op');
      if (reader.position > end) throw new TidemarkError('TM206', 'an envelope was cut short');
      return { op, commitTimeUs, beforeAt, beforeEnd, afterAt, afterEnd };
    },
    afterAt(bytes, start, end) {
      begin(bytes, start + 5);
      if (reader.byte() !== 0) skipRow();
      const at = reader.byte() === 0 ? -1 : reader.position;
      if (reader.position > end) throw new TidemarkError('TM206', 'an envelope was cut short');
      return at;
    },
    row(bytes, at) {
      begin(bytes, at);
      const row: Row = new Array(codecs.length);
      for (let i = 0; i < codecs.length; i++)
        row[i] = nullable[i] && reader.byte() === 0 ? null : codecs[i]!.decode(reader);
      return row;
    },
    pass(bytes, at, to) {
      begin(bytes, at);
      const columns = Math.min(passes.length, to.length);
      for (let i = 0; i < columns; i++) {
        const receiver = to[i]!;
        if (nullable[i] && reader.byte() === 0) receiver?.nothing();
        else if (receiver) passes[i]!(reader, receiver);
        else skips[i]!(reader);
      }
      return columns === passes.length ? reader.position + former : -1;
    },
    rowEnd(bytes, at) {
      begin(bytes, at);
      skipRow();
      return reader.position;
    },
    decode(value) {
      const { op, commitTimeUs, beforeAt, afterAt } = decoder.frame(value, 0, value.length);
      const row = (at: number) => (at < 0 ? null : decoder.row(value, at));
      return { op, commitTimeUs, before: row(beforeAt), after: row(afterAt) };
    },
  };
  return decoder;
}

/** By the character's code. */
const ops: Readonly<Record<number, EnvelopeOp>> = Object.fromEntries(
  (['c', 'u', 'd', 't', 'r', 'e'] as const).map((op) => [op.charCodeAt(0), op]),
);

/** Reads numbers that are often the one before: a Transaction's rows have one time. */
function rememberedLong(): (reader: ByteReader) => bigint {
  let last = 0;
  let asBigint = 0n;
  return (reader) => {
    const value = safeLong(reader);
    if (Number.isNaN(value)) return reader.bigLong();
    if (value !== last) {
      last = value;
      asBigint = BigInt(value);
    }
    return asBigint;
  };
}

/** Gives the key columns' text, in key order. @param at where the key begins, behind its registry header */
export type KeyDecoder = (key: Buffer, at?: number) => Cell[];

export function compileKeyDecoder(valueSchemaJson: string): KeyDecoder {
  const shape = shapeOfSchema(valueSchemaJson);
  const codecs = columnCodecs(shape);
  return (key, at = 5) => {
    const reader = new ByteReader(key, at);
    return shape.keyColumns.map((i) => codecs[i]!.decode(reader));
  };
}

/**
 * What the headers say beyond the Avro form: `undefined` for columns the change left untouched, and Postgres' own
 * text where Avro is inexact.
 */
export function applyHeaders(
  row: Row,
  shape: TableShape,
  unchanged: string | null,
  exact: string | null,
): PartialRow {
  if (unchanged === null && exact === null) return row;
  const result: PartialRow = [...row];
  const indexOf = (name: string) => {
    const index = shape.columns.findIndex((column) => column.name === name);
    if (index < 0) throw new TidemarkError('TM206', `a header names column ${name}, which the schema lacks`);
    return index;
  };
  if (exact !== null) {
    for (const [name, text] of exactTexts(exact)) result[indexOf(name)] = text;
  }
  if (unchanged !== null)
    for (const name of JSON.parse(unchanged) as string[]) result[indexOf(name)] = undefined;
  return result;
}

/**
 * The exactness header's columns and texts. V8 13 and 14 may take an escaped key for a similar one that it met before
 * (nodejs/node#63785), so with escapes the strings are parsed one by one.
 */
function exactTexts(header: string): [string, string][] {
  if (!header.includes('\\')) return Object.entries(JSON.parse(header) as Record<string, string>);
  const strings = header.match(/"[^"\\]*(?:\\.[^"\\]*)*"/g) ?? [];
  return Array.from({ length: strings.length / 2 }, (_, i) => [
    JSON.parse(strings[i * 2]!) as string,
    JSON.parse(strings[i * 2 + 1]!) as string,
  ]);
}
