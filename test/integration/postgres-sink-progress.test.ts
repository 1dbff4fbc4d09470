/** The Postgres sink: a Window is merged once, whole or not at all, by one owner. */
import { once } from 'node:events';
import { type AddressInfo, connect, createServer } from 'node:net';
import { afterAll, beforeAll, describe, expect, test, vi } from 'vitest';
import { postgresSink } from '../../connectors/sinks/postgres/index.ts';
import type { MergeSink, Readable } from '../../src/connector/sink.ts';
import {
  at,
  context,
  failure,
  mergeTable,
  openSink,
  options,
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

describe('progress', () => {
  test('nothing is applied twice: a held Window answers its Receipt, also to another connection', () =>
    withSink(server, async (sink, database) => {
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
    withSink(server, async (sink) => {
      const empty = await sink.mergeWindow(windowOf(1, []));
      expect(empty).toMatchObject({ rows: { upserted: 0, deleted: 0, appended: 0 }, bytes: 0 });
      await sink.mergeWindow(windowOf(2, [mergeTable(users, {})]));
      expect(await sink.held('*')).toMatchObject({ sequence: 2, position: at(2) });
      expect(await readAll(sink, users, at(2))).toEqual([]);
    }));

  test('a worker that lost the Unit is TM403, even if the new owner only met a held Window', () =>
    withSink(server, async (sink) => {
      await sink.mergeWindow(windowOf(1, []));
      await sink.mergeWindow(windowOf(1, [], { fencingToken: 5n }));
      const late = windowOf(2, [mergeTable(users, { states: [upsert(users, ['1', 'late', null])] })]);
      expect((await failure(sink.mergeWindow(late))).code).toBe('TM403');
      expect((await failure(sink.mergeWindow(windowOf(1, [])))).code).toBe('TM403');
      await sink.mergeWindow({ ...late, fencingToken: 5n });
      expect(await sink.held('*')).toEqual({ position: at(2), sequence: 2, fencingToken: 5n });
    }));

  test('a Window that does not follow is TM404', () =>
    withSink(server, async (sink) => {
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
    withSink(server, async (sink) => {
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

  test.each(['lost before it arrives', 'lost after it arrived'])(
    'a COMMIT of unknown outcome: %s',
    async (which) => {
      const database = await server.database();
      let cut = true;
      const proxy = createServer((near) => {
        const far = connect(server.port, '127.0.0.1');
        near.on('error', () => undefined);
        far.on('error', () => undefined);
        far.on('close', () => near.destroy());
        near.on('close', () => far.destroy());
        far.on('data', (data) => void (near.destroyed || near.write(data)));
        near.on('data', async (data) => {
          if (!cut || !data.includes('SET position = ')) return void far.write(data);
          cut = false;
          far.removeAllListeners('data');
          if (which === 'lost after it arrived') {
            far.write(data);
            await once(far, 'data');
          }
          near.destroy();
        });
      });
      await once(proxy.listen(0, '127.0.0.1'), 'listening');
      const through = {
        ...options(server, database),
        'connection.port': (proxy.address() as AddressInfo).port,
      };
      const sink = (await postgresSink.open(context(), through)) as MergeSink & Readable;
      const window = windowOf(1, [mergeTable(users, { states: [upsert(users, ['1', 'a', 'b'])] })]);
      expect(await failure(sink.mergeWindow(window))).toMatchObject({ code: 'TM401', retry: 'transient' });
      expect(await sink.mergeWindow(window)).toMatchObject({
        alreadyHeld: which === 'lost after it arrived',
      });
      expect(await readAll(sink, users, at(1))).toEqual([['1', 'a', 'b']]);
      await sink.close();
      proxy.close();
    },
  );

  test('a failing row stream rolls back, passes its own error on and leaves the connection usable', () =>
    withSink(server, async (sink) => {
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
    withSink(server, async (sink) => {
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
    const unreachable = (await postgresSink.open(context(), at1)) as MergeSink & Readable;
    expect(await failure(unreachable.held('*'))).toMatchObject({ code: 'TM401', retry: 'transient' });
    const wrong = { ...options(server, database), 'connection.password': 'hunter2' };
    const refused = (await postgresSink.open(context(), wrong)) as MergeSink & Readable;
    const error = await failure(refused.mergeWindow(windowOf(1, [])));
    expect(error.code).toBe('TM402');
    expect(`${error.message}${error.stack}`).not.toContain('hunter2');
    await Promise.all([unreachable.close(), refused.close()]);
  });

  test('a lock held by a reader is transient', () =>
    withSink(server, async (_, database) => {
      const patient = options(server, database, { 'lock.timeout': 200 });
      const sink = (await postgresSink.open(context(), patient)) as MergeSink & Readable;
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
