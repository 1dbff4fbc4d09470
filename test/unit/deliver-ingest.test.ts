/** Where reading starts, and that it does not start where a Unit's former life had got. */
import type { KafkaMessage } from 'kafkajs';
import { expect, test } from 'vitest';
import { formatPosition } from '../../src/connector/position.ts';
import type { Offsets } from '../../src/deliver/offsets.ts';
import { readRecord } from '../../src/deliver/read-record.ts';
import { TenantFilter } from '../../src/deliver/tenant-filter.ts';
import { TenantTables } from '../../src/deliver/tenant-tables.ts';
import { UnitIngest, type Watermarks } from '../../src/deliver/unit-ingest.ts';
import type { UnitStore } from '../../src/deliver/unit-store.ts';
import { FakeFetcher } from '../fixtures/fake-fetcher.ts';
import { fetchedRecord } from '../fixtures/fetched-record.ts';
import { shape, TableRecords } from '../integration/deliver-records.ts';

const mark = {
  position: formatPosition({ epoch: 1, lsn: 100n, ordinal: 1 }),
  commitTimeUs: 0n,
  offsets: { 'p.app.a': [5, 7] },
};

function ingestOver(watermarks: () => Promise<Watermarks[]>, newestEnds: () => Offsets | null = () => ({})) {
  const fetcher = new FakeFetcher();
  const ingest = new UnitIngest({
    destination: 'd',
    store: {} as UnitStore,
    fetcher,
    watermarks,
    newestEnds,
    tenant: null,
    tenantTables: { require: async () => {} },
    crowded: () => true,
    changed: () => {},
  });
  ingest.assign({ 'p.app.a': [0, 1] });
  return { ingest, ...fetcher };
}

const all: Watermarks[] = [
  { low: 0, high: 50 },
  { low: 0, high: 50 },
];

test('every partition begins at the mark', async () => {
  const { ingest, begun } = ingestOver(async () => all);
  await ingest.begin(mark);
  expect(begun).toEqual([
    [0, 5],
    [1, 7],
  ]);
});

test('a Unit that was given up while it asked Kafka reads nothing', async () => {
  const { promise, resolve } = Promise.withResolvers<Watermarks[]>();
  const { ingest, begun, paused } = ingestOver(() => promise);
  const beginning = ingest.begin(mark);
  ingest.close();
  resolve(all);
  await beginning;
  ingest.setTarget({ 'p.app.a': [9, 9] });
  ingest.relieve();
  expect(begun).toEqual([]);
  expect(paused).toEqual([]);
});

test('what Kafka expired is not judged by a Progress that may be an old one', async () => {
  let newest: Offsets | null = null;
  const expired = all.map(({ high }) => ({ low: 20, high }));
  const { ingest, begun } = ingestOver(
    async () => expired,
    () => newest,
  );
  expect(await ingest.begin(mark)).toBe(false);
  expect(begun).toEqual([]);
  newest = { 'p.app.a': [50, 50] };
  await expect(ingest.begin(mark)).rejects.toMatchObject({ code: 'TM307' });
  // Nothing was written since: what is gone were markers.
  newest = { 'p.app.a': [5, 7] };
  expect(await ingest.begin(mark)).toBe(true);
});

test('a tenant is not told whose a row was before it came to it', async () => {
  const schemas: string[] = [];
  const own = { ...shape('own', ['tenant', 'text']), tenantColumn: 0 };
  const table = new TableRecords('p', own, 1, async (_, schema) => schemas.push(schema) - 1);
  await table.setShape(own);
  let ordinal = 0;
  const next = () => formatPosition({ epoch: 1, lsn: 1n, ordinal: ++ordinal });
  const changes = [
    ...table.records({ op: 'c', row: ['1', 'x'] }, 0n, next),
    ...table.records({ op: 'k', oldKey: '1', row: ['2', 'x'] }, 0n, next),
    ...table.records({ op: 't' }, 0n, next),
  ].flatMap((message) => {
    const record = fetchedRecord({ ...message, offset: '0' } as KafkaMessage);
    return readRecord(record, 0, table.topic, 'd') ?? [];
  });
  expect(changes.map(({ oldKey }) => oldKey !== null)).toEqual([false, false, true, false]);
  const schemaById = async (id: number) => schemas[id]!;
  const handed = async (tenant: string) =>
    (await new TenantFilter(tenant, { schemaById }).own(changes)).map(({ position, oldKey, oldKeyEnd }) => [
      changes.findIndex((each) => each.position === position),
      oldKey,
      oldKeyEnd,
    ]);
  expect(await handed('1')).toEqual([0, 1, 3].map((change) => [change, null, null]));
  expect(await handed('2')).toEqual([2, 3].map((change) => [change, null, null]));
});

test('the versions of a table are looked at once for all destinations, and again when the topic has grown', async () => {
  const { register, schemas } = registryInMemory();
  const own = { ...shape('own', ['tenant', 'text']), tenantColumn: 0 };
  const table = new TableRecords('p', own, 2, register);
  let asked = 0;
  const tables = new TenantTables({
    latest: async () => {
      asked++;
      return schemas.length > 0 ? { version: schemas.length } : null;
    },
    versions: async () => schemas.map((schema) => ({ schema })),
  });
  const require = (...ends: number[]) =>
    Promise.all(Array.from({ length: 5 }, () => tables.require(table.topic, 'p.app.own', ends)));
  await require(0, 0);
  expect(asked).toBe(1);
  await expect(require(1, 0)).rejects.toMatchObject({ code: 'TM304' });
  await table.setShape(own);
  asked = 0;
  await require(4, 2);
  await require(3, 2);
  expect(asked).toBe(1);
  await require(3, 3);
  expect(asked).toBe(2);
  await table.setShape({ ...own, tenantColumn: null });
  // Below these there is none of the new version.
  await require(4, 3);
  await expect(require(5, 3)).rejects.toMatchObject({ code: 'TM413' });
});

/** Value schemas alone have a number here. */
function registryInMemory() {
  const schemas: string[] = [];
  const register = async (subject: string, schema: string) =>
    subject.endsWith('-value') ? schemas.push(schema) - 1 : 0;
  return { schemas, register };
}
