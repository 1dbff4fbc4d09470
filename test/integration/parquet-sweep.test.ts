/** The end of a snapshot is a row of its own among the changes: the latest state is without what it did not see. */
import { readFile } from 'node:fs/promises';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { tableFolder } from '../../connectors/object-log/layout.ts';
import type { PartialRow, RowEvent } from '../../src/connector/sink.ts';
import {
  at,
  column,
  commitTime,
  filePlace,
  insert,
  openSink,
  type Place,
  readAll,
  runScript,
  shapeOf,
  sorted,
  temporaryFolder,
  windowOf,
} from './parquet-harness.ts';

const shape = shapeOf('notes', [
  column('id', 'integer', true),
  column('title', 'text'),
  column('body', 'text'),
]);

const read = (lsn: number, values: string[], ordinal = 1): RowEvent => ({
  ...insert(shape, lsn, values, ordinal),
  op: 'r',
});
const update = (lsn: number, values: PartialRow): RowEvent => ({
  ...insert(shape, lsn, [values[0]!]),
  op: 'u',
  values,
});
const end = (lsn: number, since: number): RowEvent => ({
  op: 's',
  position: at(lsn, 2),
  commitTimeUs: commitTime(lsn),
  key: [],
  values: [],
  previousKey: null,
  before: null,
  since: at(since),
});

describe.each(['duckdb', 'parquetjs'])('with the encoder %s', (encoder) => {
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

  test('rows from before its start are gone from there on, and still there before', async () => {
    const options = { ...place.options('notes'), 'parquet.encoder': encoder };
    const { sink } = await openSink(options, scratch.path);
    const receipts = [];
    for (const [sequence, [from, to, ...events]] of [
      [0, 10, ...['1', '2', '3', '4'].map((id, i) => insert(shape, 5, [id, 'old', `body ${id}`], i + 1))],
      // The snapshot begins at 10; an update leaves a column alone that a row from before has.
      [10, 20, update(15, ['2', 'changed', undefined]), read(20, ['1', 'old', 'body 1'])],
      [20, 30, end(25, 10), insert(shape, 28, ['3', 'again', null])],
      [30, 40, insert(shape, 35, ['9', 'later', null])],
    ].entries() as unknown as [number, [number, number, ...RowEvent[]]][])
      receipts.push(await sink.appendWindow(windowOf(shape, sequence + 1, [from, to], events)));
    expect(receipts[2]!.rows.appended).toBe(2);
    const old = ['1', '3', '4'].map((id) => [id, 'old', `body ${id}`]);
    const kept = [
      ['1', 'old', 'body 1'],
      ['2', 'changed', 'body 2'],
    ];
    expect(sorted(await readAll(sink, shape, at(24)))).toEqual(sorted([...old, kept[1]!]));
    expect(sorted(await readAll(sink, shape, at(26)))).toEqual(sorted(kept));
    const latest = [...kept, ['3', 'again', null], ['9', 'later', null]];
    expect(sorted(await readAll(sink, shape, at(40)))).toEqual(sorted(latest));
    const script = await readFile(
      `${place.options('notes')['parquet.url']}/${tableFolder('app.notes')}/_latest.sql`.replace(
        'file://',
        '',
      ),
      'utf8',
    );
    const { rows, names } = await runScript(script);
    expect(names.slice(0, 3)).toEqual(['id', 'title', 'body']);
    expect(rows.map(([id]) => String(id)).sort()).toEqual(['1', '2', '3', '9']);
    await sink.close();
  });

  test('in a Window without a row of the table, of which nothing is left', async () => {
    const options = { ...place.options('empty'), 'parquet.encoder': encoder };
    const { sink } = await openSink(options, scratch.path);
    await sink.appendWindow(windowOf(shape, 1, [0, 10], [insert(shape, 5, ['1', 'old', 'body'])]));
    await sink.appendWindow(windowOf(shape, 2, [20, 30], [end(25, 10)]));
    expect(await readAll(sink, shape, at(30))).toEqual([]);
    await sink.close();
  });
});
