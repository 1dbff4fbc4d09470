/**
 * Invariant 8, memory is bounded by configuration and not by the Transaction; and 4 and 5: no Window, and no boundary
 * Progress, ends inside it.
 */
import { afterAll, beforeAll, expect, test } from 'vitest';
import { parsePosition } from '../../src/connector/position.ts';
import { bulkFindings } from '../../src/sample/bulk.ts';
import { FaultStack } from '../fixtures/pipeline.ts';

let faults: FaultStack;
beforeAll(async () => {
  faults = await FaultStack.start('big-transaction');
});
afterAll(async () => {
  await faults?.stop();
});

const rows = process.env.CI ? 1_000_000 : 300_000;
/** MiB of resident memory, at the peak. */
const readerLimit = 300;
const deliveryLimit = 700;

/**
 * Three DuckDBs in one process: a window store per destination and the encoder. Measured: resident memory is about 85
 * MiB of program, 60 to 110 of heap, 30 of buffers, the three limits, and 110 MiB that DuckDB takes beyond them.
 */
const memory = {
  config: { 'deliver.spill.memory.bytes': '64MiB' },
  lake: { 'parquet.memory.bytes': '128MiB' },
};

test(`one Transaction of ${rows} rows goes through whole, in bounded memory`, async () => {
  await faults.run('big', memory, async (pipeline) => {
    const { reader, delivery } = await pipeline.begin();
    await bulkFindings(pipeline.source, { rows, seed: 'big', inOneTransaction: true });
    const committedAt = performance.now();
    await pipeline.published(900_000);
    const publishedAfter = performance.now() - committedAt;
    await pipeline.workload.once({ seed: 'big', transactions: 50 });
    const { progress, peakMiB } = await pipeline.conclude(reader, delivery, { patienceSeconds: 900 });
    console.log(
      `${rows} rows: published after ${(publishedAfter / 1000).toFixed(1)} s; peak MiB ${JSON.stringify(peakMiB)}`,
    );

    const committed = await pipeline.committed.committed(pipeline.source);
    const [lsn, changes] = [...committed].find(([, count]) => count === rows)!;
    const inside = (position: string) => {
      const { ordinal } = parsePosition(position);
      return position.slice(9, 25) === lsn && ordinal >= 1 && ordinal < changes;
    };
    // It went out in many batches, so there was something to split.
    expect(progress.filter(({ position }) => inside(position)).length).toBeGreaterThan(10);
    expect(progress.filter(({ position, boundary }) => boundary && inside(position))).toEqual([]);
    const { rows: windows } = await pipeline.control.query<{ from_position: string; to_position: string }>(
      'select from_position, to_position from tidemark.deliveries',
    );
    expect(windows.length).toBeGreaterThan(0);
    expect(windows.flatMap((each) => [each.from_position, each.to_position]).filter(inside)).toEqual([]);
    expect(peakMiB.reader).toBeLessThan(readerLimit);
    expect(peakMiB.delivery).toBeLessThan(deliveryLimit);
  });
});
