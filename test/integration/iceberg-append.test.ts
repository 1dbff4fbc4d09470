/** Append mode beside what conformance has: partitions by the day of ingest, upkeep, and the README's view. */
import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { DuckDBInstance } from '@duckdb/node-api';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { type Stack, startStack } from '../../compose/local-stack.ts';
import { propertyNames } from '../../connectors/sinks/iceberg/progress/properties.ts';
import type {
  AppendSink,
  AppendWindow,
  Maintainable,
  MergeSink,
  Row,
  RowEvent,
  Taggable,
} from '../../src/connector/sink.ts';
import { shapeOf } from '../conformance/example-tables.ts';
import { expectRefusal } from '../conformance/trial.ts';
import { icebergReader } from '../iceberg/readers.ts';
import { Place, position, sorted, upkeep, upsert, windowOf } from '../iceberg/sink-place.ts';

type Sink = AppendSink & Maintainable & Taggable;

const shape = shapeOf('findings', ['id bigint key', 'severity text', 'score double precision']);
const dayUs = 86_400_000_000n;
/** 2026-02-03 UTC. */
const firstDay = 20_487n;

let stack: Stack;
let folder: string;
let places = 0;

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'iceberg-append-'));
  stack = await startStack({ directory: join(folder, 'stack'), parts: ['iceberg'] });
});

afterAll(async () => {
  await stack?.stop();
  await rm(folder, { recursive: true, force: true });
});

function place(): Place {
  places += 1;
  return new Place(stack, folder, `append_${places}`, {
    'iceberg.mode': 'append',
    'iceberg.compact.files': 0,
  });
}

function event(n: number, op: RowEvent['op'], id: number, rest: Row = [`severity ${n}`, `${n}.5`]): RowEvent {
  const key: Row = op === 't' ? [] : [String(id)];
  const values = op === 't' ? [] : op === 'd' ? [...key, undefined, undefined] : [...key, ...rest];
  return { op, position: position(n), commitTimeUs: 1n, key, values, previousKey: null, before: null };
}

/** @param day of its ingest */
function appendOf(n: number, token: bigint, day: number, events: RowEvent[]): AppendWindow {
  const { sweeps: _, ...window } = windowOf(n, token, shape, []);
  return {
    ...window,
    commitTimeUs: (firstDay + BigInt(day)) * dayUs + 5_000_000n,
    tables: [
      {
        shape,
        async *events() {
          yield events;
        },
      },
    ],
  };
}

/** Days of data files, with how many each has. */
function partitions(here: Place): Promise<Record<string, number>> {
  return here.inLake(shape, async (lake, table) => {
    const days: Record<string, number> = {};
    for (const { partition } of (await lake.live(table)).dataFiles()) {
      const day = String(Number(partition[0]) - Number(firstDay));
      days[day] = (days[day] ?? 0) + 1;
    }
    return days;
  });
}

async function readBack(sink: AppendSink, n: number): Promise<Row[]> {
  const read: Row[] = [];
  for await (const rows of sink.readTable!(shape, position(n))) read.push(...rows);
  return sorted(read);
}

test('Changes lie under the day of their Window, and a try after a crash puts them there again', async () => {
  const here = place();
  const sink = await here.open<Sink>();
  await sink.appendWindow(appendOf(1, 1n, 0, [event(1, 'c', 1), event(1, 'c', 2)]));
  const crashed = await here.open<Sink>(async (name) => {
    if (name === 'iceberg-sink-tables-committed') throw new Error('crash');
  });
  // Its own commit time is of another day.
  const window = appendOf(2, 2n, 1, [event(2, 'u', 1)]);
  await expect(crashed.appendWindow(window)).rejects.toThrow('crash');
  const heir = await here.open<Sink>();
  await heir.appendWindow({ ...window, fencingToken: 3n });
  await heir.appendWindow(appendOf(3, 3n, 1, [event(3, 'd', 2)]));
  expect(await partitions(here)).toEqual({ 0: 1, 1: 2 });
  expect(await here.files(shape)).toMatchObject({ deletes: 0 });
  expect(await readBack(heir, 3)).toEqual([['1', 'severity 2', '2.5']]);
  // As it was.
  expect(await readBack(heir, 1)).toEqual([
    ['1', 'severity 1', '1.5'],
    ['2', 'severity 1', '1.5'],
  ]);
  await here.inLake(shape, async (_lake, { metadata }) => {
    const { properties, snapshots } = metadata;
    expect(properties[propertyNames.sequence]).toBe('3');
    expect(snapshots.at(-1)!.summary).toMatchObject({
      operation: 'append',
      [propertyNames.position]: position(3),
      [propertyNames.sequence]: '3',
    });
  });
  for (const each of [sink, crashed, heir]) await each.close();
});

test('upkeep makes few files of each day, in the order of Positions, and loses no Change', async () => {
  const here = place();
  const sink = await here.open<Sink>();
  for (let n = 1; n <= 8; n += 1)
    await sink.appendWindow(appendOf(n, 1n, n > 4 ? 1 : 0, [event(n, 'c', n), event(n, 'u', 1)]));
  const tag = await sink.tag('half');
  expect(tag.complete).toBe(true);
  const before = await readBack(sink, 8);
  expect(await partitions(here)).toEqual({ 0: 4, 1: 4 });
  const done = await sink.maintain(upkeep({ expireAfterMs: 0, keepLast: 1 }));
  expect(done.filter(({ left }) => left !== null)).toEqual([]);
  expect(await partitions(here)).toEqual({ 0: 1, 1: 1 });
  expect(await readBack(sink, 8)).toEqual(before);
  const { columns, rows } = await icebergReader('duckdb').readTable(here.catalog, here.identifier(shape));
  expect(rows).toHaveLength(16);
  const positions = rows.map((row) => row[columns.indexOf('_position')]!);
  expect(positions).toEqual([...positions].sort());
  await sink.appendWindow(appendOf(9, 1n, 1, [event(9, 'd', 1)]));
  expect(await readBack(sink, 9)).toEqual(before.filter(([id]) => id !== '1'));
  await sink.close();
});

test('the view of the README gives the latest state', async () => {
  const here = place();
  const sink = await here.open<Sink>();
  await sink.appendWindow(appendOf(1, 1n, 0, [event(1, 'c', 1), event(1, 'c', 2)]));
  await sink.appendWindow(appendOf(2, 1n, 0, [event(2, 't', 0)]));
  await sink.appendWindow(appendOf(3, 1n, 0, [event(3, 'c', 2), event(3, 'c', 3), event(3, 'c', 4)]));
  await sink.appendWindow(appendOf(4, 1n, 1, [event(4, 'u', 2), event(4, 'd', 3)]));
  const readme = await readFile(
    join(import.meta.dirname, '../../connectors/sinks/iceberg/README.md'),
    'utf8',
  );
  const view = /^CREATE VIEW findings_now AS.*?;$/ms.exec(readme)![0];
  const { columns, rows } = await icebergReader('duckdb').readTable(here.catalog, here.identifier(shape));
  const instance = await DuckDBInstance.create(':memory:', { threads: '1' });
  const connection = await instance.connect();
  await connection.run(`CREATE TABLE seen (${columns.map((name) => `"${name}" VARCHAR`).join(', ')})`);
  for (const row of rows)
    await connection.run(`INSERT INTO seen VALUES (${row.map((_, i) => `$${i + 1}`).join(', ')})`, [...row]);
  await connection.run(view.replaceAll('lake.app.findings', 'seen'));
  const now = await connection.runAndReadAll('SELECT id, severity, score FROM findings_now');
  expect(sorted(now.getRows() as Row[])).toEqual(await readBack(sink, 4));
  connection.closeSync();
  instance.closeSync();
  await sink.close();
});

test('a table stays in the mode that it began in', async () => {
  const here = place();
  const sink = await here.open<Sink>();
  await sink.appendWindow(appendOf(1, 1n, 0, [event(1, 'c', 1)]));
  await sink.close();
  const merging = await here.open<MergeSink>(undefined, { 'iceberg.mode': 'merge' });
  const states = [upsert(2, ['1'], ['1', 'high', '1'])];
  await expectRefusal(merging.mergeWindow(windowOf(2, 2n, shape, states)), 'TM405');
  await merging.close();
  await expectRefusal(here.open(undefined, { history: true }), 'TM101');
});
