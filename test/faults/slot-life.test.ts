/**
 * What may happen to a slot and its server, each with a real one: every case goes on without losing or repeating
 * anything, or stops with a code of its own (docs/operate.md, "The slot's life"). Other cases are elsewhere: the slot
 * advanced by somebody else in stops.test.ts, restarts in outages.test.ts, lost rights, silent wires, short timeouts and
 * standbys as sources in source-life.test.ts.
 */
import { rmSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { type ErrorCode, errorCatalogue } from '../../src/platform/errors.ts';
import { FaultStack, type Pipeline, until } from '../fixtures/pipeline.ts';
import { SourceServer } from '../fixtures/source-server.ts';
import type { TidemarkProcess } from '../fixtures/tidemark-process.ts';

let faults: FaultStack;
let folder: string;
const servers: SourceServer[] = [];

beforeAll(async () => {
  faults = await FaultStack.start('slot-life');
  folder = join(faults.stack.directory, 'sources');
  rmSync(folder, { recursive: true, force: true });
});
afterAll(async () => {
  for (const server of servers) await server.stop('SIGQUIT');
  if (folder) rmSync(folder, { recursive: true, force: true });
  await faults?.stop();
});

async function sourceServer(name: string, settings: Record<string, string> = {}): Promise<SourceServer> {
  const server = await SourceServer.create(join(folder, name), settings);
  servers.push(server);
  return server;
}

/** Keyed, and without a key: there, a repeated insert is one row too many. */
const tables = `
  create table app.keyed (id bigint primary key, note text);
  create table app.heap (id bigint, note text);
  alter table app.heap replica identity full;`;

async function insert({ source }: Pipeline, from: number, count: number): Promise<void> {
  const rows = `select i, 'row ' || i from generate_series($1::int, $1::int + $2::int - 1) i`;
  await source.query('begin');
  await source.query(`insert into app.keyed ${rows}`, [from, count]);
  await source.query(`insert into app.heap ${rows}`, [from, count]);
  await source.query('commit');
}

/** WAL that no tracked table has a part in. */
async function writeElsewhere(server: Pick<SourceServer, 'connect'>, megabytes: number): Promise<void> {
  const client = await server.connect();
  await client.query('create table if not exists noise (filler text)');
  await client.query(`alter table noise alter filler set storage external`);
  for (let i = 0; i < megabytes; i++) {
    await client.query(`insert into noise select repeat('x', 10000) from generate_series(1, 105)`);
  }
  await client.query('truncate noise');
  await client.end();
}

/** Exit code, report and what status reads say the same. */
async function stops(pipeline: Pipeline, reader: TidemarkProcess, code: ErrorCode): Promise<string> {
  expect(await reader.exitsWithin(60_000), `${reader.name} stops with ${code}`).toBe(3);
  const report = reader.output().split('\n').slice(-3).join('\n');
  expect(report).toMatch(new RegExp(`^${code}: .+\n {2}→ .+`));
  const { rows } = await pipeline.control.query('select error_code, remedy from tidemark.sources');
  expect(rows).toEqual([{ error_code: code, remedy: errorCatalogue[code].remedy }]);
  return report;
}

describe('the slot', () => {
  test('advances while its database is idle and another one writes', () =>
    faults.run('idle', { destinations: [] }, async (pipeline) => {
      const reader = pipeline.replicate();
      await pipeline.streaming(reader);
      await pipeline.published();
      const server = { connect: () => pipeline.connectTo('replica') };
      await writeElsewhere(server, 40);
      await pipeline.published();
      await pipeline.source.query('checkpoint');
      await until('the slot keeps little WAL', 60_000, async () => {
        const { source } = await pipeline.status();
        return source.slot!.retainedWalBytes < 20 << 20;
      });
    }));

  test('lost to max_slot_wal_keep_size stops the reader, with the reason', async () => {
    const source = await sourceServer('keep-size', {
      max_slot_wal_keep_size: '1MB',
      max_wal_size: '32MB',
      min_wal_size: '32MB',
    });
    await faults.run('lost', { destinations: [], source }, async (pipeline) => {
      const reader = pipeline.replicate();
      await pipeline.streaming(reader);
      await pipeline.published();
      await reader.stop();
      await until('the slot is lost', 60_000, async () => {
        await writeElsewhere(source, 20);
        await source.query('checkpoint');
        const { rows } = await source.query('select wal_status from pg_replication_slots');
        return rows[0].wal_status === 'lost';
      });
      const check = await pipeline.command(['check']);
      expect(check.code).toBe(1);
      expect(check.stdout).toContain('lost its WAL');
      const report = await stops(pipeline, pipeline.replicate(), 'TM204');
      // Postgres tells the reason from 17 on.
      const { rows } = await source.query(`select current_setting('server_version_num')::int as version`);
      expect(report).toContain(rows[0].version >= 170000 ? '(wal_removed)' : 'lost its WAL');
    });
  });

  test('dropped by hand under a running reader stops it', () =>
    faults.run('dropped', { destinations: [] }, async (pipeline) => {
      const reader = pipeline.replicate();
      await pipeline.streaming(reader);
      await pipeline.published();
      reader.signal('SIGSTOP');
      await until('the slot is dropped', 30_000, async () => {
        await pipeline.source.query(
          'select pg_terminate_backend(active_pid) from pg_replication_slots where slot_name = $1 and active',
          [pipeline.slot],
        );
        await pipeline.source.query('select pg_drop_replication_slot($1)', [pipeline.slot]);
        return true;
      });
      reader.signal('SIGCONT');
      await stops(pipeline, reader, 'TM204');
    }));

  test('of a role without REPLICATION is refused with the statement that grants it', () =>
    faults.run('role', { destinations: [] }, async (pipeline) => {
      const role = pipeline.slot;
      await pipeline.source.query(
        `create role ${role} login password 'pw'; grant usage, create on schema app to ${role};`,
      );
      const url = new URL(pipeline.sourceUrl);
      url.username = role;
      url.password = 'pw';
      const owner = pipeline.sourceUrl;
      await pipeline.moveSource(url.href);
      const reader = pipeline.replicate();
      expect(await reader.exitsWithin(60_000)).toBe(3);
      expect(reader.output()).toMatch(
        new RegExp(`TM202: .*may not start replication\n {2}→ alter role "?${role}"? replication;`),
      );
      await pipeline.moveSource(owner);
      await pipeline.source.query(`drop owned by ${role}; drop role ${role};`);
    }));
});

describe('a publication that somebody changed', () => {
  test('stops the reader, while it runs and at its start, and putting it back does not hide it', () =>
    faults.run('publication', { destinations: [] }, async (pipeline) => {
      const { source, slot } = pipeline;
      await source.query(`${tables} create table app.passing (id int primary key)`);
      const reader = pipeline.replicate();
      await pipeline.streaming(reader);
      await insert(pipeline, 1, 10);
      await pipeline.published();
      // Neither a new name nor a table that is dropped is a gap.
      await source.query('alter table app.keyed rename to renamed; drop table app.passing');
      await pipeline.published();
      await source.query(`alter publication ${slot} drop table app.heap`);
      expect(await stops(pipeline, reader, 'TM245')).toContain('app.heap is not in publication');
      await source.query(`alter publication ${slot} add table app.heap`);
      await stops(pipeline, pipeline.replicate(), 'TM245');

      const teardown = await pipeline.command(['teardown', '--slot', '--yes']);
      expect(teardown.code).toBe(0);
      const anew = pipeline.replicate();
      await pipeline.streaming(anew);
      await pipeline.published();
      await anew.stop();
      await source.query(`alter publication ${slot} set (publish = 'insert')`);
      const report = await stops(pipeline, pipeline.replicate(), 'TM245');
      expect(report).toContain('leaves out update, delete, truncate of app.heap');
      await source.query(`drop publication ${slot}`);
      expect(await stops(pipeline, pipeline.replicate(), 'TM245')).toContain(`publication ${slot} is gone`);
    }));
});

describe('a WAL budget', () => {
  const budget = 32 << 20;

  /** The reader is up to date, but an open transaction keeps the slot's WAL. */
  async function spend(pipeline: Pipeline): Promise<() => Promise<void>> {
    const holder = await pipeline.connectTo('app');
    await holder.query('begin');
    // Only one that has written something holds a slot back.
    await holder.query(`select pg_logical_emit_message(true, 'test', 'held')`);
    await writeElsewhere({ connect: () => pipeline.connectTo('replica') }, 80);
    return async () => {
      await holder.query('rollback');
    };
  }

  test('that is spent is said in log, status and metrics, and the stream goes on', () =>
    faults.run(
      'budget-warn',
      { destinations: [], config: { 'source.wal.budget.bytes': String(budget) } },
      async (pipeline) => {
        await pipeline.source.query(tables);
        const reader = pipeline.replicate();
        await pipeline.streaming(reader);
        expect((await pipeline.status()).source.slot?.walBudgetBytes).toBe(budget);
        const release = await spend(pipeline);
        await reader.logged('that the budget is spent', ({ code }) => code === 'TM243');
        const { ok, problems } = await pipeline.status();
        expect(ok).toBe(false);
        expect(problems).toMatchObject([{ part: 'wal budget', code: 'TM243' }]);
        await insert(pipeline, 1, 10);
        await pipeline.published();
        await release();
        expect(reader.ended).toBeNull();
      },
    ));

  test('with the action drop-slot gives the source its disk back and stops', () =>
    faults.run(
      'budget-drop',
      {
        destinations: [],
        config: { 'source.wal.budget.bytes': String(budget), 'source.wal.budget.action': 'drop-slot' },
      },
      async (pipeline) => {
        const reader = pipeline.replicate();
        await pipeline.streaming(reader);
        const release = await spend(pipeline);
        await stops(pipeline, reader, 'TM244');
        const { rowCount } = await pipeline.source.query(
          'select from pg_replication_slots where slot_name = $1',
          [pipeline.slot],
        );
        expect(rowCount).toBe(0);
        await release();
        await stops(pipeline, pipeline.replicate(), 'TM204');
      },
    ));
});

describe('another server than before', () => {
  test('a standby that was promoted goes on in the next epoch, inside a Transaction, without loss or repetition', async () => {
    const primary = await sourceServer('primary', { synchronized_standby_slots: 'standby' });
    const standby = await primary.createStandby(join(folder, 'standby'), 'standby');
    servers.push(standby);
    const options = { source: primary, config: { 'kafka.batch.max.bytes': '20KiB' } };
    await faults.run('failover', options, async (pipeline) => {
      await pipeline.source.query(tables);
      const reader = pipeline.replicate();
      const before = pipeline.deliver();
      await pipeline.streaming(reader);
      await insert(pipeline, 1, 100);
      await pipeline.published();
      const check = await pipeline.command(['check']);
      expect(check.stdout).toContain('keeps it over a failover');
      await until('the standby keeps the slot', 60_000, async () => {
        const { rows } = await standby.query(
          'select 1 from pg_replication_slots where slot_name = $1 and synced and not temporary',
          [pipeline.slot],
        );
        return rows.length === 1;
      });
      await reader.stop();

      // It dies inside a Transaction, some of which is in Kafka.
      const doomed = pipeline.replicate('after-kafka-commit=kill@3');
      await pipeline.streaming(doomed);
      await insert(pipeline, 101, 3000);
      expect(await doomed.exitsWithin(60_000)).toBe('SIGKILL');
      const { progress } = await pipeline.status();
      expect(progress).toMatchObject({ boundary: false });
      expect(progress!.position).toMatch(/^00000001\//);

      await primary.stop('SIGQUIT');
      const waiting = pipeline.replicate();
      await waiting.logged('that nobody answers', ({ code }) => code === 'TM201');
      await waiting.kill();
      await pipeline.moveSource(standby.url(pipeline.databaseName('app')));
      const early = pipeline.replicate();
      await early.logged('that it is a standby', ({ code }) => code === 'TM201');
      await standby.promote();
      await pipeline.streaming(early);
      // One worker that knows the old epoch, and one that reads of both.
      await before.kill();
      const delivery = pipeline.deliver();
      await insert(pipeline, 5001, 100);
      await pipeline.published();
      for (const name of pipeline.destinations) {
        const { position } = await pipeline.verify(name);
        expect(position).toMatch(/^00000002\//);
      }
      const { ok, source, progress: last } = await pipeline.status();
      expect({ ok, epoch: source.epoch, parked: last?.parked }).toEqual({ ok: true, epoch: 2, parked: [] });
      await early.stop();
      await delivery.stop();
    });
    await standby.stop('SIGQUIT');
  });

  test('a standby that was promoted without the tail that is in Kafka stops the reader', async () => {
    const primary = await sourceServer('tail-primary');
    const standby = await primary.createStandby(join(folder, 'tail-standby'), 'standby');
    servers.push(standby);
    await faults.run('lost-tail', { destinations: [], source: primary }, async (pipeline) => {
      await pipeline.source.query(tables);
      const reader = pipeline.replicate();
      await pipeline.streaming(reader);
      await insert(pipeline, 1, 100);
      await pipeline.published();
      await until('the standby keeps the slot', 60_000, async () => {
        const { rows } = await standby.query(
          'select 1 from pg_replication_slots where slot_name = $1 and synced and not temporary',
          [pipeline.slot],
        );
        return rows.length === 1;
      });
      const check = await pipeline.command(['check']);
      expect(check.stdout).toContain('synchronized_standby_slots is empty');
      await standby.stop();
      await insert(pipeline, 101, 100);
      await pipeline.published();
      await reader.stop();
      await primary.stop('SIGQUIT');
      await standby.start();
      await standby.promote();
      await pipeline.moveSource(standby.url(pipeline.databaseName('app')));
      await stops(pipeline, pipeline.replicate(), 'TM241');
      // It is not a matter of trying again: what the new primary writes does not bring the tail back.
      await writeElsewhere(standby, 5);
      await stops(pipeline, pipeline.replicate(), 'TM241');
    });
    await standby.stop('SIGQUIT');
  });

  test('the same server put back to an older state stops the reader', async () => {
    const source = await sourceServer('restored');
    await faults.run('restored', { destinations: [], source }, async (pipeline) => {
      await pipeline.source.query(tables);
      const reader = pipeline.replicate();
      await pipeline.streaming(reader);
      await insert(pipeline, 1, 100);
      await pipeline.published();
      await reader.stop();
      await source.stop();
      const backup = join(folder, 'restored.backup');
      source.copyStopped(backup);
      await source.start();
      await pipeline.reconnect();
      const again = pipeline.replicate();
      await pipeline.streaming(again);
      await insert(pipeline, 101, 3000);
      await pipeline.published();
      await again.stop();
      await source.stop();
      source.restore(backup);
      await source.start();
      await pipeline.reconnect();
      await stops(pipeline, pipeline.replicate(), 'TM242');
    });
    await source.stop('SIGQUIT');
  });

  test('another cluster stops the reader', async () => {
    const source = await sourceServer('first-cluster');
    const other = await sourceServer('other-cluster');
    await faults.run('cluster', { destinations: [], source }, async (pipeline) => {
      const reader = pipeline.replicate();
      await pipeline.streaming(reader);
      await pipeline.published();
      await reader.stop();
      await other.query(`create database ${pipeline.databaseName('app')}`);
      await other.query(
        'create schema app; create table app.findings (id int primary key)',
        [],
        pipeline.databaseName('app'),
      );
      await pipeline.moveSource(other.url(pipeline.databaseName('app')));
      await stops(pipeline, pipeline.replicate(), 'TM205');
    });
    for (const server of [source, other]) await server.stop('SIGQUIT');
  });
});
