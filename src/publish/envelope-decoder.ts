/** Kafka record to rows of Postgres text: the consumers' end of the wire. */

import type { TableShape } from '../connector/shape.ts';
import type { Cell, PartialRow, Row } from '../connector/sink.ts';
import { TidemarkError } from '../platform/errors.ts';
import { columnCodecs, formerFields, shapeOfSchema } from './avro-schema.ts';
import { ByteReader } from './byte-writer.ts';

export interface DecodedChange {
  op: 'c' | 'u' | 'd' | 't' | 'r';
  before: Row | null;
  after: Row | null;
  /** Commit time of the Transaction, microseconds since 1970 UTC. */
  commitTimeUs: bigint;
}

export interface EnvelopeDecoder {
  shape: TableShape;
  /** @param value the whole Kafka value, with its registry header */
  decode(value: Buffer): DecodedChange;
}

/** Id in the registry wire format's header. @throws TidemarkError TM206 when there is none. */
export function schemaIdOf(bytes: Buffer): number {
  if (bytes.length < 5 || bytes[0] !== 0)
    throw new TidemarkError('TM206', 'a record is not in the registry wire format');
  return bytes.readUInt32BE(1);
}

export function compileEnvelopeDecoder(schemaJson: string): EnvelopeDecoder {
  const shape = shapeOfSchema(schemaJson);
  const codecs = columnCodecs(shape);
  const nullable = shape.columns.map((column) => column.nullable);
  const former = formerFields(shape).length;
  const reader = new ByteReader(Buffer.alloc(0));

  const readRow = (): Row => {
    const row: Row = new Array(codecs.length);
    for (let i = 0; i < codecs.length; i++) {
      row[i] = nullable[i] && reader.byte() === 0 ? null : codecs[i]!.decode(reader);
    }
    reader.position += former;
    return row;
  };
  const skipText = () => {
    const length = reader.long();
    reader.position += length;
  };

  return {
    shape,
    decode(value) {
      reader.bytes = value;
      reader.position = 5;
      const before = reader.byte() === 0 ? null : readRow();
      const after = reader.byte() === 0 ? null : readRow();
      skipText(); // version
      skipText(); // connector
      skipText(); // name
      reader.bigLong(); // ts_ms
      if (reader.byte() === 0) skipText(); // snapshot: the union's first branch is the string
      skipText(); // db
      if (reader.byte() !== 0) skipText(); // sequence
      const commitTimeUs = reader.byte() === 0 ? 0n : reader.bigLong();
      if (reader.byte() !== 0) reader.bigLong(); // ts_ns
      skipText(); // schema
      skipText(); // table
      for (let i = 0; i < 3; i++) if (reader.byte() !== 0) reader.bigLong(); // txId, lsn, xmin
      if (reader.byte() !== 0)
        throw new TidemarkError(
          'TM206',
          'an envelope carries a transaction block, which this version does not write',
        );
      const op = reader.text();
      if (op !== 'c' && op !== 'u' && op !== 'd' && op !== 't' && op !== 'r') {
        throw new TidemarkError('TM206', 'an envelope has an unknown op');
      }
      if (reader.position > value.length) throw new TidemarkError('TM206', 'an envelope was cut short');
      return { op, before, after, commitTimeUs };
    },
  };
}

/** @returns a function from the whole Kafka key to the key columns' text, in key order */
export function compileKeyDecoder(valueSchemaJson: string): (key: Buffer) => Cell[] {
  const shape = shapeOfSchema(valueSchemaJson);
  const codecs = columnCodecs(shape);
  return (key) => {
    const reader = new ByteReader(key, 5);
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
