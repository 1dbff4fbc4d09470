/** Upkeep of Iceberg tables beside the sink that writes them: no row changes, and nothing is left behind. */
import { spawn } from 'node:child_process';
import { mkdir, mkdtemp, readdir, readFile, rm, utimes, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { text } from 'node:stream/consumers';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { type Stack, startStack } from '../../compose/local-stack.ts';
import { progressIdentifier } from '../../connectors/sinks/iceberg/names.ts';
import { reachableFiles } from '../../connectors/sinks/iceberg/upkeep/reachable-files.ts';
import type { MergeTable, OptionValues, Row, RowState } from '../../src/connector/sink.ts';
import { shapeOf } from '../conformance/example-tables.ts';
import { startCatalogFront } from '../iceberg/catalog-front.ts';
import { runInSpark } from '../iceberg/readers.ts';
import {
  countsOf,
  Place,
  position,
  sorted,
  statesOf,
  upkeep,
  upsert,
  windowOf,
  windowOfTables,
} from '../iceberg/sink-place.ts';

const items = shapeOf('items', ['org text key', 'id bigint key', 'note text', 'price numeric(10,2)'], {
  tenantColumn: 0,
});
const visits = shapeOf('visits', ['page text', 'seconds integer']);
const lines = shapeOf('lines', ['id bigint key', 'note text']);

let stack: Stack;
let folder: string;
let places = 0;

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'iceberg-maintain-'));
  stack = await startStack({ directory: join(folder, 'stack'), parts: ['iceberg'] });
});

afterAll(async () => {
  await stack?.stop();
  await rm(folder, { recursive: true, force: true });
});

function place(more: OptionValues = {}): Place {
  places += 1;
  return new Place(stack, folder, `upkeep_${places}`, more);
}

/** Rows as the source has them, and Windows of random changes of them. */
class Model {
  readonly items = new Map<string, Row>();
  readonly visits: Row[] = [];
  #seed = 7;
  n = 0;

  #random(below: number): number {
    this.#seed = (this.#seed * 1_103_515_245 + 12_345) % 2_147_483_648;
    return Math.floor((this.#seed / 2_147_483_648) * below);
  }

  tables(): MergeTable[] {
    this.n += 1;
    const states = new Map<string, RowState>();
    for (let change = 0; change < 12; change += 1) {
      const key: Row = [`org ${this.#random(3)}`, String(this.#random(60))];
      const name = key.join();
      if (this.#random(4) === 0 && this.items.has(name)) {
        states.set(name, { op: 'delete', key, position: position(this.n) });
        this.items.delete(name);
      } else {
        const row: Row = [...key, this.#random(9) === 0 ? null : `note ${this.n}`, `${this.n}.25`];
        states.set(name, upsert(this.n, key, row));
        this.items.set(name, row);
      }
    }
    const page: Row = [`page ${this.#random(5)}`, String(this.#random(3))];
    const counts: [Row, number][] = [[page, 2]];
    this.visits.push(page, page);
    if (this.n % 3 === 0) {
      const [gone] = this.visits.splice(0, 1) as [Row];
      if (JSON.stringify(gone) === JSON.stringify(page)) counts[0] = [page, 1];
      else counts.push([gone, -1]);
    }
    return [statesOf(items, [...states.values()]), countsOf(visits, counts)];
  }
}

describe('compaction', () => {
  test('of a table that Windows go on changing loses no row and brings none back', async () => {
    const here = place({ history: true });
    const model = new Model();
    const writer = await here.open();
    const step = async () => {
      const tables = model.tables();
      await writer.mergeWindow(windowOfTables(model.n, 1n, tables));
    };
    for (let window = 0; window < 8; window += 1) await step();
    const other = await here.open();
    let over = false;
    let runs = 0;
    let commits = 0;
    const compacting = (async () => {
      while (!over) {
        const done = await other.maintain(upkeep({ steps: ['compact'] }));
        commits += done.reduce((sum, { counts }) => sum + counts.commits!, 0);
        runs += 1;
      }
    })();
    const until = Date.now() + 4000;
    const often = () => runs > 3 && commits > 3;
    while (Date.now() < until || (!often() && Date.now() < until + 240_000)) await step();
    over = true;
    await compacting;
    expect(runs).toBeGreaterThan(3);
    expect(commits).toBeGreaterThan(3);
    await other.maintain(upkeep({ steps: ['compact'] }));
    // The writer goes on, on what the last compaction made of it.
    await step();
    for (const reader of ['pyiceberg', 'duckdb', 'spark'] as const) {
      expect(await here.rows(items, reader), reader).toEqual(sorted([...model.items.values()]));
      expect(await here.rows(visits, reader), reader).toEqual(sorted(model.visits));
    }
    expect((await here.files(items)).data).toBeLessThanOrEqual(6);
    expect((await here.files(visits)).data).toBeLessThanOrEqual(2);
    await other.close();
    await writer.close();
  });

  test('leaves Position, Window and attempt of the table as they are, and the rows in the order of the key', async () => {
    const here = place();
    const writer = await here.open();
    for (let n = 1; n <= 4; n += 1) {
      const rows = [30 - n, 60 - n, 90 - n].map((id) => upsert(n, [String(id)], [String(id), `note ${n}`]));
      await writer.mergeWindow(windowOf(n, 1n, lines, rows));
    }
    const properties = () => here.inLake(lines, async (_lake, { metadata }) => metadata.properties);
    const before = await properties();
    const [done] = await writer.maintain(upkeep({ steps: ['compact'] }));
    expect(done).toMatchObject({
      step: 'compact',
      left: null,
      counts: { filesBefore: 4, filesAfter: 1, deleteFilesAfter: 0, commits: 1 },
    });
    expect(await properties()).toEqual(before);
    await here.inLake(lines, async (lake, table) => {
      const { metadata } = table;
      const snapshot = metadata.snapshots.at(-1)!;
      expect(snapshot.summary).toMatchObject({
        operation: 'replace',
        'tidemark.position': position(4),
        'total-records': '12',
      });
      const [file] = [...(await lake.live(table)).dataFiles()];
      expect(file!.records).toBe(12);
    });
    expect((await writer.maintain(upkeep({ steps: ['compact'] })))[0]!.counts.commits).toBe(0);
    await writer.close();
  });

  test('keeps its files where the catalog made the commit and answers a conflict, as a proxy that sends twice makes it', async () => {
    const here = place();
    const front = await startCatalogFront(here.uri);
    const writer = await here.open(undefined, { 'iceberg.catalog.uri': front.uri });
    for (let n = 1; n <= 4; n += 1)
      await writer.mergeWindow(windowOf(n, 1n, lines, [upsert(n, [`${n}`], [`${n}`, 'x'])]));
    const before = await here.rows(lines);
    const conflict = { error: { message: 'overtaken', type: 'CommitFailedException', code: 409 } };
    const answer = { status: 409, body: JSON.stringify(conflict) };
    front.expect(/^POST .*\/tables\/lines$/, { kind: 'forward and answer', answer });
    const [done] = await writer.maintain(upkeep({ steps: ['compact'] }));
    expect(done!.counts).toMatchObject({ filesAfter: 1, commits: 1 });
    expect(await here.rows(lines)).toEqual(before);
    await writer.close();
    front.stop();
  });

  test('writes what is mostly deleted anew, and makes few files of deletes of many', async () => {
    const here = place();
    const writer = await here.open();
    const row = (n: number, id: number) => upsert(n, [String(id)], [String(id), `${n}`]);
    const many = Array.from({ length: 1000 }, (_, id) => row(1, id));
    await writer.mergeWindow(windowOf(1, 1n, lines, many));
    for (let n = 2; n <= 5; n += 1) {
      const gone: RowState[] = [{ op: 'delete', key: [String(n)], position: position(n) }];
      await writer.mergeWindow(windowOf(n, 1n, lines, gone));
    }
    expect(await here.files(lines)).toEqual({ data: 1, deletes: 4 });
    await writer.maintain(upkeep({ steps: ['compact'] }));
    expect(await here.files(lines)).toEqual({ data: 1, deletes: 1 });
    const half: RowState[] = Array.from({ length: 500 }, (_, id) => ({
      op: 'delete',
      key: [String(id + 100)],
      position: position(6),
    }));
    await writer.mergeWindow(windowOf(6, 1n, lines, half));
    await writer.maintain(upkeep({ steps: ['compact'] }));
    expect(await here.files(lines)).toEqual({ data: 1, deletes: 0 });
    const left = many.slice(0, 1000).flatMap((each) => {
      const id = Number(each.key[0]);
      return (id >= 2 && id <= 5) || (id >= 100 && id < 600) ? [] : [(each as { values: Row }).values];
    });
    expect(await here.rows(lines)).toEqual(sorted(left));
    await writer.close();
  });
});

describe('what is past', () => {
  test('goes with its files, but for what a tag names; orphans go when they are old', async () => {
    const here = place();
    const writer = await here.open();
    const merge = (n: number) =>
      writer.mergeWindow(
        windowOf(n, 1n, lines, [upsert(n, ['1'], ['1', `${n}`]), upsert(n, [`${n + 9}`], [`${n + 9}`, 'x'])]),
      );
    for (let n = 1; n <= 3; n += 1) await merge(n);
    const tagged = await here.inLake(lines, async (lake, { identifier, metadata }) => {
      const id = metadata['current-snapshot-id']!;
      await lake.catalog.commit([
        {
          identifier,
          requirements: [],
          updates: [{ action: 'set-snapshot-ref', 'ref-name': 'q3', type: 'tag', 'snapshot-id': id }],
        },
      ]);
      return String(id);
    });
    const then = await here.rows(lines);
    for (let n = 4; n <= 6; n += 1) await merge(n);
    await writer.maintain(upkeep({ steps: ['compact', 'manifests'] }));
    const now = await here.rows(lines);
    const before = await here.stored(lines, '.parquet');
    const [expired] = await writer.maintain(upkeep({ steps: ['expire'], expireAfterMs: 0, keepLast: 1 }));
    expect(expired!.counts.snapshotsAfter).toBe(2);
    expect(expired!.counts.filesRemoved).toBeGreaterThan(3);
    expect((await here.stored(lines, '.parquet')).length).toBeLessThan(before.length);
    for (const reader of ['pyiceberg', 'duckdb'] as const) {
      expect(await here.rows(lines, reader), reader).toEqual(now);
      expect(await here.rows(lines, reader, tagged), reader).toEqual(then);
    }
    const location = await here.inLake(lines, async (_lake, { metadata }) =>
      fileURLToPath(metadata.location),
    );
    const stray = async (name: string, days: number) => {
      const path = join(location, name);
      await mkdir(join(path, '..'), { recursive: true });
      await writeFile(path, 'nobody names it');
      const at = new Date(Date.now() - days * 24 * 60 * 60 * 1000);
      await utimes(path, at, at);
    };
    await stray('data/left.parquet', 4);
    await stray('data/.tidemark-unfinished', 4);
    await stray('data/coming.parquet', 0);
    await stray('neighbour/data/other.parquet', 4);
    const done = await writer.maintain(upkeep({ steps: ['orphans'], orphanAgeMs: 3 * 24 * 60 * 60 * 1000 }));
    expect(done.find(({ table }) => table.endsWith('.lines'))!.counts.filesRemoved).toBe(2);
    expect(await here.stored(lines, 'left.parquet')).toEqual([]);
    expect(await here.stored(lines, 'coming.parquet')).toHaveLength(1);
    expect(await here.stored(lines, 'other.parquet')).toHaveLength(1);
    await merge(7);
    expect((await here.rows(lines)).find(([id]) => id === '1')).toEqual(['1', '7']);
    await writer.close();
  });

  test('takes nothing that a tag needs, though what is known of the attempt came to light late', async () => {
    const here = place();
    const identifier = progressIdentifier(String(here.options['iceberg.namespace']), {
      sourceId: 'source',
      destination: 'lake',
    });
    const records = async () => {
      const at = await here.inLake(lines, async (lake) => (await lake.load(identifier))!.metadata.location);
      const folder = join(fileURLToPath(at), 'metadata', 'tidemark-attempts');
      return (await readdir(folder)).map((name) => join(folder, name));
    };
    let kept: { path: string; body: Buffer } | null = null;
    const writer = await here.open(async (name) => {
      if (name !== 'iceberg-sink-committed' || kept !== null) return;
      const [path] = await records();
      kept = { path: path!, body: await readFile(path!) };
    });
    const merge = (sink: typeof writer, n: number, token: bigint) =>
      sink.mergeWindow(windowOf(n, token, lines, [upsert(n, [`${n}`], [`${n}`, 'x'])]));
    await merge(writer, 1, 1n);
    await merge(writer, 2, 1n);
    const tag = (await writer.tag('q3')).tables.find(({ table }) => table.endsWith('.lines'))!;
    const then = await here.rows(lines);
    await merge(writer, 3, 1n);
    const all = upkeep({ steps: ['compact', 'expire'], expireAfterMs: 0, keepLast: 1 });
    await writer.maintain(all);
    // The store was away for a moment when the record of the first Window was to be removed.
    await writeFile(kept!.path, kept!.body);
    const heir = await here.open();
    await merge(heir, 4, 2n);
    expect(await records()).toEqual([]);
    expect(await here.rows(lines, 'pyiceberg', tag.snapshot!)).toEqual(then);
    await heir.close();
    await writer.close();
  });

  test('stays where the table says that its files may be those of another', async () => {
    const here = place();
    const writer = await here.open();
    for (let n = 1; n <= 2; n += 1)
      await writer.mergeWindow(windowOf(n, 1n, lines, [upsert(n, ['1'], ['1', `${n}`])]));
    const location = await here.inLake(lines, async (lake, { identifier, metadata }) => {
      const updates = { 'gc.enabled': 'false' };
      await lake.catalog.commit([
        { identifier, requirements: [], updates: [{ action: 'set-properties', updates }] },
      ]);
      return fileURLToPath(metadata.location);
    });
    const stray = join(location, 'data', 'left.parquet');
    await writeFile(stray, 'of another table');
    await utimes(stray, new Date(0), new Date(0));
    const steps = ['expire', 'orphans'] as const;
    const done = await writer.maintain(upkeep({ steps, expireAfterMs: 0, keepLast: 1, orphanAgeMs: 0 }));
    const own = done.filter(({ table }) => table.endsWith('.lines'));
    expect(own.map(({ counts, left }) => [counts.filesRemoved, left])).toEqual(
      steps.map(() => [0, expect.stringContaining('gc.enabled')]),
    );
    expect(await here.stored(lines, 'left.parquet')).toHaveLength(1);
    await writer.close();
  });

  test('many manifests become few, and say the same', async () => {
    const here = place();
    const writer = await here.open();
    for (let n = 1; n <= 5; n += 1)
      await writer.mergeWindow(
        windowOf(n, 1n, lines, [upsert(n, ['1'], ['1', `${n}`]), upsert(n, [`${n + 9}`], [`${n + 9}`, 'x'])]),
      );
    const before = await here.rows(lines);
    const [done] = await writer.maintain(upkeep({ steps: ['manifests'] }));
    expect(done!.counts).toEqual({ manifestsBefore: 9, manifestsAfter: 2 });
    for (const reader of ['pyiceberg', 'duckdb'] as const)
      expect(await here.rows(lines, reader), reader).toEqual(before);
    await writer.close();
  });
});

describe('by itself', () => {
  test('a worker keeps a table that is fed all the time at few files, and loses nothing by it', async () => {
    const here = place({ 'iceberg.compact.files': 4, history: true });
    const model = new Model();
    const writer = await here.open();
    for (let window = 0; window < 20; window += 1) {
      const tables = model.tables();
      await writer.mergeWindow(windowOfTables(model.n, 1n, tables));
    }
    await writer.close();
    const { data, deletes } = await here.files(items);
    // Three partitions.
    expect(data).toBeLessThanOrEqual(30);
    expect(deletes).toBeLessThanOrEqual(24);
    expect((await here.files(visits)).data).toBeLessThanOrEqual(10);
    expect((await here.files({ ...items, name: 'items_changes' })).data).toBeLessThanOrEqual(10);
    expect(here.lines.filter((line) => line === 'merged small files').length).toBeGreaterThan(2);
    expect(here.lines.filter((line) => line.startsWith('could not'))).toEqual([]);
    expect(await here.rows(items)).toEqual(sorted([...model.items.values()]));
    expect(await here.rows(visits)).toEqual(sorted(model.visits));
  });

  test('snapshots beyond those that are kept go, with their files', async () => {
    const here = place({ 'iceberg.compact.files': 4, 'iceberg.keep.snapshots': 4 });
    const writer = await here.open();
    const merge = (n: number) =>
      writer.mergeWindow(windowOf(n, 1n, lines, [upsert(n, ['1'], ['1', `${n}`])]));
    await merge(1);
    // Younger ones than an hour would stay.
    await here.inLake(lines, (lake, { identifier }) =>
      lake.catalog.commit([
        {
          identifier,
          requirements: [],
          updates: [{ action: 'set-properties', updates: { 'history.expire.max-snapshot-age-ms': '0' } }],
        },
      ]),
    );
    for (let n = 2; n <= 12; n += 1) await merge(n);
    await writer.close();
    const kept = await here.inLake(lines, async (_lake, { metadata }) => metadata.snapshots.length);
    expect(kept).toBeLessThanOrEqual(8);
    expect(await here.rows(lines)).toEqual([['1', '12']]);
  });
});

describe('a tag', () => {
  test('is a cut of all tables at one Position, while a Window is half there, and outlives upkeep', async () => {
    const here = place();
    let hold = async (): Promise<void> => {};
    const writer = await here.open(async (name) => {
      if (name === 'iceberg-sink-tables-committed') await hold();
    });
    const model = new Model();
    const step = async () => {
      const tables = model.tables();
      await writer.mergeWindow(windowOfTables(model.n, 1n, tables));
    };
    for (let window = 0; window < 3; window += 1) await step();
    const then = [sorted([...model.items.values()]), sorted([...model.visits])];
    const other = await here.open();
    // The tables have the fourth Window, and the destination does not say so yet.
    let tagged: Awaited<ReturnType<typeof other.tag>> | null = null;
    hold = async () => {
      hold = async () => {};
      tagged = await other.tag('q3');
    };
    await step();
    expect(tagged!).toMatchObject({ name: 'q3', position: position(3), complete: true });
    for (let window = 0; window < 4; window += 1) await step();
    await other.maintain(upkeep({ expireAfterMs: 0, keepLast: 1 }));
    expect(await other.tags()).toEqual([tagged]);
    for (const [i, shape] of [items, visits].entries()) {
      const { snapshot } = tagged!.tables.find(({ table }) => table.endsWith(`.${shape.name}`))!;
      for (const reader of ['pyiceberg', 'duckdb'] as const)
        expect(await here.rows(shape, reader, snapshot!), `${reader} ${shape.name}`).toEqual(then[i]);
    }
    expect(await here.rows(items)).toEqual(sorted([...model.items.values()]));
    await expect(other.tag('q3')).rejects.toThrow(/already/);
    expect((await other.dropTag('q3'))?.name).toBe('q3');
    expect(await other.tags()).toEqual([]);
    const refs = await here.inLake(items, async (_lake, { metadata }) => Object.keys(metadata.refs));
    expect(refs).toEqual(['main']);
    await other.close();
    await writer.close();
  });

  test('that a crash left half made says so, and can be made or dropped', async () => {
    const here = place();
    const writer = await here.open();
    const model = new Model();
    await writer.mergeWindow(windowOfTables(1, 1n, model.tables()));
    const dying = await here.open(async (name) => {
      if (name === 'iceberg-tag-set') throw new Error('killed');
    });
    await expect(dying.tag('cut')).rejects.toThrow('killed');
    await dying.close();
    expect(await writer.tags()).toMatchObject([{ name: 'cut', complete: false }]);
    await writer.mergeWindow(windowOfTables(2, 1n, model.tables()));
    expect(await writer.tag('cut')).toMatchObject({ position: position(2), complete: true });
    expect(await writer.dropTag('none')).toBeNull();
    await writer.close();
  });
});

/** The statements of the sink's page, for one of its tables. */
async function documentedProcedures(table: string): Promise<string[]> {
  const page = await readFile(join(import.meta.dirname, '../../connectors/sinks/iceberg/README.md'), 'utf8');
  return [...page.matchAll(/^CALL lake\..*;$/gm)].map(([line]) =>
    line.slice(0, -1).replaceAll('lake.', '{catalog}.').replaceAll('app.findings', table),
  );
}

test('Spark’s procedures, as the page has them, leave tables that the sink goes on with', async () => {
  const here = place();
  const model = new Model();
  const writer = await here.open();
  const step = async () => {
    const tables = model.tables();
    await writer.mergeWindow(windowOfTables(model.n, 1n, tables));
  };
  for (let window = 0; window < 6; window += 1) await step();
  const before = await here.files(items);
  const { namespace, name } = here.identifier(items);
  const statements = await documentedProcedures([...namespace, name].join('.'));
  expect(statements).toHaveLength(5);
  await runInSpark({ uri: here.uri }, statements);
  const after = await here.files(items);
  expect(after.data).toBeLessThan(before.data);
  for (let window = 0; window < 3; window += 1) await step();
  expect(here.lines.filter((line) => line.includes('made again'))).toEqual([]);
  await writer.maintain(upkeep());
  await step();
  for (const reader of ['pyiceberg', 'spark'] as const) {
    expect(await here.rows(items, reader), reader).toEqual(sorted([...model.items.values()]));
    expect(await here.rows(visits, reader), reader).toEqual(sorted(model.visits));
  }
  await writer.close();
});

/** @returns exit code, and what was printed as JSON */
async function tidemark(config: string, command: string): Promise<{ code: number | null; answer: unknown }> {
  const main = join(import.meta.dirname, '../../src/main.ts');
  const child = spawn(
    process.execPath,
    [
      '-e',
      `import(${JSON.stringify(main)}).then((tidemark) => tidemark.main(process.argv.slice(1)))`,
      '--',
      ...command.split(' '),
      '--json',
      '--config',
      config,
    ],
    { stdio: ['ignore', 'pipe', 'inherit'] },
  );
  const ended = new Promise<number | null>((resolve) => child.once('close', resolve));
  const printed = await text(child.stdout);
  return { code: await ended, answer: JSON.parse(printed) };
}

test('the page’s commands do what they say; other kinds, ages that are not safe and unknown names are refused', async () => {
  const findings = shapeOf('findings', ['id bigint key', 'note text']);
  const here = place();
  const writer = await here.open();
  for (let n = 1; n <= 3; n += 1)
    await writer.mergeWindow(windowOf(n, 1n, findings, [upsert(n, [`${n}`], [`${n}`, 'x'])]));
  await writer.close();
  const home = join(folder, 'home');
  await mkdir(home);
  const config = join(home, 'tidemark.yaml');
  const nobody = 'postgres://u:p@127.0.0.1:1/d';
  await writeFile(
    config,
    `source: { id: source, url: '${nobody}', tables: [app.*] }
kafka.brokers: [127.0.0.1:1]
registry.url: http://127.0.0.1:1
control.url: ${nobody}
deliver: { instances: { directory: . }, spill: { directory: ${join(home, 'spill')} } }
`,
  );
  const instance = (name: string, own: Record<string, unknown>) =>
    writeFile(join(home, `${name}.json`), JSON.stringify({ name, config: { tables: 'app.*', ...own } }));
  await instance('lake', {
    'connector.class': 'iceberg',
    'iceberg.catalog.uri': here.uri,
    'iceberg.namespace': here.options['iceberg.namespace'],
  });
  await instance('files', { 'connector.class': 'parquet', 'parquet.url': `file://${home}/files` });
  const page = await readFile(join(import.meta.dirname, '../../connectors/sinks/iceberg/README.md'), 'utf8');
  const commands = [...page.matchAll(/^tidemark ((?:maintain|tag) .*)$/gm)].map(([, command]) => command!);
  expect(commands).toHaveLength(5);
  const answers: Record<string, unknown> = {};
  for (const command of commands) {
    const { code, answer } = await tidemark(config, command);
    expect(code, `${command}\n${JSON.stringify(answer)}`).toBe(0);
    answers[command] = answer;
  }
  expect(answers['maintain lake']).toMatchObject({ ok: true, destination: 'lake', dryRun: false });
  expect(answers['tag lake --list']).toMatchObject({ tags: [{ name: '2026-q3', position: position(3) }] });
  expect(await here.files(findings)).toEqual({ data: 1, deletes: 0 });
  for (const [command, exit, message] of [
    ['maintain files', 2, /takes no upkeep/],
    ['maintain lake --orphans-older-than 1h', 2, /may take files/],
    ['maintain lake app.nothing', 2, /no table for app.nothing/],
    ['tag files now', 2, /no states of the past/],
    ['tag lake 12', 2, /name of a tag/],
  ] as const) {
    const { code, answer } = await tidemark(config, command);
    expect(code, command).toBe(exit);
    expect((answer as { error: { message: string } }).error.message, command).toMatch(message);
  }
  expect((await tidemark(config, 'tag lake none --drop')).code).toBe(1);
});

const points = [
  'iceberg-upkeep-rewritten',
  'iceberg-upkeep-recorded',
  'iceberg-upkeep-before-commit',
  'iceberg-upkeep-committed',
  'iceberg-upkeep-before-expiry',
  'iceberg-upkeep-expired',
];

test('killed at any point it leaves the rows as they are, and the next run leaves no file that nobody names', async () => {
  const here = place();
  const writer = await here.open();
  let n = 0;
  for (const point of points) {
    for (let window = 0; window < 3; window += 1) {
      n += 1;
      const rows = [upsert(n, ['1'], ['1', `${n}`]), upsert(n, [`${n + 9}`], [`${n + 9}`, 'x'])];
      await writer.mergeWindow(windowOf(n, 1n, lines, rows));
    }
    const before = await here.rows(lines);
    const request = upkeep({ steps: ['compact', 'expire'], expireAfterMs: 0, keepLast: 1 });
    const child = join(import.meta.dirname, '../iceberg/maintain-child.ts');
    const scratch = join(folder, `child-${n}`);
    await mkdir(scratch);
    const killed = spawn(
      process.execPath,
      [child, JSON.stringify(here.options), scratch, JSON.stringify(request)],
      {
        env: { ...process.env, TIDEMARK_FAILPOINTS: `${point}=kill` },
        stdio: ['ignore', 'ignore', 'inherit'],
      },
    );
    const signal = await new Promise((resolve) => killed.once('exit', (_code, by) => resolve(by)));
    expect(signal, point).toBe('SIGKILL');
    expect(await here.rows(lines), point).toEqual(before);
    await writer.maintain(request);
    expect(await here.rows(lines), point).toEqual(before);
    await here.inLake(lines, async (_lake, table) => {
      const named = await reachableFiles(table, table.metadata.snapshots);
      const paths = [...named].map((each) => fileURLToPath(each));
      const location = fileURLToPath(table.metadata.location);
      for (const ending of ['.parquet', '.avro'])
        expect(
          (await here.stored(lines, ending)).filter((each) => !paths.includes(join(location, each))),
          point,
        ).toEqual([]);
    });
  }
  await writer.close();
});
