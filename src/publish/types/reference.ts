/** docs/types.md: how every type is carried, from the codecs themselves. */
import { keyForm } from '../../replicate/source-types.ts';
import { codecFor, type RepresentedColumn } from './catalogue.ts';
import type { AvroSchema } from './codec.ts';

interface TypeEntry {
  /** As somebody declares it. */
  shown: string;
  column: RepresentedColumn;
  /** When the exactness header carries the value's text, beside the Avro value or (null) instead of it. */
  header?: string;
  /** False where Postgres has no order for the type, and so no key. */
  key?: false;
  note?: string;
}

const plain = (type: string, more: Partial<TypeEntry> = {}): TypeEntry => ({
  shown: type,
  column: { type },
  ...more,
});
const ofExtension = (name: string, type: string, more: Partial<TypeEntry> = {}): TypeEntry => ({
  shown: type,
  column: { type: `public.${type}`, extension: { name, schema: 'public', type } },
  ...more,
});

const entries: readonly TypeEntry[] = [
  plain('boolean'),
  plain('smallint'),
  plain('integer'),
  plain('bigint'),
  plain('oid'),
  plain('xid', { key: false }),
  plain('cid', { key: false }),
  plain('xid8'),
  plain('real'),
  plain('double precision'),
  plain('numeric(12,2)', { header: 'NaN (null)' }),
  plain('numeric', { header: 'NaN, Infinity (null)', note: 'also numeric(p,-s)' }),
  plain('money', {
    note: 'two digits after the point and the text of lc_monetary C, whatever the source has',
  }),
  plain('text'),
  plain('character varying(7)'),
  plain('character(5)'),
  plain('name'),
  plain('"char"'),
  plain('uuid'),
  plain('json', { key: false }),
  plain('jsonb'),
  plain('jsonpath', { key: false }),
  plain('xml', { key: false }),
  plain('bytea'),
  plain('bit(1)'),
  plain('bit(17)'),
  plain('bit varying(40)', { header: 'always: the length is not in the Avro value' }),
  plain('date', { header: 'infinity (null)', note: 'in keys infinity is the end of 32 bits' }),
  plain('time without time zone'),
  plain('time with time zone', { header: 'any offset but +00, and 24:00' }),
  plain('timestamp without time zone', {
    header: "infinity (Debezium's value); from the year 294247 on (null)",
    note: 'in keys those instants are below −4.5·10¹⁸',
  }),
  plain('timestamp with time zone'),
  plain('interval', { header: 'any months or days (an average month is 30.4375 days); infinity (null)' }),
  plain('inet'),
  plain('cidr'),
  plain('macaddr'),
  plain('macaddr8'),
  plain('point', { key: false }),
  plain('line', { key: false }),
  plain('lseg', { key: false }),
  plain('box', { key: false }),
  plain('path', { key: false }),
  plain('polygon', { key: false }),
  plain('circle', { key: false }),
  plain('tsvector'),
  plain('tsquery'),
  plain('pg_lsn'),
  plain('tid'),
  plain('pg_snapshot', { key: false }),
  plain('txid_snapshot', { key: false }),
  plain('int2vector', { key: false }),
  plain('oidvector'),
  plain('refcursor', { key: false }),
  plain('aclitem', { key: false, note: 'has no binary form; its arrays are read in text mode' }),
  {
    shown: 'regclass, regtype, … (reg*)',
    column: { type: 'regclass', base: 'text' },
    note: 'text mode; text at every destination, since they name objects of the source',
  },
  plain('int4range', { note: 'and every other range' }),
  plain('int4multirange', { note: 'and every other multirange' }),
  {
    shown: 'enum',
    column: { type: 'app.severity', enum: { schema: 'app', name: 'severity', labels: ['low', 'high'] } },
    note: 'labels added later change nothing in the stream',
  },
  {
    shown: 'composite',
    column: { type: 'app.pair' },
    note: 'made in a Postgres replica where it is missing',
  },
  {
    shown: 'domain',
    column: { type: 'app.amount', base: 'numeric(9,3)' },
    header: 'as the type under it',
    note: 'as the type under it, everywhere',
  },
  plain('integer[]', {
    header:
      'more than one dimension, bounds other than 1, elements without an Avro form (null); inexact elements',
    note: 'arrays of any type: items as here',
  }),
  ofExtension('citext', 'citext'),
  ofExtension('hstore', 'hstore'),
  ofExtension('ltree', 'ltree'),
  ofExtension('ltree', 'lquery', { key: false }),
  ofExtension('ltree', 'ltxtquery', { key: false }),
  {
    shown: 'any other (vector, geometry, …)',
    column: { type: 'public.vector', extension: { name: 'vector', schema: 'public', type: 'vector' } },
    note: 'text mode; a Postgres replica must have the type',
  },
];

/** @param parquetType the column type in Parquet data files, of a type as `base ?? type` */
export function typesReference(parquetType: (type: string) => string): string {
  const rows = entries.map(({ shown, column, header = '', key, note = '' }) => {
    const value = avroText(codecFor(column).schema);
    const inKey = { ...column, ...keyForm(column), key: true };
    const keyText = key === false ? 'no key' : avroText(codecFor(inKey).schema);
    const base = column.base ?? column.type;
    const cells = [shown, value, keyText === value ? '' : keyText, header, parquetType(base), note];
    return `| ${cells.map((cell) => cell.replaceAll('|', '\\|')).join(' | ')} |`;
  });
  return `${intro}
| Postgres | Avro value | in a key, where different | header carries | Parquet | notes |
| --- | --- | --- | --- | --- | --- |
${rows.join('\n')}
${outro}`;
}

function avroText(schema: AvroSchema): string {
  if (typeof schema === 'string') return schema;
  if (Array.isArray(schema)) return schema.map(avroText).join(' or ');
  if (schema.type === 'array') return `array of nullable ${avroText((schema.items as AvroSchema[])[1]!)}`;
  const logical = schema['connect.name'];
  const type = avroText(schema.type);
  return typeof logical === 'string' ? `${type} \`${logical.split('.').at(-1)}\`` : type;
}

const intro = `<!-- Generated by \`npm run docs\` from src/publish/types/reference.ts. Do not edit. -->

# Types

Every column reaches every destination. The Avro value is Debezium's where Debezium has one. Where that is not the
whole value, the record's \`tidemark.exact\` header carries Postgres' own text of it, and our sinks use the text: they
hold exactly what Postgres printed. Below, "(null)" means that the Avro field is null then, and otherwise Debezium's
value stands beside the header.

"Postgres' own text" is the type's output under DateStyle ISO, IntervalStyle postgres, TimeZone UTC, shortest exact
floats, hexadecimal bytea and lc_monetary C. Postgres 14 and 15 print a "char" beyond ASCII as a raw byte, later
versions as an octal escape; the escape is what is carried.

A **Postgres replica** has the source's own types, a domain as the type under it and \`reg*\` as text. A **Parquet** lake
has the column type in the table; a value that this type cannot hold is in \`_exact\` (connectors/sinks/parquet).
`;

const outro = `
## Keys

A header says nothing of a key, so a key holds every value exactly, by its type and never by its value. NaN is a Decimal
without any bytes; for \`numeric\` the scale tells −Infinity (−1), NaN (0) and Infinity (1) apart.

## Text mode

Postgres sends values in their binary form, and Tidemark reads that of the built-in types, of everything made of them
(arrays, ranges, composites, domains), and of citext, hstore and ltree. Where a tracked column has another type, the
whole stream is read with text values: the records are byte for byte the same, at more CPU on both sides. The reader
looks at start, and starts over by itself when such a type turns up (TM210). \`tidemark check\` and a warning in the log
name the columns. \`source.values\` chooses one form for good. A single column whose type has no binary form at all
(aclitem) comes as text in either mode.

## What changes without a message

Postgres says nothing in the stream of a label added to an enum or an attribute added to a composite type. The label
simply arrives. So does the attribute, in the rows written from then on; add it to the type in a Postgres replica too
(\`ALTER TYPE … ADD ATTRIBUTE\`), or its rows are refused there. Rows written before print differently in the source from
then on, and a Parquet lake keeps the text of the time.

## Generated and identity columns

Stored generated columns are in the stream only where a publication of Postgres 18 says so; Tidemark's does not, so
destinations lack them and \`verify\` compares the others. Virtual ones are never sent. Identity columns are plain
columns at every destination.

## Names

Avro allows A-Z, a-z, 0-9 and _ in names: every other character becomes \`_\`, and a leading digit gets one in front.
Columns that would share a name get \`_2\`, \`_3\`, … in column order; the schema's \`tidemark\` attribute has the columns'
own names, in field order, and \`field\` where a number was added. Two tables whose names become the same topic are
refused (TM208).
`;
