/** The Postgres sink tells rows that a snapshot did not see by the transactions that wrote them, or leaves them alone. */
import pg from 'pg';
import { afterAll, beforeAll, describe, expect, test, vi } from 'vitest';
import type { MergeSink, Readable, Sweep, TableShape } from '../../src/connector/sink.ts';
import {
  at,
  type Logged,
  mergeTable,
  openSink,
  options,
  readAll,
  remove,
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

/** It began at the end of the first Window. */
const snapshots = [{ id: 'one', since: at(1) }];

function sweep(table: TableShape, rows = 1): Sweep {
  return { ...snapshots[0]!, shape: table, position: at(9), rows };
}

async function inDatabase(database: string, ...statements: string[]): Promise<void> {
  const client = new pg.Client({ connectionString: String(options(server, database)['connection.url']) });
  await client.connect();
  try {
    for (const statement of statements) await client.query(statement);
  } finally {
    await client.end();
  }
}

/** Window by Window, the last one with the end of the snapshot. */
async function merge(sink: MergeSink & Readable, table: TableShape, ...windows: TableInput[]) {
  for (const [i, input] of windows.entries()) {
    const window = windowOf(i + 1, [mergeTable(table, i === 0 ? input : { ...input, snapshots })]);
    const last = i === windows.length - 1;
    const receipt = await sink.mergeWindow(last ? { ...window, sweeps: [sweep(table)] } : window);
    if (last) return receipt;
  }
  throw new Error('no Window');
}

const row = (id: number, name = 'a') => [String(id), name, null];
const states = (...ids: number[]) => ids.map((id) => upsert(users, row(id)));

describe('the end of a snapshot', () => {
  test('removes what no Window since its start has written, in that Window’s transaction', () =>
    withSink(server, async (sink) => {
      const receipt = await merge(
        sink,
        users,
        { states: states(1, 2, 3, 4, 5, 6) },
        { states: [upsert(users, row(1, 'changed')), upsert(users, ['2', 'toast', undefined], ['2'])] },
        { states: [...states(7), remove('6')] },
        { states: states(3) },
      );
      expect(receipt.rows).toEqual({ upserted: 1, deleted: 2, appended: 0 });
      expect((await readAll(sink, users, at(4))).map(([id]) => id).sort()).toEqual(['1', '2', '3', '7']);
    }));

  test('may come in the Window of its start, of an empty table, or without any row', () =>
    withSink(server, async (sink) => {
      await sink.mergeWindow(windowOf(1, [mergeTable(users, { states: states(1, 2) })]));
      const both = windowOf(2, [mergeTable(users, { states: states(2), snapshots })]);
      await sink.mergeWindow({ ...both, sweeps: [sweep(users)] });
      expect(await readAll(sink, users, at(2))).toEqual([row(2)]);
      await sink.mergeWindow({ ...windowOf(3, []), sweeps: [{ ...sweep(users, 0), id: 'two' }] });
      expect(await readAll(sink, users, at(3))).toEqual([]);
      const other = shape('app', 'never_seen', ['id int key']);
      await sink.mergeWindow({ ...windowOf(4, []), sweeps: [{ ...sweep(other, 0), id: 'three' }] });
    }));

  test('keeps rows that have nothing but their key, and rows of a thousand in one Window', () =>
    withSink(server, async (sink) => {
      const keys = shape('app', 'keys', ['a int key', 'b text key']);
      const many = Array.from({ length: 3000 }, (_, i) => upsert(keys, [String(i), 'k']));
      await merge(
        sink,
        keys,
        { states: many },
        { states: many.slice(0, 1500) },
        { states: many.slice(2900) },
      );
      expect(await readAll(sink, keys, at(3))).toHaveLength(1600);
    }));

  test('is right after VACUUM FREEZE, a table rewrite, and a new connection', () =>
    withSink(server, async (sink, database) => {
      await sink.mergeWindow(windowOf(1, [mergeTable(users, { states: states(1, 2, 3) })]));
      await sink.mergeWindow(windowOf(2, [mergeTable(users, { states: states(1), snapshots })]));
      await inDatabase(database, 'vacuum (freeze, full) app.users', 'vacuum freeze app.users');
      const other = await openSink(server, database);
      await other.mergeWindow(windowOf(3, [mergeTable(users, { states: states(2), snapshots })]));
      await other.mergeWindow({ ...windowOf(4, []), sweeps: [sweep(users)] });
      expect(sorted(await readAll(other, users, at(4)))).toEqual(sorted([row(1), row(2)]));
      await other.close();
    }));

  test('leaves rows alone where it cannot tell: no note, a restored one, a trigger in between', async () => {
    for (const damage of [
      'delete from _tidemark.snapshots',
      'update _tidemark.snapshots set destination = destination',
      `create function app.nothing() returns trigger language plpgsql as 'begin return null; end'`,
    ]) {
      await withSink(server, async (_, database) => {
        const logged: Logged[] = [];
        const sink = await openSink(server, database, {
          log: (level, message, fields) => void logged.push({ level, message, fields }),
        });
        await sink.mergeWindow(windowOf(1, [mergeTable(users, { states: states(1, 2) })]));
        await sink.mergeWindow(windowOf(2, [mergeTable(users, { states: states(1), snapshots })]));
        await inDatabase(database, damage);
        if (damage.startsWith('create'))
          await inDatabase(
            database,
            'create trigger keep before update on app.users for each row execute function app.nothing()',
          );
        await sink.mergeWindow({ ...windowOf(3, []), sweeps: [sweep(users)] });
        expect(await readAll(sink, users, at(3)), damage).toHaveLength(2);
        expect(
          logged.filter(({ level }) => level === 'warn'),
          damage,
        ).toHaveLength(1);
        await sink.close();
      });
    }
  });

  test('a snapshot that was given up leaves no note behind the next one', () =>
    withSink(server, async (sink, database) => {
      await sink.mergeWindow(windowOf(1, [mergeTable(users, { states: states(1, 2, 3), snapshots })]));
      const next = [{ id: 'two', since: at(1) }];
      await sink.mergeWindow(windowOf(2, [mergeTable(users, { states: states(2), snapshots: next })]));
      await sink.mergeWindow({ ...windowOf(3, []), sweeps: [{ ...sweep(users), id: 'two' }] });
      expect(await readAll(sink, users, at(3))).toEqual([row(2)]);
      const client = new pg.Client({ connectionString: String(options(server, database)['connection.url']) });
      await client.connect();
      expect((await client.query('select from _tidemark.snapshots')).rowCount).toBe(0);
      await client.end();
    }));
});
