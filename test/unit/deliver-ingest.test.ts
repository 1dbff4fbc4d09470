/** Where reading starts, and that it does not start where a Unit's former life had got. */
import { expect, test } from 'vitest';
import { formatPosition } from '../../src/connector/position.ts';
import { UnitIngest, type Watermarks } from '../../src/deliver/unit-ingest.ts';
import type { UnitStore } from '../../src/deliver/unit-store.ts';
import { FakeFetcher } from '../fixtures/fake-fetcher.ts';

const mark = {
  position: formatPosition({ epoch: 1, lsn: 100n, ordinal: 1 }),
  commitTimeUs: 0n,
  offsets: { 'p.app.a': [5, 7] },
};

function ingestOver(watermarks: () => Promise<Watermarks[]>) {
  const fetcher = new FakeFetcher();
  const ingest = new UnitIngest({
    destination: 'd',
    store: {} as UnitStore,
    fetcher,
    watermarks,
    newestEnds: () => ({}),
    tenant: null,
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
