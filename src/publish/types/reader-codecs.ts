/**
 * The reader's codecs: those of the shape, and for types that are carried as text what reads their binary form. Where
 * nobody here knows that form, the stream must be read with text values (TM210).
 */
import type { TableShape } from '../../connector/shape.ts';
import { TidemarkError } from '../../platform/errors.ts';
import { leafType, type SourceType, type SourceTypes } from '../../replicate/source-types.ts';
import { arrayOf } from './arrays.ts';
import { bitText } from './bits.ts';
import { codecFor } from './catalogue.ts';
import type { BinaryText, Codec } from './codec.ts';
import { boxText, circleText, lineText, pathText, pointText, polygonText, segmentText } from './geometric.ts';
import { hstoreText } from './hstore.ts';
import { bool, float4, float8, int2, int4, int8, oid } from './integers.ts';
import { compositeText, multirangeText, rangeText } from './nested.ts';
import { money, variableScaleDecimal } from './numeric.ts';
import { bytea, jsonb, macaddr, network, text, textForm, uuid } from './strings.ts';
import { charText, lsnText, snapshotText, tidText, vectorText, versionedText, xid8Text } from './system.ts';
import { tsqueryText, tsvectorText } from './text-search.ts';
import { date, interval, time, timestamp, timestamptz, timetz } from './times.ts';

/** By pg_type.typname in pg_catalog. */
const builtIn: Readonly<Record<string, BinaryText>> = {
  bool: bool.text,
  int2: int2.text,
  int4: int4.text,
  int8: int8.text,
  oid: oid.text,
  xid: oid.text,
  cid: oid.text,
  xid8: xid8Text,
  float4: float4.text,
  float8: float8.text,
  numeric: variableScaleDecimal.text,
  money: money.text,
  text: text.text,
  varchar: text.text,
  bpchar: text.text,
  name: text.text,
  char: charText,
  refcursor: text.text,
  uuid: uuid.text,
  json: text.text,
  jsonb: jsonb.text,
  jsonpath: versionedText,
  xml: text.text,
  bytea: bytea.text,
  bit: bitText,
  varbit: bitText,
  inet: network(false).text,
  cidr: network(true).text,
  macaddr: macaddr.text,
  macaddr8: macaddr.text,
  date: date.text,
  time: time.text,
  timetz: timetz.text,
  timestamp: timestamp.text,
  timestamptz: timestamptz.text,
  interval: interval.text,
  point: pointText,
  lseg: segmentText,
  path: pathText,
  box: boxText,
  polygon: polygonText,
  line: lineText,
  circle: circleText,
  tsvector: tsvectorText,
  tsquery: tsqueryText,
  pg_lsn: lsnText,
  tid: tidText,
  pg_snapshot: snapshotText,
  txid_snapshot: snapshotText,
  int2vector: vectorText(int2.text),
  oidvector: vectorText(oid.text),
};

/** By extension and type. */
const ofExtensions: Readonly<Record<string, BinaryText>> = {
  'citext.citext': text.text,
  'hstore.hstore': hstoreText,
  'ltree.ltree': versionedText,
  'ltree.lquery': versionedText,
  'ltree.ltxtquery': versionedText,
};

/** What reads the type's binary form, or null where nothing here does. */
export function binaryTextOf(types: SourceTypes, typeOid: number): BinaryText | null {
  const type = types.get(typeOid);
  if (!type?.sends) return null;
  if (type.base) return binaryTextOf(types, type.base.oid);
  if (type.element !== null) {
    const element = binaryTextOf(types, type.element);
    return element && arrayOf(textForm(element), types.get(type.element)!.delimiter).text;
  }
  if (type.labels) return text.text;
  if (type.subtype) {
    const subtype = binaryTextOf(types, type.subtype.oid);
    return subtype && (type.kind === 'range' ? rangeText : multirangeText)(subtype);
  }
  if (type.attributes) return compositeOf(types, type.attributes);
  if (type.extension !== null) return ofExtensions[`${type.extension}.${type.name}`] ?? null;
  return type.schema === 'pg_catalog' && Object.hasOwn(builtIn, type.name) ? builtIn[type.name]! : null;
}

function compositeOf(
  types: SourceTypes,
  attributes: NonNullable<SourceType['attributes']>,
): BinaryText | null {
  const known = new Map<number, BinaryText>();
  for (const { oid: attribute } of attributes) {
    const read = binaryTextOf(types, attribute);
    if (!read) return null;
    known.set(attribute, read);
  }
  return compositeText((attribute) => {
    const read = known.get(attribute) ?? binaryTextOf(types, attribute);
    if (read) return read;
    throw new TidemarkError(
      'TM210',
      'a composite type got an attribute of another type while the stream was read',
    );
  });
}

/**
 * Whether a column can be read in the binary stream: its binary form is known here, or the server sends it as text,
 * because it has none.
 */
export function readsBinary(types: SourceTypes, typeOid: number): boolean {
  if (types.get(typeOid)?.sends === false) return true;
  return binaryTextOf(types, typeOid) !== null;
}

/** The shape's codecs for the reader. @param typeOids of the shape's columns */
export function readerCodecs(shape: TableShape, types: SourceTypes, typeOids: readonly number[]): Codec[] {
  return shape.columns.map((column, i) => {
    const typeOid = typeOids[i]!;
    const value = binaryTextOf(types, typeOid) ?? (() => unread(column.name));
    const leaf = leafType(types, typeOid);
    const element = (leaf && binaryTextOf(types, leaf.oid)) ?? value;
    return codecFor(column, { value, element });
  });
}

function unread(column: string): never {
  throw new TidemarkError('TM210', `the binary form of column ${column} is not known`);
}
