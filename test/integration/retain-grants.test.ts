/** `tidemark retain hold` and `retain override`: who, why, until when, over what; all of it said, and kept. */
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import type { Client } from 'pg';
import pg from 'pg';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { sinkKinds } from '../../connectors/sinks/registry.ts';
import type { CommandContext } from '../../src/command/context.ts';
import { retainCommand } from '../../src/command/retain.ts';
import { options } from '../../src/main.ts';
import type { TidemarkError } from '../../src/platform/errors.ts';
import { createLogger } from '../../src/platform/log.ts';
import { endpointFromUrl } from '../../src/platform/postgres-endpoint.ts';
import { readHolds } from '../../src/retain/holds-in-force.ts';
import { readOverrides } from '../../src/retain/policies.ts';
import { setUpRetention } from '../../src/retain/setup.ts';
import { startServers, startTimeoutMs, type TestServers } from '../fixtures/postgres.ts';
import { runTidemark } from '../fixtures/tidemark-process.ts';

let servers: TestServers;
let owner: Client;
let folder: string;
const table = { schema: 'app', name: 'notes', tenant: 'organization_id' };

beforeAll(async () => {
  servers = await startServers();
  owner = await servers.connect();
  const { host, port, user, password, database } = servers.connection;
  const secret = typeof password === 'function' ? await password() : password;
  const url = (name: string, word: string) => `postgres://${name}:${word}@${host}:${port}/${database}`;
  await setUpRetention(await endpointFromUrl(url(user!, secret!)));
  await owner.query(`
    create role officer login password 'secret' in role tidemark_retention_officer;
    create role service login password 'secret' in role tidemark_retention;
    create schema app;
    create table app.tenants (id int primary key, data_retention_days int);
    insert into app.tenants values (1, 30), (2, 30);
    create table app.notes (organization_id int, id uuid, at timestamptz, primary key (organization_id, id));
    create table app.plain (note text);
    create table app.nobodys (id numeric primary key, at timestamptz);
    insert into app.nobodys values (1, now()), (2, now());
    insert into app.notes values (1, '00000000-0000-0000-0000-000000000001', now()), (1, '00000000-0000-0000-0000-0000000000ab', now());
    insert into tidemark_retention.policies (table_schema, table_name, age_column) values ('app', 'notes', 'at');
    insert into tidemark_retention.cold_storage_archive (table_schema, table_name, row_key, position, delivered_to, content_hash,
      hash_version, hashed_columns, salt, policy_version)
      values ('app', 'notes', '["2","00000000-0000-0000-0000-000000000002"]', '', '[]', sha256('x'), 1, '{id}', sha256('y'), 1);
    grant usage on schema app to officer, service;
    grant select on app.notes, app.tenants, app.nobodys to officer, service`);
  folder = await mkdtemp(join(tmpdir(), 'tidemark-grants-'));
  await writeFile(
    join(folder, 'tidemark.yaml'),
    [
      'source.id: grants',
      `source.url: ${url('service', 'secret')}`,
      'source.tables: [app.*]',
      'kafka.brokers: 127.0.0.1:1',
      'registry.url: http://127.0.0.1:1',
      'control.url: postgres://nobody@127.0.0.1:1/none',
      'retain.enabled: true',
      `retain.officer.url: $\{env:OFFICER_URL}`,
      'retain.tenants.table: app.tenants',
    ].join('\n'),
  );
  officerUrl = url('officer', 'secret');
  serviceUrl = url('service', 'secret');
}, startTimeoutMs);

let officerUrl: string;
let serviceUrl: string;

afterAll(async () => {
  await owner?.end();
  await servers?.stop();
  await rm(folder, { recursive: true, force: true });
});

interface Answer {
  code: number;
  ok: boolean;
  error?: { code: string; message: string; remedy: string };
  hold?: { id: string; [field: string]: unknown };
  override?: { id: string; [field: string]: unknown };
  holds?: Record<string, unknown>[];
  overrides?: Record<string, unknown>[];
}

/** In this process: there are many of them. */
async function retain(args: string[], as = officerUrl): Promise<Answer> {
  const { values, positionals } = parseArgs({ args, options, allowPositionals: true });
  process.env.OFFICER_URL = as;
  let text = '';
  const context: CommandContext = {
    configFile: join(folder, 'tidemark.yaml'),
    json: true,
    log: createLogger({ level: 'error' }),
    sinkKinds,
    stdout: (more) => {
      text += more;
    },
    signal: new AbortController().signal,
  };
  try {
    const code = await retainCommand(context, values, positionals);
    return { code, ...JSON.parse(text) };
  } catch (error) {
    const { code, message, remedy } = error as TidemarkError;
    return { code: code === 'TM101' ? 2 : 3, ok: false, error: { code, message, remedy } };
  }
}

const why = ['--reason', 'case 12', '--by', 'Ada'];

describe('legal holds', () => {
  test('are placed on what there is, listed, and released once', async () => {
    const rows = [
      '["1", "00000000-0000-0000-0000-000000000001"]',
      '[2, "00000000-0000-0000-0000-000000000002"]',
    ];
    await writeFile(join(folder, 'keys'), `${rows[1]}\n\n`);
    const byKey = await retain([
      'hold',
      'add',
      'app.notes',
      '--key',
      rows[0]!,
      '--keys',
      join(folder, 'keys'),
      ...why,
    ]);
    expect(byKey).toMatchObject({
      code: 0,
      ok: true,
      hold: { table: 'app.notes', askedBy: 'Ada', placedBy: 'officer' },
    });
    const byTenant = await retain(['hold', 'add', '--tenant', '2', '--until', '7d', ...why]);
    expect(byTenant).toMatchObject({ code: 0, hold: { tenant: '2', table: null, inForce: true } });

    const holds = await readHolds(owner, table);
    expect(holds.covers({ tenant: '1', key: '["1","00000000-0000-0000-0000-000000000001"]' })).toBe(true);
    expect(holds.covers({ tenant: '2', key: '["9","x"]' })).toBe(true);
    expect(holds.covers({ tenant: '1', key: '["9","x"]' })).toBe(false);

    const release = ['hold', 'release', byKey.hold!.id];
    expect(await retain(release)).toMatchObject({ code: 2, error: { code: 'TM101' } });
    const released = {
      releasedBy: 'officer',
      releaseAskedBy: 'Ada',
      releaseReason: 'case 12',
      inForce: false,
    };
    expect(await retain([...release, ...why])).toMatchObject({ code: 0, hold: released });
    expect((await retain([...release, ...why])).code).toBe(2);
    expect((await retain(['hold', 'list'])).holds).toHaveLength(1);
    expect((await retain(['hold', 'list', '--all'])).holds).toHaveLength(2);
  });

  test('hold the rows that were meant, however their keys were written, and where the table has no tenants', async () => {
    const upper = [
      '["01","00000000-0000-0000-0000-0000000000AB"]',
      '[2, "00000000-0000-0000-0000-000000000002"]',
    ];
    const keys = [
      '["1","00000000-0000-0000-0000-0000000000ab"]',
      '["2","00000000-0000-0000-0000-000000000002"]',
    ];
    const placed = await retain(['hold', 'add', 'app.notes', '--key', upper[0]!, '--key', upper[1]!, ...why]);
    expect(placed).toMatchObject({ code: 0, hold: { keys } });
    const holds = await readHolds(owner, table);
    expect(holds.covers({ tenant: '1', key: keys[0]! })).toBe(true);
    expect((await retain(['hold', 'release', placed.hold!.id, ...why])).code).toBe(0);

    const nobodys = { schema: 'app', name: 'nobodys', tenant: null };
    expect((await retain(['hold', 'add', 'app.nobodys', '--key', '["1.00"]', ...why])).hold).toMatchObject({
      keys: ['["1"]'],
    });
    expect((await readHolds(owner, nobodys)).covers({ tenant: null, key: '["2"]' })).toBe(false);
    expect((await retain(['hold', 'add', 'app.nobodys', '--tenant', '1', ...why])).code).toBe(0);
    expect((await readHolds(owner, nobodys)).covers({ tenant: null, key: '["2"]' })).toBe(true);
    // A number that JSON cannot hold was of some row.
    await owner.query(`insert into tidemark_retention.legal_holds (table_schema, table_name, row_keys, reason)
      values ('app', 'large', '{[12345678901234567890]}', 'r')`);
    const large = await readHolds(owner, { schema: 'app', name: 'large', tenant: null });
    expect(large.covers({ tenant: null, key: '["12345678901234567890"]' })).toBe(true);
  });

  test('are refused where they would hold nothing, or where somebody does not say why', async () => {
    for (const args of [
      ['app.note', ...why],
      ['app.notes', '--key', '["1","00000000-0000-0000-0000-00000000000f"]', ...why],
      ['app.notes', '--key', '["1"]', ...why],
      ['app.notes', '--key', '["1","no uuid"]', ...why],
      ['app.plain', '--key', '["1"]', ...why],
      ['--tenant', '3', ...why],
      ['--tenant', '', ...why],
      ['--tenant', '1', '--key', '["1"]', ...why],
      why,
      ['app.notes', '--reason', ' ', '--by', 'Ada'],
      ['app.notes', '--reason', 'case 12'],
      ['app.notes', '--until', '2020-01-01', ...why],
      ['app.notes', '--until', '2099-02-30', ...why],
    ])
      expect(await retain(['hold', 'add', ...args]), args.join(' ')).toMatchObject({
        code: 2,
        ok: false,
        error: { code: 'TM101' },
      });
    expect(await retain(['hold', 'add', 'app.notes', ...why], serviceUrl)).toMatchObject({
      code: 3,
      error: { code: 'TM505', remedy: expect.stringContaining('tidemark_retention_officer') },
    });
  });

  test('hold what was meant where they were placed with SQL, within a transaction and without', async () => {
    const place = (column: string, value: string) =>
      owner.query(
        `insert into tidemark_retention.legal_holds (table_schema, table_name, ${column}, reason) values ('app', 'notes', $1, 'sql')`,
        [value],
      );
    await place('row_keys', '{"[\\"01\\",\\"00000000-0000-0000-0000-0000000000AB\\"]"}');
    await place('tenant', '03');
    await place('tenant', 'no number');
    const covered = async () => {
      const holds = await readHolds(owner, table);
      return [
        { tenant: '1', key: '["1","00000000-0000-0000-0000-0000000000ab"]' },
        { tenant: '3', key: '["3","00000000-0000-0000-0000-00000000000c"]' },
        { tenant: '1', key: '["1","00000000-0000-0000-0000-000000000001"]' },
      ].map((row) => holds.covers(row));
    };
    expect(await covered()).toEqual([true, true, false]);
    await owner.query('begin');
    expect(await covered()).toEqual([true, true, false]);
    // Somebody meant some row.
    await place('row_keys', '{"[\\"1\\",\\"no uuid\\"]"}');
    expect(await covered()).toEqual([true, true, true]);
    await owner.query('rollback');
    await owner.query(
      `update tidemark_retention.legal_holds set released_at = now(), released_by = session_user, release_reason = 'over' where reason = 'sql'`,
    );
    expect(await covered()).toEqual([false, false, false]);
  });

  test('never change in another way, whoever tries', async () => {
    const holds = 'tidemark_retention.legal_holds';
    await owner.query(`insert into ${holds} (tenant, reason, placed_by) values ('1', 'r', 'somebody else')`);
    const { rows } = await owner.query(`select placed_by from ${holds} where reason = 'r'`);
    expect(rows[0].placed_by).not.toBe('somebody else');
    for (const change of [
      `update ${holds} set expires_at = now()`,
      `update ${holds} set row_keys = '{}' where table_name is not null`,
      `delete from ${holds}`,
      `truncate ${holds}`,
      `update ${holds} set released_at = now(), released_by = 'x', release_reason = 'x', reason = 'y' where reason = 'r'`,
    ])
      await expect(owner.query(change), change).rejects.toMatchObject({ code: '42501' });
  });
});

describe('overrides', () => {
  const add = (name: string, ...more: string[]) => ['override', 'add', name, 'app.notes', ...more];
  const all = [...why, '--until', '24h', '--confirm', 'app.notes'];

  test('are granted in full, by name, with an end, and revoked once', async () => {
    const granted = await retain(add('leaving', '--tenant', '1', ...all));
    expect(granted).toMatchObject({
      code: 0,
      override: { table: 'app.notes', tenant: '1', askedBy: 'Ada', grantedBy: 'officer', inForce: true },
    });
    expect((await readOverrides(owner, table)).map(({ name, tenant }) => [name, tenant])).toEqual([
      ['leaving', '1'],
    ]);
    expect(await retain(add('leaving', '--tenant', '2', ...all))).toMatchObject({
      code: 2,
      error: { code: 'TM101' },
    });
    expect(await retain(['override', 'revoke', 'leaving', ...why])).toMatchObject({
      code: 0,
      override: { inForce: false, revokeReason: 'case 12' },
    });
    expect((await retain(['override', 'revoke', 'leaving', ...why])).code).toBe(2);
    expect(await readOverrides(owner, table)).toEqual([]);
    expect((await retain(['override', 'list'])).overrides).toEqual([]);
    expect((await retain(['override', 'list', '--all'])).overrides).toHaveLength(1);
    expect((await retain(add('everybody', '--all', ...all))).override).toMatchObject({ tenant: null });
  });

  test('are never a default, and never a typing error', async () => {
    const but = (name: string) => {
      const at = all.indexOf(name);
      return [...all.slice(0, at), ...all.slice(at + 2)];
    };
    for (const args of [
      add('a', ...all),
      add('b', '--all', '--tenant', '1', ...all),
      add('c', '--tenant', '', ...all),
      add('d', '--tenant', '3', ...all),
      ...['--reason', '--by', '--until', '--confirm'].map((name, i) => add(`e${i}`, '--all', ...but(name))),
      add('f', '--all', ...but('--confirm'), '--confirm', 'app.note'),
      add('g', '--all', ...but('--confirm'), '--confirm', 'yes'),
      add('h', '--all', ...but('--until'), '--until', '31d'),
      add('i', '--all', ...but('--until'), '--until', '2020-01-01'),
      // A table that there is, and that nobody wants evicted.
      ['override', 'add', 'j', 'app.tenants', '--all', ...but('--confirm'), '--confirm', 'app.tenants'],
      ['override', 'add', 'app.notes', '--all', ...all],
    ])
      expect(await retain(args), args.join(' ')).toMatchObject({
        code: 2,
        ok: false,
        error: { code: 'TM101' },
      });
    expect(await retain(add('k', '--all', ...all), serviceUrl)).toMatchObject({
      code: 3,
      error: { code: 'TM505' },
    });
  });

  test('are told to whoever asks at the command line, with what to do', async () => {
    const args = ['retain', ...add('typed', '--all', ...why, '--until', '24h', '--confirm', 'app.notse')];
    const { code, stderr } = await runTidemark(
      [...args, '--config', join(folder, 'tidemark.yaml')],
      { OFFICER_URL: officerUrl },
      60_000,
    );
    expect(code).toBe(2);
    expect(stderr).toContain('TM101: --confirm app.notse is not app.notes');
    expect(stderr).toContain('→ Rows of app.notes would go without proof');
  });

  test('are bounded by the schema too, and name who granted them', async () => {
    const grant = (client: Client, expires: string) =>
      client.query(
        `insert into tidemark_retention.overrides (name, table_schema, table_name, reason, granted_by, granted_at, expires_at)
         values ('by hand', 'app', 'notes', 'r', 'somebody else', now() + interval '1 year', now() + interval '${expires}')
         returning granted_by, granted_at < now() + interval '1 minute' as now`,
      );
    await expect(grant(owner, '31 days')).rejects.toMatchObject({ code: '23514' });
    const client = new pg.Client({ ...servers.connection, user: 'officer', password: 'secret' });
    await client.connect();
    expect((await grant(client, '29 days')).rows).toEqual([{ granted_by: 'officer', now: true }]);
    await client.end();
  });
});
