/**
 * Every type of docs/types.md with values as Postgres prints them (ISO dates, UTC, interval style postgres, hex bytea,
 * shortest exact floats, lc_monetary C), the hostile ones first. The subject `postgres` proves the spelling: there they
 * go through the types' own input and output.
 */
import type { ColumnShape, TypeParts } from '../../src/connector/shape.ts';

export interface TypeValues extends TypeParts {
  type: string;
  /** As ColumnShape.base. */
  base?: string;
  values: string[];
}

export const hostileTexts = [
  '',
  ' ',
  'NULL',
  'null',
  'undefined',
  '\\',
  '\\N',
  '\\\\',
  '\\.',
  '"',
  "'",
  "''",
  "it's",
  '`',
  '$$',
  '{}',
  '{a,b}',
  '[]',
  ',',
  ';',
  '%s %d {0} $x',
  'a\nb',
  '\r\n',
  '\t',
  'line\nbreak\ttab\r\f\v\b',
  '\u0001\u001f\u007f\u0080\u009f',
  '\u2028\u2029\ufeff\u200b',
  'ünïcode 漢字 🌊 👩‍👩‍👧 \u202e',
  'e\u0301',
  '\\x00',
  '\\u0000',
  '<a href="x">&amp;</a>',
  '__debezium_unavailable_value',
  '__proto__',
  '-- comment',
  '/* comment */',
  ' leading and trailing ',
  'x'.repeat(5000),
];

const thousandDigits = `${'9'.repeat(500)}.${'8'.repeat(500)}`;
const smallest = `0.${'0'.repeat(999)}1`;

const severity = {
  schema: 'app',
  name: 'mood',
  labels: ['low', 'high', 'NULL', 'it\'s, "so"', 'ünïcode 🌊', ' '],
};
const pair = {
  schema: 'app',
  name: 'pair',
  attributes: [
    { name: 'a', type: 'integer' },
    { name: 'B b', type: 'text' },
    { name: 'c', type: 'numeric' },
  ],
};
const span = { schema: 'app', name: 'span', subtype: 'text', multirange: 'spans' };
const ofExtension = (name: string, type = name) => ({ extension: { name, schema: 'public', type } });

export const typeValues: readonly TypeValues[] = [
  { type: 'boolean', values: ['t', 'f'] },
  { type: 'smallint', values: ['-32768', '32767', '0', '-1'] },
  { type: 'integer', values: ['-2147483648', '2147483647', '0'] },
  { type: 'bigint', values: ['-9223372036854775808', '9223372036854775807', '9007199254740993', '0'] },
  { type: 'oid', values: ['4294967295', '0'] },
  { type: 'xid', values: ['4294967295', '0'] },
  { type: 'cid', values: ['4294967295', '0'] },
  { type: 'xid8', values: ['18446744073709551615', '0'] },
  {
    type: 'real',
    values: [
      'NaN',
      'Infinity',
      '-Infinity',
      '-0',
      '0',
      '1e-45',
      '3.4028235e+38',
      '1e+06',
      '999999',
      '1e-05',
      '0.1',
    ],
  },
  {
    type: 'double precision',
    values: [
      ...['NaN', 'Infinity', '-Infinity', '-0', '0', '5e-324', '1.7976931348623157e+308', '1e+15'],
      ...['999999999999999', '0.30000000000000004', '9.999999999999999e+22', '1e-05'],
    ],
  },
  { type: 'numeric(12,2)', values: ['NaN', '-0.01', '9999999999.99', '-9999999999.99', '0.00'] },
  { type: 'numeric(38,10)', values: [`${'9'.repeat(28)}.9999999999`, '0.0000000001', 'NaN'] },
  { type: 'numeric(5,5)', values: ['0.99999', '-0.00001'] },
  { type: 'numeric(3,-2)', values: ['99900', '-12300', '0'] },
  {
    type: 'numeric',
    values: [
      'NaN',
      'Infinity',
      '-Infinity',
      thousandDigits,
      `-${thousandDigits}`,
      smallest,
      '0',
      '0.00',
      '1.10',
      '100.000000',
    ],
  },
  { type: 'money', values: ['$92,233,720,368,547,758.07', '-$92,233,720,368,547,758.08', '$0.00', '-$0.01'] },
  { type: 'text', values: hostileTexts },
  { type: 'character varying(7)', values: ['', ' ', 'abcdefg', '🌊🌊🌊🌊🌊🌊🌊', "'"] },
  { type: 'character(5)', values: ['     ', 'a    ', 'abcde', '🌊    '] },
  { type: 'name', values: ['', "it's", 'x'.repeat(63), 'ünïcode 🌊'] },
  { type: '"char"', values: ['', 'a', '"', '\\', ' ', ','] },
  { type: 'uuid', values: ['00000000-0000-0000-0000-000000000000', 'ffffffff-ffff-ffff-ffff-ffffffffffff'] },
  {
    type: 'json',
    values: [
      ...[
        'null',
        '{ "a":1, "a":2 }',
        '[1e400,-0,12345678901234567890123.450]',
        ' {"b" : "ü"}\n',
        '"\\u2028"',
      ],
      `{"n": ${'7'.repeat(400)}}`,
    ],
  },
  {
    type: 'jsonb',
    values: [
      'null',
      '{"a": 2}',
      '9007199254740993',
      '12345678901234567890.10',
      '"🌊"',
      '[]',
      `[${'7'.repeat(400)}]`,
    ],
  },
  { type: 'jsonpath', values: ['$."x"', 'strict $."a b"[*]'] },
  { type: 'xml', values: ['<a/>', '', 'text', '<a>ü &amp; 🌊</a>'] },
  { type: 'bytea', values: ['\\x', '\\x00', '\\xff00ff', '\\x5c2227', `\\x${'00ff'.repeat(2000)}`] },
  { type: 'bit(1)', values: ['0', '1'] },
  { type: 'bit(17)', values: [`1${'0'.repeat(16)}`, '0'.repeat(17)] },
  { type: 'bit varying(40)', values: ['', '0', '000001'] },
  {
    type: 'date',
    values: [
      'infinity',
      '-infinity',
      '4713-01-01 BC',
      '5874897-12-31',
      '0044-03-15 BC',
      '1969-12-31',
      '0001-01-01',
      '2024-02-29',
    ],
  },
  { type: 'time without time zone', values: ['24:00:00', '00:00:00', '23:59:59.999999', '12:00:00.1'] },
  {
    type: 'time with time zone',
    values: ['24:00:00-08', '23:59:59.999999-15:59:59', '12:00:00.1+05:30', '00:00:00+00'],
  },
  {
    type: 'timestamp without time zone',
    values: [
      ...[
        'infinity',
        '-infinity',
        '294276-12-31 23:59:59.999999',
        '4713-01-01 00:00:00 BC',
        '0044-03-15 12:00:00 BC',
      ],
      ...[
        '0001-01-01 00:00:00',
        '1969-12-31 23:59:59.999999',
        '2026-11-24 02:20:00.12',
        '9999-12-31 23:59:59.999999',
      ],
      ...['10000-01-01 00:00:00', '2262-04-11 23:47:16.854776'],
    ],
  },
  {
    type: 'timestamp with time zone',
    values: [
      ...['infinity', '-infinity', '294276-12-31 23:59:59.999999+00', '4713-01-01 00:00:00+00 BC'],
      ...['0044-03-15 12:00:00+00 BC', '1969-12-31 23:59:59.999999+00', '2026-11-24 02:20:00.12+00'],
      ...['9999-12-31 23:59:59.999999+00', '10000-01-01 00:00:00+00', '2262-04-11 23:47:16.854776+00'],
    ],
  },
  { type: 'timestamp(3) with time zone', values: ['2026-11-24 02:20:00.123+00', 'infinity'] },
  {
    type: 'interval',
    values: [
      ...[
        'infinity',
        '-infinity',
        '178000000 years',
        '-178000000 years',
        '1 mon -3 days +04:05:06.7',
        '-1 days',
      ],
      ...['00:00:00', '100:00:00', '-00:00:00.000001', '1 year 2 mons', '2562047788:00:54.775807'],
    ],
  },
  {
    type: 'inet',
    values: ['10.1.2.3', '10.0.0.0/8', '::1', '2001:db8::1/64', '::ffff:1.2.3.4', '0.0.0.0/0'],
  },
  { type: 'cidr', values: ['10.0.0.0/8', '10.1.2.3/32', '::/0', '2001:db8::/32'] },
  { type: 'macaddr', values: ['ff:ff:ff:ff:ff:ff', '00:00:00:00:00:00'] },
  { type: 'macaddr8', values: ['08:00:2b:01:02:03:04:05'] },
  { type: 'point', values: ['(1.5,-0)', '(NaN,Infinity)', '(1e-07,-1e+300)'] },
  { type: 'line', values: ['{1,2,3}', '{0,-1,0.1}'] },
  { type: 'lseg', values: ['[(0,0),(1,1)]'] },
  { type: 'box', values: ['(1,1),(0,0)'] },
  { type: 'path', values: ['[(0,0)]', '((0,0),(1,1))'] },
  { type: 'polygon', values: ['((0,0))', '((0,0),(1,1),(0,2))'] },
  { type: 'circle', values: ['<(1.5,-2),10000000000>'] },
  { type: 'tsvector', values: ["'a':1A,2B,3C,4 'b'", "'it''s':16383", ''] },
  { type: 'tsquery', values: ["'a' & ( 'b' | 'c':*A )", "'a' <-> 'b'", ''] },
  { type: 'pg_lsn', values: ['FFFFFFFF/FFFFFFFF', '0/0', '16/B374D848'] },
  { type: 'tid', values: ['(4294967295,65535)', '(0,0)'] },
  { type: 'pg_snapshot', values: ['10:20:10,14,15'] },
  { type: 'txid_snapshot', values: ['10:20:10,14,15'] },
  { type: 'int2vector', values: ['-32768 32767 0', ''] },
  { type: 'oidvector', values: ['4294967295 1', ''] },
  { type: 'refcursor', values: ["it's", ''] },
  { type: 'regclass', base: 'text', values: ['pg_class', 'app."Odd Name"'] },
  { type: 'int4range', values: ['empty', '[1,2)', '(,)', '(,5)'] },
  { type: 'numrange', values: ['[0.00,1.10)', '[NaN,NaN]', '(,Infinity)'] },
  { type: 'daterange', values: ['[-infinity,infinity)', '["0044-03-15 BC",)'] },
  { type: 'tstzrange', values: ['["2026-01-01 00:00:00+00",infinity)', 'empty'] },
  { type: 'int4multirange', values: ['{}', '{[1,3),[5,)}', '{(,)}'] },
  { type: 'app.span', range: span, values: ['[a,b)', '["",)', 'empty', '["(a]",b]'] },
  { type: 'app.mood', enum: severity, values: severity.labels },
  {
    type: 'app.pair',
    composite: pair,
    values: ['(,,)', '(1,"",0)', '(-1,"a ""b"" \\\\ c",NaN)', '(2,"x,y",1.10)'],
  },
  { type: 'app.amount', base: 'numeric(9,3)', values: ['0.001', '-999999.999'] },
  { type: 'public.citext', ...ofExtension('citext'), values: ['MiXeD', '', "it's 🌊"] },
  {
    type: 'public.hstore',
    ...ofExtension('hstore'),
    values: ['', '"a"=>"1", "b"=>NULL', '"__proto__"=>"a\\"b"', '"\\\\"=>"\u2028 🌊"'],
  },
  { type: 'public.ltree', ...ofExtension('ltree'), values: ['Top.Science', ''] },
  { type: 'public.lquery', ...ofExtension('ltree', 'lquery'), values: ['*.a.*{1,2}', 'foo|bar@*'] },
  { type: 'public.ltxtquery', ...ofExtension('ltree', 'ltxtquery'), values: ['a & b'] },
  {
    type: 'integer[]',
    values: ['{}', '{NULL}', '{1,2}', '{{1,2},{3,NULL}}', '[0:1]={1,2}', '[2:2][1:1]={{NULL}}'],
  },
  {
    type: 'text[]',
    values: ['{a,"b c",NULL,"NULL","","\\"q\\"","\\\\","{}","a,b"}', '{"line\nbreak",🌊}'],
  },
  { type: 'numeric[]', values: ['{NaN,Infinity,1.10}', `{${thousandDigits}}`] },
  { type: 'double precision[]', values: ['{NaN,-Infinity,-0,5e-324}'] },
  { type: 'boolean[]', values: ['{t,f,NULL}'] },
  { type: 'bytea[]', values: ['{"\\\\x00ff",NULL}'] },
  { type: 'jsonb[]', values: ['{"{\\"a\\": 1}",NULL}'] },
  { type: 'timestamp with time zone[]', values: ['{infinity,"0044-03-15 12:00:00+00 BC",NULL}'] },
  { type: 'interval[]', values: ['{"1 mon -3 days +04:05:06.7",infinity}'] },
  { type: 'app.mood[]', enum: severity, values: ['{low,"NULL","it\'s, \\"so\\""," "}'] },
  { type: 'app.pair[]', composite: pair, values: ['{"(1,x,0)",NULL,"(,\\"a,b\\",)"}'] },
];

/** A column per type, from number 2 on. */
export const typeColumns: readonly ColumnShape[] = typeValues.map(({ values: _, ...type }, i) => ({
  ...type,
  name: `c${i}_${type.type.replace(/[^a-z0-9]+/g, '_')}`,
  key: false,
  nullable: true,
  number: i + 2,
}));

/** Row n has every type's nth value, and NULL where a type has fewer. */
export const typeRows: readonly (string | null)[][] = Array.from(
  { length: Math.max(...typeValues.map(({ values }) => values.length)) + 1 },
  (_, n) => typeValues.map(({ values }) => values[n] ?? null),
);

/** Types that may be a key, and whose values a destination finds again by their text. */
export const keyTypes: readonly string[] = [
  'boolean',
  'bigint',
  'numeric(12,2)',
  'text',
  'character varying(7)',
  'uuid',
  'bytea',
  'date',
  'time without time zone',
  'timestamp without time zone',
  'timestamp with time zone',
  'interval',
  'inet',
  'double precision',
  'app.mood',
  'text[]',
];
