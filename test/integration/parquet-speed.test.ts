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

  it.each([
    ['duckdb', rows, 1],
    ['duckdb', rows, 200],
    ['jsonl', rows, 1],
    ['jsonl', rows, 200],
    ['parquetjs', Math.round(rows / 4), 1],
    ['parquetjs', Math.round(rows / 4), 200],
  ] as const)(
    '%s, %d rows, %d tenants: memory stays flat',
    async (encoder, count, tenants) => {
      const program = join(import.meta.dirname, 'parquet-speed-run.ts');
      const { stdout } = await promisify(execFile)(process.execPath, [
        // V8's young generation grows by some 100 MiB when memory is plenty; that says nothing about the sink.
        '--max-semi-space-size=8',
        program,
        encoder,
        String(count),
        String(tenants),
        join(folder.path, `${encoder}-${tenants}`),
      ]);
      const figures = JSON.parse(stdout) as Record<string, number>;
      console.log(encoder, tenants, 'tenants', figures);
      expect(figures.read).toBe(count);
      expect(figures.extraMiB).toBeLessThan(maxExtraMiB);
    },
    300_000,
  );
});
