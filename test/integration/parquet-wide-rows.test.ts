/** Rows that are wide and pack well: their files are small, and what a reader unpacks of them must still be bounded. */
import { afterAll, beforeAll, expect, test, vi } from 'vitest';
import type { RowEvent } from '../../src/connector/sink.ts';
import {
  at,
  column,
  filePlace,
  insert,
  openSink,
  type Place,
  shapeOf,
  temporaryFolder,
  windowOf,
} from './parquet-harness.ts';

vi.setConfig({ testTimeout: 120_000 });

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

// Of 12,800 bytes.
test.each([
  ['duckdb', 25_000],
  ['parquetjs', 10_000],
] as const)('encoder %s: %i wide rows read back, values left untouched included', async (encoder, rows) => {
  const shape = shapeOf('wide', [
    column('id', 'bigint', true),
    column('notes', 'text'),
    column('more', 'text'),
  ]);
  async function* events(): AsyncIterable<RowEvent[]> {
    for (let start = 1; start <= rows; start += 500) {
      yield Array.from({ length: 500 }, (_, i) => {
        const text = String(start + i).padEnd(32, 'x');
        return insert(shape, 1000, [String(start + i), text.repeat(200), text.repeat(200)], start + i);
      });
    }
  }
  const { sink } = await openSink({ ...place.options(encoder), 'parquet.encoder': encoder }, scratch.path);
  await sink.appendWindow(windowOf(shape, 1, [0, 1001], events));
  // All of them leave a long value untouched: those are looked up.
  const updates = Array.from({ length: rows }, (_, i): RowEvent => {
    const update = insert(shape, 2000, [String(i + 1), null, null], i + 1);
    return { ...update, op: 'u', values: [String(i + 1), undefined, undefined] };
  });
  await sink.appendWindow(windowOf(shape, 2, [1001, 2001], updates));
  let count = 0;
  let known = 0;
  for await (const batch of sink.readTable(shape, at(2001))) {
    count += batch.length;
    known += batch.filter((row) => typeof row[1] === 'string' && row[1].length === 6400).length;
  }
  await sink.close();
  expect({ count, known }).toEqual({ count: rows, known: rows });
});
