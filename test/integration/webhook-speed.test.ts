/** What the webhook sink takes for a row, and that its memory does not grow with the Window. Prints the figures. */
import { execFile, spawn } from 'node:child_process';
import { once } from 'node:events';
import { resolve } from 'node:path';
import { promisify } from 'node:util';
import { expect, test } from 'vitest';
import type { OptionValues } from '../../src/connector/sink.ts';
import { newSecret } from './webhook-harness.ts';

const program = resolve(import.meta.dirname, 'webhook-speed-run.ts');
async function measure(answerMs: number, options: OptionValues, rows: number, node: string[] = []) {
  const endpoint = spawn(process.execPath, [program, 'endpoint', String(answerMs)], {
    stdio: ['ignore', 'pipe', 'ignore'],
  });
  try {
    const [line] = (await once(endpoint.stdout, 'data')) as [Buffer];
    const order = JSON.stringify({ url: line.toString().trim(), secret: newSecret(), ...options });
    const { stdout } = await promisify(execFile)(process.execPath, [...node, program, order, String(rows)]);
    const outcome = JSON.parse(stdout) as { appended: number; rowsPerSecond: number; grownMiB: number };
    console.log(JSON.stringify({ answerMs, rows, ...options, ...outcome }));
    return outcome;
  } finally {
    endpoint.kill('SIGTERM');
    await once(endpoint, 'close');
  }
}

test.each<[number, OptionValues, number]>([
  [0, {}, 100_000],
  [0, { lanes: 4 }, 100_000],
  [0, { compression: 'gzip', lanes: 4 }, 100_000],
  [0, { shape: 'finding' }, 100_000],
  [0, { format: 'single' }, 3_000],
  [0, { format: 'single', lanes: 16 }, 10_000],
  [50, {}, 10_000],
  [50, { lanes: 8 }, 60_000],
])('an endpoint that answers after %i ms, %o', async (answerMs, options, rows) => {
  expect(await measure(answerMs, options, rows)).toMatchObject({ appended: rows });
});

test('a Window of any size goes through a heap of 64 MiB', async () => {
  const options = { lanes: 4, compression: 'gzip' };
  const { appended, grownMiB } = await measure(0, options, 250_000, ['--max-old-space-size=64']);
  expect(appended).toBe(250_000);
  // Bodies, buffers of zlib and of the connections, and the young generation besides that heap.
  expect(grownMiB).toBeLessThan(250);
});
