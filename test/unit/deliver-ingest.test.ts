/** Where reading starts, and that it does not start where a Unit's former life had got. */
import type { KafkaMessage } from 'kafkajs';
import { expect, test } from 'vitest';
import { formatPosition } from '../../src/connector/position.ts';
import type { Offsets } from '../../src/deliver/offsets.ts';
import { readRecord } from '../../src/deliver/read-record.ts';
import { TenantFilter } from '../../src/deliver/tenant-filter.ts';
import { TenantTables } from '../../src/deliver/tenant-tables.ts';
import { type Room, UnitIngest, type Watermarks } from '../../src/deliver/unit-ingest.ts';
import type { UnitStore } from '../../src/deliver/unit-store.ts';
import { FakeFetcher } from '../fixtures/fake-fetcher.ts';
import { fetchedRecord } from '../fixtures/fetched-record.ts';
import { shape, TableRecords } from '../integration/deliver-records.ts';

const mark = {
  position: formatPosition({ epoch: 1, lsn: 100n, ordinal: 1 }),
  commitTimeUs: 0n,
  offsets: { 'p.app.a': [5, 7] },
};

interface Around {
  newestEnds?: () => Offsets | null;
  store?: Partial<UnitStore>;
  room?: (spokenForBytes: number) => Room;
}

function ingestOver(watermarks: () => Promise<Watermarks[]>, around: Around = {}) {
  const { newestEnds = () => ({}), store = { inMemory: true }, room = () => 'none' } = around;
  const fetcher = new FakeFetcher();
  const ingest = new UnitIngest({
    destination: 'd',
    store: store as UnitStore,
    fetcher,
    watermarks,
    newestEnds,
    tenant: null,
    tenantTables: { require: async () => {} },
    room,
    changed: () => {},
  });
  ingest.assign({ 'p.app.a': [0, 1] });
  return { ingest, fetcher, ...fetcher };
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
  const { ingest, begun } = ingestOver(async () => expired, { newestEnds: () => newest });
  expect(await ingest.begin(mark)).toBe(false);
  expect(begun).toEqual([]);
  newest = { 'p.app.a': [50, 50] };
  await expect(ingest.begin(mark)).rejects.toMatchObject({ code: 'TM307' });
  // Nothing was written since: what is gone were markers.
  newest = { 'p.app.a': [5, 7] };
  expect(await ingest.begin(mark)).toBe(true);
});

test('what nobody waits for does not go to disk: it is turned away, and read again from there', async () => {
  const table = await tableOfOne('a');
  const rows = (from: number, count: number) =>
    Array.from({ length: count }, (_, i) => table.inserted(200n + BigInt(from + i), from + i));
  let space = 3;
  const taken = { inMemory: 0, spilled: 0 };
  const store: Partial<UnitStore> = {
    inMemory: true,
    bytesPerRow: 1,
    rowsAtATime: 2,
    append: async (changes) => {
      taken.spilled += changes.length;
    },
    appendInMemory: async (changes) => {
      if (changes.length > space) return false;
      space -= changes.length;
      taken.inMemory += changes.length;
      return true;
    },
  };
  let room: Room = 'ample';
  const { ingest, fetcher, begun } = ingestOver(async () => all, { store, room: () => room });
  await ingest.begin(mark);
  expect(await fetcher.bring('p.app.a', 0, rows(5, 5))).toBe(false);
  ingest.throwIfFailed();
  expect(taken).toEqual({ inMemory: 2, spilled: 0 });
  room = 'none';
  ingest.relieve();
  expect(begun.slice(2)).toEqual([]);
  room = 'ample';
  // Which it is told whenever it wakes.
  ingest.setTarget(null);
  expect(begun.slice(2)).toEqual([]);
  ingest.relieve();
  ingest.relieve();
  expect(begun.slice(2)).toEqual([[0, 7]]);
  expect(await fetcher.bring('p.app.a', 0, rows(7, 2))).toBe(false);
  // A Window needs it: it comes in, whatever that takes.
  room = 'none';
  ingest.setTarget({ 'p.app.a': [9, 7] });
  expect(begun.slice(3)).toEqual([[0, 7]]);
  expect(await fetcher.bring('p.app.a', 0, rows(7, 2))).toBe(true);
  expect(taken).toEqual({ inMemory: 2, spilled: 2 });
  expect(ingest.reached({ 'p.app.a': [9, 7] })).toBe(true);
});

test('where room is scarce only what the next Window needs is read, and what Windows need is spoken for', async () => {
  const asked: number[] = [];
  const { ingest, paused } = ingestOver(async () => all, {
    store: { inMemory: true, bytesPerRow: 10 },
    room: (spokenFor) => {
      asked.push(spokenFor);
      return spokenFor > 0 ? 'scarce' : 'none';
    },
  });
  await ingest.begin(mark);
  expect(paused.splice(0)).toEqual([0, 1]);
  // Of partition 0 up to 9, of partition 1 up to 7, where it is already.
  ingest.setTarget({ 'p.app.a': [6, 7] }, { 'p.app.a': [9, 7] });
  expect(asked.at(-1)).toBe(40);
  expect(paused).toEqual([1]);
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

/** A table of one text: inserted rows as fetched records. */
async function tableOfOne(name: string) {
  const { register } = registryInMemory();
  const own = shape(name, ['id']);
  const table = new TableRecords('p', own, 1, register);
  await table.setShape(own);
  return {
    inserted(lsn: bigint, offset: number) {
      const next = () => formatPosition({ epoch: 1, lsn, ordinal: 1 });
      const [message] = table.records({ op: 'c', row: [String(offset)] }, 0n, next);
      return fetchedRecord({ ...message, offset: String(offset) } as KafkaMessage);
    },
  };
}

/** Value schemas alone have a number here. */
function registryInMemory() {
  const schemas: string[] = [];
  const register = async (subject: string, schema: string) =>
    subject.endsWith('-value') ? schemas.push(schema) - 1 : 0;
  return { schemas, register };
}
