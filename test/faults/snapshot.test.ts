/**
 * Snapshots under load and faults: rows from before the slot reach every destination, whatever happens to them, to
 * the reader or to the visibility of commits while their chunk is read.
 */
import pg from 'pg';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { bulkFindings } from '../../src/sample/bulk.ts';
import { seedSample } from '../../src/sample/seed.ts';
import { FaultStack, type Pipeline, until } from '../fixtures/pipeline.ts';

let faults: FaultStack;
beforeAll(async () => {
  faults = await FaultStack.start('snapshot');
});
afterAll(async () => {
  await faults?.stop();
});

/** Small chunks: many of them, also of few rows. */
const smallChunks = { 'source.snapshot.chunk.rows': '200' };

async function fill(pipeline: Pipeline, findings: number): Promise<void> {
  await seedSample(pipeline.source, { seed: pipeline.id, findings: 60 });
  await bulkFindings(pipeline.source, { rows: findings, seed: pipeline.id });
}

/** Waits until no snapshot is open. */
async function snapshotsDone(pipeline: Pipeline, timeoutMs = 90_000): Promise<Map<string, string>> {
  const states = async () => {
    const { rows } = await pipeline.control.query<{ table_name: string; state: string }>(
      'select table_name, state from tidemark.snapshots',
    );
    return rows;
  };
  await until('the snapshots are done', timeoutMs, async () => {
    const rows = await states();
    return rows.length > 0 && rows.every(({ state }) => !['requested', 'running'].includes(state));
  });
  return new Map((await states()).map(({ table_name, state }) => [table_name, state]));
}

async function rereads(pipeline: Pipeline): Promise<number> {
  const { rows } = await pipeline.control.query<{ rereads: string }>(
    'select sum(rereads) as rereads from tidemark.snapshots',
  );
  return Number(rows[0]!.rereads);
}

test('rows from before the slot reach every destination while the application goes on writing', () =>
  faults.run('snapshot-load', { config: smallChunks }, async (pipeline) => {
    await fill(pipeline, 6000);
    const reader = pipeline.replicate();
    const delivery = pipeline.deliver();
    await pipeline.streaming(reader);
    await pipeline.followSource();
    pipeline.workload.start({ seed: 'snapshot-load', ...pipeline.usualLoad });
    const states = await snapshotsDone(pipeline);
    expect(states.get('app.findings')).toBe('done');
    await pipeline.workload.committed(50);
    const { snapshotRows, chunks } = await pipeline.conclude(reader, delivery);
    expect(snapshotRows).toBeGreaterThan(6000);
    expect(chunks).toBeGreaterThan(20);
  }));

test('kill -9 at every point of a chunk loses and repeats nothing', () =>
  faults.run('snapshot-kills', { config: smallChunks }, async (pipeline) => {
    await fill(pipeline, 4000);
    const delivery = pipeline.deliver();
    // Also before there is an origin: tables without a key are read again then.
    for (const death of [
      'before-origin=kill',
      'before-chunk-read=kill@2',
      'chunk-read=kill@3',
      'after-high-mark=kill@1',
      'before-chunk-commit=kill@2',
      'after-chunk-commit=kill@2',
      'after-high-mark=kill@4',
    ]) {
      const doomed = pipeline.replicate(death);
      expect(await doomed.exitsWithin(90_000), `the reader dies at ${death}`).toBe('SIGKILL');
      if (death === 'before-origin=kill' || pipeline.committed) continue;
      await pipeline.followSource();
      pipeline.workload.start({ seed: 'snapshot-kills', ...pipeline.usualLoad });
    }
    const reader = pipeline.replicate();
    await snapshotsDone(pipeline);
    await pipeline.workload.committed(20);
    const { snapshotRows } = await pipeline.conclude(reader, delivery);
    expect(snapshotRows).toBeGreaterThan(4000);
  }));

test('a commit that is in the WAL but not visible yet is not overwritten by a chunk', () =>
  faults.run('snapshot-race', { config: smallChunks }, async (pipeline) => {
    await fill(pipeline, 1000);
    // They are on the same server, and what they commit is not the point.
    for (const part of ['replica', 'control'])
      await pipeline.source.query(
        `alter database ${pg.escapeIdentifier(pipeline.databaseName(part))} set synchronous_commit = local`,
      );
    const { rows: keys } = await pipeline.source.query(
      'select organization_id, id from app.findings order by 1, 2 limit 40',
    );
    let reader = pipeline.replicate('before-chunk-read=sleep:1500@1');
    const delivery = pipeline.deliver();
    await pipeline.streaming(reader);
    await pipeline.followSource();
    // A standby that does not exist: commits are in the WAL, are streamed, and nobody sees them.
    await pipeline.source.query(`alter system set synchronous_standby_names = 'nobody'`);
    await pipeline.source.query('select pg_reload_conf()');
    const late = await Promise.all(
      keys.slice(0, 8).map(async () => {
        const client = new pg.Client({ connectionString: pipeline.sourceUrl });
        await client.connect();
        return client;
      }),
    );
    try {
      const waiting = late.map((client, i) =>
        client.query(
          `update app.findings set title = 'changed while invisible', updated_at = now()
            where organization_id = $1 and id = $2`,
          [keys[i * 5].organization_id, keys[i * 5].id],
        ),
      );
      await until('commits wait for a standby', 20_000, async () => {
        const { rows } = await pipeline.control.query(
          `select count(*)::int as waiting from pg_stat_activity where wait_event = 'SyncRep'`,
        );
        return rows[0].waiting >= late.length;
      });
      await until('chunks are read again', 30_000, async () => (await rereads(pipeline)) > 1);
      // A new reader does not stream those commits again, and must not read past them either.
      await reader.kill();
      const before = await rereads(pipeline);
      reader = pipeline.replicate();
      await until('chunks are read again', 30_000, async () => (await rereads(pipeline)) > before);
      await pipeline.control.query('alter system reset synchronous_standby_names');
      await pipeline.control.query('select pg_reload_conf()');
      await Promise.all(waiting);
    } finally {
      await pipeline.control.query('alter system reset synchronous_standby_names');
      await pipeline.control.query('select pg_reload_conf()');
      await Promise.all(late.map((client) => client.end()));
    }
    await snapshotsDone(pipeline);
    expect(await rereads(pipeline)).toBeGreaterThan(1);
    await pipeline.conclude(reader, delivery);
  }));

test('rows updated, deleted, re-keyed and re-inserted while their chunk is read arrive as they are', () =>
  faults.run(
    'snapshot-chunk',
    { config: { 'source.tables': '[app.notes]', 'source.snapshot.chunk.rows': '20' } },
    async (pipeline) => {
      const { source } = pipeline;
      await source.query(`create table app.notes (id int primary key, title text not null, body text)`);
      // Out of line and not compressed: an update that leaves it alone does not carry it.
      await source.query(`alter table app.notes alter body set storage external`);
      await source.query(
        `insert into app.notes select n, 'note ' || n, repeat(md5(n::text), 200) from generate_series(1, 60) n`,
      );
      const reader = pipeline.replicate('chunk-read=sleep:4000@1');
      const delivery = pipeline.deliver();
      await pipeline.streaming(reader);
      await pipeline.followSource();
      await until('a chunk is read', 20_000, async () => {
        const { rowCount } = await source.query(
          `select from pg_stat_activity where application_name = 'tidemark/snapshot' and state = 'idle' and query like '%"low"%'`,
        );
        return rowCount === 1;
      });
      for (const statement of [
        `update app.notes set title = 'body untouched' where id = 1`,
        `update app.notes set body = 'new body' where id = 2`,
        `delete from app.notes where id = 3`,
        `delete from app.notes where id = 4`,
        `insert into app.notes values (4, 'again', repeat('again', 2000))`,
        // Out of the chunk; from beyond it to before it; and after one another onto keys that were just left.
        `update app.notes set id = 105 where id = 5`,
        `update app.notes set id = 0 where id = 50`,
        `update app.notes set id = 5 where id = 6`,
        `update app.notes set id = 6, title = 'moved' where id = 40`,
        `insert into app.notes values (3, 'new', null)`,
        `update app.notes set title = 'twice' where id = 1`,
        `update app.notes set id = 61 where id = 105`,
        // Not read yet.
        `update app.notes set title = 'later' where id = 30`,
        `delete from app.notes where id = 31`,
      ])
        await source.query(statement);
      const states = await snapshotsDone(pipeline);
      expect(states.get('app.notes')).toBe('done');
      const { snapshotRows, chunks } = await pipeline.conclude(reader, delivery);
      // Dropped from their chunk were 1 to 6; of those 1, 5 and 6 came in a chunk of their own, as did 0 and 61.
      expect(snapshotRows).toBeGreaterThanOrEqual(14 + 5 + 30);
      expect(chunks).toBeGreaterThanOrEqual(4);
    },
  ));

test('rows that move on disk while the table is read in that order arrive as they are, or it is read by key', () =>
  faults.run(
    'snapshot-disk',
    { config: { 'source.tables': '[app.moving]', 'source.snapshot.chunk.rows': '200' } },
    async (pipeline) => {
      const { source } = pipeline;
      const large = `(select string_agg(md5(n::text || i), '') from generate_series(1, 200) i)`;
      await source.query(
        `create table app.moving (id int primary key, n int, body text) with (fillfactor = 60)`,
      );
      await source.query(
        `insert into app.moving select (n * 7919) % 20011, n from generate_series(1, 20000) n`,
      );
      await source.query('vacuum app.moving');
      const orders = () =>
        reader.logLines().flatMap(({ message, order }) => (/goes on$/.test(message) ? [order] : []));
      let reader = pipeline.replicate('before-chunk-read=sleep:30');
      const delivery = pipeline.deliver();
      await pipeline.streaming(reader);
      await pipeline.followSource();
      // A table that has such values already is read by key.
      await until('the scan begins', 30_000, async () => orders().length === 1);
      // Untouched by what follows, in TOAST, and moved by it again and again.
      await source.query(
        `insert into app.moving select 30000 + n, n, ${large} from generate_series(1, 90) n`,
      );
      for (let round = 0; round < 25; round++) {
        await source.query(`update app.moving set n = n + 1 where id % 97 = ${round}`);
        await source.query(`update app.moving set id = id + 40000 where id % 997 = ${round}`);
        await source.query(`delete from app.moving where id % 1009 = ${round}`);
        await source.query(`insert into app.moving values (${60000 + round}, 0, null)`);
        await source.query(`update app.moving set n = -n where id between 30000 and ${30003 + round}`);
        if (round % 5 === 4) await source.query('vacuum app.moving');
      }
      expect(orders()).toEqual(['on disk']);
      await reader.kill();
      reader = pipeline.replicate('before-chunk-read=sleep:100');
      await until('the scan goes on', 30_000, async () => orders().length === 1);
      // Another file, in another order.
      await source.query('vacuum full app.moving');
      await until('it goes on anew', 30_000, async () => orders().length >= 2);
      // More than are read again one by one.
      await source.query(
        `insert into app.moving select 70000 + n, n, ${large} from generate_series(1, 400) n`,
      );
      await source.query('update app.moving set n = n + 1 where id > 70000');
      await until('it is read by key', 30_000, async () => orders().includes('by key'));
      const states = await snapshotsDone(pipeline);
      expect(states.get('app.moving')).toBe('done');
      await pipeline.conclude(reader, delivery);
    },
  ));

test('a snapshot that is read while the stream is still before changes of shape registers none of them early', () =>
  faults.run('snapshot-shape', {}, async (pipeline) => {
    const { source } = pipeline;
    await source.query('create table app.grown (id int primary key, n smallint)');
    const first = pipeline.replicate();
    const delivery = pipeline.deliver();
    await pipeline.streaming(first);
    await pipeline.begun();
    await source.query('insert into app.grown values (1, 1)');
    await snapshotsDone(pipeline);
    await pipeline.published();
    await first.stop();
    // What the stream has to get through before it meets the first of the shapes.
    await bulkFindings(source, { rows: 40_000, seed: pipeline.id });
    for (const [id, type] of ['smallint', 'integer', 'bigint'].entries()) {
      await source.query(`alter table app.grown alter n type ${type}`);
      await source.query(`insert into app.grown values (${id + 2}, 2), (${id + 12}, 3)`);
    }
    const { code } = await pipeline.command(['snapshot', 'start', 'app.grown']);
    expect(code).toBe(0);
    const reader = pipeline.replicate();
    await snapshotsDone(pipeline);
    await pipeline.conclude(reader, delivery);
  }));

test('a snapshot is paused, resumed, cancelled and asked for again by command', () =>
  faults.run('snapshot-command', { config: smallChunks }, async (pipeline) => {
    await fill(pipeline, 2000);
    // Slow enough that no command comes when the last chunk is being read.
    const reader = pipeline.replicate('before-chunk-read=sleep:500');
    const delivery = pipeline.deliver();
    await pipeline.streaming(reader);
    await pipeline.followSource();
    const snapshot = async (...args: string[]) => {
      const outcome = await pipeline.command(['snapshot', ...args]);
      expect(outcome.code, outcome.stdout + outcome.stderr).toBe(0);
      return outcome.stdout;
    };
    const findings = async () => {
      const { snapshots } = JSON.parse(await snapshot('status', 'app.findings', '--json'));
      return snapshots[0] as { state: string; rows: number; fraction: number; kind: string };
    };
    await until('rows are read', 30_000, async () => (await findings()).rows > 0);
    await snapshot('pause', 'app.findings');
    const paused = await findings();
    expect(paused).toMatchObject({ state: 'paused', kind: 'initial' });
    expect(paused.fraction).toBeLessThan(1);
    expect((await pipeline.command(['verify', 'replica', '--timeout', '5s'])).stderr).toContain('TM223');
    expect(await snapshot('status')).toMatch(/app\.findings +[█░]{20} +\d+ % +paused, [\d,]+ of about/);
    expect((await pipeline.command(['snapshot', 'start', 'app.findings'])).stderr).toContain('open already');
    await snapshot('resume', 'app.findings');
    await snapshotsDone(pipeline);
    expect(await findings()).toMatchObject({ state: 'done', fraction: 1 });
    // A destination that lost rows gets them again.
    await snapshot('start', 'app.findings', '--where', "rule_id = 'bulk.generated'");
    await snapshot('cancel', 'app.findings');
    expect((await findings()).state).toBe('cancelled');
    await snapshot('start', 'app.findings', 'app.organizations');
    await snapshotsDone(pipeline);
    expect(await findings()).toMatchObject({ state: 'done', kind: 'ad-hoc' });
    const refused = await pipeline.command(['snapshot', 'start', 'app.audit_log', '--where', 'true']);
    expect(refused.stderr).toContain('TM221');
    const wrong = await pipeline.command([
      'snapshot',
      'start',
      'app.findings',
      '--where',
      'true) ; select (1',
    ]);
    expect(wrong.stderr).toContain('TM224');
    expect((await pipeline.status()).ok).toBe(true);
    const { snapshotRows } = await pipeline.conclude(reader, delivery);
    expect(snapshotRows).toBeGreaterThan(4000);
  }));
