/** The Postgres sink against a real server: what a merged row looks like, on both ways a row travels. */
import { afterAll, beforeAll, describe, expect, test, vi } from 'vitest';
import {
  at,
  failure,
  mergeTable,
  readAll,
  remove,
  shape,
  sorted,
  startPostgres,
  type TestServer,
  upsert,
  users,
  windowOf,
  withSink,
} from './postgres-sink-fixture.ts';

vi.setConfig({ testTimeout: 60_000 });

let server: TestServer;
beforeAll(async () => {
  server = await startPostgres();
}, 60_000);
afterAll(() => server.stop());

/** Many rows force the COPY path; few go as VALUES. */
const sizes = [
  { path: 'values', extra: 0 },
  { path: 'copy', extra: 1500 },
];

describe.each(sizes)('merging by $path', ({ extra }) => {
  const filler = (from: number) =>
    Array.from({ length: extra }, (_, i) => upsert(users, [String(100_000 + from + i), 'filler', null]));

  test('partial updates take unchanged columns from the row as it was before the Window', () =>
    withSink(server, async (sink) => {
      const first = [
        upsert(users, ['1', 'one', 'bio 1']),
        upsert(users, ['2', 'two', 'bio 2']),
        upsert(users, ['3', 'three', 'bio 3']),
        upsert(users, ['4', 'four', 'bio 4']),
        ...filler(0),
      ];
      await sink.mergeWindow(windowOf(1, [mergeTable(users, { states: first })]));
      const second = [
        upsert(users, ['1', 'uno', undefined], ['1']),
        // 2 and 3 swap keys, each supplying the other's column.
        upsert(users, ['2', 'was three', undefined], ['3']),
        upsert(users, ['3', 'was two', undefined], ['2']),
        // 4 moved to 5, and another 4 came.
        upsert(users, ['5', undefined, undefined], ['4']),
        upsert(users, ['4', 'new four', null]),
        ...filler(0),
      ];
      await sink.mergeWindow(windowOf(2, [mergeTable(users, { states: second, batch: 7 })]));
      const rows = (await readAll(sink, users, at(2))).filter(([id]) => Number(id) < 100);
      expect(sorted(rows)).toEqual(
        sorted([
          ['1', 'uno', 'bio 1'],
          ['2', 'was three', 'bio 3'],
          ['3', 'was two', 'bio 2'],
          ['4', 'new four', null],
          ['5', 'four', 'bio 4'],
        ]),
      );
    }));

  test('a partial row without its source is TM407 and changes nothing', () =>
    withSink(server, async (sink) => {
      await sink.mergeWindow(windowOf(1, [mergeTable(users, { states: [upsert(users, ['1', 'a', 'b'])] })]));
      const states = [upsert(users, ['7', 'secret', undefined], ['7']), remove('1'), ...filler(0)];
      const error = await failure(sink.mergeWindow(windowOf(2, [mergeTable(users, { states })])));
      expect(error).toMatchObject({ code: 'TM407' });
      expect(error.message).toContain('app.users: 1 ');
      expect(error.message).not.toContain('secret');
      expect(await readAll(sink, users, at(1))).toEqual([['1', 'a', 'b']]);
      expect(await sink.held('*')).toMatchObject({ sequence: 1, position: at(1) });
    }));

  test('a partial row whose source a snapshot has yet to bring is left out, and excuses no other', () =>
    withSink(server, async (sink) => {
      const pending = (...cells: (string | undefined)[]) => ({
        ...upsert(users, cells, [cells[0]!]),
        mayBeAbsent: true as const,
      });
      // Into an empty table, and into one that has rows.
      await sink.mergeWindow(
        windowOf(1, [
          mergeTable(users, {
            states: [pending('7', 'a', undefined), upsert(users, ['1', 'a', 'b']), ...filler(0)],
          }),
        ]),
      );
      const states = [pending('7', 'c', undefined), pending('1', 'c', undefined), ...filler(0)];
      await sink.mergeWindow(windowOf(2, [mergeTable(users, { states })]));
      const rows = async (n: number) =>
        (await readAll(sink, users, at(n))).filter(([id]) => Number(id) < 100);
      expect(await rows(2)).toEqual([['1', 'c', 'b']]);
      const other = [upsert(users, ['8', 'x', undefined], ['8']), ...states];
      const error = await failure(sink.mergeWindow(windowOf(3, [mergeTable(users, { states: other })])));
      expect(error).toMatchObject({ code: 'TM407', message: expect.stringContaining('app.users: 1 ') });
      const whole = [upsert(users, ['7', 'd', 'brought']), ...filler(0)];
      await sink.mergeWindow(windowOf(3, [mergeTable(users, { states: whole })]));
      expect(sorted(await rows(3))).toEqual(
        sorted([
          ['1', 'c', 'b'],
          ['7', 'd', 'brought'],
        ]),
      );
    }));

  test('a truncate empties the table first, and supplies nothing afterwards', () =>
    withSink(server, async (sink) => {
      await sink.mergeWindow(windowOf(1, [mergeTable(users, { states: [upsert(users, ['1', 'a', 'b'])] })]));
      const partial = [upsert(users, ['1', 'c', undefined], ['1']), ...filler(0)];
      const error = await failure(
        sink.mergeWindow(windowOf(2, [mergeTable(users, { truncated: true, states: partial })])),
      );
      expect(error.code).toBe('TM407');
      const states = [upsert(users, ['2', 'x', 'y']), remove('1'), ...filler(0)];
      await sink.mergeWindow(windowOf(2, [mergeTable(users, { truncated: true, states })]));
      const rows = await readAll(sink, users, at(2));
      expect(rows.length).toBe(1 + extra);
      expect(rows.filter(([id]) => Number(id) < 100)).toEqual([['2', 'x', 'y']]);
    }));

  test('a key of equal value and another text is the same row', () =>
    withSink(server, async (sink) => {
      const prices = shape('app', 'prices', ['at numeric key', 'note text', 'kept text']);
      const more = Array.from({ length: extra }, (_, i) => upsert(prices, [`${1000 + i}.5`, 'filler', null]));
      const first = [upsert(prices, ['1.0', 'a', 'k']), ...more];
      await sink.mergeWindow(windowOf(1, [mergeTable(prices, { states: first })]));
      const second = [remove('1.0'), upsert(prices, ['1.00', 'b', undefined], ['1.0']), ...more];
      await sink.mergeWindow(windowOf(2, [mergeTable(prices, { states: second })]));
      const rows = (await readAll(sink, prices, at(2))).filter(([key]) => Number(key) < 100);
      expect(rows).toEqual([['1.00', 'b', 'k']]);
    }));

  test('a key type of an extension is compared with its own equality', () =>
    withSink(server, async (sink, database) => {
      const admin = await server.connect(database);
      await admin.query('CREATE EXTENSION citext SCHEMA public');
      await admin.end();
      const mail = shape('app', 'mail', ['address public.citext key', 'note text', 'kept text']);
      const more = Array.from({ length: extra }, (_, i) => upsert(mail, [`filler ${i}`, null, null]));
      const first = [upsert(mail, ['Bob', 'a', 'k']), upsert(mail, ['Eve', 'a', 'k']), ...more];
      await sink.mergeWindow(windowOf(1, [mergeTable(mail, { states: first })]));
      const second = [upsert(mail, ['bob', 'b', undefined], ['Bob']), remove('Bob'), remove('Eve'), ...more];
      await sink.mergeWindow(windowOf(2, [mergeTable(mail, { states: second })]));
      const rows = (await readAll(sink, mail, at(2))).filter(([address]) => !address!.startsWith('filler'));
      expect(rows).toEqual([['bob', 'b', 'k']]);
    }));

  test('tables without a key are counted, also with types that know no equality', () =>
    withSink(server, async (sink) => {
      const events = shape('app', 'events', ['body json', 'place point', 'n integer']);
      const more = Array.from({ length: extra }, (_, i) => ({ values: ['{}', null, String(i)], count: 1 }));
      const a = ['{"a": 1}', '(1,2)', '1'];
      const b = ['{"a":1}', '(1,2)', '1'];
      const empty = [null, null, null];
      const first = [{ values: a, count: 3 }, { values: b, count: 2 }, { values: empty, count: 2 }, ...more];
      await sink.mergeWindow(windowOf(1, [mergeTable(events, { counts: first })]));
      const second = [
        { values: a, count: -2 },
        { values: empty, count: -1 },
        { values: ['[]', null, null], count: 2 },
        ...more.map(({ values }) => ({ values, count: -1 })),
      ];
      const receipt = await sink.mergeWindow(windowOf(2, [mergeTable(events, { counts: second })]));
      expect(receipt.rows).toEqual({ upserted: 0, deleted: 3 + extra, appended: 2 });
      const left = [a, b, b, empty, ['[]', null, null], ['[]', null, null]];
      expect(sorted(await readAll(sink, events, at(2)))).toEqual(sorted(left));
      const third = [{ values: a, count: -2 }, ...more];
      const error = await failure(sink.mergeWindow(windowOf(3, [mergeTable(events, { counts: third })])));
      expect(error.code).toBe('TM407');
      const after = [{ values: a, count: -1 }, ...more];
      const lost = await failure(
        sink.mergeWindow(windowOf(3, [mergeTable(events, { truncated: true, counts: after })])),
      );
      expect(lost.code).toBe('TM407');
      await sink.mergeWindow(windowOf(3, [mergeTable(events, { truncated: true, counts: more })]));
      expect((await readAll(sink, events, at(3))).length).toBe(extra);
    }));

  test('of a row that a snapshot has yet to bring, a removal may find nothing', () =>
    withSink(server, async (sink) => {
      const events = shape('app', 'events', ['body json', 'word text', 'n integer']);
      const a = ['{"a":1}', 'a', '1'];
      const b = ['{"b":1}', 'b', '2'];
      const more = Array.from({ length: extra }, (_, i) => ({ values: ['[]', `more ${i}`, null], count: 1 }));
      await sink.mergeWindow(
        windowOf(1, [mergeTable(events, { counts: [{ values: a, count: 1 }, ...more] })]),
      );
      const fewer = more.map(({ values }) => ({ values, count: -2, mayBeAbsent: 1 }));
      const counts = [
        { values: a, count: -3, mayBeAbsent: 2 },
        { values: b, count: -1, mayBeAbsent: 1 },
      ];
      await sink.mergeWindow(windowOf(2, [mergeTable(events, { counts: [...counts, ...fewer] })]));
      expect(await readAll(sink, events, at(2))).toEqual([]);
      const lost = [{ values: b, count: -2, mayBeAbsent: 1 }, ...more];
      for (const truncated of [false, true]) {
        const merging = sink.mergeWindow(windowOf(3, [mergeTable(events, { truncated, counts: lost })]));
        expect((await failure(merging)).code).toBe('TM407');
      }
      const whole = [{ values: b, count: -1, mayBeAbsent: 1 }, { values: a, count: 1 }, ...more];
      await sink.mergeWindow(windowOf(3, [mergeTable(events, { truncated: true, counts: whole })]));
      expect((await readAll(sink, events, at(3))).length).toBe(1 + extra);
    }));

  test('hostile names and values survive', () =>
    withSink(server, async (sink) => {
      const long = `${'ü'.repeat(31)}x`;
      const names = ['select', 'a"b', 'a.b', 'UPPER', "it's", long, 't', 'p', 'c0', 'unchanged', '$1; DROP'];
      const table = shape('We"ird.Schema', 'or"der; --', [
        { name: 'User', type: 'text', key: true, nullable: false },
        ...names.map((name) => ({ name, type: 'text', key: false, nullable: true })),
      ]);
      const values = [
        'tab\there',
        'line\nfeed',
        'back\\slash',
        '\\N',
        '',
        null,
        '\\.',
        'cr\rlf\r\n',
        "quo'te",
        'naïve 😀 \u0001',
      ];
      const row = ["k'1\\\t", ...values, 'x'.repeat(1_000_000)];
      const whole = { ...upsert(table, row), key: [row[0]!] };
      const more = Array.from({ length: extra }, (_, i) =>
        upsert(table, [`filler ${i}`, ...names.map(() => '\\')]),
      );
      await sink.mergeWindow(windowOf(1, [mergeTable(table, { states: [whole, ...more] })]));
      const read = async () =>
        (await readAll(sink, table, at(9))).filter(([key]) => !key!.startsWith('filler'));
      expect(await read()).toEqual([row]);
      const changed = [row[0]!, ...values.map((value, i) => (i < 5 ? undefined : value)), undefined];
      await sink.mergeWindow(
        windowOf(2, [mergeTable(table, { states: [upsert(table, changed, [row[0]!]), ...more] })]),
      );
      expect(await read()).toEqual([row]);
      await sink.mergeWindow(windowOf(3, [mergeTable(table, { states: [remove(row[0]!), ...more] })]));
      expect(await read()).toEqual([]);
    }));

  test('every type of a security application keeps its text', () =>
    withSink(server, async (sink) => {
      const severity = { schema: 'sec', name: 'Severity', labels: ['low', "hi'gh", 'a,b'] };
      const types: [string, (string | null)[]][] = [
        ['text', ['', 'x']],
        ['character varying(10)', ['0123456789', 'ü']],
        ['character(4)', ['ab  ', '    ']],
        ['smallint', ['-32768', '32767']],
        ['integer', ['-2147483648', '0']],
        ['bigint', ['9223372036854775807', '-1']],
        ['boolean', ['t', 'f']],
        ['real', ['1.1754944e-38', 'NaN']],
        ['double precision', ['0.1', '-Infinity']],
        ['double precision', ['5e-324', '-0']],
        ['numeric', ['NaN', '123456789012345678901234567890.000000000000000001']],
        ['numeric(12,2)', ['1.10', '-9999999999.99']],
        ['timestamp with time zone', ['infinity', '2026-11-01 12:34:56.789012+00']],
        ['timestamp with time zone', ['-infinity', '0044-03-15 00:00:00+00 BC']],
        ['timestamp(3) without time zone', ['2026-11-01 12:34:56.789', '1999-01-01 00:00:00']],
        ['date', ['infinity', '2026-02-28']],
        ['time without time zone', ['24:00:00', '00:00:00.000001']],
        ['time with time zone', ['12:00:00+05:30', '00:00:00-12']],
        ['interval', ['1 year 2 mons -3 days +04:05:06.789', '00:00:00']],
        ['jsonb', ['{"a": [1, 2.50, null], "b": "\\\\t\\n"}', 'null']],
        ['json', ['{"b":1,  "b":2}', '"\\u0000"']],
        ['inet', ['10.0.0.1', '2001:db8::/32']],
        ['cidr', ['10.0.0.0/8', '::/0']],
        ['macaddr', ['08:00:2b:01:02:03', '00:00:00:00:00:00']],
        ['uuid', ['00000000-0000-0000-0000-000000000000', 'ffffffff-ffff-ffff-ffff-ffffffffffff']],
        ['text[]', ['{}', '{"a,b",NULL,"NULL","q\\"\\\\",""}']],
        ['integer[]', ['{{1,2},{3,4}}', '[0:1]={5,6}']],
        ['bytea', ['\\x', '\\x00ff5c']],
        ['bit(3)', ['101', '000']],
        ['bit varying(5)', ['', '10101']],
        ['int4range', ['[1,5)', 'empty']],
        ['tsvector', ["'a':1 'b''c'", '']],
        ['xml', ['<a>b</a>', 'no root']],
        ['point', ['(1,2)', '(NaN,0)']],
        ['"char"', ['a', '']],
        ['name', ['x', 'y']],
        ['sec."Severity"', ['low', "hi'gh"]],
        ['sec."Severity"[]', ['{low,"a,b"}', '{}']],
      ];
      const columns = types.map(([type], i) => {
        const column = { name: `c${i}`, type, key: false, nullable: true };
        return type.startsWith('sec.') ? { ...column, enum: severity } : column;
      });
      const table = shape('sec', 'findings', [
        { name: 'id', type: 'uuid', key: true, nullable: false },
        ...columns,
      ]);
      const keyless = {
        ...table,
        name: 'raw',
        columns: table.columns.map((c) => ({ ...c, key: false })),
        keyColumns: [],
      };
      const id = (n: number) => `00000000-0000-0000-0000-${String(n).padStart(12, '0')}`;
      const rows = [0, 1].map((n) => [id(n), ...types.map(([, values]) => values[n]!)]);
      rows.push([id(2), ...types.map(() => null as never)]);
      const more = Array.from({ length: extra }, (_, i) => [
        id(10 + i),
        ...types.map(([, values]) => values[i % 2]!),
      ]);
      const all = [...rows, ...more];
      const counts = all.map((values) => ({ values, count: 1 }));
      const tables = [
        mergeTable(table, { states: all.map((row) => upsert(table, row)) }),
        mergeTable(keyless, { counts }),
      ];
      await sink.mergeWindow(windowOf(1, tables));
      expect(sorted(await readAll(sink, table, at(1)))).toEqual(sorted(all));
      expect(sorted(await readAll(sink, keyless, at(1)))).toEqual(sorted(all));
      // Once more, through upsert, fill and removal.
      const partial = rows.map((row) => upsert(table, [row[0]!, ...types.map(() => undefined)], [row[0]!]));
      const again = [...partial, ...more.map((row) => upsert(table, row))];
      const fewer = counts.map(({ values }) => ({ values, count: -1 }));
      await sink.mergeWindow(
        windowOf(2, [mergeTable(table, { states: again }), mergeTable(keyless, { counts: fewer })]),
      );
      expect(sorted(await readAll(sink, table, at(2)))).toEqual(sorted(all));
      expect(await readAll(sink, keyless, at(2))).toEqual([]);
    }));
});
