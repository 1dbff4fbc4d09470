/** What a scrape shows of destinations, and a port that is taken. */
import { once } from 'node:events';
import { type AddressInfo, createServer } from 'node:net';
import { expect, test } from 'vitest';
import { startMetrics } from '../../src/observe/metrics.ts';
import type { ResolvedConfig } from '../../src/platform/resolved-config.ts';

async function freePort(): Promise<number> {
  const server = createServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address() as AddressInfo;
  server.close();
  await once(server, 'close');
  return port;
}

test('a mark that moves without Windows shows; a Unit that went elsewhere does not; a taken port is told', async () => {
  const port = await freePort();
  const observe = { metricsHost: '127.0.0.1', metricsPort: port };
  const config = {
    source: { id: 'hot', walBudget: null },
    observe,
    retain: null,
  } as unknown as ResolvedConfig;
  const metrics = await startMetrics(config);
  try {
    const scrape = async () => (await fetch(`http://127.0.0.1:${port}/metrics`)).text();
    const unit = { unit: '*', commitTimeUs: 1_700_000_000_000_000n, backlogRecords: 7, lastError: null };
    const state = { destination: 'lake', paused: null, error: null, units: [unit] };
    metrics.watch(() => [state]);
    const labels = '{destination="lake",unit="*",source="hot"}';
    expect(await scrape()).toContain(`tidemark_delivery_mark_timestamp_seconds${labels} 1700000000\n`);
    metrics.watch(() => [
      { ...state, units: [{ ...unit, commitTimeUs: 1_700_000_002_000_000n, lastError: {} }] },
    ]);
    const later = await scrape();
    expect(later).toContain(`tidemark_delivery_mark_timestamp_seconds${labels} 1700000002\n`);
    expect(later).toContain(`tidemark_delivery_backlog_records${labels} 7\n`);
    expect(later).toContain(`tidemark_delivery_failing${labels} 1\n`);
    expect(later).toContain('tidemark_delivery_paused{destination="lake",source="hot"} 0\n');
    metrics.watch(() => [{ ...state, error: {}, units: [] }]);
    const lost = await scrape();
    expect(lost).toContain(`tidemark_delivery_failing${labels} 1\n`);
    expect(lost).not.toContain('mark_timestamp_seconds{');
    await expect(startMetrics(config)).rejects.toMatchObject({
      code: 'TM101',
      remedy: expect.stringContaining('observe.metrics.port'),
    });
  } finally {
    await metrics.stop();
  }
});
