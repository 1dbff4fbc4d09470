/**
 * Postgres' text of a value to the bytes that its type's receive function takes (COPY … FORMAT binary), for the types
 * that most tables consist of. The server saves its parsing, which costs it more than this costs us. Whatever is not in the
 * one form that Postgres itself prints is left to the text format, which also says what is wrong with it.
 */

import { hexDigits } from '../../../src/connector/uuid-bytes.ts';
import { arrayOf } from './binary-arrays.ts';
import { inet } from './binary-network.ts';
import { bigint, doublePrecision, integer, numeric, smallint } from './binary-numbers.ts';
import type { BinaryColumn, ByteSink, CellEncoder, Write } from './binary-parts.ts';
import {
  BigintReceiver,
  BooleanReceiver,
  ByteaReceiver,
  BytesReceiver,
  DateReceiver,
  DoubleReceiver,
  IntegerReceiver,
  JsonbReceiver,
  NumericReceiver,
  SmallintReceiver,
  TextReceiver,
  TimeReceiver,
  TimestampReceiver,
  UuidReceiver,
} from './binary-receivers.ts';
import { date, interval, time, timestamp } from './binary-times.ts';

/** Beyond it a text is measured, since three bytes for every character are too many then. */
const longText = 4096;

function scalarRoom(text: string): number {
  return 40 + (text.length < longText ? text.length * 3 : Buffer.byteLength(text));
}

/** An element of two characters, with its comma, takes twelve bytes where it is a bigint. */
function arrayRoom(text: string): number {
  return 40 + text.length * 6;
}

/** Below it a loop is faster than the call. */
const shortText = 24;

function writeText(to: ByteSink, at: number, text: string): number {
  const { length } = text;
  if (length >= shortText) return at + to.bytes.write(text, at);
  for (let i = 0; i < length; i++) {
    const code = text.charCodeAt(i);
    if (code > 127) return at + to.bytes.write(text, at);
    to.bytes[at + i] = code;
  }
  return at + length;
}

const plainText: Write = (to, at, text) => {
  const end = writeText(to, at + 4, text);
  to.view.setInt32(at, end - at - 4);
  return end;
};

/** jsonb_recv: a version, then the text. */
const jsonbText: Write = (to, at, text) => {
  to.bytes[at + 4] = 1;
  const end = writeText(to, at + 5, text);
  to.view.setInt32(at, end - at - 4);
  return end;
};

const boolean: Write = (to, at, text) => {
  if (text !== 't' && text !== 'f') return -1;
  to.view.setInt32(at, 1);
  to.bytes[at + 4] = text === 't' ? 1 : 0;
  return at + 5;
};

const uuid: Write = (to, at, text) => {
  if (text.length !== 36) return -1;
  let from = 0;
  for (let i = 0; i < 16; i++) {
    if (i === 4 || i === 6 || i === 8 || i === 10) {
      if (text.charCodeAt(from) !== 45) return -1;
      from++;
    }
    const high = hexDigits[text.charCodeAt(from)]!;
    const low = hexDigits[text.charCodeAt(from + 1)]!;
    if ((high | low) > 15) return -1;
    to.bytes[at + 4 + i] = (high << 4) | low;
    from += 2;
  }
  to.view.setInt32(at, 16);
  return at + 20;
};

const bytea: Write = (to, at, text) => {
  if (!text.startsWith('\\x') || text.length % 2 !== 0) return -1;
  const size = text.length / 2 - 1;
  if (to.bytes.write(text.slice(2), at + 4, 'hex') !== size) return -1;
  to.view.setInt32(at, size);
  return at + 4 + size;
};

const scalars: Readonly<Record<string, Write>> = {
  text: plainText,
  'character varying': plainText,
  character: plainText,
  json: plainText,
  jsonb: jsonbText,
  boolean,
  smallint,
  integer,
  bigint,
  numeric,
  'double precision': doublePrecision,
  uuid,
  bytea,
  date,
  'time without time zone': time,
  'timestamp without time zone': timestamp(''),
  'timestamp with time zone': timestamp('+00'),
  interval,
  inet,
  cidr: inet,
};

const arrays: Readonly<Record<string, Write>> = {
  // The numbers of the element types are part of the protocol and never change (pg_type.dat).
  'text[]': arrayOf(plainText, 25),
  'character varying[]': arrayOf(plainText, 1043),
  'smallint[]': arrayOf(smallint, 21),
  'integer[]': arrayOf(integer, 23),
  'bigint[]': arrayOf(bigint, 20),
  'uuid[]': arrayOf(uuid, 2950),
};

/** Of the types that come in another form than their text. */
const receivers: Readonly<Record<string, typeof TextReceiver>> = {
  text: BytesReceiver,
  'character varying': BytesReceiver,
  character: BytesReceiver,
  json: BytesReceiver,
  jsonb: JsonbReceiver,
  boolean: BooleanReceiver,
  smallint: SmallintReceiver,
  integer: IntegerReceiver,
  bigint: BigintReceiver,
  numeric: NumericReceiver,
  'double precision': DoubleReceiver,
  uuid: UuidReceiver,
  bytea: ByteaReceiver,
  date: DateReceiver,
  'time without time zone': TimeReceiver,
  'timestamp without time zone': TimestampReceiver,
  'timestamp with time zone': TimestampReceiver,
};

function bareName(type: string): string {
  return type.replace(/\([-0-9, ]+\)/, '');
}

/** Null for types that only travel as text. @param type as typeText gives it */
export function cellEncoder(type: string, isEnum: boolean): CellEncoder | null {
  const name = bareName(type);
  if (name.endsWith('[]')) return isEnum || !arrays[name] ? null : { write: arrays[name], room: arrayRoom };
  // enum_recv takes the label.
  const write = isEnum ? plainText : scalars[name];
  return write ? { write, room: scalarRoom } : null;
}

/** Of a column whose values have no binary form here: while all of them are null, rows go in binary. */
const nullAlone: CellEncoder = { room: () => 0, write: () => -1 };

/** As cellEncoder. */
export function binaryColumn(type: string, isEnum: boolean): BinaryColumn | null {
  const encoder = cellEncoder(type, isEnum);
  if (!encoder) return null;
  const Receiver = (isEnum ? BytesReceiver : receivers[bareName(type)]) ?? TextReceiver;
  return { receiver: (to) => new Receiver(to, encoder) };
}

export const nullColumn: BinaryColumn = { receiver: (to) => new TextReceiver(to, nullAlone) };
