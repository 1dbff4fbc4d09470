/** Rows that the Postgres sink keeps although the source has them no more: retired ones, and with soft.deletes deleted ones. */
import { afterAll, beforeAll, describe, expect, test, vi } from 'vitest';
import type { MergeSink, Readable, RowState, TableShape } from '../../src/connector/sink.ts';
import {
  at,
  failure,
  mergeTable,
  openSink,
  query,
  readAll,
  remove,
  retire,
  shape,
  sorted,
  startPostgres,
  type TableInput,
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

const row = (id: number, name = `n${id}`) => upsert(users, [String(id), name, `bio ${id}`]);

/** Window by Window, from `first` on. */
async function merge(
  sink: MergeSink,
  table: TableShape,
  inputs: readonly TableInput[],
  first = 1,
): Promise<void> {
  for (const [i, input] of inputs.entries())
    await sink.mergeWindow(windowOf(first + i, [mergeTable(table, input)]));
}

async function ids(sink: MergeSink & Readable, n: number): Promise<string[]> {
  const rows = await readAll(sink, users, at(n));
  return rows
    .map(([id]) => id!)
    .filter((id) => Number(id) < 100_000)
    .sort();
}

/** Many rows go by COPY, few as VALUES. */
const sizes = [
  { path: 'values', extra: 0 },
  { path: 'copy', extra: 1500 },
];

describe.each(sizes)('rows that the source let go of, by $path', ({ extra }) => {
  const filler = Array.from({ length: extra }, (_, i) => row(100_000 + i));
  const marked = (database: string) =>
    query(server, database, 'SELECT id FROM app.users WHERE _tidemark_retired ORDER BY id');

  test('stay through truncates and sweeps, until an upsert or a delete of their key', () =>
    withSink(server, async (sink, database) => {
      await merge(sink, users, [
        { states: [row(1), row(2), row(3), row(4), row(5), ...filler] },
        { states: [retire('1'), retire('2'), retire('3'), ...filler] },
        { truncated: true, states: [row(9), ...filler] },
      ]);
      expect(await ids(sink, 3)).toEqual(['1', '2', '3', '9']);
      expect(await marked(database)).toEqual([['1'], ['2'], ['3']]);
      // An ordinary row again, and as such it goes with the next truncate.
      await merge(sink, users, [{ states: [row(2, 'back'), remove('3'), ...filler] }], 4);
      expect(await marked(database)).toEqual([['1']]);
      const snapshots = [{ id: 'one', since: at(4) }];
      await merge(sink, users, [{ states: [row(9), ...filler], snapshots }], 5);
      const sweep = { ...snapshots[0]!, shape: users, position: at(6), rows: 1 };
      await sink.mergeWindow({ ...windowOf(6, []), sweeps: [sweep] });
      expect(await ids(sink, 6)).toEqual(['1', '9']);
      await merge(sink, users, [{ truncated: true, states: [...filler] }], 7);
      expect(await ids(sink, 7)).toEqual(['1']);
      await merge(sink, users, [{ truncated: true, states: [remove('1'), ...filler] }], 8);
      expect(await ids(sink, 8)).toEqual([]);
    }));

  test('come with a last change of theirs, before a truncate too', () =>
    withSink(server, async (sink) => {
      const last = (state: RowState) => ({ ...state, retired: true as const }) as RowState;
      await merge(sink, users, [
        { states: [row(1), row(2), row(3), ...filler] },
        {
          truncated: true,
          states: [
            last(row(7, 'whole')),
            last(upsert(users, ['1', 'partial', undefined], ['1'])),
            retire('2'),
            ...filler,
          ],
        },
        { truncated: true, states: filler },
      ]);
      const rows = (await readAll(sink, users, at(3))).filter(([id]) => Number(id) < 100);
      expect(sorted(rows)).toEqual(
        sorted([
          ['1', 'partial', 'bio 1'],
          ['2', 'n2', 'bio 2'],
          ['7', 'whole', 'bio 7'],
        ]),
      );
    }));

  test('that are not there are TM407', () =>
    withSink(server, async (sink) => {
      await merge(sink, users, [{ states: [row(1), ...filler] }]);
      const window = windowOf(2, [mergeTable(users, { states: [retire('8'), ...filler] })]);
      expect(await failure(sink.mergeWindow(window))).toMatchObject({ code: 'TM407' });
      expect(await ids(sink, 1)).toEqual(['1']);
    }));
});

describe('rows that the source let go of', () => {
  test('keep their mark when columns, their types and the key change, or the table is made anew', () =>
    withSink(server, async (sink, database) => {
      const column = (number: number, name: string, type: string, key = false) => ({
        name,
        type,
        key,
        nullable: !key,
        number,
      });
      const before: TableShape = {
        ...shape('app', 'users', [
          column(1, 'id', 'integer', true),
          column(2, 'name', 'text'),
          column(3, 'org', 'integer'),
        ]),
        oid: 1,
      };
      const after: TableShape = {
        ...shape('app', 'users', [
          column(1, 'user_id', 'bigint', true),
          column(3, 'org', 'bigint', true),
          column(4, 'more', 'text'),
        ]),
        oid: 1,
      };
      await merge(sink, before, [
        { states: [upsert(before, ['1', 'a', '7']), upsert(before, ['2', 'b', '7'])] },
        { states: [retire('1')] },
      ]);
      const marks = 'SELECT user_id, org, _tidemark_retired FROM app.users ORDER BY 1';
      await merge(sink, after, [{ states: [upsert(after, ['3', '7', 'c'])] }], 3);
      expect(await query(server, database, marks)).toEqual([
        ['1', '7', 't'],
        ['2', '7', null],
        ['3', '7', null],
      ]);
      await merge(sink, after, [{ truncated: true, states: [] }], 4);
      expect(await query(server, database, marks)).toEqual([['1', '7', 't']]);
      const anew = { ...after, oid: 2 };
      await merge(sink, anew, [{ states: [upsert(anew, ['5', '7', 'e'])] }], 5);
      expect(await query(server, database, marks)).toEqual([
        ['1', '7', 't'],
        ['5', '7', null],
      ]);
    }));

  test('cost a table without any nothing: no column, and TRUNCATE', () =>
    withSink(server, async (sink, database) => {
      const columns = `SELECT attname FROM pg_attribute WHERE attrelid = 'app.users'::regclass AND attnum > 0`;
      const file = `SELECT pg_relation_filenode('app.users')`;
      await merge(sink, users, [{ states: [row(1)] }]);
      expect(await query(server, database, columns)).toEqual([['id'], ['name'], ['bio']]);
      const first = await query(server, database, file);
      await merge(sink, users, [{ truncated: true, states: [row(2)] }], 2);
      expect(await query(server, database, file)).not.toEqual(first);
      // Those that had one and have none now are truncated as well.
      await merge(sink, users, [{ states: [retire('2')] }, { states: [remove('2'), row(3)] }], 3);
      const second = await query(server, database, file);
      await merge(sink, users, [{ truncated: true, states: [] }], 5);
      expect(await query(server, database, file)).not.toEqual(second);
    }));

  test('are marked after a restart, by another sink', () =>
    withSink(server, async (sink, database) => {
      await merge(sink, users, [{ states: [row(1), row(2)] }, { states: [retire('1')] }]);
      const other = await openSink(server, database);
      await merge(other, users, [{ truncated: true, states: [] }], 3);
      expect(await ids(other, 3)).toEqual(['1']);
      await other.close();
    }));

  test('a column of the source by the mark’s name is refused', () =>
    withSink(server, async (sink) => {
      const table = shape('app', 'odd', ['id integer key', '_tidemark_retired integer']);
      await merge(sink, table, [{ states: [upsert(table, ['1', '2'])] }]);
      const window = windowOf(2, [mergeTable(table, { states: [retire('1')] })]);
      const error = await failure(sink.mergeWindow(window));
      expect(error).toMatchObject({ code: 'TM405' });
      expect(error.message).toContain('_tidemark_retired');
    }));
});

describe.each(sizes)('soft deletes by $path', ({ extra }) => {
  const filler = Array.from({ length: extra }, (_, i) => row(100_000 + i));
  const soft = { 'soft.deletes': true };
  const deleted = (database: string, column = '_tidemark_deleted_at') =>
    query(
      server,
      database,
      `SELECT id, ${column} FROM app.users WHERE ${column} IS NOT NULL AND id < 100000 ORDER BY 1`,
    );
  const time = '2023-11-14 22:13:20+00';

  test('keep deleted and truncated rows with the time, and an insert of the key clears it', () =>
    withSink(
      server,
      async (sink, database) => {
        await merge(sink, users, [
          { states: [row(1), row(2), row(3), ...filler] },
          { states: [remove('1'), remove('99'), ...filler] },
        ]);
        expect(await ids(sink, 2)).toEqual(['2', '3']);
        expect(await deleted(database)).toEqual([['1', time]]);
        // The first time counts.
        const later = windowOf(3, [mergeTable(users, { states: [remove('1'), remove('2'), ...filler] })]);
        await sink.mergeWindow({ ...later, commitTimeUs: later.commitTimeUs + 1_000_001n });
        const second = '2023-11-14 22:13:21.000001+00';
        expect(await deleted(database)).toEqual([
          ['1', time],
          ['2', second],
        ]);
        await merge(sink, users, [{ states: [row(2, 'again'), ...filler] }], 4);
        expect(await ids(sink, 4)).toEqual(['2', '3']);
        expect(await deleted(database)).toEqual([['1', time]]);
        await merge(sink, users, [{ truncated: true, states: [row(5), ...filler] }], 5);
        expect(await ids(sink, 5)).toEqual(['5']);
        expect((await deleted(database)).map(([id]) => id)).toEqual(['1', '2', '3']);
        // A deleted row supplies nothing.
        const partial = upsert(users, ['1', 'x', undefined], ['1']);
        const window = windowOf(6, [mergeTable(users, { states: [partial, ...filler] })]);
        expect(await failure(sink.mergeWindow(window))).toMatchObject({ code: 'TM407' });
        const pending = { ...partial, mayBeAbsent: true } as RowState;
        await merge(sink, users, [{ states: [pending, retire('5'), ...filler] }], 6);
        expect(await ids(sink, 6)).toEqual(['5']);
        await merge(sink, users, [{ truncated: true, states: [...filler] }], 7);
        expect(await ids(sink, 7)).toEqual(['5']);
        await merge(sink, users, [{ states: [remove('5'), ...filler] }], 8);
        expect(await ids(sink, 8)).toEqual([]);
        const all = await query(server, database, 'SELECT count(*) FROM app.users WHERE _tidemark_retired');
        expect(all).toEqual([['0']]);
      },
      soft,
    ));

  test('of a table without a key', () =>
    withSink(
      server,
      async (sink, database) => {
        const log = shape('app', 'log', ['line text']);
        const more = Array.from({ length: extra }, (_, i) => ({ values: [`more ${i}`], count: 1 }));
        const fewer = more.map(({ values }) => ({ values, count: -1 }));
        const line = (count: number) => ({ values: ['a'], count });
        await merge(sink, log, [{ counts: [line(3), ...more] }, { counts: [line(-2), ...fewer] }]);
        expect(await readAll(sink, log, at(2))).toEqual([['a']]);
        // Deleted copies are not there to be removed again.
        const window = windowOf(3, [mergeTable(log, { counts: [line(-2), ...more] })]);
        expect(await failure(sink.mergeWindow(window))).toMatchObject({ code: 'TM407' });
        await merge(sink, log, [{ truncated: true, counts: [] }], 3);
        expect(await readAll(sink, log, at(3))).toEqual([]);
        const count = 'SELECT count(*) FROM app.log WHERE _tidemark_deleted_at IS NOT NULL';
        expect(await query(server, database, count)).toEqual([[String(3 + extra)]]);
      },
      soft,
    ));
});

describe('soft deletes', () => {
  test('can be turned on later, under another name, and off only with a decision about the rows', () =>
    withSink(server, async (sink, database) => {
      await merge(sink, users, [{ states: [row(1), row(2), row(3)] }]);
      const on = await openSink(server, database, {}, { 'soft.deletes': true });
      await merge(on, users, [{ states: [remove('1')] }], 2);
      const named = { 'soft.deletes': true, 'soft.deletes.column': 'gone at' };
      const renamed = await openSink(server, database, {}, named);
      await merge(renamed, users, [{ states: [remove('2')] }], 3);
      const gone = 'SELECT id FROM app.users WHERE "gone at" IS NOT NULL ORDER BY 1';
      expect(await query(server, database, gone)).toEqual([['1'], ['2']]);
      const off = await openSink(server, database);
      const error = await failure(off.mergeWindow(windowOf(4, [mergeTable(users, {})])));
      expect(error).toMatchObject({
        code: 'TM405',
        remedy: expect.stringContaining('DELETE FROM "app"."users" WHERE "gone at" IS NOT NULL;'),
      });
      // Whatever the options say now, read-back leaves them out.
      expect(await ids(off, 3)).toEqual(['3']);
      for (const statement of error.remedy.split(/; or |; /).slice(1))
        await query(server, database, statement);
      await merge(off, users, [{ states: [remove('3')] }], 4);
      expect(await query(server, database, 'SELECT * FROM app.users')).toEqual([]);
      await Promise.all([on.close(), renamed.close(), off.close()]);
    }));

  test('a sweep marks, and a new key has no room for rows that lack it', () =>
    withSink(
      server,
      async (sink, database) => {
        const wide = shape('app', 'users', ['id bigint', 'name text key', 'bio text']);
        const snapshots = [{ id: 'one', since: at(1) }];
        await merge(sink, users, [
          { states: [row(1, 'same'), row(2, 'two'), upsert(users, ['3', null, null])] },
          { states: [row(2, 'same'), row(4)], snapshots },
        ]);
        const sweep = { ...snapshots[0]!, shape: users, position: at(3), rows: 2 };
        const receipt = await sink.mergeWindow({ ...windowOf(3, []), sweeps: [sweep] });
        expect(receipt.rows.deleted).toBe(2);
        expect(await ids(sink, 3)).toEqual(['2', '4']);
        await merge(sink, wide, [{ states: [] }], 4);
        expect(await query(server, database, 'SELECT id FROM app.users ORDER BY 1')).toEqual([['2'], ['4']]);
      },
      { 'soft.deletes': true },
    ));
});
