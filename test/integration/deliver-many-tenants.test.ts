/** One process delivers to two hundred tenants, each with a destination of its own, from twenty tables that they share. */
import { readFileSync } from 'node:fs';
import { expect, test } from 'vitest';
import { spawnDelivery, startHarness, until } from './deliver-harness.ts';
import { shape } from './deliver-records.ts';

const tenants = 200;
const tables = 20;
const mostMiB = 1536;

function residentMiB(pid: number): number {
  const status = readFileSync(`/proc/${pid}/status`, 'utf8');
  return Number(/VmHWM:\s+(\d+)/.exec(status)![1]) / 1024;
}

test('two hundred destinations over twenty tables, in under 1.5 GiB', async () => {
  const harness = await startHarness();
  try {
    const source = harness.source();
    const shapes = Array.from({ length: tables }, (_, i) => ({
      ...shape(`t${i}`, ['id', 'title', 'body']),
      tenantColumn: 0,
    }));
    await source.open(shapes, 6);
    const config = harness.config(
      source,
      Array.from({ length: tenants }, (_, i) => ({ name: `d${i}`, tenant: String(i) })),
    );
    config.kafka.sessionTimeoutMs = 45_000;
    const rows = (value: string) =>
      source.commit(
        shapes.flatMap(({ name }) =>
          Array.from({ length: tenants }, (_, i) => ({
            table: name,
            change: { op: 'c' as const, row: [String(i), value, 'y'.repeat(200)] },
          })),
        ),
      );
    await rows('first');
    const delivery = spawnDelivery(harness, config, { storeFile: null });
    const delivered = async (windows: number) => {
      const { rows: found } = await harness.pool.query<{ done: number }>(
        `select count(*)::int as done from tidemark.units where source_id = $1 and merged_sequence >= $2`,
        [source.sourceId, windows],
      );
      return found[0]!.done === tenants;
    };
    await until('every tenant has its rows', () => delivered(1), 300_000);
    await rows('second');
    await until('every tenant has the next ones', () => delivered(2), 300_000);
    const counted = new Map(delivery.lines.map((line) => [line.destination, line.counted]));
    counted.delete(undefined);
    expect(counted.size).toBe(tenants);
    expect(new Set(counted.values()), 'rows of each tenant').toEqual(new Set([2 * tables]));
    const peak = residentMiB(delivery.child.pid!);
    console.log(`${tenants} destinations over ${tables} tables: peak ${Math.round(peak)} MiB`);
    expect(peak).toBeLessThan(mostMiB);
    delivery.child.kill('SIGKILL');
  } finally {
    await harness.stop();
  }
});
