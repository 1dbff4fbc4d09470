/** Which partitions were created in their place: wrongly said of one, rows that it brought along are in no stream. */
import { rmSync } from 'node:fs';
import { chmod, mkdtemp } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { leafPartitions } from '../../src/replicate/partitions.ts';
import { SourceServer } from '../fixtures/source-server.ts';

let folder: string;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'tidemark-test-'));
  // When root runs the tests, Postgres is another user.
  await chmod(folder, 0o755);
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

const year = (n: number) => `for values from (${n}) to (${n + 1})`;
const likeRoot = '(y int, v int, t text)';

/** By name: how it came, and whether that is as a partition of its own root. */
const arrivals: readonly { name: string; native: boolean; statements: string }[] = [
  {
    name: 'in_place',
    native: true,
    statements: `create table s.in_place partition of s.root ${year(1)}; insert into s.root values (1, 1, 'x');`,
  },
  {
    name: 'in_place_between',
    native: true,
    statements: `begin; insert into s.root values (1, 1, 'x');
      create table s.in_place_between partition of s.root (v default 4, check (v > 0)) ${year(2)} with (fillfactor = 50);
      insert into s.root values (2, 1, 'x'); commit;`,
  },
  {
    name: 'in_place_changed',
    native: true,
    statements: `create table s.in_place_changed partition of s.root ${year(3)};
      alter table s.in_place_changed alter v set statistics 100; alter table s.in_place_changed owner to current_user;`,
  },
  {
    name: 'deep',
    native: true,
    statements: `create table s.middle partition of s.root ${year(4)} partition by list (v);
      create table s.deep partition of s.middle for values in (1);`,
  },
  {
    name: 'by_function',
    native: true,
    statements: `do $$ begin execute 'create table s.by_function partition of s.root ${year(5)}'; end $$;`,
  },
  {
    name: 'attached',
    native: false,
    statements: `create table s.attached ${likeRoot}; insert into s.attached values (6, 1, 'x');
      alter table s.root attach partition s.attached ${year(6)};`,
  },
  {
    name: 'attached_at_once',
    native: false,
    statements: `begin; create table s.attached_at_once ${likeRoot}; insert into s.attached_at_once values (7, 1, 'x');
      alter table s.root attach partition s.attached_at_once ${year(7)}; commit;`,
  },
  {
    name: 'attached_as_select',
    native: false,
    statements: `begin; create table s.attached_as_select as select 8 as y, 1 as v, 'x'::text as t;
      savepoint a; alter table s.root attach partition s.attached_as_select ${year(8)}; commit;`,
  },
  {
    name: 'one_column',
    native: false,
    statements: `create table s.narrow (y int) partition by list (y); begin; create table s.one_column (y int);
      insert into s.one_column values (1); alter table s.narrow attach partition s.one_column for values in (1); commit;`,
  },
  {
    name: 'came_back',
    native: false,
    statements: `create table s.came_back partition of s.root ${year(10)}; alter table s.root detach partition s.came_back;
      insert into s.came_back values (10, 1, 'x'); alter table s.root attach partition s.came_back ${year(10)};`,
  },
  {
    name: 'came_back_at_once',
    native: false,
    statements: `begin; create table s.came_back_at_once partition of s.root ${year(11)};
      alter table s.root detach partition s.came_back_at_once; insert into s.came_back_at_once values (11, 1, 'x');
      alter table s.root attach partition s.came_back_at_once ${year(11)}; commit;`,
  },
  {
    name: 'deep_attached',
    native: false,
    statements: `create table s.branch (y int, v int, t text) partition by list (v);
      create table s.deep_attached partition of s.branch for values in (1); insert into s.branch values (12, 1, 'x');
      alter table s.root attach partition s.branch ${year(12)};`,
  },
  {
    name: 'not_logged',
    native: false,
    statements: `create unlogged table s.not_logged partition of s.root ${year(13)};`,
  },
];

describe.each([15, null] as const)('on Postgres %s', (version) => {
  test('those that were created in their place are told from those that were attached', async () => {
    const server = await SourceServer.create(join(folder, `server-${version ?? 'newest'}`), {}, version);
    try {
      await server.query(`create schema s; create table s.root ${likeRoot} partition by range (y)`);
      for (const { statements } of arrivals) await server.query(statements);
      const client = await server.connect();
      try {
        const roots = await client.query<{ oid: number }>(
          `select oid::int as oid from pg_class where oid in ('s.root'::regclass, 's.narrow'::regclass)`,
        );
        await client.query(`set search_path = ''`);
        const found = async () => {
          const leaves = await leafPartitions(
            client,
            roots.rows.map(({ oid }) => ({ oid, kind: 'partitioned' })),
          );
          return Object.fromEntries(leaves.map(({ name, native }) => [name, native]));
        };
        const expected = Object.fromEntries(arrivals.map(({ name, native }) => [`s.${name}`, native]));
        expect(await found()).toEqual(expected);
        // A column of the root's that comes later is none that came with the table.
        await client.query('alter table s.root add column z int default 4');
        await client.query('vacuum (freeze) pg_attribute');
        expect(await found()).toEqual(expected);
      } finally {
        await client.end();
      }
    } finally {
      await server.stop('SIGQUIT');
    }
  });
});
