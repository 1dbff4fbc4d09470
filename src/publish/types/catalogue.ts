/**
 * Which codec serves a column: decided by what the value schema says of its type alone, so that reader and consumers
 * always agree. What is not known by name is carried as Postgres' own text.
 */
import type { ColumnShape } from '../../connector/shape.ts';
import { TidemarkError } from '../../platform/errors.ts';
import { arrayOf } from './arrays.ts';
import { bits } from './bits.ts';
import type { BinaryText, Codec } from './codec.ts';
import { point } from './geometric.ts';
import { hstore } from './hstore.ts';
import { bool, float4, float8, int2, int4, int8, oid } from './integers.ts';
import {
  decimal,
  decimalKey,
  money,
  variableScaleDecimal,
  variableScaleDecimalKey,
  variableScaleDecimalName,
} from './numeric.ts';
import { bytea, enumOf, json, jsonb, macaddr, network, text, textForm, uuid, xml } from './strings.ts';
import { versionedText } from './system.ts';
import { date, dateKey, interval, time, timestamp, timestampKey, timestamptz, timetz } from './times.ts';

/** By format_type's name without its modifier. */
const codecs: Readonly<Record<string, Codec>> = {
  boolean: bool,
  smallint: int2,
  integer: int4,
  bigint: int8,
  oid,
  xid: oid,
  cid: oid,
  real: float4,
  'double precision': float8,
  text,
  'character varying': text,
  character: text,
  bpchar: text,
  name: text,
  uuid,
  json,
  jsonb,
  xml,
  bytea,
  inet: network(false),
  cidr: network(true),
  macaddr,
  macaddr8: macaddr,
  date,
  'timestamp without time zone': timestamp,
  'timestamp with time zone': timestamptz,
  'time without time zone': time,
  'time with time zone': timetz,
  interval,
  numeric: variableScaleDecimal,
  money,
  point,
  // A bit of unknown length: "bit" in quotes is bit without a modifier, which is not bit(1).
  'bit varying': bits(null, 0x7fffffff),
  '"bit"': bits(null, 0x7fffffff),
};

/** What a key holds must be exact: other forms of the same types, without a value that needs the header. */
const keyCodecs: Readonly<Record<string, Codec>> = {
  date: dateKey,
  'timestamp without time zone': timestampKey,
  numeric: variableScaleDecimalKey,
};

/** Of known extensions, by their name and the type's. */
const extensionCodecs: Readonly<Record<string, Codec>> = {
  'hstore.hstore': hstore,
  'citext.citext': text,
  'ltree.ltree': textForm(versionedText, {
    type: 'string',
    'connect.version': 1,
    'connect.name': 'io.debezium.data.Ltree',
  }),
};

export type RepresentedColumn = Pick<ColumnShape, 'type' | 'base' | 'form' | 'enum' | 'extension'> & {
  key?: boolean;
};

/** What reads the binary form of a type that is carried as text. */
export interface ColumnBinary {
  /** Of the whole column. */
  value: BinaryText;
  /** Of an array's elements; of any other type as `value`. */
  element: BinaryText;
}

/** A consumer decodes only, and never asks. */
const unread: ColumnBinary = { value: unreadable, element: unreadable };

function unreadable(): never {
  throw new TidemarkError('TM901', 'a binary value was met without the structure of its type');
}

/** @param binary what the reader alone knows; without it, types that are carried as text can only be decoded */
export function codecFor(column: RepresentedColumn, binary = unread): Codec {
  if (column.form === 'text') return textForm(binary.value);
  const type = column.base ?? column.type;
  const array = type.endsWith('[]');
  const element = elementCodec(array ? type.slice(0, -2) : type, column, binary.element, !array);
  return array ? arrayOf(element, /^box\[\]$/.test(type) ? ';' : ',') : element;
}

function elementCodec(type: string, column: RepresentedColumn, binary: BinaryText, whole: boolean): Codec {
  if (column.enum) return enumOf(column.enum.labels);
  const { extension } = column;
  if (extension) return extensionCodecs[`${extension.name}.${extension.type}`] ?? textForm(binary);
  return scalarCodec(type, whole && column.key === true) ?? textForm(binary);
}

function scalarCodec(type: string, key: boolean): Codec | null {
  const modified = /^(numeric|bit|bit varying)\((\d+)(?:,(-?\d+))?\)$/.exec(type);
  if (modified?.[1] === 'numeric') {
    const [precision, scale] = [Number(modified[2]), Number(modified[3] ?? 0)];
    // A negative scale has no Avro decimal; it travels with its own scale.
    if (scale >= 0) return key ? decimalKey(precision, scale) : decimal(precision, scale);
  } else if (modified) {
    const length = Number(modified[2]);
    return bits(modified[1] === 'bit' ? length : null, length);
  }
  const bare = type.replace(/\([^)]*\)/, '').replace(/^interval .*/, 'interval');
  if (key && Object.hasOwn(keyCodecs, bare)) return keyCodecs[bare]!;
  return Object.hasOwn(codecs, bare) ? codecs[bare]! : null;
}

export { variableScaleDecimalName };
