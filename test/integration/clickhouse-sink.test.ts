/** The ClickHouse sink on the engine itself. What every sink must do is in the conformance suite. */
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { type ClickHouse, openClickHouse, startClickHouse } from './clickhouse-sink-fixture.ts';
import {
  at,
  failure,
  mergeTable,
  readAll,
  remove,
  shape,
  sorted,
  upsert,
  users,
  windowOf,
} from './postgres-sink-fixture.ts';

let server: ClickHouse;
beforeAll(async () => {
  server = await startClickHouse();
});
afterAll(() => server?.stop());

const unit = { unit: 'app.users' };

describe('a table with a key', () => {
  it('shows the rows of the last Window', async () => {
    const options = server.place();
    const sink = await openClickHouse(options);
    const view = `${options['clickhouse.database']}.\`app.users\``;
    const first = windowOf(
      1,
      [mergeTable(users, { states: [upsert(users, ['1', 'one', 'a']), upsert(users, ['2', 'two', null])] })],
      unit,
    );
    expect((await sink.mergeWindow(first)).alreadyHeld).toBe(false);
    expect(await server.query(`SELECT * FROM ${view} ORDER BY id`)).toEqual([
      ['1', 'one', 'a'],
      ['2', 'two', null],
    ]);
    expect((await sink.mergeWindow(first)).alreadyHeld).toBe(true);
    const second = windowOf(
      2,
      [
        mergeTable(users, {
          states: [
            { ...upsert(users, ['1', 'uno', undefined], ['1']), position: at(2) },
            { ...remove('2'), position: at(2) },
            { ...upsert(users, ['3', 'drei\t\n\\', "'"]), position: at(2) },
          ],
        }),
      ],
      unit,
    );
    await sink.mergeWindow(second);
    expect(await server.query(`SELECT * FROM ${view} ORDER BY id`)).toEqual([
      ['1', 'uno', 'a'],
      ['3', 'drei\t\n\\', "'"],
    ]);
    expect(sorted(await readAll(sink, users, at(2)))).toEqual(
      sorted([
        ['1', 'uno', 'a'],
        ['3', 'drei\t\n\\', "'"],
      ]),
    );
    expect(await sink.held('app.users')).toEqual({ position: at(2), sequence: 2, fencingToken: 1n });
    await sink.close();
  });
});
void shape;
void failure;
