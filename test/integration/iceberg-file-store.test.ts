/** Table files by location, in a bucket and in a directory: the same behaviour, whatever the names are. */
import { randomBytes } from 'node:crypto';
import { mkdir, readdir, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { ListObjectsV2Command, S3Client } from '@aws-sdk/client-s3';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { type Stack, startStack } from '../../compose/local-stack.ts';
import {
  below,
  type FileStore,
  keySegment,
  openFileStore,
} from '../../connectors/sinks/iceberg/file-store.ts';
import type { S3Access } from '../../connectors/sinks/iceberg/s3-access.ts';
import { TidemarkError } from '../../src/connector/failure.ts';
import { s3Region, stackS3 } from '../iceberg/catalogs.ts';

const directory = new URL('../../.tidemark/test-stacks/iceberg-files', import.meta.url).pathname;
const folder = join(directory, 'files');
let stack: Stack;

beforeAll(async () => {
  await rm(directory, { recursive: true, force: true });
  stack = await startStack({ directory, parts: ['s3'] });
  await mkdir(folder, { recursive: true });
});
afterAll(async () => {
  await stack.stop();
  await rm(directory, { recursive: true, force: true });
});

function access(): S3Access {
  const credentials = stackS3(stack.environment);
  return {
    endpoint: credentials.endpoint,
    region: s3Region,
    pathStyle: true,
    tlsCa: null,
    credentials: async () => credentials,
  };
}

async function locations(store: FileStore, prefix: string): Promise<string[]> {
  const found: string[] = [];
  for await (const page of store.list(prefix)) found.push(...page.map(({ location }) => location));
  return found.sort();
}

/** What a name may be once it is in a catalog: taken as it is, never decoded, never cleaned up. */
const hostile = [
  'a b',
  'per%20cent',
  '%2F%2e%2E',
  '100%',
  'plus+plus',
  'a&b=c;d',
  'qu?es#tion',
  'quote\'"`',
  'ünïcode 漢字 🌊',
  'e\u0301 and \u00e9',
  '<x>&amp;',
  '$HOME ~ * [x] {y}',
  'x=1',
  ' ',
  'tab\tand\nline',
];

/** SeaweedFS makes folders of it. */
const notInBuckets = 'back\\slash';

describe.each([
  ['a bucket', () => 's3://tidemark/files'],
  ['a bucket in Hadoop’s spelling', () => 's3a://tidemark/hadoop'],
  ['a directory', () => pathToFileURL(join(folder, 'plain')).href],
  ['a directory in Java’s spelling', () => `file:${join(folder, 'java')}`],
])('%s', (_place, root) => {
  let store: FileStore;
  beforeAll(async () => {
    store = await openFileStore(root(), access());
  });
  afterAll(() => store.close());

  it('keeps, gives in parts, replaces and removes', async () => {
    const location = below(root(), 'data', 'file.bin');
    const body = randomBytes(100_000);
    expect(await store.get(location)).toBeNull();
    expect(await store.getRange(location, 0, 10)).toBeNull();
    await store.put(location, body);
    expect((await store.get(location))!.equals(body)).toBe(true);
    expect((await store.getRange(location, 99_990, 10))!.equals(body.subarray(99_990))).toBe(true);
    expect((await store.getRange(location, 10, 5))!.equals(body.subarray(10, 15))).toBe(true);
    expect((await store.getRange(location, 99_990, 500))!.equals(body.subarray(99_990))).toBe(true);
    expect(await store.getRange(location, 100_000, 5)).toHaveLength(0);
    expect(await store.getRange(location, 5, 0)).toHaveLength(0);
    await store.put(location, Buffer.alloc(0));
    expect(await store.get(location)).toHaveLength(0);
    await store.delete([location, below(root(), 'never', 'there')]);
    expect(await store.get(location)).toBeNull();
    await store.delete([]);
  });

  it('takes finished files', async () => {
    const local = join(directory, 'local.bin');
    const body = randomBytes(3_000_000);
    await writeFile(local, body);
    const location = below(root(), 'data', 'uploaded.bin');
    await store.putFile(location, local);
    expect((await store.get(location))!.equals(body)).toBe(true);
  });

  it('takes names as they are', async () => {
    const folderOfNames = below(root(), 'names');
    const names = root().startsWith('file:') ? [...hostile, notInBuckets] : hostile;
    const all = names.flatMap((name) => [
      below(folderOfNames, name),
      below(folderOfNames, `in ${name}`, name),
    ]);
    for (const location of all) await store.put(location, Buffer.from(location));
    for (const location of all) expect((await store.get(location))!.toString()).toBe(location);
    expect(await locations(store, `${folderOfNames}/`)).toEqual([...all].sort());
    for (const name of names) {
      const inside = below(folderOfNames, `in ${name}`, name);
      expect(await locations(store, `${below(folderOfNames, `in ${name}`)}/`)).toEqual([inside]);
    }
    await store.delete(all);
    expect(await locations(store, `${folderOfNames}/`)).toEqual([]);
  });

  it('lists by prefix, not by folder, over as many pages as it takes', async () => {
    // S3 gives a thousand in a page; one place of each kind is enough for that.
    const length = root().includes('files') || root().includes('plain') ? 1203 : 30;
    const many = Array.from({ length }, (_file, i) => below(root(), 'many', `${i % 3}`, `f-${i}`));
    for (let i = 0; i < many.length; i += 100) {
      await Promise.all(many.slice(i, i + 100).map((location) => store.put(location, Buffer.from('x'))));
    }
    expect(await locations(store, below(root(), 'many/'))).toEqual([...many].sort());
    expect(await locations(store, below(root(), 'many', '1', 'f-10'))).toEqual(
      many.filter((location) => location.includes('/1/f-10')).sort(),
    );
    for await (const [entry] of store.list(many[0]!)) {
      expect(entry).toMatchObject({ location: many[0], size: 1 });
      expect(Math.abs(entry!.modifiedMs - Date.now())).toBeLessThan(600_000);
    }
    await store.delete(many);
    expect(await locations(store, below(root(), 'many/'))).toEqual([]);
  });
});

it('what the stores wrote is there under the same names for others', async () => {
  const store = await openFileStore('s3://tidemark/', access());
  const names = hostile.filter((name) => !/[\t\n]/.test(name));
  for (const name of names) await store.put(`s3://tidemark/seen/${name}`, Buffer.from('x'));
  await store.close();
  const { endpoint, accessKeyId, secretAccessKey } = stackS3(stack.environment);
  const client = new S3Client({
    endpoint,
    region: s3Region,
    forcePathStyle: true,
    credentials: { accessKeyId, secretAccessKey },
  });
  const listed = await client.send(new ListObjectsV2Command({ Bucket: 'tidemark', Prefix: 'seen/' }));
  client.destroy();
  expect(listed.Contents!.map(({ Key }) => Key!.slice(5)).sort()).toEqual([...names].sort());

  const local = await openFileStore('file:///', access());
  for (const name of hostile) await local.put(`file://${folder}/seen/${name}`, Buffer.from('x'));
  expect((await readdir(join(folder, 'seen'))).sort()).toEqual([...hostile].sort());
});

it('parts of locations made from names are plain, different, and stay in their folder', () => {
  const names = [
    ...hostile,
    '.',
    '..',
    '../..',
    '/',
    '_x',
    '.x',
    '-',
    '-2d',
    'findings',
    'Findings',
    '_',
    '',
    'a-20b',
  ];
  const made = names.map(keySegment);
  for (const segment of made) expect(segment).toMatch(/^(?:[A-Za-z0-9-][A-Za-z0-9_.-]*)?$/);
  expect(new Set(made).size).toBe(names.length);
  expect(keySegment('findings_2024.v1')).toBe('findings_2024.v1');
});

it('no location leads out of its folder or to a place of another kind', async () => {
  const local = await openFileStore('file:///', access());
  const failures = [
    'file:///a/../../etc/passwd',
    'file:///a/./b',
    's3://bucket/key',
    'file://host/x',
    'gs://b/k',
    '/a',
  ];
  for (const location of failures) {
    const failure = await local.get(location).catch((error: unknown) => error);
    expect(failure, location).toBeInstanceOf(TidemarkError);
    expect((failure as TidemarkError).code).toBe('TM101');
  }
});

it('failures are told apart, and no file’s name is in their text', async () => {
  const secret = 'value-of-a-partition';
  const failing = async (changes: Partial<S3Access>, bucket = 'tidemark') => {
    const store = await openFileStore('s3://x/', { ...access(), ...changes });
    const work = store.put(`s3://${bucket}/${secret}`, Buffer.from('x')).then(
      () => store.get(`s3://${bucket}/${secret}`),
      (error: unknown) => Promise.reject(error),
    );
    const failure = (await work.catch((error: unknown) => error)) as TidemarkError;
    await store.close();
    expect(`${failure.message} ${failure.remedy}`).not.toContain(secret);
    return failure;
  };
  const wrong = { accessKeyId: 'tidemark', secretAccessKey: 'wrong' };
  expect(await failing({ credentials: async () => wrong })).toMatchObject({ code: 'TM402' });
  expect(await failing({}, 'no-such-bucket')).toMatchObject({ code: 'TM402' });
  expect(await failing({ endpoint: 'http://127.0.0.1:1' })).toMatchObject({ code: 'TM401' });
  const local = await openFileStore('file:///', access());
  await writeFile(join(folder, 'occupied'), 'x');
  const failure = (await local
    .put(`file://${folder}/occupied/${secret}`, Buffer.from('x'))
    .catch((error: unknown) => error)) as TidemarkError;
  expect(failure).toMatchObject({ code: 'TM401' });
  expect(failure.message).not.toContain(secret);
});

it('credentials that end are asked for again, before they do', async () => {
  const credentials = stackS3(stack.environment);
  let asked = 0;
  const store = await openFileStore('s3://x/', {
    ...access(),
    credentials: async () => {
      asked += 1;
      return { ...credentials, expiration: new Date(Date.now() + (asked === 1 ? 1000 : 3_600_000)) };
    },
  });
  for (let i = 0; i < 3; i += 1) await store.put(`s3://tidemark/fresh-${i}`, Buffer.from('x'));
  expect(asked).toBe(2);
  await store.close();
});
