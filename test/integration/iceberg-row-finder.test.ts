/** Finding and reading rows of a table in a real bucket: what is fetched of its files, and that it is enough. */
import { rm } from 'node:fs/promises';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { type Stack, startStack } from '../../compose/local-stack.ts';
import { type FileStore, openFileStore } from '../../connectors/sinks/iceberg/file-store.ts';
import { columnName } from '../../connectors/sinks/iceberg/plan/read-columns.ts';
import { s3Region, stackS3 } from '../iceberg/catalogs.ts';
import { LocalTable } from '../iceberg/local-table.ts';
import { TableFinder } from '../iceberg/table-finder.ts';

const directory = new URL('../../.tidemark/test-stacks/iceberg-rows', import.meta.url).pathname;
let stack: Stack;
let store: FileStore;
let table: LocalTable;

beforeAll(async () => {
  await rm(directory, { recursive: true, force: true });
  stack = await startStack({ directory, parts: ['s3'] });
  const credentials = stackS3(stack.environment);
  const location = `s3://${stack.environment.TIDEMARK_S3_BUCKET}/a table/ü%20`;
  store = await openFileStore(location, {
    endpoint: credentials.endpoint,
    region: s3Region,
    pathStyle: true,
    tlsCa: null,
    credentials: async () => credentials,
  });
  table = await LocalTable.create({
    place: { store, location },
    fields: [
      { id: 1, name: 'payload', required: false, type: 'string' },
      { id: 2, name: 'key', required: true, type: 'long' },
      { id: 3, name: 'note', required: false, type: 'string' },
    ],
    key: ['key'],
    rowGroupRows: 20_000,
  });
});
afterAll(async () => {
  await table?.remove();
  await store?.close();
  await stack.stop();
  await rm(directory, { recursive: true, force: true });
});

/** Counts what it passes on. */
class CountingStore implements Pick<FileStore, 'get' | 'getRange'> {
  bytes = 0;

  async get(location: string): Promise<Buffer | null> {
    return this.#count(await store.get(location));
  }

  async getRange(location: string, start: number, length: number): Promise<Buffer | null> {
    return this.#count(await store.getRange(location, start, length));
  }

  #count(body: Buffer | null): Buffer | null {
    this.bytes += body?.length ?? 0;
    return body;
  }
}

it('keys are found by their column alone, deletes are applied, and rows are read', async () => {
  const noise = (seed: number) =>
    `(SELECT string_agg(md5((range * 1000 + each + ${seed})::VARCHAR), '') FROM range(20) AS t(each))`;
  await table.append(
    `(SELECT ${noise(0)} AS payload, range AS key, 'note ' || range AS note FROM range(60000))`,
  );
  const [file] = [...(await table.live()).dataFiles()];
  await table.commit(
    [],
    await table.writeDeletes([
      [file!.path, 1],
      [file!.path, 50_000],
    ]),
  );
  const counting = new CountingStore();
  let finder = await TableFinder.open(table, { store: counting });
  const keys = '(SELECT unnest([0, 1, 40000, 50000, 60000]) AS key)';
  const found = await finder.find(keys, 'key');
  expect((await finder.rows(found)).map(({ key }) => key).sort()).toEqual([0, 40000]);
  expect(file!.bytes).toBeGreaterThan(10_000_000);
  expect(counting.bytes).toBeLessThan(file!.bytes / 10);
  const [, , note] = table.schema.fields;
  const rows = await table.database.connection.runAndReadAll(
    `SELECT rid, ${columnName(note!.id)} FROM (${await finder.columns.select(file!, [note!])}) JOIN ${found} USING (pos) ORDER BY rid`,
  );
  expect(rows.getRows()).toEqual([
    [0, 'note 0'],
    [40000, 'note 40000'],
  ]);
  expect(counting.bytes).toBeLessThan(file!.bytes / 5);
  finder.close();
  // The index is there still: nothing but metadata and deletes is read.
  const before = counting.bytes;
  finder = await TableFinder.open(table, { store: counting });
  expect((await finder.rows(await finder.find(keys, 'key'))).length).toBe(2);
  expect(counting.bytes - before).toBeLessThan(30_000);
  finder.close();
});
