/**
 * The control database goes away while one of its connections is in use, and between two statements. The pool listens
 * to idle connections alone: without a listener of our own the process ended there, instead of trying again.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { inTransaction, openControl } from '../../src/platform/control.ts';
import { createLogger } from '../../src/platform/log.ts';
import { endpointFromUrl } from '../../src/platform/postgres-endpoint.ts';
import { startServers, startTimeoutMs, type TestServers } from '../fixtures/postgres.ts';

let servers: TestServers;
beforeAll(async () => {
  servers = await startServers();
}, startTimeoutMs);
afterAll(async () => {
  await servers?.stop();
});

it('a control connection that is ended between two statements fails its transaction alone', async () => {
  const { user, password, host, port, database } = servers.connection;
  const url = `postgres://${user}:${await resolved(password)}@${host}:${port}/${database}`;
  const pool = openControl(await endpointFromUrl(url), createLogger({ level: 'error' }), 1);
  const other = await servers.connect();
  try {
    const lost = inTransaction(pool, async (client) => {
      const { rows } = await client.query<{ pid: number }>('select pg_backend_pid() as pid');
      await other.query('select pg_terminate_backend($1)', [rows[0]!.pid]);
      // No statement is under way when the end of the connection is noticed.
      await sleep(500);
      await client.query('select 1');
    });
    await expect(lost).rejects.toMatchObject({ code: 'TM409', retry: 'transient' });
    await expect(
      inTransaction(pool, async (client) => (await client.query('select 1')).rowCount),
    ).resolves.toBe(1);
  } finally {
    await other.end();
    await pool.end();
  }
});

async function resolved(password: typeof servers.connection.password): Promise<string> {
  return String(typeof password === 'function' ? await password() : password);
}
