/**
 * From the sample application to a webhook endpoint that is unwell, with the delivering process killed on the way: what
 * the endpoint makes of the events is what the source holds.
 */
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, beforeAll, expect, test, vi } from 'vitest';
import type { TableShape } from '../../src/connector/shape.ts';
import { stateOf } from '../conformance/webhook-receiver.ts';
import { FaultStack, type Pipeline } from '../fixtures/pipeline.ts';
import { textRows } from '../fixtures/postgres.ts';
import { type Json, TestEndpoint } from '../fixtures/webhook-endpoint.ts';
import { newSecret } from '../integration/webhook-harness.ts';

let faults: FaultStack;
beforeAll(async () => {
  faults = await FaultStack.start('webhook');
});
afterAll(async () => {
  await faults?.stop();
});

const compared = ['organizations', 'integration_connections', 'findings', 'rule_runs', 'workflow_deliveries'];

/** The table as its events show it: personal columns never left Postgres. */
function shapeFrom(events: readonly Json[], name: string): TableShape {
  const whole = events.find(({ op }) => op === 'c' || op === 'r');
  const columns = Object.keys(whole.row);
  const keys = Object.keys(whole.key);
  return {
    schema: 'app',
    name,
    columns: columns.map((column) => ({
      name: column,
      type: '',
      key: keys.includes(column),
      nullable: true,
    })),
    keyColumns: keys.map((key) => columns.indexOf(key)),
    tenantColumn: null,
  };
}

async function sameAsSource({ source }: Pipeline, endpoint: TestEndpoint): Promise<void> {
  await source.query(
    `set datestyle = 'ISO'; set timezone = 'UTC'; set intervalstyle = 'postgres'; set bytea_output = 'hex'`,
  );
  for (const name of compared) {
    const events = endpoint.events.filter(({ table }) => table === name);
    const shape = shapeFrom(events, name);
    const list = shape.columns.map((column) => `"${column.name}"`).join(', ');
    const rows = await textRows(source, `select ${list} from app.${name}`);
    expect(rows.length).toBeGreaterThan(0);
    const sorted = (each: readonly unknown[]) => each.map((row) => JSON.stringify(row)).sort();
    expect(sorted(stateOf(events, shape)), name).toEqual(sorted(rows));
  }
}

test('an endpoint that fails, throttles and loses acknowledgements, and a killed worker', () =>
  faults.run('webhook', { destinations: [] }, async (pipeline) => {
    const secret = newSecret();
    const endpoint = await TestEndpoint.start(secret);
    try {
      let seen = 0;
      endpoint.reply = () => {
        seen += 1;
        if (seen % 13 === 0) return 503;
        if (seen % 29 === 0) return { status: 429, headers: { 'retry-after': '1' } };
        if (seen % 31 === 0) return (request) => void request.socket.destroy();
        return 204;
      };
      writeFileSync(join(pipeline.directory, 'siem-secret'), `${secret}\n`);
      const config = {
        'connector.class': 'webhook',
        tables: 'app.*',
        cadence: 'continuous',
        url: endpoint.url(),
        secret: '$' + '{file:../siem-secret}',
        headers: 'X-Tenant: all',
        compression: 'gzip',
        lanes: '3',
        'batch.max.events': '50',
      };
      writeFileSync(
        join(pipeline.directory, 'instances', 'siem.json'),
        JSON.stringify({ name: 'siem', config }),
      );
      const { reader, delivery } = await pipeline.begin();
      pipeline.workload.start({ seed: 'webhook', ...pipeline.usualLoad });
      await sleep(4000);
      await delivery.kill();
      const heir = pipeline.deliver('webhook:after-request=kill@20');
      await heir.exited;
      const last = pipeline.deliver();
      await sleep(3000);
      await pipeline.workload.stop();
      await pipeline.published();
      await vi.waitFor(() => sameAsSource(pipeline, endpoint), { timeout: 60_000, interval: 500 });
      expect(
        endpoint.deliveries.every(({ verified, headers }) => verified && headers['x-tenant'] === 'all'),
      ).toBe(true);
      await Promise.all([reader.stop(), last.stop()]);
    } finally {
      await endpoint.stop();
    }
  }));
