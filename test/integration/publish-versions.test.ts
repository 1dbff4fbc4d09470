/** Versions of a table's shape in a real registry, under the compatibility that the configuration says. */
import { afterAll, beforeAll, expect, test } from 'vitest';
import type { ColumnShape, TableShape } from '../../src/connector/shape.ts';
import { createLogger } from '../../src/platform/log.ts';
import { RegistryClient } from '../../src/platform/registry.ts';
import type { Compatibility, IncompatibleChange } from '../../src/platform/resolved-config.ts';
import { type DescribedTable, TableVersions } from '../../src/publish/table-versions.ts';
import { startServers, startTimeoutMs, type TestServers } from '../fixtures/postgres.ts';

let servers: TestServers;
let registry: RegistryClient;
const log = createLogger({ level: 'error' });
beforeAll(async () => {
  servers = await startServers(['postgres', 'registry']);
  const config = { url: servers.registryUrl, username: null, password: null, tls: false as const };
  registry = new RegistryClient(config, log);
}, startTimeoutMs);
afterAll(async () => {
  registry?.close();
  await servers?.stop();
});

function described(topic: string, columns: [string, string, boolean?][]): DescribedTable {
  const list = columns.map(([name, type, key = false]): ColumnShape => ({ name, type, key, nullable: !key }));
  const shape: TableShape = {
    schema: 'app',
    name: topic,
    columns: list,
    keyColumns: list.flatMap(({ key }, i) => (key ? [i] : [])),
    tenantColumn: null,
  };
  const origins = new Map(
    list.map(({ name }, i) => [
      name,
      { name, number: i + 1, type: 0, typmod: -1, missing: null, computed: false },
    ]),
  );
  return { topic, shape, oid: 1, origins, made: false, renamedFrom: null, policy: null };
}

const open = (compatibility: Compatibility, policy: IncompatibleChange = 'park') =>
  new TableVersions({ registry, compatibility, onIncompatibleChange: () => policy, log });

const narrow: [string, string, boolean?][] = [
  ['id', 'integer', true],
  ['n', 'integer'],
];
const wide: [string, string, boolean?][] = [
  ['id', 'integer', true],
  ['n', 'bigint'],
];

test('BACKWARD is set on a new subject, and holds a widening and a key that comes later', async () => {
  const versions = open('BACKWARD');
  await versions.register(described('a', narrow));
  expect(await registry.compatibilityOf('a-value')).toBe('BACKWARD');
  expect(await registry.compatibilityOf('a-key')).toBe('BACKWARD');
  await versions.register(described('a', wide));
  await versions.register(
    described('a', [
      ['id', 'integer'],
      ['n', 'bigint'],
    ]),
  );
  await versions.register(described('a', wide));
  expect(await registry.versions('a-value')).toHaveLength(4);
  expect(await registry.versions('a-key')).toHaveLength(1);
});

test('FULL: what newer records would do to older readers parks the table, in words', async () => {
  const versions = open('FULL');
  await versions.register(described('b', narrow));
  await expect(versions.register(described('b', wide))).rejects.toMatchObject({
    code: 'TM231',
    message: expect.stringContaining('the registry finds it not FULL compatible with subject b-value'),
  });
  expect(await registry.versions('b-value')).toHaveLength(1);
});

test('BACKWARD_TRANSITIVE: also what an older version than the latest has counts', async () => {
  const versions = open('BACKWARD_TRANSITIVE');
  await versions.register(
    described('c', [
      ['id', 'integer', true],
      ['n', 'integer'],
    ]),
  );
  await versions.register(described('c', [['id', 'integer', true]]));
  const back = described('c', [
    ['id', 'integer', true],
    ['n', 'text'],
  ]);
  back.origins = new Map(
    [...back.origins].map(([name, origin]) => [name, { ...origin, number: name === 'n' ? 3 : 1 }]),
  );
  await expect(versions.register(back)).rejects.toMatchObject({ code: 'TM231' });
});

test('evolve registers side by side and leaves the compatibility as it was; another one in the configuration is set', async () => {
  const versions = open('BACKWARD', 'evolve');
  await versions.register(described('d', narrow));
  const { valueSchemaId } = await versions.register(
    described('d', [
      ['id', 'integer', true],
      ['n', 'text'],
    ]),
  );
  const all = await registry.versions('d-value');
  expect(all.map(({ id }) => id)).toContain(valueSchemaId);
  expect(all).toHaveLength(2);
  expect(await registry.compatibilityOf('d-value')).toBe('BACKWARD');
  await open('FULL').register(
    described('d', [
      ['id', 'integer', true],
      ['n', 'text'],
      ['m', 'text'],
    ]),
  );
  expect(await registry.compatibilityOf('d-value')).toBe('FULL');
});

test('text goes on compatible with every version, whatever the registry asks for', async () => {
  for (const [i, compatibility] of (
    ['BACKWARD_TRANSITIVE', 'FORWARD_TRANSITIVE', 'FULL_TRANSITIVE'] as const
  ).entries()) {
    const versions = open(compatibility, 'text');
    const topic = `e${i}`;
    for (const type of ['integer', 'text', 'numeric(8,2)', 'integer', 'bytea', 'interval[]'])
      await versions.register(
        described(topic, [
          ['id', 'integer', true],
          ['n', type],
        ]),
      );
    // Another column of the name, and one that is read as a wider type by older readers no more.
    const again = described(topic, [
      ['id', 'integer', true],
      ['m', 'integer'],
      ['n', 'bytea'],
    ]);
    const numbered = [...again.origins].map(([name, origin], k) => [
      name,
      { ...origin, number: [1, 2, 9][k]! },
    ]);
    again.origins = new Map(numbered as [string, ReturnType<typeof again.origins.get> & object][]);
    await versions.register(again);
    const all = await registry.versions(`${topic}-value`);
    expect(all).toHaveLength(7);
    for (const { schema } of all) expect(JSON.parse(schema).tidemark.major).toBe(1);
    expect(await registry.compatibilityOf(`${topic}-value`)).toBe(compatibility);
  }
});

test('text under FULL: a type that older readers cannot follow is carried too', async () => {
  const versions = open('FULL', 'text');
  await versions.register(described('f', narrow));
  const { shape } = await versions.register(described('f', wide));
  expect(shape.columns[1]).toMatchObject({ type: 'bigint', form: 'text', carried: { field: 'n__text' } });
});
