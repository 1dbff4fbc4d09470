/**
 * Servers that go away under load and come back: Kafka, Postgres, the registry, a destination. Everything waits for
 * them and goes on by itself; nothing is lost or repeated.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import pg from 'pg';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { errorCatalogue } from '../../src/platform/errors.ts';
import { FaultStack, type Pipeline } from '../fixtures/pipeline.ts';

let faults: FaultStack;
beforeAll(async () => {
  faults = await FaultStack.start('outages');
});
afterAll(async () => {
  await faults?.stop();
});

const outageMs = process.env.CI ? 30_000 : 5_000;

describe('the pipeline goes on by itself after an outage', () => {
  test('of the registry at the start, then of Kafka: stopped and, later, killed', () =>
    faults.run('kafka-outage', {}, async (pipeline) => {
      const { stack } = pipeline;
      await stack.stopPart('registry', { signal: 'SIGKILL' });
      const reader = pipeline.replicate();
      const delivery = pipeline.deliver();
      const waits = await reader.logged('that it waits for the registry', ({ code }) => code === 'TM304');
      expect(waits.remedy).toBe(errorCatalogue.TM304.remedy);
      await stack.startPart('registry');
      await pipeline.streaming(reader);
      await pipeline.begun();
      pipeline.workload.start({ seed: 'kafka', ...pipeline.usualLoad });
      await pipeline.delivering();

      await stack.stopPart('kafka');
      await sleep(outageMs);
      await stack.startPart('kafka');
      await pipeline.delivering();
      await stack.stopPart('kafka', { signal: 'SIGKILL' });
      await stack.startPart('kafka');
      await pipeline.delivering();
      await pipeline.conclude(reader, delivery);
    }));

  test('of a destination, then of the Postgres that is source, control database and destination at once', () =>
    faults.run('postgres-outage', {}, async (pipeline) => {
      const { stack } = pipeline;
      const { reader, delivery } = await pipeline.begin();
      pipeline.workload.start({ seed: 'postgres', ...pipeline.usualLoad });
      await pipeline.delivering();

      const server = await closeReplica(pipeline);
      try {
        await delivery.logged('that the replica does not answer', ({ code }) => code === 'TM401');
        // The reader and the other destination do not notice.
        await pipeline.delivering(pipeline.destinations.filter((name) => name !== 'replica'));
        await sleep(outageMs / 2);
        const { units } = await pipeline.status();
        expect(units.find(({ destination }) => destination === 'replica')?.problem?.code).toBe('TM401');
        expect(units.filter(({ destination, problem }) => destination !== 'replica' && problem)).toEqual([]);
      } finally {
        await server.query(`alter database "${pipeline.databaseName('replica')}" allow_connections true`);
        await server.end();
      }
      await pipeline.delivering();

      for (const signal of ['SIGINT', 'SIGKILL'] as const) {
        await stack.stopPart('postgres', { signal });
        await sleep(1000);
        await stack.startPart('postgres');
        await pipeline.reconnect();
        await pipeline.workload.committed(10);
        await pipeline.delivering();
      }
      expect(pipeline.workload.restarts).toBeGreaterThan(0);
      await pipeline.conclude(reader, delivery);
      expect((await pipeline.status()).units.filter(({ problem }) => problem)).toEqual([]);
    }));
});

/** The replica's database refuses connections and ends those there are. */
async function closeReplica(pipeline: Pipeline): Promise<pg.Client> {
  const client = new pg.Client({ connectionString: pipeline.stack.environment.TIDEMARK_SOURCE_URL! });
  await client.connect();
  const name = pipeline.databaseName('replica');
  await client.query(`alter database "${name}" allow_connections false`);
  await client.query(`select pg_terminate_backend(pid) from pg_stat_activity where datname = $1`, [name]);
  return client;
}
