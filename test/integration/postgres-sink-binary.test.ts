/** Rows that go in binary read back as the text they came as: values that a Postgres printed, at random and at the edges. */
import { afterAll, beforeAll, expect, test, vi } from 'vitest';
import { cellEncoder } from '../../connectors/sinks/postgres/binary-cells.ts';
import type { ByteSink } from '../../connectors/sinks/postgres/binary-parts.ts';
import type { ColumnShape } from '../../src/connector/shape.ts';
import type { Cell } from '../../src/connector/sink.ts';
import {
  at,
  mergeTable,
  query,
  readAll,
  shape,
  sorted,
  startPostgres,
  type TestServer,
  upsert,
  windowOf,
  withSink,
} from './postgres-sink-fixture.ts';

vi.setConfig({ testTimeout: 60_000 });

let server: TestServer;
beforeAll(async () => {
  server = await startPostgres();
}, 60_000);
afterAll(() => server.stop());

/** Type, an expression of a random value, and edges. Each of them has a binary form. */
const types: [string, string, string[]][] = [
  ['smallint', '(random() * 65535 - 32768)::int', ['-32768', '32767']],
  ['integer', '(random() * 4294967295 - 2147483648)::bigint', ['-2147483648', '2147483647']],
  [
    'bigint',
    '((random() - 0.5) * 1.8e19)::numeric(20,0)::bigint',
    ['-9223372036854775808', '9223372036854775807', '9007199254740993', '-4294967296'],
  ],
  ['boolean', 'random() < 0.5', ['t', 'f']],
  [
    'numeric',
    '((random() - 0.5) * 10 ^ (random() * 60 - 30))::numeric * 10.0 ^ (i % 7)',
    ['NaN', '0', '0.00', '-0.0001', '10000', '99999999', '1234567890123456789012345.000000000000000000010'],
  ],
  ['numeric(12,2)', '((random() - 0.5) * 1e10)::numeric(12,2)', ['-9999999999.99', '0.01']],
  [
    'double precision',
    '(random() - 0.5) * 10 ^ (i % 600 - 300)',
    ['NaN', 'Infinity', '-Infinity', '-0', '5e-324'],
  ],
  ['uuid', 'gen_random_uuid()', ['00000000-0000-0000-0000-000000000000']],
  ['text', `repeat(chr(33 + i % 5000), i % 90)`, ['', '\\N', '\t\n\r\\', '😀', 'x'.repeat(3_000_000)]],
  ['character varying(9)', `left(md5(i::text), i % 9)`, ['', 'ü'.repeat(9)]],
  ['character(4)', `left(md5(i::text), i % 4)`, ['    ']],
  ['bytea', `decode(repeat(md5(i::text), i % 40), 'hex')`, ['\\x', '\\x00']],
  ['json', `json_build_object('a', i, 'b', repeat('"', i % 9))`, ['null', '{"b":1,  "b":2}']],
  [
    'jsonb',
    `jsonb_build_object('a', i, 'b', repeat('é\\', i % 9))`,
    ['null', `{"a": "${'y'.repeat(9000)}"}`],
  ],
  [
    'date',
    `'0001-01-01'::date + (random() * 3600000)::int`,
    ['infinity', '-infinity', '0001-01-01', '9999-12-31', '2000-02-29', '1900-03-01'],
  ],
  ['time without time zone', `'00:00'::time + random() * interval '1 day'`, ['24:00:00', '00:00:00.000001']],
  [
    'timestamp with time zone',
    `'1800-01-01'::timestamptz + random() * interval '400 years'`,
    [
      'infinity',
      '-infinity',
      '1999-12-31 23:59:59.999999+00',
      '2000-01-01 00:00:00+00',
      '1969-12-31 23:59:59.1+00',
    ],
  ],
  [
    'timestamp(3) without time zone',
    `'1800-01-01'::timestamp + random() * interval '400 years'`,
    ['infinity'],
  ],
  [
    'interval',
    `make_interval(years => i % 3, months => i % 7 - 3, days => i % 50 - 20, secs => (random() - 0.5) * 1e6)`,
    [
      '00:00:00',
      '1 mon',
      '-1 years -2 mons +3 days -04:05:06.7',
      '1 day -00:00:00.000001',
      '100:00:00',
      '-178000000 years',
    ],
  ],
  [
    'inet',
    `CASE i % 4 WHEN 0 THEN ('10.' || i % 256 || '.3.4/' || i % 33)::inet WHEN 1 THEN '192.0.2.1'::inet + i::bigint
       WHEN 2 THEN set_masklen('2001:db8::'::inet + i::bigint * 7919 * 65536, i % 129) ELSE '::ffff:1.2.3.0'::inet + i::bigint % 200 END`,
    ['0.0.0.0/0', '::/0', '::', '1::', 'ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff', '::1', '1:0:0:2::3'],
  ],
  ['cidr', `set_masklen(('10.' || i % 256 || '.0.0/16')::cidr, 16)`, ['::/0', '2001:db8::/32']],
  [
    'text[]',
    `ARRAY[md5(i::text), NULL, repeat('"\\,{} ', i % 5), 'NULL', '']`,
    ['{}', '{NULL}', '{"NULL"}', '{é}'],
  ],
  ['integer[]', 'ARRAY[i, NULL, -i]', ['{}']],
  ['bigint[]', 'array_fill(1::bigint, ARRAY[i % 1000 + 1])', ['{9223372036854775807}']],
  ['uuid[]', 'ARRAY[gen_random_uuid()]', ['{}']],
  ['character varying(40)[]', `ARRAY[md5(i::text)]`, ['{}']],
];

test('of every type that has a binary form', () =>
  withSink(server, async (sink, database) => {
    const enumType = { schema: 'app', name: 'kind', labels: ['a', "b'c", 'ü'] };
    const column = (type: string, i: number): ColumnShape => ({
      ...{ name: `c${i}`, type, key: false, nullable: true },
      ...(type === 'app.kind' ? { enum: enumType } : {}),
    });
    const all = [...types.map(([type]) => type), 'app.kind'];
    const table = shape('app', 'binary', ['id integer key', ...all.map(column)]);
    const n = 2000;
    const expressions = types.map(([type, expression]) => `(${expression})::${type}`);
    const printed = await query(
      server,
      database,
      `SELECT ${expressions.join(', ')} FROM generate_series(1, ${n}) AS i`,
    );
    const rows = printed.map((cells, i): Cell[] => [
      String(i),
      ...types.map(([, , edges], t) => (i % 11 === 10 ? null : (edges[i] ?? cells[t]!))),
      enumType.labels[i % 3]!,
    ]);
    for (const cells of rows) {
      for (const [t, type] of all.entries()) {
        const cell = cells[t + 1];
        if (cell !== null) expect(hasBinary(type, cell!), `${type} ${cell!.slice(0, 60)}`).toBe(true);
      }
    }
    const states = rows.map((row) => upsert(table, row));
    await sink.mergeWindow(windowOf(1, [mergeTable(table, { states: states.slice(0, 1500) })]));
    await sink.mergeWindow(windowOf(2, [mergeTable(table, { states })]));
    expect(sorted(await readAll(sink, table, at(2)))).toEqual(sorted(rows));
    const keyless = shape('app', 'images', all.map(column));
    const counts = rows.map(([, ...values]) => ({ values, count: 1 }));
    await sink.mergeWindow(windowOf(3, [mergeTable(keyless, { counts })]));
    expect(sorted(await readAll(sink, keyless, at(3)))).toEqual(sorted(rows.map(([, ...values]) => values)));
  }));

test('a value in another form turns the rest of a Window to text', () =>
  withSink(server, async (sink) => {
    const table = shape('app', 'mixed', ['id integer key', 't timestamp with time zone', 'word text']);
    const rows = Array.from({ length: 9000 }, (_, i) => [
      String(i),
      i === 6000 ? '0044-03-15 00:00:00+00 BC' : '2026-11-01 00:00:00+00',
      `tab\t${'x'.repeat(300)}`,
    ]);
    for (const sequence of [1, 2]) {
      const states = rows.map((row) => upsert(table, row));
      await sink.mergeWindow(windowOf(sequence, [mergeTable(table, { states })]));
      expect(sorted(await readAll(sink, table, at(sequence)))).toEqual(sorted(rows));
    }
  }));

test('a column whose values have no binary form takes nulls in binary, and turns the rest to text', () =>
  withSink(server, async (sink) => {
    const table = shape('app', 'ranges', ['id integer key', 'span int4range', 'word text']);
    const rows = Array.from({ length: 3000 }, (_, i) => [
      String(i),
      i >= 2000 && i % 2 === 0 ? '[1,5)' : null,
      `word ${i}`,
    ]);
    for (const [sequence, count] of [
      [1, 1500],
      [2, 3000],
    ] as const) {
      const states = rows.slice(0, count).map((row) => upsert(table, row));
      await sink.mergeWindow(windowOf(sequence, [mergeTable(table, { states })]));
      expect(sorted(await readAll(sink, table, at(sequence)))).toEqual(sorted(rows.slice(0, count)));
    }
  }));

function hasBinary(type: string, text: string): boolean {
  const encoder = cellEncoder(type, type === 'app.kind')!;
  const bytes = Buffer.alloc(encoder.room(text));
  const to: ByteSink = { bytes, view: new DataView(bytes.buffer, bytes.byteOffset, bytes.length) };
  const end = encoder.write(to, 0, text);
  return end > 0 && end <= bytes.length;
}
