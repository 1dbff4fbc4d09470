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
