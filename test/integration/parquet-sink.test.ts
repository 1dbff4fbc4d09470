/** The Parquet sink's protocol on a directory and on a real S3 server: what counts, who wins, what is left behind. */
import { readdir, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import {
  attemptFolder,
  manifestFolder,
  manifestKey,
  tableFolder,
} from '../../connectors/object-log/layout.ts';
import { commitManifest, findLatest, type Manifest } from '../../connectors/object-log/manifest.ts';
import { listAll, type ObjectStore } from '../../connectors/object-log/object-store.ts';
import { openStore } from '../../connectors/object-log/open-store.ts';
import { parquetSink } from '../../connectors/sinks/parquet/index.ts';
import { parquetOptionsFrom } from '../../connectors/sinks/parquet/options.ts';
import { TidemarkError } from '../../src/connector/failure.ts';
import { unitName } from '../../src/connector/shape.ts';
import type { OptionValues, Row } from '../../src/connector/sink.ts';
import {
  at,
  column,
  filePlace,
  insert,
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

const shape = shapeOf('orders', [column('id', 'integer', true), column('note', 'text')]);
const unit = 'app.orders';
const rowsOf = (from: number, to: number): Row[] =>
  Array.from({ length: to - from }, (_, index) => [String(from + index), `note ${from + index}`]);
const eventsOf = (from: number, to: number) =>
  rowsOf(from, to).map((row, index) => insert(shape, from + 1, row, index + 1));

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

  const storeOf = async (options: OptionValues): Promise<ObjectStore> => {
    return openStore(parquetOptionsFrom(options).location);
  };
  const keysIn = async (store: ObjectStore, folder: string): Promise<string[]> => {
    const keys: string[] = [];
    for await (const page of listAll(store, folder)) keys.push(...page);
    return keys.sort();
  };
  const dataIn = async (options: OptionValues): Promise<string[]> => {
    const store = await storeOf(options);
    const keys = await keysIn(store, `${tableFolder(unit)}/data/`);
    await store.close();
    return keys;
  };

  it('checks: reachable, writable, readable, conditional, deletable', async () => {
    const { context } = await openSink(place.options('check'), scratch.path);
    const findings = await parquetSink.check(context, place.options('check'));
    expect(findings.map(({ level }) => level)).toEqual(['ok', 'ok', 'ok', 'ok', 'ok']);
    expect(findings.some(({ what }) => what.includes('conditional'))).toBe(true);
  });

  it('an append is held with its Position, and a Window sent again answers its Receipt', async () => {
    const options = place.options('duplicate');
    const { sink } = await openSink(options, scratch.path);
    expect(await sink.held(unit)).toBeNull();
    const window = windowOf(shape, 1, [0, 10], eventsOf(1, 6));
    const receipt = await sink.appendWindow(window);
    const before = await dataIn(options);
    const again = await sink.appendWindow(window);
    expect(again).toEqual({ ...receipt, alreadyHeld: true });
    const { sink: other } = await openSink(options, scratch.path);
    expect(await other.appendWindow({ ...window, fencingToken: 2n })).toEqual({
      ...receipt,
      alreadyHeld: true,
    });
    expect(await other.held(unit)).toEqual({ position: at(10), sequence: 1, fencingToken: 2n });
    expect(await dataIn(options)).toEqual(before);
    expect(sorted(await readAll(other, shape, at(10)))).toEqual(sorted(rowsOf(1, 6)));
    await sink.close();
    await other.close();
  });

  it('an empty Window moves the Position', async () => {
    const { sink } = await openSink(place.options('empty'), scratch.path);
    await sink.appendWindow(windowOf(shape, 1, [0, 10], []));
    await sink.appendWindow({ ...windowOf(shape, 2, [10, 20], []), tables: [] });
    expect(await sink.held(unit)).toMatchObject({ position: at(20), sequence: 2 });
    expect(await readAll(sink, shape, at(20))).toEqual([]);
    await sink.close();
  });

  it('a zombie with a smaller fencing token writes nothing', async () => {
    const options = place.options('zombie');
    const { sink: zombie } = await openSink(options, scratch.path);
    await zombie.appendWindow(windowOf(shape, 1, [0, 10], eventsOf(1, 6), 4n));
    const { sink: owner } = await openSink(options, scratch.path);
    // The new owner only adopts: even so the destination has seen its token.
    await owner.appendWindow(windowOf(shape, 1, [0, 10], eventsOf(1, 6), 5n));
    const refused = zombie.appendWindow(windowOf(shape, 2, [10, 20], eventsOf(10, 12), 4n));
    await expect(refused).rejects.toMatchObject({ code: 'TM403' });
    await owner.appendWindow(windowOf(shape, 2, [10, 20], eventsOf(10, 12), 5n));
    await expect(
      zombie.appendWindow(windowOf(shape, 2, [10, 20], eventsOf(10, 12), 4n)),
    ).rejects.toMatchObject({ code: 'TM403' });
    expect(await owner.held(unit)).toEqual({ position: at(20), sequence: 2, fencingToken: 5n });
    await zombie.close();
    await owner.close();
  });

  it('a zombie that wakes just before its manifest finds the newer owner, and its data is gone', async () => {
    const options = place.options('late-zombie');
    let wake!: () => void;
    let reached!: () => void;
    const atManifest = new Promise<void>((resolve) => {
      reached = resolve;
    });
    const sleeping = new Promise<void>((resolve) => {
      wake = resolve;
    });
    const { sink: zombie } = await openSink(options, scratch.path, async (name) => {
      if (name !== 'parquet:before-manifest') return;
      reached();
      await sleeping;
    });
    const late = zombie.appendWindow(windowOf(shape, 1, [0, 10], eventsOf(1, 6), 1n));
    late.catch(() => {});
    await atManifest;
    const { sink: owner } = await openSink(options, scratch.path);
    await owner.appendWindow(windowOf(shape, 1, [0, 10], eventsOf(1, 6), 2n));
    // The newer owner's sweep already took the zombie's data: that sequence is decided.
    const held = await dataIn(options);
    expect(held.map((key) => key.includes('-2-'))).toEqual([true]);
    wake();
    await expect(late).rejects.toMatchObject({ code: 'TM403' });
    expect(await dataIn(options)).toEqual(held);
    expect(sorted(await readAll(owner, shape, at(10)))).toEqual(sorted(rowsOf(1, 6)));
    await zombie.close();
    await owner.close();
  });

  it('of writers racing for a sequence exactly one wins and the others adopt it', async () => {
    const options = place.options('race');
    const writers = await Promise.all(Array.from({ length: 4 }, () => openSink(options, scratch.path)));
    for (let sequence = 1; sequence <= 5; sequence += 1) {
      const bounds: [number, number] = [sequence * 10 - 10, sequence * 10];
      const receipts = await Promise.all(
        writers.map(({ sink }) =>
          sink.appendWindow(windowOf(shape, sequence, bounds, eventsOf(bounds[0] + 1, bounds[0] + 6))),
        ),
      );
      expect(receipts.filter(({ alreadyHeld }) => !alreadyHeld)).toHaveLength(1);
      expect(new Set(receipts.map(({ contentHash }) => contentHash)).size).toBe(1);
    }
    expect(await dataIn(options)).toHaveLength(5);
    const store = await storeOf(options);
    expect(await keysIn(store, attemptFolder(unit))).toEqual([]);
    await store.close();
    const { sink } = writers[0]!;
    expect(await readAll(sink, shape, at(50))).toHaveLength(25);
    await Promise.all(writers.map((writer) => writer.sink.close()));
  });

  it('a crash before the manifest leaves nothing visible, and the next owner sweeps it', async () => {
    const options = place.options('crash');
    const crashed = await new Promise<Awaited<ReturnType<typeof openSink>>>((resolve, reject) => {
      openSink(options, scratch.path, (name) =>
        name === 'parquet:before-manifest'
          ? new Promise<void>(() => opened.then(resolve))
          : Promise.resolve(),
      ).then((it) => {
        settle(it);
        it.sink.appendWindow(windowOf(shape, 1, [0, 10], eventsOf(1, 6))).catch(reject);
      }, reject);
      let settle!: (it: Awaited<ReturnType<typeof openSink>>) => void;
      const opened = new Promise<Awaited<ReturnType<typeof openSink>>>((done) => {
        settle = done;
      });
    });
    const orphans = await dataIn(options);
    expect(orphans).toHaveLength(1);
    const { sink, logs } = await openSink(options, scratch.path);
    expect(await sink.held(unit)).toBeNull();
    expect(await readAll(sink, shape, at(10))).toEqual([]);
    // Still open: whoever wrote them may be alive.
    expect(await dataIn(options)).toEqual(orphans);
    await sink.appendWindow(windowOf(shape, 1, [0, 10], eventsOf(1, 6), 2n));
    const left = await dataIn(options);
    expect(left).toHaveLength(1);
    expect(left).not.toEqual(orphans);
    expect(logs.some((line) => line.includes('swept'))).toBe(true);
    expect(sorted(await readAll(sink, shape, at(10)))).toEqual(sorted(rowsOf(1, 6)));
    await sink.close();
    void crashed;
  });

  it('the sweep leaves a newer owner and an open sequence alone', async () => {
    const options = place.options('sweep');
    const { sink } = await openSink(options, scratch.path);
    await sink.appendWindow(windowOf(shape, 1, [0, 10], eventsOf(1, 6), 3n));
    const store = await storeOf(options);
    const put = async (name: string) => {
      const path = `data/tenant=__none__/date=2026-11-24/${name}-0.parquet`;
      await store.put(`${tableFolder(unit)}/${path}`, Buffer.from('orphan'));
      await store.put(`${attemptFolder(unit)}${name}.json`, Buffer.from(JSON.stringify({ files: [path] })));
    };
    await put('0000000000000001-3-aaaaaaaaaaaa');
    await put('0000000000000001-9-bbbbbbbbbbbb');
    await put('0000000000000002-3-cccccccccccc');
    await sink.close();
    const { sink: next } = await openSink(options, scratch.path);
    await next.appendWindow(windowOf(shape, 2, [10, 20], [], 3n));
    const left = (await dataIn(options)).join(' ');
    expect(left).not.toContain('aaaaaaaaaaaa');
    expect(left).toContain('bbbbbbbbbbbb');
    expect(left).toContain('cccccccccccc');
    await next.close();
    await store.close();
  });

  it('a sink that wrote here notices that an older state was put in its place', async () => {
    const options = place.options('restored');
    const { sink } = await openSink(options, scratch.path);
    await sink.appendWindow(windowOf(shape, 1, [0, 10], eventsOf(1, 6)));
    await sink.appendWindow(windowOf(shape, 2, [10, 20], []));
    const store = await storeOf(options);
    await store.delete([manifestKey(unit, 2)]);
    await expect(sink.appendWindow(windowOf(shape, 3, [20, 30], []))).rejects.toMatchObject({
      code: 'TM404',
    });
    expect(await sink.held(unit)).toMatchObject({ position: at(10), sequence: 1 });
    await sink.close();
    await store.close();
  });

  it('a Window that does not follow, or has other bounds, stops', async () => {
    const options = place.options('bounds');
    const { sink } = await openSink(options, scratch.path);
    const refused = async (sequence: number, bounds: [number, number], token = 1n) =>
      expect(sink.appendWindow(windowOf(shape, sequence, bounds, [], token))).rejects;
    await (await refused(2, [10, 20])).toMatchObject({ code: 'TM404' });
    await sink.appendWindow(windowOf(shape, 1, [0, 10], eventsOf(1, 6)));
    await (await refused(1, [0, 11])).toMatchObject({ code: 'TM404' });
    await (await refused(3, [20, 30])).toMatchObject({ code: 'TM404' });
    await (await refused(2, [9, 30])).toMatchObject({ code: 'TM404' });
    // Windows without records are not handed to a sink, so the next one may begin later.
    expect(await sink.appendWindow(windowOf(shape, 2, [11, 30], []))).toMatchObject({ position: at(30) });
    await sink.close();
    const foreign = await openSink(options, scratch.path);
    foreign.context.sourceId = 'other';
    await expect(foreign.sink.held(unit)).rejects.toMatchObject({ code: 'TM101' });
    await foreign.sink.close();
  });

  it('a manifest write of unknown outcome is read back, not repeated blindly', async () => {
    const store = await storeOf(place.options('unknown'));
    const manifest = { unit, sequence: 1, formatVersion: 1, nonce: 'mine' } as Manifest;
    // The first write lands but its answer is lost; the second is refused before it lands.
    for (const [sequence, lands] of [
      [1, true],
      [2, false],
    ] as const) {
      let calls = 0;
      const flaky: ObjectStore = Object.create(store, {
        putIfAbsent: {
          value: async (key: string, body: Buffer) => {
            calls += 1;
            if (calls > 1) return store.putIfAbsent(key, body);
            if (lands) await store.putIfAbsent(key, body);
            throw new TidemarkError('TM401', 'timeout');
          },
        },
        get: { value: (key: string) => store.get(key) },
      });
      expect(await commitManifest(flaky, { ...manifest, sequence })).toMatchObject({ nonce: 'mine' });
      expect(calls).toBe(lands ? 1 : 2);
    }
    expect(await findLatest(store, unit, 0)).toEqual({ sequence: 2, fence: 0n });
    await store.close();
  });

  it('hostile column names keep their columns, mapped in the manifest', async () => {
    const names = [
      '_op',
      '_OP',
      'a',
      'A',
      'a~2',
      'x"y',
      "it's",
      'a.b,c',
      '$.q',
      '/p',
      '__proto__',
      'ключ',
      '_key',
      ' ',
    ];
    for (const encoder of ['duckdb', 'parquetjs']) {
      const hostile = shapeOf('h\'o"s/t..é', [
        column('Id', 'numeric(5,5)', true),
        ...names.map((name) => column(name, 'numeric(4,1)')),
      ]);
      const values: Row = ['0.12345', ...names.map((_, index) => (index % 3 === 0 ? 'NaN' : `${index}.5`))];
      const options = { ...place.options(`hostile-${encoder}`), 'parquet.encoder': encoder };
      const { sink } = await openSink(options, scratch.path);
      await sink.appendWindow(windowOf(hostile, 1, [0, 10], [insert(hostile, 1, values)]));
      expect(await readAll(sink, hostile, at(10))).toEqual([values]);
      // A column that comes later must not take over the field of one that is gone.
      const later = shapeOf(hostile.name, [hostile.columns[0]!, column('B', 'text'), column('b', 'text')]);
      await sink.appendWindow(
        windowOf(later, 2, [10, 20], [insert(later, 11, ['0.50000', 'upper', 'lower'])]),
      );
      expect(sorted(await readAll(sink, later, at(20)))).toEqual([
        ['0.12345', null, null],
        ['0.50000', 'upper', 'lower'],
      ]);
      expect(await readAll(sink, hostile, at(10))).toEqual([values]);
      const store = await storeOf(options);
      const [first] = await keysIn(store, manifestFolder(unitName(hostile)));
      const manifest = JSON.parse(String(await store.get(first!))) as Manifest;
      const fields = new Map(manifest.fields.map(({ name, field }) => [name, field]));
      expect(fields.get('_op')).toBe('_op~2');
      expect(fields.get('A')).toBe('A~3');
      expect(new Set([...fields.values()].map((field) => field.toLowerCase())).size).toBe(names.length + 1);
      await store.close();
      await sink.close();
    }
  });

  it('wrong credentials and an unreachable endpoint are told apart', async () => {
    if (place.readable) return;
    const options = place.options('failures');
    const wrong = { ...options, 's3.secret.access.key': 'wrong' };
    const { sink, context } = await openSink(wrong, scratch.path);
    await expect(sink.held(unit)).rejects.toMatchObject({ code: 'TM402' });
    expect(await parquetSink.check(context, wrong)).toMatchObject([{ level: 'error' }, {}]);
    const missing = { ...options, 'parquet.url': 's3://no-such-bucket-here/x' };
    const { sink: lost } = await openSink(missing, scratch.path);
    await expect(lost.appendWindow(windowOf(shape, 1, [0, 10], eventsOf(1, 3)))).rejects.toMatchObject({
      code: 'TM402',
    });
    const { sink: deaf } = await openSink({ ...options, 's3.endpoint': 'http://127.0.0.1:1' }, scratch.path);
    await expect(deaf.held(unit)).rejects.toMatchObject({ code: 'TM401', retry: 'transient' });
  });

  it('_latest.sql runs as written, and the README shows what it does', async () => {
    if (!place.readable) return;
    const options = place.options('latest');
    const { sink } = await openSink(options, scratch.path);
    await sink.appendWindow(windowOf(shape, 1, [0, 10], eventsOf(1, 6)));
    const folder = join(String(options['parquet.url']).slice(7), 'app.orders');
    // What an interrupted attempt leaves must not be read.
    const [file] = (await readdir(folder, { recursive: true })).filter((name) => name.endsWith('.parquet'));
    await writeFile(
      join(folder, file!.replace('.parquet', '9.parquet')),
      await readFile(join(folder, file!)),
    );
    const answer = await runScript(await readFile(join(folder, '_latest.sql'), 'utf8'));
    expect(answer.names).toEqual(['id', 'note', '_position', '_commit_time']);
    expect(answer.rows.map(([id, note]) => [String(id), note])).toEqual(expect.arrayContaining(rowsOf(1, 6)));
    expect(answer.rows).toHaveLength(5);
    const readme = await readFile(
      new URL('../../connectors/sinks/parquet/README.md', import.meta.url),
      'utf8',
    );
    const example = /```sql\n([\s\S]*?)```/.exec(readme)![1]!;
    const script = example.replaceAll('/lake/app.findings/', `${folder}/`);
    // `.read` belongs to DuckDB's shell: here the file stands in its place.
    const sql = script.replace(/^\.read .*$/m, await readFile(join(folder, '_latest.sql'), 'utf8'));
    expect((await runScript(sql)).rows).toEqual([[5n]]);
    await sink.close();
  });
});
