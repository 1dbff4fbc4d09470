/**
 * The readers that judge the sink `iceberg`, judged themselves: what pyiceberg wrote, all three read, and what they read
 * is spelled as Postgres spells it.
 */
import { rm } from 'node:fs/promises';
import pg from 'pg';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { type Stack, startStack } from '../../compose/local-stack.ts';
import { createTableBucket, stackCatalog, tableBucketCatalog } from '../iceberg/catalogs.ts';
import { cellText, type Raw } from '../iceberg/raw-cell.ts';
import { type ReaderCatalog, readerNames } from '../iceberg/reader.ts';
import { icebergReader, writeWithPyiceberg } from '../iceberg/readers.ts';

const directory = new URL('../../.tidemark/test-stacks/iceberg-readers', import.meta.url).pathname;
let stack: Stack;

beforeAll(async () => {
  await rm(directory, { recursive: true, force: true });
  stack = await startStack({ directory, parts: ['postgres', 's3', 'iceberg'] });
  await createTableBucket(stack.environment, 'tables');
});
afterAll(async () => {
  await stack.stop();
  await rm(directory, { recursive: true, force: true });
});

interface TypeSample {
  type: string;
  /** Raw, and as Postgres prints it. */
  values: [Raw, string | null][];
}

const float = (value: number): string => {
  const buffer = Buffer.alloc(4);
  buffer.writeFloatBE(value);
  return String(buffer.readUInt32BE());
};
const double = (value: number): string => {
  const buffer = Buffer.alloc(8);
  buffer.writeDoubleBE(value);
  return String(buffer.readBigUInt64BE());
};
const nines = (count: number) => '9'.repeat(count);
const unicode = [
  '',
  ' ',
  'NULL',
  '\\N',
  'it\'s "quoted"',
  'a\tb\r\nc\u0001',
  'ünïcode 漢字 🌊 👩‍👩‍👧 e\u0301 \u202e',
  'x'.repeat(70_000),
];

/** Each of Iceberg's primitive types of format version 2 but `time`. */
const samples: TypeSample[] = [
  {
    type: 'boolean',
    values: [
      ['true', 't'],
      ['false', 'f'],
    ],
  },
  {
    type: 'int',
    values: [
      ['-2147483648', '-2147483648'],
      ['2147483647', '2147483647'],
      ['0', '0'],
    ],
  },
  {
    type: 'long',
    values: [
      ['-9223372036854775808', '-9223372036854775808'],
      ['9223372036854775807', '9223372036854775807'],
      ['9007199254740993', '9007199254740993'],
    ],
  },
  {
    type: 'float',
    values: [
      [float(Number.NaN), 'NaN'],
      [float(Number.POSITIVE_INFINITY), 'Infinity'],
      [float(Number.NEGATIVE_INFINITY), '-Infinity'],
      [float(-0), '-0'],
      [float(3.4028234663852886e38), '3.4028235e+38'],
      [float(1e-45), '1e-45'],
      [float(0.1), '0.1'],
    ],
  },
  {
    type: 'double',
    values: [
      [double(Number.NaN), 'NaN'],
      [double(Number.POSITIVE_INFINITY), 'Infinity'],
      [double(Number.NEGATIVE_INFINITY), '-Infinity'],
      [double(-0), '-0'],
      [double(Number.MAX_VALUE), '1.7976931348623157e+308'],
      [double(5e-324), '5e-324'],
      [double(0.1), '0.1'],
    ],
  },
  {
    type: 'decimal(9, 2)',
    values: [
      ['1234567.89', '1234567.89'],
      ['-0.01', '-0.01'],
      ['0.00', '0.00'],
    ],
  },
  {
    type: 'decimal(18, 0)',
    values: [
      [nines(18), nines(18)],
      [`-${nines(18)}`, `-${nines(18)}`],
    ],
  },
  {
    type: 'decimal(38, 10)',
    values: [
      [`${nines(28)}.${nines(10)}`, `${nines(28)}.${nines(10)}`],
      [`-${nines(28)}.${nines(10)}`, `-${nines(28)}.${nines(10)}`],
      ['0.0000000001', '0.0000000001'],
    ],
  },
  {
    type: 'date',
    values: [
      ['0', '1970-01-01'],
      ['-1', '1969-12-31'],
      ['-719163', '0001-12-31 BC'],
      ['-719162', '0001-01-01'],
      ['-2440550', '4713-01-01 BC'],
      ['2932897', '10000-01-01'],
      ['2145042905', '5874897-12-31'],
    ],
  },
  {
    type: 'timestamp',
    values: [
      ['0', '1970-01-01 00:00:00'],
      ['-1', '1969-12-31 23:59:59.999999'],
      ['1709210096123456', '2024-02-29 12:34:56.123456'],
      ['-210866803200000000', '4714-11-24 00:00:00 BC'],
      ['9223371244799999999', '294246-12-31 23:59:59.999999'],
    ],
  },
  {
    type: 'timestamptz',
    values: [
      ['0', '1970-01-01 00:00:00+00'],
      ['1709210096120000', '2024-02-29 12:34:56.12+00'],
      ['-62135596800000001', '0001-12-31 23:59:59.999999+00 BC'],
      ['253402300800000000', '10000-01-01 00:00:00+00'],
    ],
  },
  { type: 'string', values: unicode.map((each) => [each, each]) },
  {
    type: 'uuid',
    values: [
      ['00000000-0000-0000-0000-000000000000', '00000000-0000-0000-0000-000000000000'],
      ['f47ac10b-58cc-4372-a567-0e02b2c3d479', 'f47ac10b-58cc-4372-a567-0e02b2c3d479'],
    ],
  },
  { type: 'fixed[4]', values: [['00ff0010', '\\x00ff0010']] },
  {
    type: 'binary',
    values: [
      ['', '\\x'],
      ['00ff', '\\x00ff'],
      ['5c78', '\\x5c78'],
    ],
  },
];

interface Field {
  id: number;
  name: string;
  required: boolean;
  type: unknown;
}

function schemaOf(fields: Field[]) {
  return { type: 'struct', 'schema-id': 0, 'identifier-field-ids': [], fields };
}

/** Row `i` has the i-th value of every type, or null; the last row is null altogether. */
function tableOf(types: readonly TypeSample[]) {
  const depth = Math.max(...types.map(({ values }) => values.length)) + 1;
  const fields = types.map(({ type }, i) => ({ id: i + 1, name: `c ${i} "${type}"`, required: false, type }));
  const rows = Array.from({ length: depth }, (_row, i) =>
    types.map(({ values }) => values[i] ?? [null, null]),
  );
  return {
    schema: schemaOf(fields),
    rows: rows.map((row) => row.map(([raw]) => raw)),
    texts: rows.map((row) => row.map(([, text]) => text)),
  };
}

const sorted = (rows: (string | null)[][]) => rows.map((row) => JSON.stringify(row)).sort();

/** Bounds are left out: pyiceberg computes them with Python's dates, which end with the year 9999. */
const withoutBounds = { 'write.metadata.metrics.default': 'none' };

const places: [string, () => { catalog: ReaderCatalog; location?: string }][] = [
  ['a directory', () => ({ catalog: stackCatalog(stack.environment) })],
  ['S3', () => ({ catalog: stackCatalog(stack.environment), location: 's3://tidemark/readers/every type' })],
  [
    'a table bucket behind a catalog that wants tokens',
    () => ({ catalog: tableBucketCatalog(stack.environment, 'tables') }),
  ],
];

describe.each(places)('a table in %s', (place, from) => {
  const { schema, rows, texts } = tableOf(samples);
  const table = { namespace: ['readers'], name: `t_${place.length}` };

  beforeAll(async () => {
    const { catalog, location } = from();
    await writeWithPyiceberg(catalog, {
      ...table,
      schema,
      rows,
      tableProperties: withoutBounds,
      ...(location === undefined ? {} : { location }),
    });
  });

  it.each(readerNames)('is the same to %s, cell by cell, as it was written', async (name) => {
    const found = await icebergReader(name).readTable(from().catalog, table);
    expect(found.columns).toEqual(schema.fields.map((field) => field.name));
    expect(sorted(found.rows)).toEqual(sorted(texts));
  });
});

it('each reader sees what was appended since it looked, and can look back', async () => {
  const catalog = stackCatalog(stack.environment);
  const table = { namespace: ['readers', 'below'], name: 'changing' };
  const schema = schemaOf([{ id: 1, name: 'id', required: true, type: 'long' }]);
  const first = await writeWithPyiceberg(catalog, { ...table, schema, rows: [['1']] });
  for (const name of readerNames) {
    expect((await icebergReader(name).readTable(catalog, table)).rows, name).toEqual([['1']]);
  }
  await writeWithPyiceberg(catalog, { ...table, schema, rows: [['2']] });
  for (const name of readerNames) {
    const reader = icebergReader(name);
    expect(sorted((await reader.readTable(catalog, table)).rows), name).toEqual(sorted([['1'], ['2']]));
    expect((await reader.readTable(catalog, table, first)).rows, name).toEqual([['1']]);
  }
});

it('lists are read as Postgres prints arrays', async () => {
  const catalog = stackCatalog(stack.environment);
  const table = { namespace: ['readers'], name: 'lists' };
  const list = (id: number, element: string) => ({
    type: 'list',
    'element-id': id,
    element,
    'element-required': false,
  });
  const schema = schemaOf([
    { id: 1, name: 'texts', required: false, type: list(3, 'string') },
    { id: 2, name: 'dates', required: false, type: list(4, 'date') },
  ]);
  const hostile = ['plain', '', 'NULL', 'a b', 'a,b', '{x}', 'q"\\', null];
  await writeWithPyiceberg(catalog, {
    ...table,
    schema,
    rows: [
      [hostile, ['0', null, '2932897']],
      [[], null],
    ],
    tableProperties: withoutBounds,
  });
  const expected = [
    ['{plain,"","NULL","a b","a,b","{x}","q\\"\\\\",NULL}', '{1970-01-01,NULL,10000-01-01}'],
    ['{}', null],
  ];
  for (const name of readerNames) {
    expect(sorted((await icebergReader(name).readTable(catalog, table)).rows), name).toEqual(
      sorted(expected),
    );
  }
});

it('a table with a time is read by all but Spark, which refuses it whole', async () => {
  const catalog = stackCatalog(stack.environment);
  const table = { namespace: ['readers'], name: 'times' };
  const schema = schemaOf([{ id: 1, name: 'at', required: false, type: 'time' }]);
  await writeWithPyiceberg(catalog, { ...table, schema, rows: [['0'], ['86399999999'], [null]] });
  const expected = sorted([['00:00:00'], ['23:59:59.999999'], [null]]);
  for (const name of ['pyiceberg', 'duckdb'] as const) {
    expect(sorted((await icebergReader(name).readTable(catalog, table)).rows), name).toEqual(expected);
  }
  await expect(icebergReader('spark').readTable(catalog, table)).rejects.toThrow(/time/);
});

it('a table that is not there is an error of the reader', async () => {
  const catalog = stackCatalog(stack.environment);
  for (const name of readerNames) {
    await expect(
      icebergReader(name).readTable(catalog, { namespace: ['readers'], name: 'none' }),
      name,
    ).rejects.toThrow();
  }
});

it('dates and moments are spelled as Postgres spells them', async () => {
  const client = new pg.Client({ connectionString: stack.environment.TIDEMARK_SOURCE_URL! });
  await client.connect();
  try {
    await client.query("SET TimeZone = 'UTC'");
    await client.query("SET DateStyle = 'ISO'");
    const days = Array.from({ length: 2000 }, (_day, i) => Math.round((i / 2000) * 2147480000) - 2440588);
    const near = Array.from({ length: 3000 }, (_day, i) => i * 331 - 800_000);
    const dates = await client.query<{ n: number; text: string }>({
      text: "SELECT n, (date '1970-01-01' + n)::text AS text FROM unnest($1::int[]) AS n",
      values: [[...days, ...near].filter((day) => day < 2145042541)],
    });
    for (const { n, text } of dates.rows) expect(cellText(String(n), 'date')).toBe(text);
    const moments = await client.query<{ n: string; text: string; zoned: string }>({
      text: `SELECT (extract(epoch FROM t) * 1000000)::numeric(20)::text AS n, t::text AS text, (t AT TIME ZONE 'UTC')::text AS zoned
        FROM (SELECT timestamp '1970-01-01' + days * interval '1 day' + (days::bigint * 7919111 % 86400000000) * interval '1 microsecond' AS t
          FROM unnest($1::int[]) AS days) AS made`,
      values: [near],
    });
    for (const { n, text, zoned } of moments.rows) {
      expect(cellText(n, 'timestamp')).toBe(text);
      expect(cellText(n, 'timestamptz')).toBe(zoned);
    }
  } finally {
    await client.end();
  }
});
