/** Tombstones right after many rows went: no statistics tell Postgres how many there are, and it must not go through all for each. */
import type { Client } from 'pg';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { endpointFromUrl } from '../../src/platform/postgres-endpoint.ts';
import {
  countOpen,
  coveredColumns,
  findOpen,
  holdersOf,
  listOpen,
  openKeys,
  type Selection,
  stateOfKeys,
} from '../../src/retain/open-tombstones.ts';
import { setUpRetention } from '../../src/retain/setup.ts';
import { describeSourceTable } from '../../src/retain/source-table.ts';
import { parseFilter } from '../../src/retain/tombstone-filter.ts';
import { startServers, startTimeoutMs, type TestServers } from '../fixtures/postgres.ts';

const rows = 20_000;

let servers: TestServers;
let owner: Client;
let all: Selection;

beforeAll(async () => {
  servers = await startServers();
  owner = await servers.connect();
  const { host, port, user, password, database } = servers.connection;
  const secret = typeof password === 'function' ? await password() : password;
  await setUpRetention(await endpointFromUrl(`postgres://${user}:${secret}@${host}:${port}/${database}`));
  // As long as nobody analyzes them.
  await owner.query(
    `do $$ declare each regclass; begin
       for each in select inhrelid from pg_inherits where inhparent = 'tidemark_retention.cold_storage_archive'::regclass loop
         execute format('alter table %s set (autovacuum_enabled = off)', each);
       end loop; end $$`,
  );
  await owner.query(
    'create schema app; create table app.things (organization_id int, id int, primary key (organization_id, id))',
  );
  // Every tenth key was evicted twice, and of the newer Tombstones every second one was recalled.
  for (const [many, position, recalled] of [
    [rows, 'a', 'null::timestamptz'],
    [rows / 10, 'b', 'case when n % 2 = 0 then now() end'],
  ] as const) {
    await owner.query(`insert into tidemark_retention.cold_storage_archive (table_schema, table_name, row_key, tenant, position,
        delivered_to, content_hash, hash_version, hashed_columns, salt, policy_version, recalled_at, recalled_by)
      select 'app', 'things', format('["%s","%s"]', n % 4, n), (n % 4)::text, '${position}',
        '[{"destination": "lake", "unit": "app.things"}]', sha256('x'), 1, '{organization_id,id}', sha256('y'), 1,
        ${recalled}, case when (${recalled}) is not null then 'somebody' end
      from generate_series(1, ${many}) n`);
  }
  all = {
    table: await describeSourceTable(owner, { schema: 'app', name: 'things' }),
    keys: null,
    where: null,
  };
}, startTimeoutMs);

afterAll(async () => {
  await owner?.end();
  await servers?.stop();
});

test('questions about all of them, and about those of some keys, take no time for each of the others', async () => {
  const { rows: known } = await owner.query<{ reltuples: number }>(
    `select reltuples from pg_class where relkind = 'r' and relname like 'cold_storage_archive_2%'`,
  );
  expect(known.every(({ reltuples }) => reltuples === -1)).toBe(true);
  await owner.query(`set statement_timeout = '20s'`);
  const open = rows - rows / 20;
  expect(await countOpen(owner, all)).toBe(open);
  expect(await openKeys(owner, all, rows)).toHaveLength(open);
  expect(await coveredColumns(owner, all)).toEqual(new Set(['organization_id', 'id']));
  expect(await holdersOf(owner, all)).toEqual([{ destination: 'lake', unit: 'app.things', rows: open }]);
  expect(await listOpen(owner, all, 5)).toMatchObject({ total: open, lost: 0 });
  const ofTwo = { ...all, where: parseFilter(`tenant in ('1', '3') and id > 2000`) };
  expect(await countOpen(owner, ofTwo)).toBe((rows - 2000) / 2);
  const keys = Array.from({ length: 2000 }, (_, i) => JSON.stringify([String((i + 1) % 4), String(i + 1)]));
  const found = await findOpen(owner, all, keys, 'lake');
  expect(found.size).toBe(1000);
  expect(await findOpen(owner, all, keys, 'elsewhere')).toEqual(new Map());
  const state = await stateOfKeys(owner, { ...all, keys });
  expect(state).toMatchObject({ unknown: [], lost: [] });
  expect(state.already).toHaveLength(1000);
});
