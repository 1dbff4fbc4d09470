/**
 * Small files of closed dates become few, and a reader sees the same table before, after and in between, whoever is
 * killed wherever and however many do it at once.
 */
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { generationFolder, latestGeneration } from '../../connectors/object-log/generations.ts';
import { attemptFolder, latestSqlKey, manifestKey, tableFolder } from '../../connectors/object-log/layout.ts';
import { locationFrom } from '../../connectors/object-log/location.ts';
import type { Manifest } from '../../connectors/object-log/manifest.ts';
import { listAll, type ObjectStore } from '../../connectors/object-log/object-store.ts';
import { openStore } from '../../connectors/object-log/open-store.ts';
import type { OptionValues, Row, RowEvent } from '../../src/connector/sink.ts';
import {
  asJsonl,
  at,
  column,
  filePlace,
  insert,
  type Opened,
  openSink,
  type Place,
  readAll,
  runScript,
  s3Place,
  shapeOf,
  sorted,
  temporaryFolder,
  windowOf,
} from './parquet-harness.ts';

const shape = shapeOf('logs', [column('id', 'integer', true), column('note', 'text')]);
const unit = 'app.logs';
/** commitTime moves a day in this many LSNs. */
const day = 86_400_000_000 / 7_000_000_000;

describe.each([
  ['parquet', 'file', filePlace],
  ['parquet', 's3', s3Place],
  ['jsonl', 'file', filePlace],
  ['jsonl', 's3', s3Place],
] as const)('%s on %s', (kind, _name, start) => {
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

  const optionsOf = (name: string, more: OptionValues = {}): OptionValues => {
    const parquet = place.options(`${kind}-${name}`);
    return { ...(kind === 'jsonl' ? asJsonl(parquet) : parquet), 'compact.files': 4, ...more };
  };
  const storeOf = (options: OptionValues): Promise<ObjectStore> =>
    openStore(locationFrom(options, `${kind}.url`));
  const keysIn = async (store: ObjectStore, folder: string): Promise<string[]> => {
    const keys: string[] = [];
    for await (const page of listAll(store, folder)) keys.push(...page);
    return keys.sort();
  };
  const dataIn = (store: ObjectStore) => keysIn(store, `${tableFolder(unit)}/data/`);

  /** Windows of a row each, an update and a delete among them; the first nine are of one date. */
  const eventsOf = (sequence: number): RowEvent[] => {
    const base = insert(shape, sequence, [String(sequence), `note ${sequence}`]);
    if (sequence % 5 === 0) return [{ ...base, op: 'u', key: ['1'], values: ['1', `changed ${sequence}`] }];
    if (sequence === 7) return [{ ...base, op: 'd', key: ['2'], values: ['2', undefined] }];
    return [base];
  };
  const append = (opened: Opened, sequence: number, lsn = sequence) =>
    opened.sink.appendWindow(windowOf(shape, sequence, [lsn, lsn + 1], eventsOf(sequence)));
  const fill = async (opened: Opened, windows: number): Promise<void> => {
    for (let sequence = 1; sequence <= windows; sequence += 1) await append(opened, sequence);
  };
  /** The Window that opens the next day, far behind. */
  const nextDay = (opened: Opened, sequence: number) => {
    const lsn = Math.ceil(day) * 2 + sequence;
    const event = insert(shape, lsn, [String(sequence), 'next day']);
    return opened.sink.appendWindow(windowOf(shape, sequence, [lsn, lsn + 1], [event]));
  };
  const generationOf = async (store: ObjectStore, number: number, clean = true) => {
    for (let tries = 0; tries < 200; tries += 1) {
      const found = await latestGeneration(store, unit);
      // The record of the attempt goes last.
      const left = clean ? (await keysIn(store, attemptFolder(unit))).length : 0;
      if (found !== null && found.generation >= number && left === 0) return found;
      await sleep(50);
    }
    throw new Error('no generation was written');
  };
  const end = at(1_000_000);

  test('the table is the same before and after, at every Position, also as a reader of old lists sees it', async () => {
    const options = optionsOf('same');
    const opened = await openSink(options, join(scratch.path, 'same'));
    await fill(opened, 9);
    const store = await storeOf(options);
    const before: Row[][] = [];
    for (const lsn of [4, 7, 8, 10]) before.push(sorted(await readAll(opened.sink, shape, at(lsn))));
    const oldFiles = await dataIn(store);
    const oldSql = String(await store.get(latestSqlKey(unit)));
    await nextDay(opened, 10);
    const generation = await generationOf(store, 1);
    expect(generation.files.map(({ rows }) => rows).sort()).toEqual([9]);
    expect(generation.retired).toHaveLength(9);
    const after: Row[][] = [];
    for (const lsn of [4, 7, 8, 10]) after.push(sorted(await readAll(opened.sink, shape, at(lsn))));
    expect(after).toEqual(before);
    expect(await readAll(opened.sink, shape, end)).toHaveLength(before[3]!.length + 1);
    // Nothing is taken away from those who began before.
    expect(await dataIn(store)).toEqual(expect.arrayContaining(oldFiles));
    await append(opened, 11, 1000);
    const manifest = JSON.parse(String(await store.get(manifestKey(unit, 11)))) as Manifest;
    expect(manifest.formatVersion).toBe(2);
    if (place.readable) {
      const rows = before[3]!.length + 2;
      for (const sql of [oldSql, String(await store.get(latestSqlKey(unit)))]) {
        expect((await runScript(sql)).rows).toHaveLength(rows);
      }
      const past = oldSql.replace('tidemark_at = NULL', `tidemark_at = '${at(7)}'`);
      expect((await runScript(past)).rows).toHaveLength(before[1]!.length);
    }
    await opened.sink.close();
    await store.close();
  });

  test('replaced files go after their grace', async () => {
    const options = optionsOf('grace', { 'compact.grace': 0 });
    const opened = await openSink(options, join(scratch.path, 'grace'));
    await fill(opened, 6);
    await nextDay(opened, 7);
    const store = await storeOf(options);
    await generationOf(store, 1);
    const rows = sorted(await readAll(opened.sink, shape, end));
    await opened.sink.close();
    // The next process looks once, and again on the next day.
    const next = await openSink(options, join(scratch.path, 'grace'));
    const lsn = Math.ceil(day) * 2 + 8;
    await next.sink.appendWindow(windowOf(shape, 8, [lsn, lsn + 1], []));
    for (let tries = 0; tries < 200 && (await dataIn(store)).length > 2; tries += 1) await sleep(50);
    expect(await dataIn(store)).toHaveLength(2);
    expect(sorted(await readAll(next.sink, shape, end))).toEqual(rows);
    await next.sink.close();
    await store.close();
  });

  test.each(['before-merge', 'before-generation', 'after-generation'])(
    'whoever is killed at %s leaves a table that reads the same, and what it left is swept',
    async (point) => {
      const options = optionsOf(`killed-${point}`);
      let reached!: () => void;
      const there = new Promise<void>((resolve) => {
        reached = resolve;
      });
      const killed = await openSink(options, join(scratch.path, point), (name) => {
        if (name !== `${kind}:${point}`) return Promise.resolve();
        reached();
        // For ever: as far as the store can tell, the process is gone.
        return new Promise(() => {});
      });
      await fill(killed, 6);
      const rows = sorted(await readAll(killed.sink, shape, at(7)));
      await nextDay(killed, 7);
      await there;
      const other = await openSink(options, join(scratch.path, `${point}-2`));
      expect(sorted(await readAll(other.sink, shape, at(7)))).toEqual(rows);
      await other.sink.appendWindow(windowOf(shape, 8, [900, 901], []));
      const store = await storeOf(options);
      const found = await generationOf(store, 1, false);
      expect(found.files.reduce((sum, file) => sum + file.rows, 0)).toBe(7);
      await other.sink.close();
      // Those of the generation are decided now: the next process deletes what no list names.
      const last = await openSink(options, join(scratch.path, `${point}-3`));
      await last.sink.appendWindow(windowOf(shape, 9, [901, 902], []));
      for (let tries = 0; tries < 200; tries += 1) {
        if ((await keysIn(store, attemptFolder(unit))).length === 0) break;
        await sleep(50);
      }
      expect(await keysIn(store, attemptFolder(unit))).toEqual([]);
      const named = [...found.files, ...found.retired].map(({ path }) => `${tableFolder(unit)}/${path}`);
      expect(await dataIn(store)).toEqual(named.sort());
      expect(sorted(await readAll(last.sink, shape, at(7)))).toEqual(rows);
      await last.sink.close();
      await store.close();
    },
  );

  test('of two that merge the same files one wins, and the other leaves nothing', async () => {
    const options = optionsOf('two');
    let waiting = 0;
    let both!: () => void;
    const started = new Promise<void>((resolve) => {
      both = resolve;
    });
    const meet = async (name: string) => {
      if (name !== `${kind}:before-generation`) return;
      waiting += 1;
      if (waiting === 2) both();
      await started;
    };
    const one = await openSink(options, join(scratch.path, 'one'), meet);
    const two = await openSink(options, join(scratch.path, 'two'), meet);
    await fill(one, 6);
    await nextDay(one, 7);
    await two.sink.appendWindow(windowOf(shape, 8, [900, 901], []));
    const store = await storeOf(options);
    const { files } = await generationOf(store, 1);
    expect(await keysIn(store, generationFolder(unit))).toHaveLength(1);
    expect(await dataIn(store)).toHaveLength(6 + files.length);
    expect(await readAll(two.sink, shape, end)).toHaveLength(6);
    await one.sink.close();
    await two.sink.close();
    await store.close();
  });
});
