/** Which codec serves a column: decided by its type's name alone, so that reader and consumers always agree. */
import type { ColumnShape } from '../../connector/shape.ts';
import { arrayOf } from './arrays.ts';
import type { Codec } from './codec.ts';
import { bool, float4, float8, int2, int4, int8, oid } from './integers.ts';
import { decimal, variableScaleDecimal, variableScaleDecimalName } from './numeric.ts';
import { bytea, enumOf, json, jsonb, macaddr, network, text, uuid, xml } from './strings.ts';
import { date, interval, time, timestamp, timestamptz } from './times.ts';

/** By format_type's name without its modifier. */
const codecs: Readonly<Record<string, Codec>> = {
  boolean: bool,
  smallint: int2,
  integer: int4,
  bigint: int8,
  oid,
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
  interval,
  numeric: variableScaleDecimal,
};

/** @returns null where this version has no exact form for the type; the table is then parked (TM208). */
export function codecFor(column: Pick<ColumnShape, 'type' | 'enum'>): Codec | null {
  const array = column.type.endsWith('[]');
  const elementType = array ? column.type.slice(0, -2) : column.type;
  const element = column.enum ? enumOf(column.enum.labels) : scalarCodec(elementType);
  if (!element || !array) return element;
  return arrayOf(element);
}

function scalarCodec(type: string): Codec | null {
  const modified = /^numeric\((\d+),(-?\d+)\)$/.exec(type);
  // A negative scale has no Avro decimal; it travels with its own scale.
  if (modified && Number(modified[2]) >= 0) return decimal(Number(modified[1]), Number(modified[2]));
  const bare = type.replace(/\([^)]*\)/, '').replace(/^interval .*/, 'interval');
  return Object.hasOwn(codecs, bare) ? codecs[bare]! : null;
}

export { variableScaleDecimalName };
