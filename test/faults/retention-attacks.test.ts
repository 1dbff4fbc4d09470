/**
 * Invariant 7 against what operators, applications and clocks do to it. One pipeline for all; each attack has tables of its
 * own. Rows 1 to 6 of each are older than their days.
 */
import { appendFileSync, cpSync, renameSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { Ledger } from '../../src/deliver/ledger.ts';
import { endpointFromUrl } from '../../src/platform/postgres-endpoint.ts';
import { Retention } from '../../src/retain/retention.ts';
import type { TableRound } from '../../src/retain/retention-ledger.ts';
import { setUpRetention } from '../../src/retain/setup.ts';
import { FaultStack, Pipeline, until } from '../fixtures/pipeline.ts';
import { RetentionRounds } from '../fixtures/retention-rounds.ts';
import { runTidemark, type TidemarkProcess } from '../fixtures/tidemark-process.ts';

const names = [
  'acted',
  'again',
  'beside',
  'deferred',
  'edited',
  'emptied',
  'isolated',
  'raced',
  'rebound',
  'remade',
  'restored',
  'rewritten',
  'shared',
  'skipped',
  'triggered',
  'forged',
];

let faults: FaultStack;
let pipeline: Pipeline;
let rounds: RetentionRounds;
let reader: TidemarkProcess;
let delivery: TidemarkProcess;

beforeAll(async () => {
  faults = await FaultStack.start('retention-attacks');
  pipeline = await Pipeline.create(faults.stack, 'attacks', {
    tables: 'app.*',
    config: { 'retain.enabled': 'true', 'retain.tenants.table': 'billing.tenants' },
  });
  await setUpRetention(await endpointFromUrl(pipeline.sourceUrl));
  await pipeline.source.query(`drop schema app cascade; create schema app; create schema billing;
    create table billing.tenants (id int, data_retention_days numeric);
    create table app.owned (organization_id int, id int, body text, at timestamptz, primary key (organization_id, id));
    insert into app.owned select t, t * 10 + n, 'body', now() - interval '100 days' from generate_series(1, 6) t, generate_series(1, 3) n;
    insert into app.owned values (0, 1, 'nobody''s', now() - interval '100 days');
    insert into tidemark_retention.policies (table_schema, table_name, age_column) values ('app', 'owned', 'at');
    create table app.children (id int primary key, parent int);
    create table app.linked (id int, at timestamptz, primary key (id, at)) partition by range (at);
    create table app.linked_old partition of app.linked for values from (minvalue) to (now() - interval '40 days');
    insert into app.linked select n, now() - interval '100 days' from generate_series(1, 6) n;
    alter table app.linked_old add unique (id);
    create table app.attached (id int, at timestamptz, primary key (id, at)) partition by range (at);
    insert into tidemark_retention.policies (table_schema, table_name, age_column, retention_days)
      values ('app', 'linked', 'at', 30), ('app', 'attached', 'at', 30)`);
  for (const name of names)
    await pipeline.source.query(`create table app.${name} (id int primary key, body text, at timestamptz);
      insert into app.${name} select n, 'body ' || n, now() - interval '100 days' from generate_series(1, 6) n;
      insert into tidemark_retention.policies (table_schema, table_name, age_column, retention_days) values ('app', '${name}', 'at', 30)`);
  reader = pipeline.replicate();
  delivery = pipeline.deliver();
  await pipeline.streaming(reader);
  for (const destination of pipeline.destinations) await pipeline.verify(destination);
  rounds = await RetentionRounds.over(pipeline);
});
afterAll(async () => {
  await rounds?.close();
  await pipeline?.end();
  await faults?.stop();
});

/** A failure tells how the processes' logs end. */
async function attack(name: string, body: (table: string) => Promise<void>): Promise<void> {
  const { source } = pipeline;
  await source.query('update tidemark_retention.policies set enabled = (table_name = $1)', [name]);
  try {
    await body(`app.${name}`);
    pipeline.throwIfUnexpected();
  } catch (error) {
    if (error instanceof Error) error.message += `\n${pipeline.logTails()}`;
    throw error;
  } finally {
    await source.query('update tidemark_retention.policies set enabled = false');
  }
}

async function idsOf(table: string, where = 'true'): Promise<number[]> {
  const { rows } = await pipeline.source.query(`select id from ${table} where ${where} order by id`);
  return rows.map(({ id }) => id);
}

async function entombed(table: string): Promise<string[]> {
  const { rows } = await pipeline.source.query(
    `select row_key from tidemark_retention.cold_storage_archive where table_schema || '.' || table_name = $1 order by row_key`,
    [table],
  );
  return rows.map(({ row_key }) => row_key);
}

async function ok(...args: string[]): Promise<void> {
  const { code, stdout, stderr } = await pipeline.command(args);
  expect(code, stdout + stderr).toBe(0);
}

/** What `tidemark verify` says of a table at every destination. */
async function evictedEverywhere(table: string, evicted: number): Promise<void> {
  for (const destination of pipeline.destinations) {
    const { tables } = await pipeline.verify(destination);
    expect(
      tables.find((each) => each.table === table),
      destination,
    ).toMatchObject({ status: 'equal', evicted });
  }
}

/** Whoever evicts waits inside its transaction, before it looks at anything, until the attack was made. */
async function stalled<T>(
  evicting: () => Promise<T>,
  attacked: (backend: number) => Promise<unknown>,
): Promise<T> {
  const holding = await pipeline.connectTo('app');
  await holding.query('select pg_advisory_lock(72410004)');
  const batch = evicting();
  batch.catch(() => {});
  try {
    await attacked(await waitingBackend());
  } finally {
    await holding.query('select pg_advisory_unlock(72410004)');
  }
  return batch;
}

async function waitingBackend(): Promise<number> {
  let pid = 0;
  await until('a batch waits', 20_000, async () => {
    const { rows } = await pipeline.source.query(
      `select l.pid from pg_locks l join pg_stat_activity a using (pid) where l.locktype = 'advisory' and not l.granted
         and a.application_name like 'tidemark retain/%'`,
    );
    pid = rows[0]?.pid ?? 0;
    return pid > 0;
  });
  return pid;
}

test('an application that updates, deletes, inserts again and refers to marked rows keeps what it did', () =>
  attack('acted', async (table) => {
    const { source } = pipeline;
    await ok('destination', 'pause', 'replica', '--reason', 'test');
    // The next Change is what the paused one lacks.
    await source.query(`update ${table} set body = 'more' where id = 6`);
    await rounds.until(table, ({ staying }) => staying['not delivered yet'] === 6);
    await source.query(`
      update ${table} set at = now(), body = 'young again' where id = 1;
      delete from ${table} where id = 2;
      delete from ${table} where id = 3; insert into ${table} values (3, 'body 3', now());
      update ${table} set id = 30 where id = 4`);
    await ok('destination', 'resume', 'replica');
    await rounds.until(table, ({ marked, evicted }) => evicted === 3 && marked === 0);
    expect(await idsOf(table)).toEqual([1, 3]);
    expect(await entombed(table)).toEqual(['["30"]', '["5"]', '["6"]']);
    await evictedEverywhere(table, 3);
  }));

test('a key that comes again is an ordinary row; of two Tombstones the newer one is recalled, also where a clock was set back', () =>
  attack('again', async (table) => {
    const { source } = pipeline;
    await rounds.until(table, ({ evicted }) => evicted === 6);
    await source.query(
      `insert into ${table} values (1, 'another row', now() - interval '90 days'), (2, 'stays', now())`,
    );
    await evictedEverywhere(table, 4);
    await rounds.until(table, ({ evicted }) => evicted === 1);
    // As if the clock had been three days ahead when the first ones were written.
    await source.query(`set session_replication_role = replica;
      update tidemark_retention.cold_storage_archive set evicted_at = evicted_at + interval '3 days' where table_name = 'again'
        and id <> (select id from tidemark_retention.cold_storage_archive where table_name = 'again' order by position desc limit 1);
      set session_replication_role = origin`);
    const recall = (key: string) =>
      pipeline.command(['retain', 'recall', table, key, '--reason', 'audit', '--json']);
    const { code, stdout } = await recall('["1"]');
    expect(code, stdout).toBe(0);
    const { rows } = await source.query(`select body from ${table} where id = 1`);
    expect(rows).toEqual([{ body: 'another row' }]);
    // The older one is of a row that is there again, and so is that of the other key.
    expect(JSON.parse((await recall('["1"]')).stdout)).toMatchObject({ recalled: 0, already: 1 });
    expect((await recall('["2"]')).code).not.toBe(0);
    expect(await idsOf(table)).toEqual([1, 2]);
    await evictedEverywhere(table, 4);
  }));

test('days of 0, less, NULL and beyond every calendar let nothing go, nor does a tenant that nobody knows or who has two rows', () =>
  attack('owned', async (table) => {
    const { source } = pipeline;
    await source.query(
      'insert into billing.tenants values (1, 0), (2, -30), (3, null), (4, 2147483647), (5, 30), (5, null), (6, 0.4)',
    );
    expect(await rounds.of(table)).toMatchObject({ evicted: 0, problem: { code: 'TM503' } });
    await source.query(
      `delete from billing.tenants where id = 5; alter table billing.tenants add primary key (id)`,
    );
    expect(await rounds.of(table)).toMatchObject({ evicted: 0, marked: 0, problem: null });
    await source.query('insert into billing.tenants values (5, 30)');
    const batch = await stalled(
      () => rounds.until(table, ({ staying }) => staying['changed since'] === 3),
      // Marked under 30 days, and then the days change.
      () => source.query('update billing.tenants set data_retention_days = 400 where id = 5'),
    );
    expect(batch.evicted).toBe(0);
    expect(await idsOf(table)).toHaveLength(19);
    await source.query('update billing.tenants set data_retention_days = 30 where id = 5');
    await rounds.until(table, ({ evicted }) => evicted === 3);
    expect(await idsOf(table, 'organization_id = 5')).toEqual([]);
    for (const wrong of [0, -1])
      await expect(
        source.query(
          `update tidemark_retention.policies set retention_days = ${wrong} where table_name = 'acted'`,
        ),
      ).rejects.toMatchObject({ code: '23514' });
    await source.query(
      `update tidemark_retention.policies set enabled = true, retention_days = null where table_name = 'acted'`,
    );
    expect(await rounds.of('app.acted')).toMatchObject({ evicted: 0, problem: { code: 'TM503' } });
  }));

test('of two processes one works; the other takes over from one whose session ends in its batch, and no row has two Tombstones', () =>
  attack('shared', async (table) => {
    const other = rounds.twin();
    try {
      const batch = stalled(
        () => rounds.until(table, ({ evicted }) => evicted > 0),
        async (backend) => {
          await expect(other.round()).rejects.toMatchObject({ code: 'TM506' });
          await pipeline.source.query('select pg_terminate_backend($1)', [backend]);
        },
      );
      await expect(batch).rejects.toMatchObject({ code: 'TM507' });
      expect(await idsOf(table)).toHaveLength(6);
      await until('the other one works', 30_000, async () => {
        const done = await Promise.allSettled([other.round(), rounds.retention.round()]);
        for (const each of done) if (each.status === 'rejected') expect(each.reason.code).toBe('TM506');
        return (await idsOf(table)).length === 0;
      });
    } finally {
      await other.close();
    }
    expect(await entombed(table)).toEqual([1, 2, 3, 4, 5, 6].map((id) => `["${id}"]`));
  }));

test('a child that comes, and a foreign key that is made, while a batch is under way keeps its parent', () =>
  attack('raced', async (table) => {
    const { source } = pipeline;
    await stalled(
      () => rounds.until(table, ({ evicted }) => evicted === 5),
      () =>
        source.query(`insert into app.children values (1, 1);
          alter table app.children add foreign key (parent) references ${table} on delete cascade`),
    );
    expect(await idsOf(table)).toEqual([1]);
    expect(await idsOf('app.children')).toEqual([1]);
    await rounds.until(table, ({ staying, marked }) => staying['referred to'] === 1 && marked === 0);
    await source.query(
      'delete from app.children; alter table app.children drop constraint children_parent_fkey',
    );
    await rounds.until(table, ({ evicted }) => evicted === 1);
  }));

test('a trigger that deletes more than the rows that go stops its table', () =>
  attack('triggered', async (table) => {
    const { source } = pipeline;
    await source.query(`insert into app.children values (10, 1), (11, 2);
      create function app.drop_children() returns trigger language plpgsql as $$ begin delete from app.children where parent = old.id; return old; end $$;
      create trigger drop_children before delete on ${table} for each row execute function app.drop_children()`);
    const round = await rounds.until(table, ({ problem }) => problem !== null);
    expect(round).toMatchObject({ evicted: 0, problem: { code: 'TM503' } });
    expect(round.problem!.message).toContain('2 of app.children');
    expect(await idsOf(table)).toHaveLength(6);
    expect(await idsOf('app.children')).toEqual([10, 11]);
    await source.query(`create or replace function app.drop_children() returns trigger language plpgsql as $$
      begin delete from ${table} where id = old.id + 1 and old.id = 1; return old; end $$`);
    await source.query(`update ${table} set at = now() where id = 2`);
    // A row of the table itself, that was to stay.
    expect((await rounds.until(table, ({ problem }) => problem !== null)).problem!.message).toContain(table);
    expect(await idsOf(table)).toHaveLength(6);
    await source.query(`drop trigger drop_children on ${table}`);
    await rounds.until(table, ({ evicted }) => evicted === 5);
  }));

test('another database of the same cluster, with the same schema, is not what the reader reads: nothing goes there', async () => {
  const url = new URL(pipeline.sourceUrl);
  url.pathname = `/${pipeline.databaseName('copy')}`;
  await pipeline.control.query(`create database "${pipeline.databaseName('copy')}"`);
  const endpoint = await endpointFromUrl(url.href);
  await setUpRetention(endpoint);
  const { config } = rounds.options;
  const retain = { ...config.retain, endpoint };
  const astray = new Retention({ ...rounds.options, config: { ...config, retain } });
  await expect(astray.round()).rejects.toMatchObject({
    code: 'TM205',
    message: expect.stringContaining(pipeline.databaseName('app')),
  });
  await astray.close();
});

test('a row that goes is the one that was marked, also where VACUUM FULL moved others to its place', () =>
  attack('rewritten', async (table) => {
    const { source } = pipeline;
    await source.query(`delete from ${table} where id = 1`);
    await pipeline.published();
    await stalled(
      () => rounds.until(table, ({ staying }) => staying['changed since'] === 5),
      () => source.query(`vacuum full ${table}`),
    );
    expect(await idsOf(table)).toEqual([2, 3, 4, 5, 6]);
    await rounds.until(table, ({ evicted }) => evicted === 5);
    expect(await entombed(table)).toEqual([2, 3, 4, 5, 6].map((id) => `["${id}"]`));
    await evictedEverywhere(table, 5);
  }));

test('a hold that is placed while a batch waits for it wins, whatever isolation the role of the service has', () =>
  attack('isolated', async (table) => {
    const { source } = pipeline;
    const isolation = (level: string) =>
      source.query(`do $$ begin execute format('alter role %I in database %I set default_transaction_isolation = %L',
        current_user, current_database(), '${level}'); end $$`);
    await isolation('repeatable read');
    await rounds.retention.close();
    const officer = await pipeline.connectTo('app');
    await officer.query(`begin isolation level read committed; insert into tidemark_retention.legal_holds
      (table_schema, table_name, reason) values ('app', 'isolated', 'case 12')`);
    const batch = rounds.until(table, ({ staying, evicted }) => staying['on hold'] === 6 || evicted > 0);
    batch.catch(() => {});
    await waitingBackend();
    await officer.query('commit');
    expect(await batch).toMatchObject({ evicted: 0, staying: { 'on hold': 6 } });
    await isolation('read committed');
    await rounds.retention.close();
    expect(await idsOf(table)).toHaveLength(6);
  }));

test('a trigger that waits for the commit is not waited for in vain', () =>
  attack('deferred', async (table) => {
    const { source } = pipeline;
    await source.query(`delete from app.children; insert into app.children values (20, 1), (21, 2);
      create function app.drop_later() returns trigger language plpgsql as $$ begin delete from app.children where parent = old.id; return null; end $$;
      create constraint trigger drop_later after delete on ${table} deferrable initially deferred for each row execute function app.drop_later()`);
    const round = await rounds.until(table, ({ problem, evicted }) => problem !== null || evicted > 0);
    expect(round).toMatchObject({ evicted: 0, problem: { code: 'TM503' } });
    expect(await idsOf('app.children')).toEqual([20, 21]);
    await source.query(`drop trigger drop_later on ${table}; delete from app.children`);
    await rounds.until(table, ({ evicted }) => evicted === 6);
  }));

test('a row that others refer to by a foreign key to its partition stays, and they stay as they are', () =>
  attack('linked', async (table) => {
    const { source } = pipeline;
    await source.query(`create table app.linked_children (id int primary key, parent int references app.linked_old (id) on delete set null);
      insert into app.linked_children values (1, 1), (2, null)`);
    await rounds.until(table, ({ evicted }) => evicted >= 5);
    expect(await idsOf(table)).toEqual([1]);
    expect(await idsOf('app.linked_children', 'parent = 1')).toEqual([1]);
    await rounds.until(table, ({ staying }) => staying['referred to'] === 1);
  }));

test('rows that an attached partition brought along stay until they were read and delivered', () =>
  attack('attached', async (table) => {
    const { source } = pipeline;
    await source.query(`create table billing.attached_old (like app.attached including all);
      insert into billing.attached_old select n, now() - interval '100 days' from generate_series(1, 6) n;
      alter table app.attached attach partition billing.attached_old for values from (minvalue) to (now() - interval '40 days')`);
    await rounds.until(table, ({ staying }) => (staying['partition not read yet'] ?? 0) === 6);
    await rounds.until(table, ({ evicted }) => evicted === 6, 60_000);
    await evictedEverywhere(table, 6);
  }));

test('rows of a table that was made anew under its name stay where they cannot be read', () =>
  attack('remade', async (table) => {
    const { source } = pipeline;
    await source.query(`begin; drop table ${table}; create table ${table} (id int primary key, body text, at timestamptz);
      insert into ${table} select n, 'anew ' || n, now() - interval '100 days' from generate_series(11, 16) n; commit`);
    const told = ({ problem }: TableRound) => problem?.message.includes('did not come to its end') === true;
    await rounds.until(table, (round) => told(round) || round.evicted > 0, 60_000);
    expect(await idsOf(table)).toEqual([11, 12, 13, 14, 15, 16]);
    await source.query(`drop table ${table}`);
  }));

test('a table that cannot be marked holds up no other, and is named', () =>
  attack('beside', async (table) => {
    const { source } = pipeline;
    await source.query(`update tidemark_retention.policies set enabled = true where table_name in ('again', 'owned');
      create unique index beside on billing.tenants (id); alter table billing.tenants alter id type text`);
    await rounds.until(table, ({ evicted }) => evicted === 6);
    expect(await rounds.of('app.owned')).toMatchObject({ evicted: 0, problem: { code: 'TM507' } });
    // It is nobody's problem any more once nothing is to go of it.
    const told = () =>
      pipeline.control.query(
        `select error_code as code from tidemark.retention where table_name = 'app.owned'`,
      );
    expect((await told()).rows).toEqual([{ code: 'TM507' }]);
    await source.query(`update tidemark_retention.policies set enabled = false where table_name = 'owned'`);
    await rounds.of(table);
    expect((await told()).rows).toEqual([{ code: null }]);
    await source.query('alter table billing.tenants alter id type int using id::int');
    await source.query('drop index billing.beside');
  }));

test('a mark that somebody moved in the ledger by hand lets nothing go', () =>
  attack('edited', async (table) => {
    const { source, control } = pipeline;
    await ok('destination', 'pause', 'replica', '--reason', 'test');
    await source.query(`insert into ${table} values (7, 'not delivered', now() - interval '90 days')`);
    await pipeline.published();
    await rounds.until(table, ({ staying }) => staying['not delivered yet'] === 7);
    const edits = [
      `mark = lpad('', length(mark), 'f')`,
      `mark = lpad('', length(mark), 'f'), merged_position = lpad('', length(mark), 'f')`,
      `mark = lpad('', length(mark), 'f'), merged_position = lpad('', length(mark), 'f'), merged_sequence = merged_sequence + 1`,
    ];
    const columns = 'mark, merged_position, merged_sequence';
    const { rows } = await control.query(
      `select ${columns} from tidemark.units where destination = 'replica'`,
    );
    for (const edit of edits) {
      await control.query(`update tidemark.units set ${edit} where destination = 'replica'`);
      expect(await rounds.until(table, ({ problem }) => problem !== null), edit).toMatchObject({
        evicted: 0,
        problem: { code: 'TM510' },
      });
      await control.query(
        `update tidemark.units set (${columns}) = row($1, $2, $3) where destination = 'replica'`,
        Object.values(rows[0]),
      );
    }
    expect(await entombed(table)).toEqual([]);
    await ok('destination', 'resume', 'replica');
    await rounds.until(table, ({ evicted }) => evicted === 7);
    await evictedEverywhere(table, 7);
  }));

test('a destination proves no rows of a tenant, and of a table, that it did not get up to its mark', () =>
  attack('rebound', async (table) => {
    const { control } = pipeline;
    const edits = [
      `tidemark.destinations set bound = '{"tenant": "42"}'`,
      `tidemark.units set mark_offsets = mark_offsets - '${pipeline.prefix}.${table}'`,
    ];
    await ok('destination', 'pause', 'replica', '--reason', 'test');
    await rounds.until(table, ({ waitsFor, marked }) => waitsFor !== null && marked === 6);
    const { rows } = await control.query(
      `select d.bound, u.mark_offsets from tidemark.destinations d join tidemark.units u using (source_id, destination) where destination = 'replica'`,
    );
    expect(rows[0].bound).toEqual({ tenant: null });
    const { pool, config } = rounds.options;
    const register = (tenant: string | null) =>
      new Ledger(pool, config.source.id).registerDestination('replica', 'postgres', { tenant });
    await expect(register('42')).rejects.toMatchObject({ code: 'TM416' });
    await register(null);
    await ok('destination', 'resume', 'replica');
    await pipeline.verify('replica');
    await ok('destination', 'pause', 'replica', '--reason', 'test');
    for (const edit of edits) {
      await control.query(`update ${edit} where destination = 'replica'`);
      expect(await rounds.of(table)).toMatchObject({ evicted: 0, staying: { 'not delivered yet': 6 } });
      await control.query(`update tidemark.destinations set bound = $1 where destination = 'replica'`, [
        rows[0].bound,
      ]);
    }
    await control.query(`update tidemark.units set mark_offsets = $1 where destination = 'replica'`, [
      rows[0].mark_offsets,
    ]);
    await ok('destination', 'resume', 'replica');
    await rounds.until(table, ({ evicted }) => evicted === 6);
    await evictedEverywhere(table, 6);
  }));

test('a destination that was emptied behind our back is noticed by reading back, and nothing goes', () =>
  attack('emptied', async (table) => {
    await pipeline.replica.query('truncate app.emptied');
    await pipeline.source.query(
      `update tidemark_retention.policies set read_back = 'sample' where table_name = 'emptied'`,
    );
    const round = await rounds.until(table, ({ problem }) => problem !== null);
    expect(round).toMatchObject({ evicted: 0, problem: { code: 'TM508' } });
    expect(await entombed(table)).toEqual([]);
    await ok('snapshot', 'start', table);
    await ok('snapshot', 'status', table, '--watch');
    await rounds.until(table, ({ evicted }) => evicted === 6);
    await evictedEverywhere(table, 6);
  }));

test('a destination that was restored from an old backup lowers the Floor: nothing goes on its word, and it is told', () =>
  attack('restored', async (table) => {
    const { source, directory } = pipeline;
    if (!pipeline.destinations.includes('lake')) return;
    const [lake, backup] = [join(directory, 'lake'), join(directory, 'lake-backup')];
    cpSync(lake, backup, { recursive: true });
    await source.query(
      `insert into ${table} select n, 'newer', now() - interval '90 days' from generate_series(7, 9) n`,
    );
    await pipeline.verify('lake');
    rmSync(lake, { recursive: true });
    renameSync(backup, lake);
    const round = await rounds.until(table, ({ problem }) => problem !== null);
    expect(round).toMatchObject({
      evicted: 0,
      problem: { code: 'TM510' },
      staying: { 'destination fell back': 9 },
    });
    const { code, stdout } = await pipeline.command(['retain', 'status']);
    expect(code, stdout).toBe(1);
    expect(stdout).toContain('TM510');
    expect(await entombed(table)).toEqual([]);
    await ok('destination', 'replay', 'lake', '--from', 'held', '--yes', '--reason', 'restored');
    await rounds.until(table, ({ evicted }) => evicted === 9, 60_000);
    await evictedEverywhere(table, 9);
  }));

test('changes that were skipped hold rows until a later snapshot, whatever clocks say; clocks that differ let nothing go', () =>
  attack('skipped', async (table) => {
    const { source, control } = pipeline;
    await ok('destination', 'pause', 'replica', '--reason', 'test');
    await source.query(`update ${table} set body = 'skipped' where id = 1`);
    await pipeline.published();
    // As if the clock had been ahead when the first snapshot was asked for.
    await control.query(`update tidemark.snapshots set requested_at = requested_at + interval '3 days'`);
    await ok('destination', 'skip', 'replica', '--to', 'now', '--yes', '--reason', 'test');
    await ok('destination', 'resume', 'replica');
    await rounds.until(table, ({ staying }) => staying['changes were skipped'] === 6);
    expect(await entombed(table)).toEqual([]);

    await rounds.retention.close();
    const shift = (hours: number) =>
      `--import=data:text/javascript,const%20now=Date.now;Date.now=()=>now()%2B${hours * 3_600_000}`;
    for (const hours of [-5, 5]) {
      const { code, stdout } = await runTidemark(
        ['retain', 'run', '--once', '--json', '--config', pipeline.configFile],
        { ...pipeline.environment, NODE_OPTIONS: shift(hours) },
        60_000,
      );
      expect(JSON.parse(stdout)).toMatchObject({ ok: false, error: { code: 'TM512' } });
      expect(code).toBe(3);
    }
    await ok('destination', 'resync', 'replica', table);
    await rounds.until(table, ({ evicted }) => evicted === 6, 60_000);
    await evictedEverywhere(table, 6);
  }));

test('a Tombstone for another row than is deleted stops the reader before anybody is told; a forged message is nothing', () =>
  attack('forged', async (table) => {
    const { source } = pipeline;
    const forge = (key: string) => `insert into tidemark_retention.cold_storage_archive
      (table_schema, table_name, row_key, position, delivered_to, content_hash, hash_version, hashed_columns, salt, policy_version)
      values ('app', 'forged', '${key}', '', '[]', sha256('x'), 1, '{id}', sha256('y'), 1);`;
    await source.query(
      `create role tenant_app login; grant usage on schema app, tidemark_retention to tenant_app; grant all on all tables in schema app to tenant_app`,
    );
    await source.query('set role tenant_app');
    for (const to of [
      'cold_storage_archive',
      `cold_storage_archive_${new Date().toISOString().slice(0, 7).replace('-', '_')}`,
    ])
      await expect(source.query(forge('["1"]').replace('cold_storage_archive', to))).rejects.toMatchObject({
        code: '42501',
      });
    await source.query(`begin; select pg_logical_emit_message(true, 'tidemark.tombstone', '\\x6170702e666f72676564005b2231225d'::bytea);
      delete from ${table} where id = 1; commit`);
    await source.query('reset role');
    // Of a row that stays: untrue, and of no consequence.
    await source.query(forge('["2"]'));
    await evictedEverywhere(table, 0);

    await source.query(`begin; ${forge('["03"]')} delete from ${table} where id = 3; commit`);
    expect(await reader.exitsWithin(60_000), reader.output().slice(-2000)).toBe(3);
    expect(reader.output()).toContain('TM246');
    reader = pipeline.replicate();
    expect(await reader.exitsWithin(60_000)).toBe(3);
    const { rows } = await pipeline.replica.query('select id from app.forged order by id');
    expect(rows.map(({ id }) => id)).toEqual([2, 3, 4, 5, 6]);
    appendFileSync(pipeline.configFile, 'retain.unmatched.deletes: delete\n');
    reader = pipeline.replicate();
    await pipeline.streaming(reader);
    await evictedEverywhere(table, 0);
    await Promise.all([reader.stop(), delivery.stop()]);
  }));
