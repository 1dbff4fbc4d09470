/**
 * Nothing is lost and values survive: whatever happened to a table, the change files give back the table as the model
 * has it, now and at every earlier Window, through readTable and through `_latest.sql` as written.
 */
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { TableShape } from '../../src/connector/shape.ts';
import type { Row } from '../../src/connector/sink.ts';
import {
  asJsonl,
  at,
  filePlace,
  openSink,
  type Place,
  readAll,
  runScript,
  s3Place,
  seeded,
  sorted,
  temporaryFolder,
  windowOf,
} from './parquet-harness.ts';
import { keyedHistory, keyedShape, keylessHistory, keylessShape, type Slice } from './parquet-history.ts';

const seed = Number(process.env.TIDEMARK_SEED ?? Date.now() % 1_000_000);

describe.each([
  ['file', filePlace],
  ['s3', s3Place],
] as const)('on %s', (_name, start) => {
  let place: Place;
  let scratch: Awaited<ReturnType<typeof temporaryFolder>>;
  beforeAll(async () => {
    place = await start();
    scratch = await temporaryFolder();
  }, 600_000);
  afterAll(async () => {
    await place?.stop();
    await scratch?.remove();
  }, 60_000);

  describe.each(['duckdb', 'parquetjs', 'mixed', 'jsonl'] as const)('encoder %s', (encoder) => {
    const kinds: [string, TableShape, typeof keyedHistory][] = [
      ['with a key', keyedShape, keyedHistory],
      ['without a key', keylessShape, keylessHistory],
    ];
    it.each(kinds)(
      'a table %s reads back as the model has it, at every Window',
      async (kind, shape, make) => {
        console.log(`seed ${seed} (TIDEMARK_SEED=${seed} replays it)`);
        const slices = make(seeded(seed), place.readable ? 6 : 4, 300);
        const parquet = place.options(`${encoder}-${kind.replaceAll(' ', '-')}`);
        const compression = place.readable ? 'zstd' : 'gzip';
        const options = encoder === 'jsonl' ? asJsonl(parquet, compression) : parquet;
        const open = (number: number) => {
          const chosen = encoder === 'mixed' ? (number % 2 === 0 ? 'duckdb' : 'parquetjs') : encoder;
          // The smallest budget: a slice takes DuckDB several rounds.
          const memory = { 'parquet.memory.bytes': 32 * 1024 * 1024 };
          const own = encoder === 'jsonl' ? {} : { ...memory, 'parquet.encoder': chosen };
          return openSink({ ...options, ...own }, scratch.path);
        };
        for (const [number, slice] of slices.entries()) {
          const { sink } = await open(number);
          const receipt = await sink.appendWindow(windowOf(shape, number + 1, slice.bounds, slice.events));
          expect(receipt).toMatchObject({
            position: at(slice.bounds[1]),
            alreadyHeld: false,
            rows: { upserted: 0, deleted: 0, appended: slice.events.length },
          });
          await sink.close();
        }
        const { sink } = await open(0);
        for (const { bounds, rows } of slices) {
          expectSame(shape, await readAll(sink, shape, at(bounds[1])), rows);
        }
        await sink.close();
        if (place.readable) await expectLatestSql(String(parquet['parquet.url']).slice(7), shape, slices);
      },
      240_000,
    );
  });
});

function expectSame(shape: TableShape, actual: Row[], expected: Row[]): void {
  const [left, right] = [sorted(actual), sorted(expected)];
  expect(left.length).toBe(right.length);
  for (const [index, row] of left.entries()) {
    for (const [place, { name }] of shape.columns.entries()) {
      expect(`${name}: ${row[place]?.slice(0, 80)}`).toBe(`${name}: ${right[index]![place]?.slice(0, 80)}`);
    }
  }
  expect(left).toEqual(right);
}

/** The script beside the data: its text columns and the row count are enough, the rest is readTable's own SQL. */
async function expectLatestSql(directory: string, shape: TableShape, slices: Slice[]): Promise<void> {
  const sql = await readFile(join(directory, `app.${shape.name}`, '_latest.sql'), 'utf8');
  const places = ['body', 'tags', 'free'].map((name) => shape.columns.findIndex((one) => one.name === name));
  const pick = (rows: Row[]) => sorted(rows.map((row) => places.map((place) => row[place]!)));
  for (const { bounds, rows } of [slices[slices.length - 1]!, slices[2]!]) {
    const bound = sql.replace('tidemark_at = NULL', `tidemark_at = '${at(bounds[1])}'`);
    const answer = await runScript(bounds === slices[slices.length - 1]!.bounds ? sql : bound);
    expect(answer.names.slice(0, shape.columns.length)).toEqual(shape.columns.map(({ name }) => name));
    expect(pick(answer.rows as Row[])).toEqual(pick(rows));
  }
}
