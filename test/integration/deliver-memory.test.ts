/** Memory is bounded by configuration, not by the size of a transaction, a row or the backlog. */
import { afterAll, beforeAll, expect, test } from 'vitest';
import { type Harness, spawnDelivery, startHarness, until } from './deliver-harness.ts';
import { shape } from './deliver-records.ts';
import type { TableChange } from './deliver-source.ts';

let harness: Harness;
beforeAll(async () => {
  harness = await startHarness();
});
afterAll(async () => {
  await harness?.stop();
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
