/** The retention schema in the source database: who may write what, and what never changes. */
import type { Client } from 'pg';
import pg from 'pg';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { endpointFromUrl } from '../../src/platform/postgres-endpoint.ts';
import { requireSetUp, setUpRetention } from '../../src/retain/setup.ts';
import { startServers, startTimeoutMs, type TestServers } from '../fixtures/postgres.ts';

let servers: TestServers;
let owner: Client;
/** A member of tidemark_retention, and an application's role that is none. */
let retention: Client;
let application: Client;

const tombstone = `insert into tidemark_retention.cold_storage_archive
  (table_schema, table_name, row_key, position, delivered_to, content_hash, hash_version, hashed_columns, salt, policy_version)
  values ('app', 'findings', '["1"]', '', '[]', sha256('x'), 1, '{id}', sha256('y'), 1)`;

async function connectAs(user: string): Promise<Client> {
  const client = new pg.Client({ ...servers.connection, user, password: 'secret' });
  client.on('error', () => {});
  await client.connect();
  return client;
}

beforeAll(async () => {
  servers = await startServers();
  owner = await servers.connect();
  const { host, port, user, password, database } = servers.connection;
  const secret = typeof password === 'function' ? await password() : password;
  const url = `postgres://${user}:${secret}@${host}:${port}/${database}`;
  await expect(requireSetUp(owner)).rejects.toMatchObject({ code: 'TM501' });
  const endpoint = await endpointFromUrl(url);
  expect(await setUpRetention(endpoint)).toEqual([
    '0001_cold_storage.sql',
    '0002_grants.sql',
    '0003_erasure.sql',
    '0004_recalled.sql',
    '0005_pace.sql',
    '0006_partitions.sql',
  ]);
  expect(await setUpRetention(endpoint)).toEqual([]);
  await owner.query(`create role keeper login password 'secret' in role tidemark_retention;
    create role app login password 'secret'`);
  [retention, application] = await Promise.all([connectAs('keeper'), connectAs('app')]);
}, startTimeoutMs);

afterAll(async () => {
  for (const client of [retention, application, owner]) await client?.end();
  await servers?.stop();
});

describe('the retention schema', () => {
  test('lets the retention role add Tombstones, and nobody else', async () => {
    await requireSetUp(retention);
    await retention.query(tombstone);
    await expect(application.query(tombstone)).rejects.toMatchObject({ code: '42501' });
    await expect(requireSetUp(application)).rejects.toMatchObject({ code: 'TM505' });
    const { rows } = await retention.query('select evicted_by from tidemark_retention.cold_storage_archive');
    expect(rows).toEqual([{ evicted_by: 'keeper' }]);
  });

  test('keeps Tombstones as they are: only the salt goes, and a recall comes, each once', async () => {
    const table = 'tidemark_retention.cold_storage_archive';
    const refused = { code: '42501' };
    await expect(retention.query(`delete from ${table}`)).rejects.toMatchObject(refused);
    await expect(owner.query(`delete from ${table}`)).rejects.toMatchObject(refused);
    await expect(retention.query(`update ${table} set row_key = '["2"]'`)).rejects.toMatchObject(refused);
    await expect(owner.query(`update ${table} set content_hash = sha256('z')`)).rejects.toMatchObject(
      refused,
    );
    await retention.query(`update ${table} set salt = null, salt_erased_at = now()`);
    await expect(
      retention.query(`update ${table} set salt = sha256('y'), salt_erased_at = null`),
    ).rejects.toMatchObject(refused);
    await retention.query(`update ${table} set recalled_at = now(), recalled_by = session_user`);
    await expect(
      retention.query(`update ${table} set recalled_at = null, recalled_by = null`),
    ).rejects.toMatchObject(refused);
  });

  test('has a partition for this month and the next, and makes more', async () => {
    const partitions = async () => {
      const { rows } = await owner.query(
        `select count(*)::int as count from pg_inherits where inhparent = 'tidemark_retention.cold_storage_archive'::regclass`,
      );
      return rows[0].count;
    };
    expect(await partitions()).toBe(2);
    await retention.query('select tidemark_retention.ensure_archive_partitions(4)');
    expect(await partitions()).toBe(4);
  });

  test('keeps every version of a policy, and lets the service change none', async () => {
    const policies = 'tidemark_retention.policies';
    await owner.query(
      `insert into ${policies} (table_schema, table_name, age_column) values ('app', 'findings', 'created_at')`,
    );
    await owner.query(`update ${policies} set enabled = true, version = 7`);
    const { rows } = await owner.query(
      `select p.version, count(v.*)::int as versions from ${policies} p join tidemark_retention.policy_versions v using (table_schema, table_name) group by 1`,
    );
    expect(rows).toEqual([{ version: 2, versions: 2 }]);
    await expect(retention.query(`update ${policies} set enabled = false`)).rejects.toMatchObject({
      code: '42501',
    });
    await expect(owner.query('delete from tidemark_retention.policy_versions')).rejects.toMatchObject({
      code: '42501',
    });
    for (const wrong of [
      `retention_days = 0`,
      `required = 'named'`,
      `batch_rows = 0`,
      `allowed_from = '01:00'`,
    ])
      await expect(owner.query(`update ${policies} set ${wrong}`)).rejects.toMatchObject({ code: '23514' });
  });

  test('has overrides with a reason and an end, that stay as they were granted', async () => {
    const overrides = 'tidemark_retention.overrides';
    const grant = (reason: string, until: string) =>
      owner.query(
        `insert into ${overrides} (name, table_schema, table_name, reason, expires_at) values ('o', 'app', 'findings', $1, now() + $2::interval) returning id`,
        [reason, until],
      );
    await expect(grant(' ', '1 day')).rejects.toMatchObject({ code: '23514' });
    await expect(grant('lake is retired', '-1 day')).rejects.toMatchObject({ code: '23514' });
    const { rows } = await grant('lake is retired', '1 day');
    await expect(
      owner.query(`update ${overrides} set expires_at = expires_at + interval '1 year'`),
    ).rejects.toMatchObject({ code: '42501' });
    await owner.query(
      `insert into tidemark_retention.override_revocations (override_id, reason) values ($1, 'not needed')`,
      [rows[0].id],
    );
    await expect(
      retention.query(
        `insert into ${overrides} (name, table_schema, table_name, reason, expires_at) values ('mine', 'app', 'findings', 'r', now() + interval '1 day')`,
      ),
    ).rejects.toMatchObject({ code: '42501' });
  });

  test('holds back whoever places a legal hold until the batch under way is gone', async () => {
    await retention.query('begin');
    await retention.query('select pg_advisory_xact_lock(72410004)');
    let placed = false;
    const placing = owner
      .query(`insert into tidemark_retention.legal_holds (tenant, reason) values ('t', 'case 12')`)
      .then(() => {
        placed = true;
      });
    await new Promise((resolve) => setTimeout(resolve, 300));
    expect(placed).toBe(false);
    await retention.query('commit');
    await placing;
    expect(placed).toBe(true);
    for (const wrong of [`null, 'r'`, `'t', ''`])
      await expect(
        owner.query(`insert into tidemark_retention.legal_holds (tenant, reason) values (${wrong})`),
      ).rejects.toMatchObject({ code: '23514' });
  });
});
