/** The sink beside other writers of its tables, and after attempts that never came to an end. */
import { randomUUID } from 'node:crypto';
import { mkdir, mkdtemp, readdir, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { type Stack, startStack } from '../../compose/local-stack.ts';
import { quoteText } from '../../connectors/object-log/sql-text.ts';
import type { TableCommit } from '../../connectors/sinks/iceberg/catalog/catalog.ts';
import { dataLocation } from '../../connectors/sinks/iceberg/commit/locations.ts';
import { prepareCommit } from '../../connectors/sinks/iceberg/commit/prepare-commit.ts';
import { rebaseCommit } from '../../connectors/sinks/iceberg/commit/rebase-commit.ts';
import type { TableChange } from '../../connectors/sinks/iceberg/commit/table-change.ts';
import { openDatabase } from '../../connectors/sinks/iceberg/files/database.ts';
import { metricsModes } from '../../connectors/sinks/iceberg/files/metrics-mode.ts';
import { writeDataFiles } from '../../connectors/sinks/iceberg/files/write-data-files.ts';
import { writePositionDeletes } from '../../connectors/sinks/iceberg/files/write-position-deletes.ts';
import { icebergSink } from '../../connectors/sinks/iceberg/index.ts';
import { Lake, type OpenTable } from '../../connectors/sinks/iceberg/lake.ts';
import { identifierOf } from '../../connectors/sinks/iceberg/names.ts';
import { resolveSettings } from '../../connectors/sinks/iceberg/options.ts';
import type { LiveFile } from '../../connectors/sinks/iceberg/plan/live-file.ts';
import { boundSpec } from '../../connectors/sinks/iceberg/plan/table-reader.ts';
import { currentSchema } from '../../connectors/sinks/iceberg/spec/table-metadata.ts';
import { beforeEverything, formatPosition, type Position } from '../../src/connector/position.ts';
import type { MergeSink, MergeWindow, Row, RowState, SinkContext } from '../../src/connector/sink.ts';
import { columnOf, shapeOf } from '../conformance/example-tables.ts';
import { optionValues } from '../conformance/option-values.ts';
import { icebergReader } from '../iceberg/readers.ts';
import * as shared from '../iceberg/sink-place.ts';

const shape = shapeOf('events', ['id bigint key', 'note text']);
const position = (n: number) => formatPosition({ epoch: 1, lsn: BigInt(n), ordinal: 1 });

let stack: Stack;
let folder: string;
let places = 0;

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'iceberg-sink-'));
  stack = await startStack({ directory: join(folder, 'stack'), parts: ['iceberg'] });
});

afterAll(async () => {
  await stack.stop();
  await rm(folder, { recursive: true, force: true });
});

function states(n: number, ids: readonly number[], note: string): RowState[] {
  return ids.map((id) => ({
    op: 'upsert',
    key: [String(id)],
    values: [String(id), `${note} ${id}`],
    fillFrom: null,
    position: position(n),
  }));
}

function windowOf(n: number, token: bigint, rows: RowState[]): MergeWindow {
  const from: Position = n === 1 ? beforeEverything : position(n - 1);
  return {
    sourceId: 'source',
    destination: 'lake',
    unit: '*',
    sequence: n,
    from,
    to: position(n),
    fencingToken: token,
    commitTimeUs: 1n,
    tables: [
      {
        shape,
        truncated: false,
        snapshots: [],
        async *states() {
          yield rows;
        },
        async *counts() {},
        async *events() {},
      },
    ],
    sweeps: [],
  };
}

class Place {
  readonly options;
  readonly lines: string[] = [];
  constructor() {
    places += 1;
    this.options = optionValues(icebergSink, {
      'iceberg.catalog.uri': stack.environment.TIDEMARK_ICEBERG_URL!,
      'iceberg.namespace': `place_${places}`,
    });
  }

  get identifier() {
    return identifierOf(String(this.options['iceberg.namespace']), shape);
  }

  async open(failpoint: (name: string) => Promise<void> = async () => undefined): Promise<MergeSink> {
    const scratchDirectory = join(folder, randomUUID());
    await mkdir(scratchDirectory, { recursive: true });
    const context: SinkContext = {
      sourceId: 'source',
      destination: 'lake',
      scratchDirectory,
      log: (_level, message) => this.lines.push(message),
      failpoint,
    };
    return (await icebergSink.open(context, this.options)) as MergeSink;
  }

  async rows(): Promise<Row[]> {
    const catalog = { uri: stack.environment.TIDEMARK_ICEBERG_URL! };
    const { columns, rows } = await icebergReader('pyiceberg').readTable(catalog, this.identifier);
    const [id, note] = ['id', 'note'].map((name) => columns.indexOf(name)) as [number, number];
    return rows.map((row) => [row[id]!, row[note]!]).sort((a, b) => Number(a[0]) - Number(b[0]));
  }

  async inLake<T>(work: (lake: Lake, table: OpenTable) => Promise<T>): Promise<T> {
    const lake = await Lake.open(resolveSettings(this.options));
    try {
      return await work(lake, (await lake.load(this.identifier))!);
    } finally {
      await lake.close();
    }
  }
}

const nothing = async (): Promise<void> => {};

/** What `meanwhile` is happens each time while a Window waits for its commit. */
class BeforeCommit {
  meanwhile = nothing;

  readonly failpoint = async (name: string): Promise<void> => {
    if (name === 'iceberg-sink-before-commit') await this.meanwhile();
  };
}

/** Somebody else's commit: rows added, and optionally every file replaced, as a compaction does. */
async function foreignCommit(place: Place, rows: string, compacts: boolean): Promise<void> {
  await place.inLake(async (lake, table) => {
    const { metadata, store } = table;
    const scratch = join(folder, randomUUID());
    await mkdir(scratch, { recursive: true });
    const database = await openDatabase(scratch, 256 << 20);
    const live = await lake.live(table);
    const schema = currentSchema(metadata);
    const specId = metadata['default-spec-id'];
    const files = [...live.dataFiles()].map(({ path }) => quoteText(fileURLToPath(path)));
    const held = `SELECT id, note, _tidemark_position FROM read_parquet([${files.join(', ')}])`;
    const written = await writeDataFiles(
      database.connection,
      `(${compacts ? `${held} UNION ALL ` : ''}${rows})`,
      {
        schema,
        fields: boundSpec(metadata, specId),
        sortedBy: [],
        sortOrderId: null,
        modes: metricsModes(schema.fields, {}, new Set()),
        dataLocation: dataLocation(metadata),
      },
      { folder: scratch, memoryBytes: 256 << 20, rowGroupRows: 1000, targetFileBytes: 1 << 26 },
      ({ name }) => (['id', 'note', '_tidemark_position'].includes(name) ? name : null),
    );
    database.close();
    for (const { file, localPath } of written) await store.putFile(file.file_path, localPath);
    await commitChange(lake, table, {
      added: written.map(({ file }) => ({ file, specId })),
      deletes: [],
      removed: compacts ? [...live.dataFiles()].map(({ path }) => path) : [],
    });
  });
}

async function commitChange(lake: Lake, table: OpenTable, change: TableChange): Promise<void> {
  const { identifier, metadata, store } = table;
  const prepared = await prepareCommit(store, metadata, change);
  const attempt = await rebaseCommit(store, prepared, metadata, await lake.live(table), {
    nowMs: Date.now(),
  });
  if ('vanished' in attempt) throw new Error('nothing can have vanished');
  const { requirements, updates } = attempt;
  await lake.catalog.commit([{ identifier, requirements, updates } as unknown as TableCommit]);
}

const noRows = 'SELECT CAST(0 AS BIGINT) AS id, NULL AS note, NULL AS _tidemark_position WHERE false';
const oneRow = (id: number) =>
  `SELECT CAST(${id} AS BIGINT) AS id, 'of somebody else' AS note, NULL AS _tidemark_position`;

test.each([
  {
    what: 'an append of other rows',
    rows: oneRow(77),
    compacts: false,
    others: [['77', 'of somebody else']],
  },
  { what: 'an append of a row with a key of the Window', rows: oneRow(2), compacts: false, others: [] },
  { what: 'a compaction of all files', rows: noRows, compacts: true, others: [] },
])(
  '$what while a Window waits for its commit: it is made on top, without being merged again',
  async (foreign) => {
    const place = new Place();
    const commit = new BeforeCommit();
    const sink = await place.open(commit.failpoint);
    await sink.mergeWindow(windowOf(1, 1n, states(1, [1, 2, 3, 4], 'first')));
    commit.meanwhile = async () => {
      commit.meanwhile = nothing;
      await foreignCommit(place, foreign.rows, foreign.compacts);
    };
    const rows: RowState[] = [
      ...states(2, [2, 3], 'second'),
      { op: 'delete', key: ['4'], position: position(2) },
    ];
    await sink.mergeWindow(windowOf(2, 1n, rows));
    expect(await place.rows()).toEqual([
      ['1', 'first 1'],
      ['2', 'second 2'],
      ['3', 'second 3'],
      ...foreign.others,
    ]);
    expect(place.lines.filter((line) => line.includes('made again'))).toEqual([]);
    await sink.close();
  },
);

test('what a worker wrote before it died is removed by the next one, and nothing else is', async () => {
  const place = new Place();
  let dies = false;
  const doomed = await place.open(async (name) => {
    if (dies && name === 'iceberg-sink-before-commit') {
      // As kill -9 would: nothing is tidied up.
      await new Promise(() => undefined);
    }
  });
  await doomed.mergeWindow(windowOf(1, 1n, states(1, [1, 2, 3], 'first')));
  dies = true;
  void doomed.mergeWindow(windowOf(2, 1n, states(2, [2, 9], 'second')));
  const files = () =>
    place.inLake(async (_lake, { metadata }) => {
      const all = await readdir(fileURLToPath(metadata.location), { recursive: true });
      return all.filter((name) => name.endsWith('.parquet')).length;
    });
  await expect.poll(files).toBe(3);
  const heir = await place.open();
  await heir.mergeWindow(windowOf(2, 2n, states(2, [2, 9], 'second')));
  // Those of the first Window, and of the second a data file and a file of deletes.
  expect(await files()).toBe(3);
  expect(place.lines.some((line) => line.startsWith('removed files of attempts'))).toBe(true);
  expect(await place.rows()).toEqual([
    ['1', 'first 1'],
    ['2', 'second 2'],
    ['3', 'first 3'],
    ['9', 'second 9'],
  ]);
  await heir.close();
});

const org = columnOf('org', 'integer', 1, true);
const id = columnOf('id', 'bigint', 2, true);
const at = columnOf('at', 'date', 3, true);
const note = columnOf('note', 'text', 4);
const parts = (columns: (typeof org)[], more = {}) => shapeOf('parts', columns, { tenantColumn: 0, ...more });

test.each([
  {
    what: 'the table is made anew',
    now: parts([org, id, at, note], { oid: 17_000 }),
    stays: false,
    spec: 'org~,at_day~',
    names: 'org,id,at,note,at~',
  },
  {
    what: 'a partition column gets another type',
    now: parts([{ ...org, type: 'text' }, id, at, note]),
    stays: true,
    spec: 'at_day,org~',
    names: 'org,id,at,note',
  },
  {
    what: 'a partition column is dropped',
    now: parts([id, at, note], { tenantColumn: null }),
    stays: true,
    spec: 'at_day',
    names: 'id,at,note',
  },
  {
    what: 'a column is dropped that a sort order has',
    now: parts([org, id, note]),
    stays: true,
    spec: 'org,at_day',
    names: 'org,id,note,at',
  },
  {
    what: 'a column is added that has the name of a partition',
    now: parts([org, id, at, note, columnOf('at_day', 'text', 5)]),
    stays: true,
    spec: 'org,at_day',
    names: 'org,id,at,note,at_day~2',
  },
  {
    what: 'a partition column is renamed and another gets its name',
    now: parts([{ ...org, name: 'account' }, id, at, note, columnOf('org', 'text', 5)]),
    stays: true,
    spec: 'org,at_day',
    names: 'account,id,at,note,org~2',
  },
])('$what: the partitions are those of the columns that there are', async ({ now, stays, spec, names }) => {
  places += 1;
  const place = new shared.Place(stack, folder, `parts_${places}`);
  const sink = await place.open();
  const merge = (n: number, shape: typeof now, ids: number[]) => {
    const rows = ids.map((each) => {
      const row = shape.columns.map(
        ({ number }) => [null, '7', `${each}`, '2024-01-01', `note ${n}`, 'x'][number!]!,
      );
      return shared.upsert(
        n,
        shape.keyColumns.map((i) => row[i]!),
        row,
      );
    });
    return sink.mergeWindow(shared.windowOf(n, 1n, shape, rows));
  };
  await merge(1, parts([org, id, at, note]), [1, 2]);
  await place.inLake(now, (lake, { identifier }) => {
    const asc = { transform: 'identity', direction: 'asc', 'null-order': 'nulls-first' };
    const updates = [
      { action: 'add-sort-order', 'sort-order': { 'order-id': 1, fields: [{ ...asc, 'source-id': 3 }] } },
      { action: 'set-default-sort-order', 'sort-order-id': -1 },
    ];
    return lake.catalog.commit([{ identifier, requirements: [], updates }]);
  });
  await merge(2, now, [2, 3]);
  await merge(3, now, [3]);
  await place.inLake(now, async (_lake, { metadata }) => {
    const current = metadata['partition-specs'].find(
      (each) => each['spec-id'] === metadata['default-spec-id'],
    );
    expect(current!.fields.map(({ name }) => name).join()).toBe(spec);
    const own = currentSchema(metadata).fields.filter(({ name }) => !name.startsWith('_tidemark'));
    expect(own.map(({ name }) => name).join()).toBe(names);
  });
  const seen = shapeOf('parts', [id, note]);
  const expected = [...(stays ? [['1', 'note 1']] : []), ['2', 'note 2'], ['3', 'note 3']];
  await sink.maintain(shared.upkeep({ steps: ['compact'] }));
  for (const reader of ['pyiceberg', 'spark'] as const)
    expect(await place.rows(seen, reader), reader).toEqual(expected);
  await sink.close();
});

test('a table that somebody rolled back or emptied is not written on, until it is what it says again', async () => {
  places += 1;
  const place = new shared.Place(stack, folder, `rolled_${places}`);
  const commit = new BeforeCommit();
  const sink = await place.open(commit.failpoint);
  const merge = (n: number) => sink.mergeWindow(shared.windowOf(n, 1n, shape, states(n, [n], 'of')));
  for (let n = 1; n <= 3; n += 1) await merge(n);
  const ids = await place.inLake(shape, async (_lake, { metadata }) =>
    metadata.snapshots.map((each) => each['snapshot-id']),
  );
  const main = (update: TableCommit['updates'][number]) =>
    place.inLake(shape, (lake, { identifier }) =>
      lake.catalog.commit([
        { identifier, requirements: [], updates: [{ 'ref-name': 'main', type: 'branch', ...update }] },
      ]),
    );
  const goTo = (n: number) => main({ action: 'set-snapshot-ref', 'snapshot-id': ids[n - 1] });
  await goTo(2);
  const refused = {
    code: 'TM404',
    message: expect.stringContaining('it had Window 3, and somebody took it back to Window 2'),
    remedy: expect.stringContaining(String(ids[2])),
  };
  await expect(merge(4)).rejects.toMatchObject(refused);
  // Whoever merges its files hides nothing of it.
  const [compacted] = await sink.maintain(shared.upkeep({ steps: ['compact'] }));
  expect(compacted!.counts.commits).toBe(1);
  await expect(merge(4)).rejects.toMatchObject(refused);
  await main({ action: 'remove-snapshot-ref' });
  await expect(merge(4)).rejects.toThrow(/back to before its first one/);
  await goTo(3);
  commit.meanwhile = async () => void (await goTo(1));
  await expect(merge(4)).rejects.toThrow(/back to Window 1/);
  commit.meanwhile = nothing;
  await goTo(3);
  await merge(4);
  expect((await place.rows(shape)).map(([id]) => id)).toEqual(['1', '2', '3', '4']);
  await sink.close();
});

test('a row whose delete somebody takes back while a Window waits is replaced all the same', async () => {
  places += 1;
  const place = new shared.Place(stack, folder, `undeleted_${places}`);
  const commit = new BeforeCommit();
  const sink = await place.open(commit.failpoint);
  await sink.mergeWindow(shared.windowOf(1, 1n, shape, states(1, [1, 2], 'first')));
  const before = await place.inLake(shape, async (lake, table) => {
    const { metadata, store } = table;
    const [{ path, specId, partition }] = [...(await lake.live(table)).dataFiles()] as [LiveFile];
    const scratch = join(folder, randomUUID());
    await mkdir(scratch, { recursive: true });
    const database = await openDatabase(scratch, 256 << 20);
    const deletes = await writePositionDeletes(
      database.connection,
      `(SELECT ${quoteText(path)} AS file_path, 1 AS pos)`,
      [{ path, specId, partition, fields: boundSpec(metadata, specId) }],
      dataLocation(metadata),
      'file',
      { folder: scratch, memoryBytes: 256 << 20, rowGroupRows: 1000, targetFileBytes: 1 << 26 },
    );
    database.close();
    for (const { file, localPath } of deletes) await store.putFile(file.file_path, localPath);
    await commitChange(lake, table, { added: [], deletes, removed: [] });
    return metadata['current-snapshot-id'];
  });
  expect(await place.rows(shape)).toEqual([['1', 'first 1']]);
  commit.meanwhile = () =>
    place.inLake(shape, async (lake, { identifier }) => {
      commit.meanwhile = nothing;
      const back = { action: 'set-snapshot-ref', 'ref-name': 'main', type: 'branch', 'snapshot-id': before };
      await lake.catalog.commit([{ identifier, requirements: [], updates: [back] }]);
    });
  await sink.mergeWindow(shared.windowOf(2, 1n, shape, states(2, [2], 'second')));
  expect(await place.rows(shape)).toEqual([
    ['1', 'first 1'],
    ['2', 'second 2'],
  ]);
  await sink.close();
});
