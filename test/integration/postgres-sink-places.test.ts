/** Other names at the destination (schema.map), and the history beside a table. */
import { afterAll, beforeAll, describe, expect, test, vi } from 'vitest';
import { postgresSink } from '../../connectors/sinks/postgres/index.ts';
import { RefusedRows } from '../../src/connector/failure.ts';
import type { Cell, MergeTable, RowEvent, TableShape } from '../../src/connector/sink.ts';
import {
  at,
  context,
  failure,
  mergeTable,
  openSink,
  options,
  query,
  readAll,
  remove,
  shape,
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

const states = [upsert(users, ['1', 'a', 'b'])];

describe('schema.map', () => {
  const map = { 'schema.map': ['app=analytics', 'app.users = "Other Place"."Peo.ple"', 'audit=order'] };

  test('tables, enums, composites and ranges go to their places, and are read back from there', () =>
    withSink(
      server,
      async (sink, database) => {
        const level = { schema: 'app', name: 'Level', labels: ['low', 'high'] };
        const pair = {
          schema: 'app',
          name: 'pair',
          attributes: [{ name: 'l', type: 'app."Level"[]', enum: level }],
        };
        const span = { schema: 'app', name: 'span', subtype: 'double precision', multirange: 'spans' };
        const column = (name: string, type: string, more: object) => ({
          ...{ name, type, key: false, nullable: true },
          ...more,
        });
        const made = shape('app', 'made', [
          'id integer key',
          column('l', 'app."Level"', { enum: level }),
          column('p', 'app.pair', { composite: pair }),
          column('s', 'app.spans', { range: span }),
          column('d', 'app.dom[]', { base: 'app."Level"[]', enum: level }),
        ]);
        const log = shape('audit', 'log', [
          'line text',
          column('l', 'audit.kind', { enum: { schema: 'audit', name: 'kind', labels: ['x'] } }),
        ]);
        const row = ['1', 'high', '("{low,high}")', '{[1,2.5)}', '{low}'];
        const tables = [
          mergeTable(users, { states }),
          mergeTable(made, { states: [upsert(made, row)] }),
          mergeTable(log, { counts: [{ values: ['a', 'x'], count: 2 }] }),
        ];
        await sink.mergeWindow(windowOf(1, tables));
        expect(await readAll(sink, made, at(1))).toEqual([row]);
        expect(await readAll(sink, log, at(1))).toHaveLength(2);
        expect(await readAll(sink, users, at(1))).toEqual([['1', 'a', 'b']]);
        expect(await query(server, database, 'SELECT name FROM "Other Place"."Peo.ple"')).toEqual([['a']]);
        const types = `SELECT n.nspname, t.typname FROM pg_type t JOIN pg_namespace n ON n.oid = typnamespace
          WHERE typname IN ('Level', 'pair', 'span', 'spans', 'kind', 'made') AND nspname !~ '^pg_' ORDER BY 2`;
        expect(await query(server, database, types)).toEqual([
          ['analytics', 'Level'],
          ['order', 'kind'],
          ['analytics', 'made'],
          ['analytics', 'pair'],
          ['analytics', 'span'],
          ['analytics', 'spans'],
        ]);
        const none = `SELECT nspname FROM pg_namespace WHERE nspname IN ('app', 'audit')`;
        expect(await query(server, database, none)).toEqual([]);
        // Another sink finds them, follows the source's changes and adds labels that a row brings.
        const wider = { ...made, columns: [...made.columns, column('n', 'integer', {})] };
        const other = await openSink(server, database, {}, map);
        const more = upsert(wider, ['2', 'new', null, null, null, '5']);
        await other.mergeWindow(windowOf(2, [mergeTable(wider, { states: [more] })]));
        expect(await readAll(other, wider, at(2))).toHaveLength(2);
        await other.close();
      },
      map,
    ));

  test('a refused row has the source’s name of its table', () =>
    withSink(
      server,
      async (sink, database) => {
        await sink.mergeWindow(windowOf(1, [mergeTable(users, {})]));
        await query(server, database, 'ALTER TABLE "Other Place"."Peo.ple" ADD CHECK (name IS NULL)');
        const error = (await failure(
          sink.mergeWindow(windowOf(2, [mergeTable(users, { states })])),
        )) as RefusedRows;
        expect(error).toBeInstanceOf(RefusedRows);
        expect(error.rows).toMatchObject([{ table: { schema: 'app', name: 'users' }, position: at(1) }]);
      },
      map,
    ));

  test('two tables that meet, and a table that was elsewhere before, are TM405', () =>
    withSink(server, async (sink, database) => {
      await sink.mergeWindow(windowOf(1, [mergeTable(users, { states })]));
      const moved = await openSink(server, database, {}, { 'schema.map': ['app=analytics'] });
      const error = await failure(moved.mergeWindow(windowOf(2, [mergeTable(users, {})])));
      expect(error).toMatchObject({ code: 'TM405' });
      expect(error.message).toContain('merged into app.users before');
      for (const statement of [
        'CREATE SCHEMA analytics',
        'ALTER TABLE app.users SET SCHEMA analytics',
        "UPDATE _tidemark.tables SET schema_name = 'analytics'",
      ])
        await query(server, database, statement);
      await moved.mergeWindow(windowOf(2, [mergeTable(users, { states: [remove('1')] })]));
      expect(await readAll(moved, users, at(2))).toEqual([]);
      const taken = shape('analytics', 'users', ['id integer key']);
      for (const tables of [[mergeTable(taken, {})], [mergeTable(users, {}), mergeTable(taken, {})]]) {
        const clash = await failure(moved.mergeWindow(windowOf(3, tables)));
        expect(clash).toMatchObject({ code: 'TM405' });
        expect(clash.message).toContain('analytics.users');
      }
      await moved.close();
    }));

  test.each([
    [['app=a', 'app=b'], 'maps what another rule maps'],
    [['app=a', 'other=a'], 'both lead to "a"'],
    [['app.t=a.t', 'app.u=a.t'], 'both lead to "a"."t"'],
    [['app=a.t'], 'a schema to a table'],
    [['app.t=a'], 'a table to a schema'],
    [['app'], 'is no rule'],
    [['app.*=a.*'], 'is no rule'],
    [['app=_tidemark'], 'is not for tables of a source'],
    [['app=pg_x'], 'is not for tables of a source'],
    [[`app=${'x'.repeat(64)}`], 'too long'],
  ])('%j is TM101', async (rules, message) => {
    const opening = Promise.resolve().then(() =>
      postgresSink.open(context(), options(server, 'none', { 'schema.map': rules })),
    );
    const error = await failure(opening);
    expect(error).toMatchObject({ code: 'TM101' });
    expect(error.message).toContain(message);
  });
});

describe('history', () => {
  const on = { history: true };
  const event = (n: number, op: RowEvent['op'], values: (Cell | undefined)[], more = {}): RowEvent => ({
    op,
    position: at(n),
    commitTimeUs: 1_700_000_000_000_000n + BigInt(n),
    key: op === 't' ? [] : [values[0] ?? null],
    values,
    previousKey: null,
    before: null,
    ...more,
  });
  const table = (of: TableShape, events: RowEvent[], input = {}): MergeTable =>
    mergeTable(of, { events, ...input });
  const history = (database: string, name = 'app.users_changes', columns = 'id, name, bio') =>
    query(
      server,
      database,
      `SELECT _tidemark_op, _tidemark_old_key, _tidemark_unchanged, ${columns} FROM ${name} ORDER BY _tidemark_position`,
    );

  test('has every Change in the merge’s transaction, and nothing twice', () =>
    withSink(
      server,
      async (sink, database) => {
        const events = [
          event(1, 'c', ['1', 'a', 'tab\t\\N']),
          event(2, 'u', ['1', 'b', undefined]),
          event(3, 'u', ['2', 'b', undefined], { previousKey: ['1'] }),
          event(4, 'd', [undefined, undefined, undefined], { key: ['2'] }),
          event(5, 't', []),
          event(6, 'r', ['3', null, null]),
          event(7, 'e', [], { key: ['3'] }),
        ];
        const window = windowOf(1, [
          table(users, events, { truncated: true, states: [upsert(users, ['3', null, null])] }),
        ]);
        await sink.mergeWindow(window);
        await sink.mergeWindow(window);
        expect(await history(database)).toEqual([
          ['c', null, null, '1', 'a', 'tab\t\\N'],
          ['u', null, '{bio}', '1', 'b', null],
          ['u', '{"id": "1"}', '{bio}', '2', 'b', null],
          ['d', null, null, '2', null, null],
          ['t', null, null, null, null, null],
          ['r', null, null, '3', null, null],
          ['e', null, null, '3', null, null],
        ]);
        const first = `SELECT _tidemark_position, _tidemark_committed_at FROM app.users_changes ORDER BY 1 LIMIT 1`;
        expect(await query(server, database, first)).toEqual([[at(1), '2023-11-14 22:13:20.000001+00']]);
        expect(await readAll(sink, users, at(1))).toEqual([['3', null, null]]);
        // A Window that fails leaves none.
        const bad = table(users, [event(8, 'c', ['9', 'x', null])], {
          states: [upsert(users, ['9', 'x', undefined], ['9'])],
        });
        expect((await failure(sink.mergeWindow(windowOf(2, [bad])))).code).toBe('TM407');
        expect(await history(database)).toHaveLength(7);
        expect(await postgresSink.check(context(), options(server, database, on))).toHaveLength(1);
      },
      on,
    ));

  test('of a table without a key has the former row', () =>
    withSink(
      server,
      async (sink, database) => {
        const log = shape('app', 'log', ['line text', 'n integer']);
        const events = [
          event(1, 'c', ['a', '1'], { key: [] }),
          event(2, 'u', ['b', '1'], { key: [], before: ['a', '1'] }),
          event(3, 'd', ['b', '1'], { key: [], before: ['b', '1'] }),
        ];
        await sink.mergeWindow(windowOf(1, [table(log, events)]));
        expect(await history(database, 'app.log_changes', 'line, n')).toEqual([
          ['c', null, null, 'a', '1'],
          ['u', '{"n": "1", "line": "a"}', null, 'b', '1'],
          ['d', '{"n": "1", "line": "b"}', null, 'b', '1'],
        ]);
      },
      on,
    ));

  test('gets columns when the source does, and loses none', () =>
    withSink(
      server,
      async (sink, database) => {
        const column = (number: number, name: string, type: string, key = false) => ({
          ...{ name, type, key, nullable: !key, number },
        });
        const one = shape('app', 't', [
          column(1, 'id', 'integer', true),
          column(2, 'a', 'integer'),
          column(3, 'b', 'numeric(12,2)'),
        ]);
        const two = shape('app', 't', [
          column(1, 'id', 'bigint', true),
          column(3, 'b', 'integer'),
          column(4, 'c', 'text'),
        ]);
        await sink.mergeWindow(
          windowOf(1, [
            table(one, [event(1, 'c', ['1', '2', '3.50'])]),
            table(two, [event(2, 'c', ['5000000000', '3', 'x'])]),
          ]),
        );
        expect(await history(database, 'app.t_changes', 'id, a, b, c')).toEqual([
          ['c', null, null, '1', '2', '3.50', null],
          ['c', null, null, '5000000000', null, '3', 'x'],
        ]);
        const other = await openSink(server, database, {}, on);
        await other.mergeWindow(windowOf(2, [table(two, [event(3, 'c', ['2', '4', 'y'])])]));
        expect(await history(database, 'app.t_changes', 'id')).toHaveLength(3);
        await other.close();
      },
      on,
    ));

  test('is refused where its name is another table’s, whichever comes first', () =>
    withSink(
      server,
      async (sink, database) => {
        const rival = shape('app', 'users_changes', ['id integer key']);
        for (const [sequence, tables] of [
          [1, [rival, users]],
          [1, [users, rival]],
        ] as const) {
          const window = windowOf(
            sequence,
            tables.map((each) => table(each, [])),
          );
          const error = await failure(sink.mergeWindow(window));
          expect(error).toMatchObject({ code: 'TM405', remedy: expect.stringContaining('history.suffix') });
        }
        await sink.mergeWindow(windowOf(1, [table(users, [])]));
        const late = await failure(sink.mergeWindow(windowOf(2, [table(rival, [])])));
        expect(late).toMatchObject({ code: 'TM405', remedy: expect.stringContaining('history.suffix') });
        await query(server, database, 'CREATE TABLE app.theirs_changes (x int)');
        const theirs = shape('app', 'theirs', ['id integer key']);
        const found = await failure(sink.mergeWindow(windowOf(2, [table(theirs, [])])));
        expect(found.message).toContain('app.theirs_changes');
        const named = await openSink(server, database, {}, { ...on, 'history.suffix': ' of old' });
        await named.mergeWindow(windowOf(2, [table(theirs, [event(1, 'c', ['1'])])]));
        expect(await history(database, 'app."theirs of old"', 'id')).toHaveLength(1);
        await named.close();
      },
      on,
    ));

  test('with soft deletes and other names, in one transaction with many rows', () =>
    withSink(
      server,
      async (sink, database) => {
        const many = Array.from({ length: 3000 }, (_, i) => [String(i), `n${i}`, null]);
        const events = many.map((values, i) => event(10 + i, 'c', values));
        await sink.mergeWindow(
          windowOf(1, [table(users, events, { states: many.map((row) => upsert(users, row)) })]),
        );
        const gone = [event(9999, 'd', [null, null, null], { key: ['7'] })];
        await sink.mergeWindow(windowOf(2, [table(users, gone, { states: [remove('7')] })]));
        expect(await readAll(sink, users, at(2))).toHaveLength(2999);
        expect(await query(server, database, 'SELECT count(*) FROM kept.users')).toEqual([['3000']]);
        expect(await history(database, 'kept.users_changes')).toHaveLength(3001);
      },
      { ...on, 'soft.deletes': true, 'schema.map': ['app=kept'] },
    ));
});
