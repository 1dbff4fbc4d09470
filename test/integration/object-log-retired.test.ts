/** Rows that the source let go of stay part of the table, whatever empties it later, until their key changes. */
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import type { Cell, OptionValues, Row, RowEvent } from '../../src/connector/sink.ts';
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
  runScript,
  seeded,
  shapeOf,
  sorted,
  temporaryFolder,
  windowOf,
} from './parquet-harness.ts';

const shape = shapeOf('notes', [column('id', 'integer', true), column('body', 'text')]);
const seed = Number(process.env.TIDEMARK_SEED ?? Date.now() % 1_000_000);

const bare = (op: RowEvent['op'], lsn: number, key: Cell[] = []): RowEvent => ({
  op,
  position: at(lsn, 1),
  commitTimeUs: commitTime(lsn),
  key,
  values: [],
  previousKey: null,
  before: null,
});
const change = (op: RowEvent['op'], lsn: number, id: string, body?: Cell): RowEvent => ({
  ...insert(shape, lsn, [id, null]),
  op,
  values: [id, body],
});
const ended = (lsn: number, since: number): RowEvent => ({ ...bare('s', lsn), since: at(since) });

describe.each(['duckdb', 'parquetjs', 'jsonl'])('%s', (writer) => {
  let place: Place;
  let scratch: Awaited<ReturnType<typeof temporaryFolder>>;
  let serial = 0;
  beforeAll(async () => {
    place = await filePlace();
    scratch = await temporaryFolder();
  });
  afterAll(async () => {
    await place?.stop();
    await scratch?.remove();
  });

  /** The rows after each of the Windows, and the last ones also as `_latest.sql` has them. */
  async function rowsAfter(windows: RowEvent[][]): Promise<Row[][]> {
    serial += 1;
    const parquet: OptionValues = { ...place.options(`retired-${serial}`), 'parquet.encoder': writer };
    const { sink } = await openSink(
      writer === 'jsonl' ? asJsonl(parquet) : parquet,
      join(scratch.path, String(serial)),
    );
    const ends: number[] = [];
    for (const [index, events] of windows.entries()) {
      const bounds: [number, number] = [ends.at(-1) ?? 0, (index + 1) * 1000];
      await sink.appendWindow(windowOf(shape, index + 1, bounds, events));
      ends.push(bounds[1]);
    }
    const all: Row[][] = [];
    for (const end of ends) all.push(sorted(await readAll(sink, shape, at(end))));
    await sink.close();
    const folder = join(String(parquet['parquet.url']).slice(7), 'app.notes');
    const { rows } = await runScript(await readFile(join(folder, '_latest.sql'), 'utf8'));
    expect(sorted(rows.map(([id, body]) => [String(id), body as Cell]))).toEqual(all.at(-1));
    return all;
  }

  test('through truncates and the ends of snapshots, unchanged values and all', async () => {
    const seen = await rowsAfter([
      [...['1', '2', '3', '4', '5'].map((id, i) => change('c', i + 1, id, `body ${id}`))],
      [change('u', 1001, '2', undefined), ...['1', '2', '3', '4'].map((id, i) => bare('e', 1010 + i, [id]))],
      [bare('t', 2001)],
      // A new row, a deleted one, and one that is let go of twice.
      [
        change('c', 3001, '3', 'again'),
        bare('d', 3002, ['4']),
        change('c', 3003, '6', 'six'),
        bare('e', 3004, ['6']),
      ],
      [ended(4005, 3500), bare('t', 4006)],
      [change('r', 5001, '1', 'recalled')],
      [bare('t', 6001)],
    ]);
    expect(seen[1]).toHaveLength(5);
    expect(seen[2]).toEqual(['1', '2', '3', '4'].map((id) => [id, `body ${id}`]));
    expect(seen[3]).toEqual([
      ['1', 'body 1'],
      ['2', 'body 2'],
      ['3', 'again'],
      ['6', 'six'],
    ]);
    expect(seen[4]).toEqual([
      ['1', 'body 1'],
      ['2', 'body 2'],
      ['6', 'six'],
    ]);
    expect(seen[5]![0]).toEqual(['1', 'recalled']);
    expect(seen[6]).toEqual([
      ['2', 'body 2'],
      ['6', 'six'],
    ]);
  });

  test('rows that came out of Quarantine are there at the Position at which their Window begins and ends', async () => {
    serial += 1;
    const parquet: OptionValues = { ...place.options(`retired-${serial}`), 'parquet.encoder': writer };
    const { sink } = await openSink(
      writer === 'jsonl' ? asJsonl(parquet) : parquet,
      join(scratch.path, String(serial)),
    );
    await sink.appendWindow(windowOf(shape, 1, [0, 1000], [change('c', 1, '1', 'first')]));
    await sink.appendWindow(windowOf(shape, 2, [1000, 1000], [change('c', 2, '2', 'refused once')]));
    await sink.appendWindow(windowOf(shape, 3, [1000, 2000], [change('c', 1001, '3', 'later')]));
    const ids = async (position: number) =>
      sorted(await readAll(sink, shape, at(position))).map(([id]) => id);
    expect(await ids(1000)).toEqual(['1', '2']);
    expect(await ids(2000)).toEqual(['1', '2', '3']);
    await sink.close();
  });

  test('an eviction of what a truncate or a snapshot had removed brings nothing back', async () => {
    const seen = await rowsAfter([
      [change('c', 1, '1', 'a'), change('c', 2, '2', 'b')],
      [bare('t', 1001), bare('e', 1002, ['1'])],
      [change('c', 2001, '3', 'c'), ended(2600, 2500), bare('e', 2700, ['3'])],
    ]);
    expect(seen[1]).toEqual([]);
    expect(seen[2]).toEqual([]);
  });

  test('in any order, as a table in memory has it', async () => {
    console.log(`seed ${seed} (TIDEMARK_SEED=${seed} replays it)`);
    const random = seeded(seed);
    const table = new Map<string, { body: Cell; changed: number; retired: boolean }>();
    const windows: RowEvent[][] = [];
    const expected: Row[][] = [];
    for (let window = 0; window < 8; window += 1) {
      const events: RowEvent[] = [];
      for (let n = 1; n <= 40; n += 1) {
        const lsn = window * 1000 + n * 10;
        const id = String(random.below(8));
        const row = table.get(id);
        // A change at the very LSN comes after it: its ordinal is 1.
        const clear = (since: number) => {
          for (const [key, each] of table) if (!each.retired && each.changed < since) table.delete(key);
        };
        const dice = random.below(20);
        if (dice === 0) {
          events.push(bare('t', lsn));
          clear(lsn);
        } else if (dice === 1) {
          const since = Math.max(0, lsn - 100);
          events.push(ended(lsn, since));
          clear(since);
        } else if (row === undefined || dice < 7) {
          const body = `body ${lsn}`;
          events.push(change(row ? 'u' : 'c', lsn, id, body));
          table.set(id, { body, changed: lsn, retired: false });
        } else if (dice < 10) {
          events.push(change('u', lsn, id, undefined));
          Object.assign(row, { changed: lsn, retired: false });
        } else if (dice < 12) {
          events.push(bare('d', lsn, [id]));
          table.delete(id);
        } else {
          events.push(bare('e', lsn, [id]));
          row.retired = true;
        }
      }
      windows.push(events);
      expected.push(sorted([...table].map(([id, { body }]) => [id, body])));
    }
    expect(await rowsAfter(windows)).toEqual(expected);
  });
});
