/** Memory is bounded by configuration, not by the size of a transaction, a row or the backlog. */
import { readdirSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { deliver, type Harness, spawnDelivery, startHarness, until } from './deliver-harness.ts';
import { MemoryStore, memorySink } from './deliver-memory-sink.ts';
import { shape } from './deliver-records.ts';
import type { TableChange } from './deliver-source.ts';

let harness: Harness;
beforeAll(async () => {
  harness = await startHarness();
});
afterAll(async () => {
  await harness?.stop();
});

test('catching up with many transactions nothing goes to disk, however slow the destination', async () => {
  const source = harness.source();
  await source.open([shape('events', ['id', 'body'])], 4);
  const transactions = 40;
  const rows = 2500;
  for (let n = 0; n < transactions; n++) {
    await source.commit(
      Array.from({ length: rows }, (_, i) => ({
        table: 'events',
        change: { op: 'c' as const, row: [String(n * rows + i), 'lorem ipsum dolor sit amet '.repeat(12)] },
      })),
    );
  }
  const config = harness.config(source, [{}]);
  config.deliver = { ...config.deliver, memoryBytes: 16 << 20 };
  const store = new MemoryStore();
  store.countOnly = true;
  // Meanwhile all comes in that may.
  store.duringMerge = () => sleep(300);
  const spilled = new Set<string>();
  const windows: number[] = [];
  const delivery = await deliver(config, memorySink(store), ({ rows: count }) => {
    windows.push(count);
    for (const name of readdirSync(config.deliver.spillDirectory, { recursive: true, encoding: 'utf8' }))
      if (name.endsWith('.values')) spilled.add(name);
  });
  await until('delivery', () => store.counted === transactions * rows, 120_000);
  expect([...spilled]).toEqual([]);
  // Of several transactions each, and none larger than what waits beside it in memory.
  expect(Math.max(...windows)).toBeLessThanOrEqual(5 * rows);
  expect(windows.length).toBeLessThan(transactions);
  await delivery.stop();
  await source.close();
});

test('a transaction of a million rows passes in one window, in less than 700 MiB', async () => {
  const source = harness.source();
  await source.open([shape('events', ['id', 'kind', 'body'])], 4);
  const rows = 1_000_000;
  const body = 'lorem ipsum dolor sit amet '.repeat(10);
  const part = function* (from: number, count: number): Generator<TableChange> {
    for (let i = from; i < from + count; i++)
      yield { table: 'events', change: { op: 'c', row: [String(i), `kind ${i % 7}`, `${i} ${body}`] } };
  };
  const step = 25_000;
  for (let from = 0; from < rows; from += step)
    await source.commit(part(from, step), { boundary: from + step >= rows });
  // The default of deliver.spill.memory.bytes.
  const config = harness.config(source, [{}]);
  config.deliver = { ...config.deliver, spillMemoryBytes: 256 << 20 };
  const begun = performance.now();
  const { child, lines, exited } = spawnDelivery(harness, config, { storeFile: null });
  const delivered = await until('delivery', () => lines.find(({ event }) => event === 'delivered'), 900_000);
  const seconds = (performance.now() - begun) / 1000;
  process.stdout.write(`1,000,000 rows in ${seconds.toFixed(1)} s, peak ${delivered!.peakMiB} MiB\n`);
  expect(delivered).toMatchObject({ rows, counted: rows, sequence: 1 });
  expect(delivered!.peakMiB).toBeLessThan(700);
  child.kill('SIGTERM');
  expect(await exited).toBe(0);
  await source.close();
});
