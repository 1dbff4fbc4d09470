/** The sinks that keep change files, over a table's shapes: its latest state is that of a table whose source ran ALTER TABLE. */
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { DuckDBInstance } from '@duckdb/node-api';
import { afterAll, beforeAll, describe, expect, test, vi } from 'vitest';
import type { TableShape } from '../../src/connector/shape.ts';
import type { AppendTable, Cell, OptionValues, Row, RowEvent } from '../../src/connector/sink.ts';
import {
  asJsonl,
  at,
  column,
  commitTime,
  filePlace,
  openSink,
  type Place,
  readAll,
  shapeOf,
  sorted,
  temporaryFolder,
  windowOf,
} from './parquet-harness.ts';

vi.setConfig({ testTimeout: 60_000 });

let place: Place;
let scratch: Awaited<ReturnType<typeof temporaryFolder>>;
beforeAll(async () => {
  place = await filePlace();
  scratch = await temporaryFolder();
});
afterAll(async () => {
  await place?.stop();
  await scratch?.remove();
});

/** `1 id integer key`, `4 c text = missing`. */
function table(columns: string[], oid = 1): TableShape {
  const parts = columns.map((text) => /^(\d+) (\S+) (.*?)( key)?(?: = (.*))?$/.exec(text)!);
  const shape = shapeOf(
    't',
    parts.map(([, number, name, type, key, missing]) => ({
      ...column(name!, type!, key !== undefined),
      number: Number(number),
      ...(missing === undefined ? {} : { missing }),
    })),
  );
  return { ...shape, oid };
}

/** The nth Change; of a table without a key `before` is the whole old row. */
function event(
  shape: TableShape,
  n: number,
  op: RowEvent['op'],
  values: (Cell | undefined)[],
  before: Row | null = null,
): RowEvent {
  return {
    op,
    position: at(n, 1),
    commitTimeUs: commitTime(n),
    key: shape.keyColumns.map((i) => values[i] as string),
    values,
    previousKey: null,
    before,
  };
}

interface Part {
  shape: TableShape;
  events: RowEvent[];
}

let serial = 0;

/** All parts in one Window, or one each; the rows as verify and as `_latest.sql` see them. */
async function latest(parts: Part[], together: boolean, encoder: string): Promise<Row[]> {
  const options: OptionValues = place.options(`shapes-${serial++}`);
  const parquet: OptionValues = { ...options, 'parquet.encoder': encoder };
  if (encoder === 'parquetjs') parquet['parquet.compression'] = 'snappy';
  const { sink } = await openSink(
    encoder === 'jsonl' ? asJsonl(options) : parquet,
    join(scratch.path, String(serial)),
  );
  const tables = parts.map(
    ({ shape, events }): AppendTable => ({
      shape,
      async *events() {
        yield events;
      },
    }),
  );
  const { shape } = parts.at(-1)!;
  if (together) await sink.appendWindow({ ...windowOf(shape, 1, [0, 100], []), tables });
  else {
    for (const [i, { events }] of parts.entries()) {
      const bounds: [number, number] = [i * 10, (i + 1) * 10];
      expect(events.every(({ position }) => position > at(bounds[0]) && position < at(bounds[1]))).toBe(true);
      await sink.appendWindow({ ...windowOf(shape, i + 1, bounds, []), tables: [tables[i]!] });
    }
  }
  const rows = sorted(await readAll(sink, shape, at(100)));
  await sink.close();
  const sql = await readFile(join(String(options['parquet.url']).slice(7), 'app.t', '_latest.sql'), 'utf8');
  const connection = await (await DuckDBInstance.create(':memory:')).connect();
  const statements = await connection.extractStatements(sql);
  for (let i = 0; i < statements.count - 1; i++) await (await statements.prepare(i)).run();
  const answer = await connection.runAndReadAll('FROM tidemark_latest');
  expect(answer.columnNames().slice(0, shape.columns.length)).toEqual(shape.columns.map(({ name }) => name));
  expect(answer.getRows().length).toBe(rows.length);
  connection.closeSync();
  return rows;
}

const first = table(['1 id integer key', '2 a text', '3 b text']);
const start: Part = {
  shape: first,
  events: [
    event(first, 1, 'c', ['1', 'a1', 'b1']),
    event(first, 2, 'c', ['2', 'a2', 'toast']),
    event(first, 3, 'u', ['2', 'a2', undefined]),
    event(first, 4, 'c', ['3', 'a3', 'b3']),
    event(first, 5, 'd', ['3', undefined, undefined]),
  ],
};

const cases: Record<string, { parts: Part[]; expected: Row[] }> = {};
function follow(name: string, expected: Row[], ...parts: Part[]): void {
  cases[name] = { parts: [start, ...parts], expected };
}

const added = table([
  '1 id integer key',
  '2 a text',
  '3 b text',
  '4 c timestamp with time zone = 2020-01-02 03:04:05+00',
]);
follow(
  'a column added with a default',
  [
    ['1', 'a1', 'b1', '2020-01-02 03:04:05+00'],
    ['2', 'x', 'toast', '2020-01-02 03:04:05+00'],
    ['4', 'y', null, null],
  ],
  {
    shape: added,
    events: [
      event(added, 11, 'c', ['4', 'y', null, null]),
      // A value that existed before the column's first row, and was never written since.
      event(added, 12, 'u', ['2', 'x', undefined, undefined]),
    ],
  },
);
const swapped = table(['1 id integer key', '2 b text', '3 a text']);
follow(
  'two columns that swap their names',
  [
    ['1', 'a1', 'b1'],
    ['2', 'a2', 'toast'],
    ['4', 'x', 'y'],
  ],
  {
    shape: swapped,
    events: [event(swapped, 11, 'c', ['4', 'x', 'y']), event(swapped, 12, 'u', ['2', 'a2', undefined])],
  },
);
const again = table(['1 id integer key', '2 a text', '4 b integer = 7']);
follow(
  'a column dropped and added again under its name',
  [
    ['1', 'a1', '7'],
    ['2', 'a2', '8'],
  ],
  { shape: again, events: [event(again, 11, 'u', ['2', 'a2', '8'])] },
);
const wide = table(['1 id bigint key', '2 a text', '3 b text', '5 n integer']);
const wider = table(['1 id bigint key', '3 b text', '5 number bigint']);
follow(
  'a key widened, then a column widened and renamed',
  [
    ['1', 'b1', null],
    ['2', 'toast', '3'],
    ['6', 'b6', '-5'],
    ['7', 'b7', '9007199254740993'],
  ],
  {
    shape: wide,
    events: [event(wide, 11, 'u', ['2', 'a2', undefined, '3']), event(wide, 12, 'c', ['6', 'a', 'b6', '-5'])],
  },
  {
    shape: wider,
    events: [
      event(wider, 21, 'u', ['2', undefined, '3']),
      event(wider, 22, 'c', ['7', 'b7', '9007199254740993']),
    ],
  },
);
const anew = table(['1 b integer key', '2 id text'], 2);
const anewAdded = table(['1 b integer key', '2 id text', '3 a text = later'], 2);
follow(
  'a table made anew under its name, and then a column that the old one had',
  [
    ['1', 'new', 'later'],
    ['2', 'newer', null],
  ],
  { shape: anew, events: [event(anew, 11, 'c', ['1', 'new'])] },
  { shape: anewAdded, events: [event(anewAdded, 21, 'c', ['2', 'newer', null])] },
);
const typed = table([
  '1 id integer key',
  '2 a text',
  '3 b text',
  '4 v uuid',
  '5 f double precision = -0',
  '6 p numeric(5,1)',
]);
const retyped = table(['1 id integer key', '4 v text', '5 f double precision = -0', '6 p numeric(9,1)']);
const uuid = '00000000-0000-4000-8000-00000000000a';
follow(
  'types that change where the texts stay',
  [
    ['1', null, '-0', null],
    ['2', uuid, '1e+20', '-1.5'],
    ['8', 'plain', 'NaN', '12345678.5'],
    ['9', uuid, '0.5', 'NaN'],
  ],
  {
    shape: typed,
    events: [
      event(typed, 11, 'u', ['2', 'a2', undefined, uuid, '1e+20', '-1.5']),
      event(typed, 12, 'c', ['9', 'a', 'b', uuid, '0.5', 'NaN']),
    ],
  },
  { shape: retyped, events: [event(retyped, 21, 'c', ['8', 'plain', 'NaN', '12345678.5'])] },
);

describe.each(['duckdb', 'parquetjs', 'jsonl'])('%s', (encoder) => {
  describe.each([false, true])('in one Window: %s', (together) => {
    test.each(Object.entries(cases))('%s', async (_, { parts, expected }) => {
      expect(await latest(parts, together, encoder)).toEqual(sorted(expected));
    });

    test('rows of a table without a key are found again after every change', async () => {
      const plain = table(['1 a text', '2 n integer', '3 s real']);
      const later = table(['1 b text', '3 s real', '4 d date = 2020-01-01']);
      const last = table(['3 s real', '4 d date = 2020-01-01']);
      const parts: Part[] = [
        {
          shape: plain,
          events: [
            event(plain, 1, 'c', ['x', '1', '0.1']),
            event(plain, 2, 'c', ['x', '1', '0.1']),
            event(plain, 3, 'c', ['y', '2', '-0']),
          ],
        },
        {
          shape: later,
          events: [
            event(later, 11, 'd', ['x', '0.1', '2020-01-01'], ['x', '0.1', '2020-01-01']),
            event(later, 12, 'u', ['z', '-0', null], ['y', '-0', '2020-01-01']),
          ],
        },
        { shape: last, events: [event(last, 21, 'u', ['5', null], ['-0', null])] },
      ];
      expect(await latest(parts, together, encoder)).toEqual(
        sorted([
          ['0.1', '2020-01-01'],
          ['5', null],
        ]),
      );
    });
  });
});

test('another key is TM405 with the remedy', async () => {
  const { sink } = await openSink(place.options('other-key'), join(scratch.path, 'other-key'));
  await sink.appendWindow(windowOf(first, 1, [0, 10], start.events));
  const other = table(['1 id integer', '2 a text key', '3 b text']);
  await expect(
    sink.appendWindow(windowOf(other, 2, [10, 20], [event(other, 11, 'c', ['1', 'a', 'b'])])),
  ).rejects.toMatchObject({ code: 'TM405', remedy: expect.stringContaining('parquet.url') });
  await sink.close();
});
