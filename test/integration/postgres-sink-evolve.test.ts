/** The Postgres sink's table follows the shape: existing rows get what the source's own ALTER TABLE gave them. */
import type pg from 'pg';
import { afterAll, beforeAll, describe, expect, test, vi } from 'vitest';
import type { ColumnShape, TableShape } from '../../src/connector/shape.ts';
import {
  at,
  failure,
  mergeTable,
  openSink,
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

/** `1 id bigint key`, `2 name text`, `3 age integer = 5`: number, name, type, and what older rows have. */
function numbered(columns: string[], oid = 1): TableShape {
  const parts = columns.map((text) => /^(\d+) (.*?)(?: = (.*))?$/.exec(text)!);
  const plain = shape(
    'app',
    't',
    parts.map((part) => part[2]!),
  );
  return {
    ...plain,
    oid,
    columns: plain.columns.map((column, i): ColumnShape => {
      const missing = parts[i]![3];
      return { ...column, number: Number(parts[i]![1]), ...(missing === undefined ? {} : { missing }) };
    }),
  };
}

const before = numbered(['1 id bigint key', '2 a text', '3 b text']);
const rows = [upsert(before, ['1', 'a1', 'b1']), upsert(before, ['2', 'a2', null])];

/** Rows of `before`, then one more row in the new shape, in a Window of their own or in the same one. */
async function evolved(
  after: TableShape,
  row: (string | null)[],
  together: boolean,
  from: { shape: TableShape; states: typeof rows } = { shape: before, states: rows },
): Promise<string[]> {
  let result: string[] = [];
  await withSink(server, async (sink) => {
    const first = mergeTable(from.shape, { states: from.states });
    const second = mergeTable(after, { states: [upsert(after, row)] });
    if (together) await sink.mergeWindow(windowOf(1, [first, second]));
    else {
      await sink.mergeWindow(windowOf(1, [first]));
      await sink.mergeWindow(windowOf(2, [second]));
    }
    result = sorted(await readAll(sink, after, at(2)));
  });
  return result;
}

const cases: Record<string, { after: TableShape; row: (string | null)[]; expected: (string | null)[][] }> = {
  'a column added': {
    after: numbered(['1 id bigint key', '2 a text', '3 b text', '4 c integer']),
    row: ['3', 'x', 'y', '7'],
    expected: [
      ['1', 'a1', 'b1', null],
      ['2', 'a2', null, null],
      ['3', 'x', 'y', '7'],
    ],
  },
  'a column added with a default gives it to the rows before it': {
    after: numbered([
      '1 id bigint key',
      '2 a text',
      '3 b text',
      '4 c timestamp with time zone = 2020-01-02 03:04:05+00',
    ]),
    row: ['3', 'x', 'y', null],
    expected: [
      ['1', 'a1', 'b1', '2020-01-02 03:04:05+00'],
      ['2', 'a2', null, '2020-01-02 03:04:05+00'],
      ['3', 'x', 'y', null],
    ],
  },
  'a column dropped': {
    after: numbered(['1 id bigint key', '3 b text']),
    row: ['3', 'y'],
    expected: [
      ['1', 'b1'],
      ['2', null],
      ['3', 'y'],
    ],
  },
  'two columns that swap their names keep their values': {
    after: numbered(['1 id bigint key', '2 b text', '3 a text']),
    row: ['3', 'x', 'y'],
    expected: [
      ['1', 'a1', 'b1'],
      ['2', 'a2', null],
      ['3', 'x', 'y'],
    ],
  },
  'a column dropped and added again under its name is another': {
    after: numbered(['1 id bigint key', '2 a text', '4 b text = new']),
    row: ['3', 'x', 'y'],
    expected: [
      ['1', 'a1', 'new'],
      ['2', 'a2', 'new'],
      ['3', 'x', 'y'],
    ],
  },
  'a key of two columns': {
    after: numbered(['1 id bigint key', '2 a text key', '3 b text']),
    row: ['1', 'x', 'y'],
    expected: [
      ['1', 'a1', 'b1'],
      ['1', 'x', 'y'],
      ['2', 'a2', null],
    ],
  },
  'a key column renamed and widened': {
    after: numbered(['1 number numeric key', '2 a text', '3 b text']),
    row: ['3.5', 'x', 'y'],
    expected: [
      ['1', 'a1', 'b1'],
      ['2', 'a2', null],
      ['3.5', 'x', 'y'],
    ],
  },
  'a table made anew under its name has none of the old rows': {
    after: numbered(['1 b integer key', '2 id json'], 2),
    row: ['3', '{}'],
    expected: [['3', '{}']],
  },
};

describe.each([false, true])('in one Window: %s', (together) => {
  test.each(Object.entries(cases))('%s', async (_, { after, row, expected }) => {
    expect(await evolved(after, row, together)).toEqual(sorted(expected));
  });

  test('a table gets a key, and loses it', async () => {
    const keyless = numbered(['1 id bigint', '2 a text', '3 b text']);
    await withSink(server, async (sink) => {
      const counts = [{ values: ['1', 'a', 'b'], count: 1 }];
      const first = mergeTable(keyless, { counts });
      const second = mergeTable(before, { states: rows });
      const third = mergeTable(keyless, { counts: [{ values: [null, 'c', 'd'], count: 2 }] });
      if (together) await sink.mergeWindow(windowOf(1, [first, second, third]));
      else {
        await sink.mergeWindow(windowOf(1, [first]));
        await sink.mergeWindow(windowOf(2, [second]));
        await sink.mergeWindow(windowOf(3, [third]));
      }
      expect(sorted(await readAll(sink, before, at(3)))).toEqual(
        sorted([
          ['1', 'a1', 'b1'],
          ['2', 'a2', null],
          [null, 'c', 'd'],
          [null, 'c', 'd'],
        ]),
      );
    });
  });
});

test('a retried Window, and a sink that starts anew, find the table as it is', () =>
  withSink(server, async (sink, database) => {
    await sink.mergeWindow(windowOf(1, [mergeTable(before, { states: rows })]));
    const { after, row, expected } = cases['a column dropped and added again under its name is another']!;
    const window = () => windowOf(2, [mergeTable(after, { states: [upsert(after, row)] })]);
    await sink.mergeWindow(window());
    const other = await openSink(server, database);
    expect((await other.mergeWindow(window())).alreadyHeld).toBe(true);
    await other.mergeWindow(windowOf(3, [mergeTable(after, { states: [upsert(after, row)] })]));
    expect(sorted(await readAll(other, after, at(3)))).toEqual(sorted(expected));
    await other.close();
  }));

test("a view on a dropped column is the operator's to change: TM405 with the remedy, then it goes on", () =>
  withSink(server, async (sink, database) => {
    await sink.mergeWindow(windowOf(1, [mergeTable(before, { states: rows })]));
    const client = await server.connect(database);
    await client.query('CREATE VIEW app.v AS SELECT a FROM app.t');
    const after = numbered(['1 id bigint key', '3 b text']);
    const window = windowOf(2, [mergeTable(after, {})]);
    const error = await failure(sink.mergeWindow(window));
    expect(error).toMatchObject({ code: 'TM405', remedy: expect.stringContaining('depends on the column') });
    await client.query('DROP VIEW app.v');
    await sink.mergeWindow(window);
    expect(sorted(await readAll(sink, after, at(2)))).toEqual(
      sorted([
        ['1', 'b1'],
        ['2', null],
      ]),
    );
    await client.end();
  }));

describe('enum labels', () => {
  const level = (labels: string[], type = 'app.level') =>
    shape('app', 'levels', [
      'id integer key',
      { name: 'level', type, key: false, nullable: true, enum: { schema: 'app', name: 'level', labels } },
    ]);
  const order = async (client: pg.Client) => {
    const { rows: found } = await client.query(
      'select enumlabel as label from pg_enum order by enumsortorder',
    );
    return found.map(({ label }) => label as string);
  };

  test('new ones take their place, and one that only a row tells of comes last', () =>
    withSink(server, async (sink, database) => {
      const client = await server.connect(database);
      const low = level(['low', 'high']);
      await sink.mergeWindow(windowOf(1, [mergeTable(low, { states: [upsert(low, ['1', 'low'])] })]));
      const states = [upsert(low, ['2', "o'dd"]), upsert(low, ['3', 'high'])];
      await sink.mergeWindow(windowOf(2, [mergeTable(low, { states })]));
      const more = level(['lowest', 'low', 'middle', 'high', "o'dd"]);
      await sink.mergeWindow(windowOf(3, [mergeTable(more, { states: [upsert(more, ['4', 'middle'])] })]));
      expect(await order(client)).toEqual(['lowest', 'low', 'middle', 'high', "o'dd"]);
      expect((await readAll(sink, more, at(3))).length).toBe(4);
      await client.end();
    }));

  test('in arrays', () =>
    withSink(server, async (sink) => {
      const list = level(['low'], 'app.level[]');
      const value = '{low,"new, \\"one",NULL}';
      await sink.mergeWindow(windowOf(1, [mergeTable(list, { states: [upsert(list, ['1', value])] })]));
      expect(await readAll(sink, list, at(1))).toEqual([['1', value]]);
    }));
});
