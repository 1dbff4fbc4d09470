/**
 * What may happen between the reader and its source while both live: rights that are taken away, a server without
 * patience, a wire that falls silent, a standby as the source. What happens to the slot itself is in slot-life.test.ts.
 */
import { readFileSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import pg from 'pg';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import type { VerifyReport } from '../../src/verify/report.ts';
import { cuttableWire } from '../fixtures/cuttable-wire.ts';
import { FaultStack, type Pipeline, until } from '../fixtures/pipeline.ts';
import { SourceServer } from '../fixtures/source-server.ts';

let faults: FaultStack;
let folder: string;
const servers: SourceServer[] = [];

beforeAll(async () => {
  faults = await FaultStack.start('source-life');
  folder = join(faults.stack.directory, 'sources');
  rmSync(folder, { recursive: true, force: true });
});
afterAll(async () => {
  for (const server of servers) await server.stop('SIGQUIT');
  if (folder) rmSync(folder, { recursive: true, force: true });
  await faults?.stop();
});

const replica = ['replica' as const];
const own = { tables: 'own.*', destinations: replica };
const tables = `create schema own; create table own.keyed (id bigint primary key, note text);
  insert into own.keyed select i, 'before' from generate_series(1, 20) i;`;

async function insert(client: pg.ClientBase, from: number, count: number): Promise<void> {
  await client.query(
    `insert into own.keyed select i, 'row ' || i from generate_series($1::int, $1::int + $2::int - 1) i`,
    [from, count],
  );
}

/** Without verify, which needs rights of its own. */
async function arrives({ replica }: Pipeline, id: number): Promise<void> {
  await until(`row ${id} is in the replica`, 60_000, async () => {
    const { rowCount } = await replica.query('select from own.keyed where id = $1', [id]);
    return rowCount === 1;
  });
}

describe('rights that are taken away while the reader runs', () => {
  test('stop what needs them, with the statement that gives them back, and nothing else', () =>
    faults.run('rights', { ...own, config: { 'source.publication.interval': '500ms' } }, async (pipeline) => {
      const owner = await pipeline.connectTo('app');
      const role = pipeline.slot;
      await owner.query(`${tables} create role ${role} login replication password 'pw';
          grant usage on schema own to ${role}; grant select on all tables in schema own to ${role};
          grant create on database ${pg.escapeIdentifier(pipeline.databaseName('app'))} to ${role};
          grant postgres to ${role};`);
      const url = new URL(pipeline.sourceUrl);
      url.username = role;
      url.password = 'pw';
      const ownersUrl = pipeline.sourceUrl;
      await pipeline.moveSource(url.href);
      const admin = new pg.Client({ connectionString: ownersUrl });
      await admin.connect();
      try {
        let reader = pipeline.replicate();
        const delivery = pipeline.deliver();
        await pipeline.streaming(reader);
        await arrives(pipeline, 20);

        // SELECT is for snapshots and verify alone.
        await admin.query(`revoke postgres from ${role}; revoke select on own.keyed from ${role}`);
        expect((await pipeline.command(['check'])).stdout).toContain(
          `no SELECT on own.keyed (verify and snapshots read it)`,
        );
        expect((await pipeline.command(['snapshot', 'start', 'own.keyed'])).code).toBe(0);
        const ended = await reader.logged('that the snapshot ended', ({ code }) => code === 'TM202');
        expect(ended.remedy).toContain(`grant select on "own"."keyed" to "${role}"`);
        await insert(admin, 100, 5);
        await arrives(pipeline, 104);
        const verified = await pipeline.command(['verify', 'replica', '--timeout', '30s']);
        expect(verified.stdout + verified.stderr).toContain('TM202');
        await admin.query(`grant select on own.keyed to ${role}`);

        // Without the membership, a table that joins cannot be published.
        await admin.query('create table own.later (id int primary key)');
        expect(await reader.exitsWithin(60_000)).toBe(3);
        expect(reader.output()).toMatch(/TM202: .*this role may not change it[\s\S]*"own"."later"/);
        await admin.query(`drop table own.later`);

        // REPLICATION is looked at when a connection is made.
        reader = pipeline.replicate();
        await pipeline.streaming(reader);
        await admin.query(`alter role ${role} noreplication`);
        await insert(admin, 200, 5);
        await arrives(pipeline, 204);
        await admin.query(
          `select pg_terminate_backend(active_pid) from pg_replication_slots where slot_name = $1`,
          [pipeline.slot],
        );
        expect(await reader.exitsWithin(60_000)).toBe(3);
        expect(reader.output()).toMatch(
          new RegExp(`TM202: this role may not start replication\n {2}→ alter role "${role}" replication;`),
        );
        await admin.query(`alter role ${role} replication`);

        reader = pipeline.replicate();
        await pipeline.streaming(reader);
        await admin.query(`alter role ${role} nologin`);
        await admin.query(`select pg_terminate_backend(pid) from pg_stat_activity where usename = $1`, [
          role,
        ]);
        expect(await reader.exitsWithin(60_000)).toBe(3);
        expect(reader.output()).toMatch(/TM202: .*is not permitted to log in/);
        await admin.query(`alter role ${role} login`);

        await insert(admin, 300, 5);
        await pipeline.reconnect();
        reader = pipeline.replicate();
        await pipeline.streaming(reader);
        await pipeline.verify('replica');
        await Promise.all([reader.stop(), delivery.stop()]);
      } finally {
        await pipeline.moveSource(ownersUrl);
        await admin.query(`drop owned by ${role}; drop role ${role}`).catch(() => {});
        await admin.end();
      }
    }));
});

const unasked = { 'source.snapshot.mode': 'never', 'source.publication.interval': '500ms' };

describe('source.snapshot.mode: never', () => {
  test('leaves what the tables hold to the operator, and verify says so', () =>
    faults.run('never', { ...own, config: unasked }, async (pipeline) => {
      const { source } = pipeline;
      await source.query(`${tables} create table own.quiet as select 1 as id;
        create table own.parted (id int primary key) partition by range (id)`);
      const check = await pipeline.command(['check']);
      expect(check.stdout).toContain('own.keyed already holds rows: changes from now on are replicated');
      const reader = pipeline.replicate();
      const delivery = pipeline.deliver();
      await pipeline.streaming(reader);
      await insert(source, 100, 5);
      await arrives(pipeline, 104);
      const { code, stdout } = await pipeline.command(['verify', 'replica', '--json', '--timeout', '60s']);
      expect(code).toBe(1);
      const { tables: reports } = JSON.parse(stdout) as VerifyReport;
      const keyed = reports.find(({ table }) => table === 'own.keyed');
      expect(keyed).toMatchObject({ status: 'different', missing: 20, extra: 0, different: 0 });
      expect(keyed?.hint).toContain('from before the slot was made');
      expect(reports.find(({ table }) => table === 'own.quiet')?.status).toBe('not-replicated');
      expect((await pipeline.command(['snapshot', 'start', 'own.keyed'])).code).toBe(0);
      await arrives(pipeline, 20);
      await source.query('truncate own.quiet');
      await pipeline.verify('replica');

      await source.query(`create schema aside; create table aside.part (id int primary key); insert into aside.part values (7);
        alter table own.parted attach partition aside.part for values from (1) to (10)`);
      const missed = async () => {
        const { rows } = await pipeline.control.query(
          `select table_name as table, error_code as code, error from tidemark.snapshots where state = 'failed'`,
        );
        return rows;
      };
      await until('what is missing is said', 30_000, async () => (await missed()).length > 0);
      expect(await missed()).toEqual([
        { table: 'own.parted', code: 'TM226', error: expect.stringContaining('aside.part') },
      ]);
      expect((await pipeline.command(['snapshot', 'start', 'own.parted'])).code).toBe(0);
      expect((await pipeline.command(['snapshot', 'status', 'own.parted', '--watch'])).code).toBe(0);
      await pipeline.verify('replica');
      await Promise.all([reader.stop(), delivery.stop()]);
    }));
});

describe('a server that waits for two seconds', () => {
  test('goes on sending while Kafka is away, and while a big transaction is encoded', async () => {
    const source = await SourceServer.create(join(folder, 'impatient'), { wal_sender_timeout: '2s' });
    servers.push(source);
    const options = { ...own, source, config: { 'source.status.interval': '500ms' } };
    await faults.run('impatient', options, async (pipeline) => {
      const { stack } = pipeline;
      await pipeline.source.query(tables);
      const reader = pipeline.replicate();
      const delivery = pipeline.deliver();
      await pipeline.streaming(reader);
      await arrives(pipeline, 20);
      await stack.stopPart('kafka');
      await insert(pipeline.source, 1000, 20_000);
      await sleep(15_000);
      await stack.startPart('kafka');
      await arrives(pipeline, 20_999);
      await insert(pipeline.source, 100_000, 100_000);
      await arrives(pipeline, 199_999);
      await pipeline.verify('replica');
      const log = readFileSync(`${source.folder}.log`, 'utf8');
      expect(log).not.toContain('replication timeout');
      await Promise.all([reader.stop(), delivery.stop()]);
    });
    await source.stop('SIGQUIT');
  });
});

describe('a wire that falls silent', () => {
  test('is given up, and the reader goes on over a new one', async () => {
    const source = await SourceServer.create(join(folder, 'silent'), { wal_sender_timeout: '5s' });
    servers.push(source);
    const options = { ...own, source, config: { 'source.status.interval': '500ms' } };
    await faults.run('silent', options, async (pipeline) => {
      await pipeline.source.query(tables);
      const client = await source.connect(pipeline.databaseName('app'));
      const wire = await cuttableWire('127.0.0.1', source.port);
      const url = new URL(pipeline.sourceUrl);
      url.port = String(wire.port);
      await pipeline.moveSource(url.href);
      try {
        const reader = pipeline.replicate();
        const delivery = pipeline.deliver();
        await pipeline.streaming(reader);
        await arrives(pipeline, 20);
        wire.cut();
        await insert(client, 100, 5);
        await reader.logged('that the wire is silent', ({ error }) => String(error).includes('half open'));
        await arrives(pipeline, 104);
        await pipeline.moveSource(url.href);
        await pipeline.verify('replica');
        await Promise.all([reader.stop(), delivery.stop()]);
      } finally {
        wire.close();
        await client.end();
        await pipeline.moveSource(source.url(pipeline.databaseName('app')));
      }
    });
    await source.stop('SIGQUIT');
  });
});

describe('a standby as the source', () => {
  test('streams from a slot of its own, and refuses snapshots', async () => {
    const primary = await SourceServer.create(join(folder, 'primary'));
    servers.push(primary);
    const standby = await primary.createStandby(join(folder, 'standby'), 'standby');
    servers.push(standby);
    for (const mode of ['never', 'initial']) {
      const options = { ...own, source: primary, config: { 'source.snapshot.mode': mode } };
      await faults.run(`standby-${mode}`, options, async (pipeline) => {
        const database = pipeline.databaseName('app');
        const writer = await primary.connect(database);
        await writer.query(tables);
        await caughtUp(primary, standby);
        await pipeline.moveSource(standby.url(database));
        // Publications come with the WAL.
        const early = pipeline.replicate();
        expect(await early.exitsWithin(60_000)).toBe(3);
        const statements = /TM202: .*the source is a standby\n {2}→ On its primary: (.*)/.exec(
          early.output(),
        )!;
        await writer.query(statements[1]!);
        await caughtUp(primary, standby);
        const reader = pipeline.replicate();
        const delivery = pipeline.deliver();
        // A slot on a standby waits until its primary says which transactions run.
        const speaking = setInterval(() => void writer.query('select pg_log_standby_snapshot()'), 500);
        await pipeline.streaming(reader);
        if (mode === 'initial')
          await reader.logged('that it takes no snapshot', ({ code }) => code === 'TM222');
        const refused = await pipeline.command(['snapshot', 'start', 'own.keyed']);
        expect(refused.stdout + refused.stderr).toContain('TM222');
        await insert(writer, 100, 50);
        await writer.query(
          `update own.keyed set note = 'changed' where id > 120; delete from own.keyed where id > 140`,
        );
        await arrives(pipeline, 140);
        await until('the replica has what was streamed', 60_000, async () => {
          const rowsOf = async (client: pg.ClientBase) =>
            (await client.query('select * from own.keyed where id >= 100 order by id')).rows;
          return JSON.stringify(await rowsOf(pipeline.replica)) === JSON.stringify(await rowsOf(writer));
        });
        await reader.kill();
        const again = pipeline.replicate();
        await pipeline.streaming(again);
        await insert(writer, 200, 5);
        await arrives(pipeline, 204);
        expect((await pipeline.status()).source.epoch).toBe(1);
        await writer.query(`truncate own.keyed; insert into own.keyed values (1, 'after')`);
        await pipeline.verify('replica');
        clearInterval(speaking);
        await Promise.all([again.stop(), delivery.stop()]);
        await writer.end();
      });
    }
    for (const server of [standby, primary]) await server.stop('SIGQUIT');
  });
});

async function caughtUp(primary: SourceServer, standby: SourceServer): Promise<void> {
  const { rows } = await primary.query('select pg_current_wal_flush_lsn()::text as lsn');
  await until('the standby has replayed', 30_000, async () => {
    const { rows: there } = await standby.query('select pg_last_wal_replay_lsn() >= $1::pg_lsn as done', [
      rows[0].lsn,
    ]);
    return there[0].done;
  });
}
