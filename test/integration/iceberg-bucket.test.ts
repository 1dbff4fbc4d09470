/** A warehouse in a bucket: the sink writes there with the catalog's keys or its own, and others read it from there. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdir, mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { type Stack, startStack } from '../../compose/local-stack.ts';
import { attemptsLocation } from '../../connectors/sinks/iceberg/progress/attempt.ts';
import { ProgressTable } from '../../connectors/sinks/iceberg/progress/progress-table.ts';
import { reachableFiles } from '../../connectors/sinks/iceberg/upkeep/reachable-files.ts';
import type { OptionValues, Row, RowState } from '../../src/connector/sink.ts';
import { shapeOf } from '../conformance/example-tables.ts';
import { type HttpFront, startHttpFront } from '../conformance/http-front.ts';
import { expectRefusal } from '../conformance/trial.ts';
import { type CatalogFront, startCatalogFront } from '../iceberg/catalog-front.ts';
import { stackS3 } from '../iceberg/catalogs.ts';
import { Place, position, sorted, upkeep, upsert, windowOf } from '../iceberg/sink-place.ts';
import type { ChildWindow } from '../iceberg/window-child.ts';

const shape = shapeOf('findings', ['org text key', 'id bigint key', 'note text'], { tenantColumn: 0 });

let stack: Stack;
let folder: string;
let catalog: CatalogFront;
let store: HttpFront;
let places = 0;

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'iceberg-bucket-'));
  stack = await startStack({
    directory: join(folder, 'stack'),
    parts: ['s3', 'iceberg'],
    bucketWarehouse: true,
  });
  catalog = await startCatalogFront(stack.environment.TIDEMARK_ICEBERG_URL!);
  store = await startHttpFront(stackS3(stack.environment).endpoint);
});

afterAll(async () => {
  catalog?.stop();
  store?.stop();
  await stack?.stop();
  await rm(folder, { recursive: true, force: true });
});

function place(more: OptionValues = {}): Place {
  places += 1;
  return new Place(stack, folder, `bucket_${places}`, {
    'iceberg.catalog.uri': catalog.uri,
    's3.endpoint': store.endpoint,
    's3.path.style': true,
    ...more,
  });
}

/** Its own keys, and nothing that the catalog says of credentials. */
function ownKeys(secret?: string): OptionValues {
  const { accessKeyId, secretAccessKey } = stackS3(stack.environment);
  return {
    'iceberg.catalog.vended.credentials': false,
    's3.access.key.id': accessKeyId,
    's3.secret.access.key': secret ?? secretAccessKey,
  };
}

function states(n: number, ids: readonly number[]): RowState[] {
  return ids.map((id) => {
    const key: Row = [`org ${id % 2}`, String(id)];
    return upsert(n, key, [...key, `note ${n} of ${id}`]);
  });
}

function rowsOf(...written: [n: number, id: number][]): Row[] {
  return sorted(written.map(([n, id]) => [`org ${id % 2}`, String(id), `note ${n} of ${id}`]));
}

async function expectRows(here: Place, rows: Row[]): Promise<void> {
  for (const reader of ['pyiceberg', 'duckdb'] as const)
    expect(await here.rows(shape, reader), reader).toEqual(rows);
}

/** All that is below the table's location, and what its snapshots need of it. */
function stored(here: Place): Promise<{ all: Set<string>; needed: Set<string> }> {
  return here.inLake(shape, async (_lake, table) => {
    const all = new Set<string>();
    for await (const page of table.store.list(`${table.metadata.location}/data/`))
      for (const { location } of page) all.add(location);
    for await (const page of table.store.list(`${table.metadata.location}/metadata/`))
      for (const { location } of page) if (!location.endsWith('.metadata.json')) all.add(location);
    return { all, needed: await reachableFiles(table, table.metadata.snapshots) };
  });
}

test.each(['vended', 'own'])(
  'Windows are merged in a bucket with %s keys, and read from it',
  async (keys) => {
    const here = place(keys === 'own' ? ownKeys() : {});
    const sink = await here.open();
    await sink.mergeWindow(windowOf(1, 1n, shape, states(1, [1, 2, 3, 4])));
    const gone: RowState = { op: 'delete', key: ['org 0', '2'], position: position(2) };
    await sink.mergeWindow(windowOf(2, 1n, shape, [...states(2, [3, 5]), gone]));
    await expectRows(here, rowsOf([1, 1], [2, 3], [1, 4], [2, 5]));
    const read: Row[] = [];
    for await (const rows of sink.readTable(shape, position(2))) read.push(...rows);
    expect(sorted(read)).toEqual(rowsOf([1, 1], [2, 3], [1, 4], [2, 5]));
    const { all, needed } = await stored(here);
    expect(all).toEqual(needed);
    expect([...all].every((location) => location.startsWith('s3://'))).toBe(true);
    await sink.close();
  },
);

test('a worker that is killed between its files and the commit leaves nothing in the bucket to its heir', async () => {
  const here = place();
  const first = await here.open();
  await first.mergeWindow(windowOf(1, 1n, shape, states(1, [1, 2, 3])));
  await first.close();
  const before = await stored(here);
  const scratch = join(folder, 'child');
  await mkdir(scratch);
  const lost: ChildWindow = { n: 2, token: 2, shape, rows: states(2, [2, 9]) };
  const child = spawn(
    process.execPath,
    [
      join(import.meta.dirname, '../iceberg/window-child.ts'),
      JSON.stringify(here.options),
      scratch,
      JSON.stringify(lost),
    ],
    { env: { ...process.env, TIDEMARK_FAILPOINTS: 'iceberg-sink-before-commit=kill' }, stdio: 'inherit' },
  );
  const [, signal] = await once(child, 'close');
  expect(signal).toBe('SIGKILL');
  expect((await stored(here)).all.size).toBeGreaterThan(before.all.size);
  await expectRows(here, rowsOf([1, 1], [1, 2], [1, 3]));

  const heir = await here.open();
  await heir.mergeWindow(windowOf(2, 3n, shape, states(2, [2, 9])));
  await expectRows(here, rowsOf([1, 1], [2, 2], [1, 3], [2, 9]));
  const after = await stored(here);
  expect(after.all).toEqual(after.needed);
  expect(await attempts(here)).toEqual([]);
  await heir.close();
});

function attempts(here: Place): Promise<string[]> {
  return here.inLake(shape, async (lake) => {
    const owner = { sourceId: 'source', destination: 'lake' };
    const progress = new ProgressTable(lake, owner, String(here.options['iceberg.namespace']));
    const table = (await progress.load())!;
    const found: string[] = [];
    for await (const page of table.store.list(attemptsLocation(table.metadata)))
      found.push(...page.map(({ location }) => location));
    return found;
  });
}

test('orphans in the bucket go when they are old, and nothing else does', async () => {
  const here = place();
  const sink = await here.open();
  for (let n = 1; n <= 3; n += 1) await sink.mergeWindow(windowOf(n, 1n, shape, states(n, [n, 7])));
  const orphans = await here.inLake(shape, async (_lake, { metadata, store: files }) => {
    const made = [`${metadata.location}/data/nobody.parquet`, `${metadata.location}/metadata/nobody.avro`];
    for (const location of made) await files.put(location, Buffer.from('nobody’s'));
    return made;
  });
  const before = await stored(here);
  const sweep = (orphanAgeMs: number) => sink.maintain(upkeep({ steps: ['orphans'], orphanAgeMs }));
  await sweep(24 * 60 * 60 * 1000);
  expect((await stored(here)).all).toEqual(before.all);
  // The store tells whole seconds.
  await expect
    .poll(
      async () => {
        await sweep(1);
        return (await stored(here)).all;
      },
      { timeout: 10_000 },
    )
    .toEqual(new Set([...before.all].filter((location) => !orphans.includes(location))));
  await expectRows(here, rowsOf([1, 1], [2, 2], [3, 3], [3, 7]));
  await sink.close();
});

test('the sink’s own keys: refused and expired ones are TM402, and nothing of the Window is left', async () => {
  const here = place(ownKeys());
  const window = () => windowOf(1, 1n, shape, states(1, [1, 2]));
  const wrong = await here.open(undefined, ownKeys('of another'));
  await expectRefusal(wrong.mergeWindow(window()), 'TM402');
  await wrong.close();

  const sink = await here.open();
  const expired = {
    status: 400,
    headers: { 'content-type': 'application/xml' },
    body: '<Error><Code>ExpiredToken</Code><Message>The provided token has expired.</Message></Error>',
  };
  await store.whileAnswering(expired, async () => {
    await expectRefusal(sink.mergeWindow(window()), 'TM402');
  });
  await sink.mergeWindow(window());
  await sink.close();
  await expectRows(here, rowsOf([1, 1], [1, 2]));
  const { all, needed } = await stored(here);
  expect(all).toEqual(needed);
});

test('keys of the catalog that the store refuses are TM402; they are asked for again when they end, and when they are refused', async () => {
  const here = place();
  const { secretAccessKey } = stackS3(stack.environment);
  const sink = await here.open();
  const asked = () =>
    catalog.seen.filter(({ method, url }) => method === 'GET' && /findings/.test(url)).length;
  await sink.mergeWindow(windowOf(1, 1n, shape, states(1, [1])));

  // These have ended when they come: each request to the store needs others.
  const ended = `"s3.session-token-expires-at-ms":"${Date.now() - 1000}"`;
  catalog.alter((body) => body.replaceAll('"s3.access-key-id"', `${ended},"s3.access-key-id"`));
  const brief = await here.open();
  const before = asked();
  await brief.mergeWindow(windowOf(2, 2n, shape, states(2, [2])));
  expect(asked() - before).toBeGreaterThan(3);
  await brief.close();

  catalog.alter((body) => body.replaceAll(secretAccessKey, 'revoked'));
  const heir = await here.open();
  await expectRefusal(heir.mergeWindow(windowOf(3, 3n, shape, states(3, [3]))), 'TM402');
  catalog.alter((body) => body);
  await heir.mergeWindow(windowOf(3, 3n, shape, states(3, [3])));
  await expectRows(here, rowsOf([1, 1], [2, 2], [3, 3]));
  await heir.close();
  await sink.close();
});
