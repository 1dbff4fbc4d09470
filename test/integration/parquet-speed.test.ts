/**
 * Memory is bounded: a Window of 1,000,000 rows is written and read back in a process of its own, whose memory is
 * watched. Figures are printed; only the memory is asserted.
 */
import { execFile } from 'node:child_process';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { temporaryFolder } from './parquet-harness.ts';

const rows = Number(process.env.TIDEMARK_PARQUET_ROWS ?? 1_000_000);
const maxExtraMiB = 300;

describe('a Window of many rows', () => {
  let folder: Awaited<ReturnType<typeof temporaryFolder>>;
  beforeAll(async () => {
    folder = await temporaryFolder();
  });
  afterAll(() => folder?.remove());

  // The two of an encoder side by side: each has a core, and what is asserted is not time.
  it.each([
    ['duckdb', rows],
    ['jsonl', rows],
    ['parquetjs', Math.round(rows / 4)],
  ] as const)(
    '%s, %d rows, of 1 and of 200 tenants: memory stays flat',
    async (encoder, count) => {
      const measured = await Promise.all(
        [1, 200].map((tenants) => run(folder.path, encoder, count, tenants)),
      );
      for (const { read, extraMiB } of measured) {
        expect(read).toBe(count);
        expect(extraMiB).toBeLessThan(maxExtraMiB);
      }
    },
    300_000,
  );
});

async function run(folder: string, encoder: string, count: number, tenants: number) {
  const { stdout } = await promisify(execFile)(process.execPath, [
    // V8's young generation grows by some 100 MiB when memory is plenty; that says nothing about the sink.
    '--max-semi-space-size=8',
    join(import.meta.dirname, 'parquet-speed-run.ts'),
    encoder,
    String(count),
    String(tenants),
    join(folder, `${encoder}-${tenants}`),
  ]);
  const figures = JSON.parse(stdout) as Record<string, number>;
  console.log(encoder, tenants, 'tenants', figures);
  return figures;
}
