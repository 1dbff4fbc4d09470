/** The Postgres sink against a real server: values, definitions, progress, failures. */
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { postgresSink } from '../../connectors/sinks/postgres/index.ts';
import type { TidemarkError } from '../../src/connector/failure.ts';
import type { MergeSink } from '../../src/connector/sink.ts';
import {
  at,
  context,
  type Logged,
  mergeTable,
  openSink,
  options,
  readAll,
  remove,
  shape,
  sorted,
  startPostgres,
  type TestServer,
  upsert,
  windowOf,
} from './postgres-sink-fixture.ts';

let server: TestServer;
beforeAll(async () => {
  server = await startPostgres();
}, 60_000);
afterAll(() => server.stop());

const users = shape('app', 'users', ['id bigint key', 'name text', 'bio text']);

async function failure(work: Promise<unknown>): Promise<TidemarkError> {
  try {
    await work;
  } catch (error) {
    return error as TidemarkError;
  }
  throw new Error('expected a failure');
}

async function withSink(work: (sink: MergeSink, database: string) => Promise<void>): Promise<void> {
  const database = await server.database();
  const sink = await openSink(server, database);
  try {
    await work(sink, database);
  } finally {
    await sink.close();
  }
}

/** Many rows force the COPY path; few go as VALUES. */
const sizes = [
  { path: 'values', extra: 0 },
  { path: 'copy', extra: 1500 },
];

describe.each(sizes)('merging by $path', ({ extra }) => {
  const filler = (from: number) =>
    Array.from({ length: extra }, (_, i) => upsert(users, [String(100_000 + from + i), 'filler', null]));

  test('partial updates take unchanged columns from the row as it was before the Window', () =>
    withSink(async (sink) => {
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
    withSink(async (sink) => {
      await sink.mergeWindow(windowOf(1, [mergeTable(users, { states: [upsert(users, ['1', 'a', 'b'])] })]));
      const states = [upsert(users, ['7', 'secret', undefined], ['7']), remove('1'), ...filler(0)];
      const error = await failure(sink.mergeWindow(windowOf(2, [mergeTable(users, { states })])));
      expect(error).toMatchObject({ code: 'TM407' });
      expect(error.message).toContain('app.users: 1 ');
      expect(error.message).not.toContain('secret');
      expect(await readAll(sink, users, at(1))).toEqual([['1', 'a', 'b']]);
      expect(await sink.held('*')).toMatchObject({ sequence: 1, position: at(1) });
    }));

  test('a truncate empties the table first, and supplies nothing afterwards', () =>
    withSink(async (sink) => {
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
    withSink(async (sink) => {
      const prices = shape('app', 'prices', ['at numeric key', 'note text', 'kept text']);
      const more = Array.from({ length: extra }, (_, i) => upsert(prices, [`${1000 + i}.5`, 'filler', null]));
      const first = [upsert(prices, ['1.0', 'a', 'k']), ...more];
      await sink.mergeWindow(windowOf(1, [mergeTable(prices, { states: first })]));
      const second = [remove('1.0'), upsert(prices, ['1.00', 'b', undefined], ['1.0']), ...more];
      await sink.mergeWindow(windowOf(2, [mergeTable(prices, { states: second })]));
      const rows = (await readAll(sink, prices, at(2))).filter(([key]) => Number(key) < 100);
      expect(rows).toEqual([['1.00', 'b', 'k']]);
    }));

  test('tables without a key are counted, also with types that know no equality', () =>
    withSink(async (sink) => {
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

  test('hostile names and values survive', () =>
    withSink(async (sink) => {
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
    withSink(async (sink) => {
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

describe('progress', () => {
  test('nothing is applied twice: a held Window answers its Receipt, also to another connection', () =>
    withSink(async (sink, database) => {
      expect(await sink.held('*')).toBeNull();
      const table = mergeTable(users, { states: [upsert(users, ['1', 'a', 'b'])] });
      const receipt = await sink.mergeWindow(windowOf(1, [table]));
      expect(receipt).toMatchObject({
        position: at(1),
        alreadyHeld: false,
        rows: { upserted: 1, deleted: 0 },
      });
      expect(receipt.commitId).toMatch(/^\d+$/);
      const other = await openSink(server, database);
      expect(await other.mergeWindow(windowOf(1, [table]))).toEqual({ ...receipt, alreadyHeld: true });
      await other.close();
      expect(await sink.held('*')).toEqual({ position: at(1), sequence: 1, fencingToken: 1n });
    }));

  test('an empty Window moves the progress row', () =>
    withSink(async (sink) => {
      const empty = await sink.mergeWindow(windowOf(1, []));
      expect(empty).toMatchObject({ rows: { upserted: 0, deleted: 0, appended: 0 }, bytes: 0 });
      await sink.mergeWindow(windowOf(2, [mergeTable(users, {})]));
      expect(await sink.held('*')).toMatchObject({ sequence: 2, position: at(2) });
      expect(await readAll(sink, users, at(2))).toEqual([]);
    }));

  test('a worker that lost the Unit is TM403, even if the new owner only met a held Window', () =>
    withSink(async (sink) => {
      await sink.mergeWindow(windowOf(1, []));
      await sink.mergeWindow(windowOf(1, [], { fencingToken: 5n }));
      const late = windowOf(2, [mergeTable(users, { states: [upsert(users, ['1', 'late', null])] })]);
      expect((await failure(sink.mergeWindow(late))).code).toBe('TM403');
      expect((await failure(sink.mergeWindow(windowOf(1, [])))).code).toBe('TM403');
      await sink.mergeWindow({ ...late, fencingToken: 5n });
      expect(await sink.held('*')).toEqual({ position: at(2), sequence: 2, fencingToken: 5n });
    }));

  test('a Window that does not follow is TM404', () =>
    withSink(async (sink) => {
      expect((await failure(sink.mergeWindow(windowOf(2, [])))).code).toBe('TM404');
      await sink.mergeWindow(windowOf(1, []));
      expect((await failure(sink.mergeWindow(windowOf(3, [])))).code).toBe('TM404');
      expect((await failure(sink.mergeWindow(windowOf(2, [], { from: at(0) })))).code).toBe('TM404');
      expect((await failure(sink.mergeWindow(windowOf(1, [], { to: at(2) })))).code).toBe('TM404');
    }));

  test('of two first writers one merges and the other finds the Window held', async () => {
    for (let round = 0; round < 5; round++) {
      const database = await server.database();
      const sinks = await Promise.all([openSink(server, database), openSink(server, database)]);
      const table = mergeTable(users, { states: [upsert(users, ['1', 'a', 'b'])] });
      const receipts = await Promise.all(sinks.map((sink) => sink.mergeWindow(windowOf(1, [table]))));
      expect(receipts.map(({ alreadyHeld }) => alreadyHeld).sort()).toEqual([false, true]);
      expect(receipts[0]!.commitId).toBe(receipts[1]!.commitId);
      expect(await readAll(sinks[0]!, users, at(1))).toEqual([['1', 'a', 'b']]);
      await Promise.all(sinks.map((sink) => sink.close()));
    }
  });

  test('readTable refuses a Position that the destination has left behind', () =>
    withSink(async (sink) => {
      await sink.mergeWindow(windowOf(1, [mergeTable(users, {})]));
      await sink.mergeWindow(windowOf(2, []));
      expect((await failure(readAll(sink, users, at(1)))).code).toBe('TM408');
    }));
});

describe('faults', () => {
  for (const point of ['postgres-sink-locked', 'postgres-sink-staged', 'postgres-sink-before-commit']) {
    test(`a session killed at ${point} leaves nothing, and the retry merges`, async () => {
      const database = await server.database();
      const admin = await server.connect('postgres');
      let armed = false;
      const failpoint = async (name: string) => {
        if (!armed || name !== point) return;
        armed = false;
        await admin.query('SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = $1', [
          database,
        ]);
      };
      const sink = await openSink(server, database, { failpoint });
      const logs = shape('app', 'logs', ['line text']);
      await sink.mergeWindow(windowOf(1, [mergeTable(users, { states: [upsert(users, ['1', 'a', 'b'])] })]));
      armed = true;
      const states = Array.from({ length: 3000 }, (_, i) => upsert(users, [String(i), 'x', 'y']));
      const window = windowOf(2, [
        mergeTable(users, { states }),
        mergeTable(logs, { counts: [{ values: ['l'], count: 2 }] }),
      ]);
      const error = await failure(sink.mergeWindow(window));
      expect(error).toMatchObject({ code: 'TM401', retry: 'transient' });
      const reader = await openSink(server, database);
      expect(await readAll(reader, users, at(1))).toEqual([['1', 'a', 'b']]);
      expect(await readAll(reader, logs, at(1))).toEqual([]);
      expect(await reader.held('*')).toMatchObject({ sequence: 1 });
      expect(await sink.mergeWindow(window)).toMatchObject({ alreadyHeld: false });
      expect((await readAll(reader, users, at(2))).length).toBe(3000);
      expect((await readAll(reader, logs, at(2))).length).toBe(2);
      await Promise.all([sink.close(), reader.close(), admin.end()]);
    });
  }

  test('a session killed in the middle of a COPY', async () => {
    const database = await server.database();
    const admin = await server.connect('postgres');
    const sink = await openSink(server, database);
    const table = mergeTable(users, {});
    let kill = true;
    table.states = async function* () {
      for (let batch = 0; batch < 60; batch++) {
        if (batch === 30 && kill) {
          kill = false;
          await admin.query('SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = $1', [
            database,
          ]);
        }
        yield Array.from({ length: 100 }, (_, i) =>
          upsert(users, [String(batch * 100 + i), 'x'.repeat(2000), null]),
        );
      }
    };
    expect((await failure(sink.mergeWindow(windowOf(1, [table])))).code).toBe('TM401');
    expect(await sink.held('*')).toBeNull();
    await sink.mergeWindow(windowOf(1, [table]));
    expect((await readAll(sink, users, at(1))).length).toBe(6000);
    await Promise.all([sink.close(), admin.end()]);
  });

  test('a failing row stream rolls back, passes its own error on and leaves the connection usable', () =>
    withSink(async (sink) => {
      const table = mergeTable(users, {});
      table.states = async function* () {
        yield Array.from({ length: 20_000 }, (_, i) => upsert(users, [String(i), 'x'.repeat(100), null]));
        throw new Error('the spill store failed');
      };
      const error = await failure(sink.mergeWindow(windowOf(1, [table])));
      expect(error.message).toBe('the spill store failed');
      await sink.mergeWindow(windowOf(1, [mergeTable(users, {})]));
      expect(await readAll(sink, users, at(1))).toEqual([]);
    }));

  test.each([10, 40_000])('a refused row among %d names table and SQLSTATE, never a value', (n) =>
    withSink(async (sink) => {
      const ports = shape('app', 'ports', ['id integer key', 'port smallint']);
      const fine = mergeTable(users, { states: [upsert(users, ['1', 'a', 'b'])] });
      const states = Array.from({ length: n }, (_, i) =>
        upsert(ports, [String(i), i === 7 ? '4242424' : '1']),
      );
      const window = windowOf(1, [
        fine,
        mergeTable(ports, { states }),
        mergeTable(shape('app', 'z', ['a text']), {}),
      ]);
      const error = await failure(sink.mergeWindow(window));
      expect(error).toMatchObject({ code: 'TM405', retry: 'data' });
      expect(error.message).toContain('app.ports');
      expect(error.message).not.toContain('app.users');
      expect(error.message).toContain('22003');
      const everything = [error, error.cause].map((e) => `${(e as Error).stack} ${JSON.stringify(e)}`).join();
      expect(everything).not.toContain('4242424');
      expect(await sink.held('*')).toBeNull();
    }),
  );

  test('an unreachable server is transient, wrong credentials are for the operator', async () => {
    const database = await server.database();
    const at1 = { ...options(server, database), 'connection.port': 1 };
    const unreachable = (await postgresSink.open(context(), at1)) as MergeSink;
    expect(await failure(unreachable.held('*'))).toMatchObject({ code: 'TM401', retry: 'transient' });
    const wrong = { ...options(server, database), 'connection.password': 'hunter2' };
    const refused = (await postgresSink.open(context(), wrong)) as MergeSink;
    const error = await failure(refused.mergeWindow(windowOf(1, [])));
    expect(error.code).toBe('TM402');
    expect(`${error.message}${error.stack}`).not.toContain('hunter2');
    await Promise.all([unreachable.close(), refused.close()]);
  });

  test('a lock held by a reader is transient', () =>
    withSink(async (_, database) => {
      const patient = options(server, database, { 'lock.timeout': 200 });
      const sink = (await postgresSink.open(context(), patient)) as MergeSink;
      await sink.mergeWindow(windowOf(1, [mergeTable(users, { states: [upsert(users, ['1', 'a', 'b'])] })]));
      const reader = await server.connect(database);
      await reader.query('BEGIN; LOCK TABLE app.users IN SHARE MODE');
      const window = windowOf(2, [mergeTable(users, { states: [remove('1')] })]);
      expect(await failure(sink.mergeWindow(window))).toMatchObject({ code: 'TM401', retry: 'transient' });
      await reader.query('COMMIT');
      await sink.mergeWindow(window);
      await Promise.all([sink.close(), reader.end()]);
    }));
});

describe('definitions', () => {
  test('an existing table with other columns is TM405 naming table and column', () =>
    withSink(async (sink, database) => {
      const client = await server.connect(database);
      const cases = [
        ['CREATE TABLE app.users (id bigint primary key, name text)', 'lacks column "bio"'],
        [
          'CREATE TABLE app.users (id bigint primary key, name varchar(5), bio text)',
          'column "name" as character varying(5)',
        ],
        ['CREATE TABLE app.users (id bigint primary key, name text, bio text, more text)', '"more"'],
        [
          'CREATE TABLE app.users (id bigint primary key, name text not null, bio text)',
          'NULL in column "name"',
        ],
        ['CREATE TABLE app.users (id bigint, name text, bio text)', 'no primary key'],
        ['CREATE VIEW app.users AS SELECT 1', 'not a plain table'],
      ] as const;
      await client.query('CREATE SCHEMA app');
      for (const [create, message] of cases) {
        await client.query(create);
        const error = await failure(sink.mergeWindow(windowOf(1, [mergeTable(users, {})])));
        expect(error.code).toBe('TM405');
        expect(error.message).toContain('app.users');
        expect(error.message).toContain(message);
        await client.query(`DROP ${create.startsWith('CREATE VIEW') ? 'VIEW' : 'TABLE'} app.users`);
      }
      await client.query('CREATE TABLE app.users (bio text, id bigint primary key, name text)');
      await sink.mergeWindow(windowOf(1, [mergeTable(users, { states: [upsert(users, ['1', 'a', 'b'])] })]));
      expect(await readAll(sink, users, at(1))).toEqual([['1', 'a', 'b']]);
      await client.end();
    }));

  test('a changed shape of a known table is TM405, a dropped table TM404', () =>
    withSink(async (sink, database) => {
      await sink.mergeWindow(windowOf(1, [mergeTable(users, {})]));
      const wider = shape('app', 'users', ['id bigint key', 'name text', 'bio text', 'age integer']);
      const error = await failure(sink.mergeWindow(windowOf(2, [mergeTable(wider, {})])));
      expect(error).toMatchObject({
        code: 'TM405',
        remedy: 'ALTER TABLE "app"."users" ADD COLUMN "age" integer;',
      });
      const client = await server.connect(database);
      await client.query('DROP TABLE app.users');
      await client.end();
      expect((await failure(sink.mergeWindow(windowOf(2, [mergeTable(users, {})])))).code).toBe('TM404');
    }));

  test('a missing type and missing enum labels are TM405 with the remedy', () =>
    withSink(async (sink, database) => {
      const mail = shape('app', 'mail', ['id integer key', 'address app.email']);
      const error = await failure(sink.mergeWindow(windowOf(1, [mergeTable(mail, {})])));
      expect(error.code).toBe('TM405');
      expect(error.message).toContain('app.mail');
      const level = (labels: string[]) =>
        shape('app', 'levels', [
          {
            name: 'level',
            type: 'app.level',
            key: true,
            nullable: false,
            enum: { schema: 'app', name: 'level', labels },
          },
        ]);
      await sink.mergeWindow(windowOf(1, [mergeTable(level(['a']), {})]));
      const more = await failure(sink.mergeWindow(windowOf(2, [mergeTable(level(['a', 'b']), {})])));
      expect(more).toMatchObject({ code: 'TM405', remedy: `ALTER TYPE "app"."level" ADD VALUE 'b';` });
      const client = await server.connect(database);
      await client.query(more.remedy);
      await client.end();
      const two = level(['a', 'b']);
      await sink.mergeWindow(
        windowOf(2, [mergeTable(two, { states: [upsert(two, ['b']), upsert(two, ['a'])] })]),
      );
      await sink.mergeWindow(windowOf(3, [mergeTable(two, { states: [upsert(two, ['b'])] })]));
      expect((await readAll(sink, two, at(3))).length).toBe(2);
    }));

  test('a table belongs to one destination', () =>
    withSink(async (sink, database) => {
      await sink.mergeWindow(windowOf(1, [mergeTable(users, {})]));
      const other = await openSink(server, database, { destination: 'other' });
      const window = windowOf(1, [mergeTable(users, {})], { destination: 'other' });
      const error = await failure(other.mergeWindow(window));
      expect(error.code).toBe('TM405');
      expect(error.message).toContain('belongs to destination replica');
      await other.close();
    }));

  test('a type name that is no type name is refused', () =>
    withSink(async (sink) => {
      const evil = shape('app', 'evil', ['id integer key', 'x text); DROP SCHEMA app; --']);
      const error = await failure(sink.mergeWindow(windowOf(1, [mergeTable(evil, {})])));
      expect(error.code).toBe('TM405');
      expect(error.message).toContain('"x"');
    }));

  test('a table of 1000 columns', () =>
    withSink(async (sink) => {
      const columns = Array.from({ length: 999 }, (_, i) => `column_${i} ${i % 2 ? 'text' : 'integer'}`);
      const wide = shape('app', 'wide', ['id integer key', ...columns]);
      const row = (id: number) => [
        String(id),
        ...columns.map((_, i) => (i % 2 && i < 300 ? `t${i}` : String(i))),
      ];
      for (const [sequence, n] of [
        [1, 3],
        [2, 700],
      ] as const) {
        const states = Array.from({ length: n }, (_, id) => {
          if (sequence === 1 || id >= 3) return upsert(wide, row(id));
          return upsert(wide, [String(id), ...columns.map(() => undefined)], [String(id)]);
        });
        await sink.mergeWindow(windowOf(sequence, [mergeTable(wide, { states })]));
        expect(sorted(await readAll(sink, wide, at(sequence)))).toEqual(
          sorted(Array.from({ length: n }, (_, id) => row(id))),
        );
      }
    }));
});

describe('check', () => {
  test('a fit destination is ok, foreign tables are a warning', async () => {
    const database = await server.database();
    expect(await postgresSink.check(context(), options(server, database))).toEqual([
      { level: 'ok', what: expect.stringContaining('Postgres 18'), remedy: null },
    ]);
    const sink = await openSink(server, database);
    await sink.mergeWindow(windowOf(1, [mergeTable(users, {})]));
    await sink.close();
    expect((await postgresSink.check(context(), options(server, database))).length).toBe(1);
    const client = await server.connect(database);
    await client.query('CREATE TABLE app.theirs (x int)');
    await client.end();
    const findings = await postgresSink.check(context(), options(server, database));
    expect(findings.map(({ level }) => level)).toEqual(['ok', 'warn']);
    expect(findings[1]!.what).toContain('app.theirs');
  });

  test('missing rights come with the statement that grants them', async () => {
    const database = await server.database();
    const admin = await server.connect(database);
    await admin.query("CREATE ROLE limited LOGIN PASSWORD 'limited'");
    const limited = {
      ...options(server, database),
      'connection.user': 'limited',
      'connection.password': 'limited',
    };
    const findings = await postgresSink.check(context(), limited);
    expect(findings.filter(({ level }) => level === 'error')).toEqual([
      {
        level: 'error',
        what: 'no right to create schemas',
        remedy: `GRANT CREATE ON DATABASE "${database}" TO "limited";`,
      },
    ]);
    const logged: Logged[] = [];
    const sink = (await postgresSink.open(context({}, logged), limited)) as MergeSink;
    expect((await failure(sink.mergeWindow(windowOf(1, [mergeTable(users, {})])))).code).toBe('TM402');
    for (const { remedy } of findings) if (remedy?.startsWith('GRANT')) await admin.query(remedy);
    await sink.mergeWindow(windowOf(1, [mergeTable(users, { states: [upsert(users, ['1', 'a', 'b'])] })]));
    expect(logged.map(({ message }) => message)).toContain('created table');
    await Promise.all([sink.close(), admin.end()]);
    const gone = await postgresSink.check(context(), { ...limited, 'connection.database': 'nowhere' });
    expect(gone).toMatchObject([{ level: 'error' }]);
    expect(gone[0]!.what).toContain('TM402');
  });
});
