/** Rows that the Postgres sink cannot write are named by table and Position, and the rest goes in without them. */
import { afterAll, beforeAll, describe, expect, test, vi } from 'vitest';
import { RefusedRows } from '../../src/connector/failure.ts';
import type {
  MergeSink,
  MergeTable,
  Readable,
  RowEvent,
  RowState,
  TableShape,
} from '../../src/connector/sink.ts';
import {
  at,
  failure,
  mergeTable,
  query,
  readAll,
  remove,
  shape,
  startPostgres,
  type TableInput,
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

const people = shape('app', 'people', ['id integer key', 'email text', 'age integer', 'boss integer']);

/** A state whose Position tells its key. */
const person = (id: number, email = `e${id}`, age = '30', boss: string | null = null): RowState => ({
  ...upsert(people, [String(id), email, age, boss]),
  position: at(1000 + id),
});

/** Ids of the refused rows, after checking what every refusal says. */
async function refusedIds(sink: MergeSink, tables: MergeTable[], sequence: number): Promise<number[]> {
  const error = (await failure(sink.mergeWindow(windowOf(sequence, tables)))) as RefusedRows;
  expect(error).toBeInstanceOf(RefusedRows);
  expect(error).toMatchObject({ code: 'TM410', retry: 'data' });
  const everything = [error, error.cause].map((e) => `${(e as Error).stack} ${JSON.stringify(e)}`).join();
  expect(everything).not.toContain('secret');
  expect((await sink.held('*'))?.sequence).toBe(sequence - 1);
  return error.rows
    .map(({ position }) => [...Array(80_000).keys()].find((id) => at(1000 + id) === position)!)
    .sort((a, b) => a - b);
}

/** Refused ones out, as the delivery does it. */
async function withoutThem(
  sink: MergeSink & Readable,
  states: readonly RowState[],
  refused: readonly number[],
  sequence: number,
): Promise<void> {
  const rest = states.filter(({ position }) => !refused.some((id) => at(1000 + id) === position));
  await sink.mergeWindow(windowOf(sequence, [mergeTable(people, { states: rest })]));
}

describe.each([
  { path: 'values', extra: 0 },
  { path: 'copy', extra: 6000 },
])('by $path', ({ extra }) => {
  const filler = (from = 10_000) => Array.from({ length: extra }, (_, i) => person(from + i));
  const prepared = async (
    database: string,
    sink: MergeSink,
    statements: readonly string[],
    input: TableInput = { states: [person(1), person(2), ...filler()] },
  ) => {
    await sink.mergeWindow(windowOf(1, [mergeTable(people, input)]));
    for (const statement of statements) await query(server, database, statement);
  };

  test('a check, a narrowed type and a trigger refuse rows; all of them are found at once', () =>
    withSink(server, async (sink, database) => {
      await prepared(database, sink, [
        'ALTER TABLE app.people ADD CONSTRAINT grown CHECK (age >= 18)',
        'ALTER TABLE app.people ALTER COLUMN age TYPE smallint',
        `CREATE FUNCTION app.no() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
           IF NEW.email = 'trigger' THEN RAISE 'refused secret %', NEW.email; END IF; RETURN NEW; END $$`,
        'CREATE TRIGGER no AFTER INSERT OR UPDATE ON app.people FOR EACH ROW EXECUTE FUNCTION app.no()',
      ]);
      const states = [
        person(1, 'one', '17'),
        person(2, 'two'),
        person(3, 'secret', '70000'),
        ...filler(),
        person(4, 'trigger'),
        person(5, 'secret', '1'),
        ...filler(20_000),
        person(6, 'six'),
      ];
      const refused = await refusedIds(sink, [mergeTable(people, { states })], 2);
      expect(refused).toEqual([1, 3, 4, 5]);
      await withoutThem(sink, states, refused, 2);
      const rows = (await readAll(sink, people, at(2))).filter(([id]) => Number(id) < 10);
      expect(rows.map(([id, email]) => [id, email]).sort()).toEqual([
        ['1', 'e1'],
        ['2', 'two'],
        ['6', 'six'],
      ]);
    }));

  test('the message has SQLSTATE and constraint', () =>
    withSink(server, async (sink, database) => {
      await prepared(database, sink, ['ALTER TABLE app.people ADD CONSTRAINT grown CHECK (age >= 18)']);
      const states = [...filler(), person(7, 'secret', '5')];
      const error = (await failure(
        sink.mergeWindow(windowOf(2, [mergeTable(people, { states })])),
      )) as RefusedRows;
      expect(error.rows).toEqual([
        {
          table: { schema: 'app', name: 'people' },
          position: at(1007),
          reason: 'it refused a row, SQLSTATE 23514, constraint "grown"',
        },
      ]);
      expect(error.message).toContain('app.people');
    }));

  test('an extra unique index, an index entry that is too large', () =>
    withSink(server, async (sink, database) => {
      await prepared(database, sink, ['CREATE UNIQUE INDEX mail ON app.people (email)']);
      const random = Array.from({ length: 40_000 }, (_, i) =>
        String.fromCharCode(200 + ((i * i * 7919) % 5000)),
      );
      const states = [person(3, 'e2'), person(4), ...filler(20_000), person(5, random.join(''))];
      const refused = await refusedIds(sink, [mergeTable(people, { states })], 2);
      expect(refused).toEqual([3, 5]);
      await withoutThem(sink, states, refused, 2);
    }));

  test('rows that take each other’s place under an extra unique index are written in order', () =>
    withSink(server, async (sink, database) => {
      // The index comes when the sink knows the table already.
      await prepared(database, sink, ['CREATE UNIQUE INDEX mail ON app.people (email)']);
      const states = [remove('1'), remove('2'), person(3, 'e1'), ...filler(20_000), person(4, 'e2')];
      await sink.mergeWindow(windowOf(2, [mergeTable(people, { states })]));
      const rows = (await readAll(sink, people, at(2))).filter(([id]) => Number(id) < 10);
      expect(rows.map(([id, email]) => [id, email]).sort()).toEqual([
        ['3', 'e1'],
        ['4', 'e2'],
      ]);
    }));

  test('deferred constraints at commit, within a table and across two', () =>
    withSink(server, async (sink, database) => {
      const deferred = 'DEFERRABLE INITIALLY DEFERRED';
      await prepared(database, sink, [
        `ALTER TABLE app.people ADD CONSTRAINT boss FOREIGN KEY (boss) REFERENCES app.people ${deferred}`,
      ]);
      const pets = shape('app', 'a_pets', ['id integer key', 'owner integer']);
      const pet = (id: number, owner: number) => ({
        ...upsert(pets, [String(id), String(owner)]),
        position: at(1000 + id),
      });
      await sink.mergeWindow(windowOf(2, [mergeTable(pets, {})]));
      await query(
        server,
        database,
        `ALTER TABLE app.a_pets ADD CONSTRAINT owner FOREIGN KEY (owner) REFERENCES app.people ${deferred}`,
      );
      // 5 stands before its boss; nobody is 99.
      const states = [person(5, 'e5', '30', '6'), ...filler(20_000), person(7, 'x', '30', '99'), person(6)];
      const owned = [pet(50, 6), pet(51, 98), pet(52, 1)];
      const tables = () => [mergeTable(pets, { states: owned }), mergeTable(people, { states })];
      const first = await refusedIds(sink, tables(), 3);
      expect([[7], [51]]).toContainEqual(first);
      const rest = (all: RowState[], ids: number[]) =>
        all.filter(({ position }) => !ids.some((id) => at(1000 + id) === position));
      const again = () => [
        mergeTable(pets, { states: rest(owned, first) }),
        mergeTable(people, { states: rest(states, first) }),
      ];
      const second = await refusedIds(sink, again(), 3);
      expect([...first, ...second].sort()).toEqual([51, 7]);
      await sink.mergeWindow(
        windowOf(3, [
          mergeTable(pets, { states: rest(owned, [7, 51]) }),
          mergeTable(people, { states: rest(states, [7, 51]) }),
        ]),
      );
      expect(await readAll(sink, pets, at(3))).toHaveLength(2);
    }));

  test('deletes and partial rows too', () =>
    withSink(server, async (sink, database) => {
      await prepared(database, sink, [
        'ALTER TABLE app.people ADD CONSTRAINT grown CHECK (age >= 18)',
        'CREATE TABLE app.kept (person integer REFERENCES app.people)',
        'INSERT INTO app.kept VALUES (2)',
      ]);
      const partial: RowState = {
        ...upsert(people, ['1', undefined, '3', null], ['1']),
        position: at(1001),
      };
      const gone: RowState = { ...remove('2'), position: at(1002) };
      const states = [partial, gone, ...filler(), person(8)];
      const refused = await refusedIds(sink, [mergeTable(people, { states })], 2);
      expect(refused).toEqual([1, 2]);
      await withoutThem(sink, states, refused, 2);
    }));

  test('after a truncate, and in a table that was empty', () =>
    withSink(server, async (sink, database) => {
      await prepared(database, sink, ['ALTER TABLE app.people ADD CONSTRAINT grown CHECK (age >= 18)'], {});
      const states = [...filler(), person(9, 'secret', '2'), person(1)];
      expect(await refusedIds(sink, [mergeTable(people, { states })], 2)).toEqual([9]);
      await withoutThem(sink, states, [9], 2);
      expect(await refusedIds(sink, [mergeTable(people, { truncated: true, states })], 3)).toEqual([9]);
    }));

  test('a table without a key: every Change that made the row', () =>
    withSink(server, async (sink, database) => {
      const log = shape('app', 'log', ['line text', 'n integer']);
      await sink.mergeWindow(windowOf(1, [mergeTable(log, {})]));
      await query(server, database, 'ALTER TABLE app.log ADD CONSTRAINT small CHECK (n < 10)');
      const event = (id: number, values: string[]): RowEvent => ({
        op: 'c',
        position: at(1000 + id),
        commitTimeUs: 0n,
        key: [],
        values,
        previousKey: null,
        before: null,
      });
      const counts = [
        ...Array.from({ length: extra }, (_, i) => ({ values: [`more ${i}`, '1'], count: 1 })),
        { values: ['fine', '1'], count: 1 },
        { values: ['secret', '11'], count: 2 },
      ];
      const events = [event(1, ['secret', '11']), event(2, ['fine', '1']), event(3, ['secret', '11'])];
      expect(await refusedIds(sink, [mergeTable(log, { counts, events })], 2)).toEqual([1, 3]);
    }));

  test('what is not about a row is not put on a row', () =>
    withSink(server, async (sink, database) => {
      await prepared(database, sink, []);
      const states = [person(1, 'changed'), ...filler()];
      const window = () => windowOf(2, [mergeTable(people, { states })]);
      await query(server, database, 'ALTER TABLE app.people RENAME COLUMN age TO years');
      expect(await failure(sink.mergeWindow(window()))).toMatchObject({ code: 'TM405' });
      await query(server, database, 'ALTER TABLE app.people RENAME COLUMN years TO age');
      await query(server, database, 'ALTER TABLE app.people RENAME TO elsewhere');
      const missing = await failure(sink.mergeWindow(window()));
      expect(missing).not.toBeInstanceOf(RefusedRows);
      await query(server, database, 'ALTER TABLE app.elsewhere RENAME TO people');
      await sink.mergeWindow(window());
    }));
});

test('of a table that refuses everything some hundred rows are named at once', () =>
  withSink(server, async (sink, database) => {
    await sink.mergeWindow(windowOf(1, [mergeTable(people as TableShape, {})]));
    await query(server, database, 'ALTER TABLE app.people ADD CONSTRAINT none CHECK (age > 1000)');
    const states = Array.from({ length: 30_000 }, (_, i) => person(i));
    const refused = await refusedIds(sink, [mergeTable(people, { states })], 2);
    expect(refused.length).toBeGreaterThanOrEqual(200);
    expect(refused.length).toBeLessThan(1000);
  }));
