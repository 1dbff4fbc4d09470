/** Where files lie changes nothing about the table, and keeps all Changes of a key together where its time is in the key. */
import { readdir } from 'node:fs/promises';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';
import type { OptionValues, RowEvent } from '../../src/connector/sink.ts';
import {
  asJsonl,
  at,
  column,
  commitTime,
  filePlace,
  insert,
  openSink,
  type Place,
  readAll,
  shapeOf,
  sorted,
  temporaryFolder,
  windowOf,
} from './parquet-harness.ts';

const shape = shapeOf('events', [
  column('id', 'integer', true),
  column('seen', 'timestamp with time zone', true),
  column('body', 'text'),
]);
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

test.each(['duckdb', 'parquetjs', 'jsonl'])('%s', async (writer) => {
  const parquet: OptionValues = { ...place.options(`partitions-${writer}`), 'parquet.encoder': writer };
  const options = writer === 'jsonl' ? asJsonl(parquet) : parquet;
  const old = '2019-05-01 10:00:00+00';
  const older = '2018-01-01 00:00:00+00';
  const keyed = (op: RowEvent['op'], lsn: number, key: string[], body?: string | null): RowEvent => ({
    ...insert(shape, lsn, [...key, null]),
    op,
    key,
    values: op === 'e' ? [] : [...key, body],
  });
  const windows: RowEvent[][] = [
    [
      keyed('c', 1, ['1', old], 'one'),
      keyed('c', 2, ['2', 'infinity'], 'two'),
      keyed('c', 3, ['3', old], 'three'),
    ],
    // Days later: an update that shows the body no more, an eviction, a delete.
    [keyed('u', 101, ['1', old], undefined), keyed('e', 102, ['1', old]), keyed('d', 103, ['3', old])],
    // The row's time changes: its unchanged body is in the other partition.
    [
      keyed('d', 201, ['2', 'infinity']),
      { ...keyed('c', 201, ['2', older], undefined), position: at(201, 2), previousKey: ['2', 'infinity'] },
      { ...keyed('t', 202, []), key: [], values: [] },
      keyed('c', 203, ['4', older], 'four'),
    ],
  ];
  let end = 0;
  for (const [index, events] of windows.entries()) {
    // The second Window is another process that dates its files by the commit.
    const more: OptionValues = index === 1 && writer === 'parquetjs' ? { 'partition.date': 'commit' } : {};
    const { sink } = await openSink({ ...options, ...more }, join(scratch.path, `${writer}-${index}`));
    await sink.appendWindow(windowOf(shape, index + 1, [end, index * 100 + 99], events));
    end = index * 100 + 99;
    await sink.close();
  }
  const { sink } = await openSink(options, join(scratch.path, writer));
  expect(sorted(await readAll(sink, shape, at(199)))).toEqual([
    ['1', old, 'one'],
    ['2', 'infinity', 'two'],
  ]);
  // The truncate leaves the row that the source had let go of.
  expect(sorted(await readAll(sink, shape, at(end)))).toEqual([
    ['1', old, 'one'],
    ['4', older, 'four'],
  ]);
  await sink.close();
  const data = join(String(parquet['parquet.url']).slice(7), 'app.events', 'data', 'tenant=__none__');
  const dates = (await readdir(data)).map((name) => name.replace('date=', '')).sort();
  const truncated = new Date(Number(commitTime(202) / 1000n)).toISOString().slice(0, 10);
  const committed = new Date(Number(commitTime(101) / 1000n)).toISOString().slice(0, 10);
  expect(dates).toEqual(
    [
      '2018-01-01',
      '2019-05-01',
      ...(writer === 'parquetjs' ? [committed] : []),
      truncated,
      '__HIVE_DEFAULT_PARTITION__',
    ].sort(),
  );
  const changes = await readdir(join(data, 'date=2019-05-01'));
  expect(changes).toHaveLength(writer === 'parquetjs' ? 1 : 2);
});
