/** Where reading starts, and that it does not start where a Unit's former life had got. */
import { expect, test } from 'vitest';
import { formatPosition } from '../../src/connector/position.ts';
import type { Offsets } from '../../src/deliver/offsets.ts';
import { UnitIngest, type Watermarks } from '../../src/deliver/unit-ingest.ts';
import type { UnitStore } from '../../src/deliver/unit-store.ts';
import { FakeFetcher } from '../fixtures/fake-fetcher.ts';

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
