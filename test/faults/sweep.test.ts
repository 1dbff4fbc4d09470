/**
 * A snapshot of the whole table leaves the destinations with the rows that the source has, and no others: also when
 * whoever reads or delivers dies around its end.
 */
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { bulkFindings } from '../../src/sample/bulk.ts';
import { seedSample } from '../../src/sample/seed.ts';
import { FaultStack, type Pipeline, until } from '../fixtures/pipeline.ts';
import type { TidemarkProcess } from '../fixtures/tidemark-process.ts';

let faults: FaultStack;
beforeAll(async () => {
  faults = await FaultStack.start('sweep');
});
afterAll(async () => {
  await faults?.stop();
});

async function snapshot(pipeline: Pipeline, ...args: string[]): Promise<string> {
  const { code, stdout, stderr } = await pipeline.command(['snapshot', ...args]);
  expect(code, stdout + stderr).toBe(0);
  return stdout;
}

async function snapshotsDone(pipeline: Pipeline): Promise<void> {
  await until('the snapshots are done', 90_000, async () => {
    const { rows } = await pipeline.control.query<{ state: string }>('select state from tidemark.snapshots');
    return rows.length > 0 && rows.every(({ state }) => !['requested', 'running'].includes(state));
  });
}

/** What the tables held has reached every destination. */
async function firstEqual(pipeline: Pipeline, reader: TidemarkProcess): Promise<void> {
  await pipeline.streaming(reader);
  await pipeline.followSource();
  await snapshotsDone(pipeline);
  for (const destination of pipeline.destinations) await pipeline.verify(destination);
}

/** Bodies lie in TOAST. */
async function createNotes(source: Pipeline['source'], rows: number): Promise<void> {
  await source.query('create table app.notes (id int primary key, title text, body text)');
  await source.query(`alter table app.notes alter body set storage external`);
  await source.query(
    `insert into app.notes select n, 'note ' || n, repeat(md5(n::text), 100) from generate_series(1, $1::int) n`,
    [rows],
  );
}

/** Deletes that no stream tells of: the publication leaves them out for as long as they take. */
async function deleteUnseen(pipeline: Pipeline, statement: string): Promise<number> {
  const { source } = pipeline;
  const { rows } = await source.query<{ name: string }>(
    `select quote_ident(pubname) as name from pg_publication where pubdelete`,
  );
  const publish = async (operations: string) => {
    for (const { name } of rows)
      await source.query(`alter publication ${name} set (publish = '${operations}')`);
  };
  await publish('insert, update, truncate');
  try {
    return (await source.query(statement)).rowCount!;
  } finally {
    await publish('insert, update, delete, truncate');
  }
}

/** Rows that a destination's Windows removed, by its receipts. */
async function removed(pipeline: Pipeline, destination: string): Promise<number> {
  const { rows } = await pipeline.control.query<{ deleted: string | null }>(
    `select sum((receipt->'rows'->>'deleted')::int) as deleted from tidemark.deliveries where destination = $1`,
    [destination],
  );
  return Number(rows[0]!.deleted ?? 0);
}

/** Rows that the lake appended, by op. */
function lakeRows(pipeline: Pipeline, table: string): Record<string, number> {
  const folder = join(pipeline.directory, 'lake', table, '_manifests');
  const sums: Record<string, number> = {};
  for (const name of readdirSync(folder).filter((each) => each.endsWith('.json'))) {
    const { rows } = JSON.parse(readFileSync(join(folder, name), 'utf8')) as { rows: Record<string, number> };
    for (const [op, count] of Object.entries(rows)) sums[op] = (sums[op] ?? 0) + count;
  }
  return sums;
}

async function differs(pipeline: Pipeline, destination: string): Promise<void> {
  const { code, stdout } = await pipeline.command(['verify', destination]);
  expect(code, stdout).toBe(1);
}

test('a snapshot removes rows that only destinations have, and says in its receipt how many', () =>
  faults.run(
    'sweep-strays',
    { config: { 'source.tables': '[app.notes, app.empty, app.keys]' } },
    async (pipeline) => {
      const { source, replica } = pipeline;
      await source.query('create table app.notes (id int primary key, body text)');
      await source.query('create table app.empty (id int primary key)');
      await source.query('create table app.keys (a int, b text, primary key (a, b))');
      await source.query(`insert into app.notes select n, 'note ' || n from generate_series(1, 500) n`);
      await source.query(`insert into app.empty select generate_series(1, 5)`);
      await source.query(`insert into app.keys select n, 'k' || n from generate_series(1, 20) n`);
      const reader = pipeline.replicate();
      const delivery = pipeline.deliver();
      await firstEqual(pipeline, reader);
      expect(lakeRows(pipeline, 'app.notes')).toEqual({ c: 0, u: 0, d: 0, t: 0, r: 500, e: 0, s: 1 });
      expect(await deleteUnseen(pipeline, 'delete from app.notes where id % 10 = 3')).toBe(50);
      expect(await deleteUnseen(pipeline, 'delete from app.empty')).toBe(5);
      expect(await deleteUnseen(pipeline, 'delete from app.keys where a = 7')).toBe(1);
      await replica.query(`insert into app.notes values (-1, 'nobody knows where from')`);
      for (const destination of pipeline.destinations) await differs(pipeline, destination);
      const before = await removed(pipeline, 'replica');
      await snapshot(pipeline, 'start', 'app.notes', '--where', 'id < 100');
      await snapshotsDone(pipeline);
      // Of some rows a snapshot says nothing about the others.
      for (const destination of pipeline.destinations) await differs(pipeline, destination);
      expect(await removed(pipeline, 'replica')).toBe(before);
      await snapshot(pipeline, 'start', 'app.notes', 'app.empty', 'app.keys');
      await snapshotsDone(pipeline);
      for (const destination of pipeline.destinations) await pipeline.verify(destination);
      expect(await removed(pipeline, 'replica')).toBe(before + 50 + 1 + 5 + 1);
      await pipeline.conclude(reader, delivery);
    },
  ));

test('kill -9 around the end of a snapshot removes what is to be removed, once', () =>
  faults.run('sweep-kills', { config: { 'source.tables': '[app.notes]' } }, async (pipeline) => {
    const { source, replica } = pipeline;
    await createNotes(source, 100);
    let reader = pipeline.replicate();
    let delivery = pipeline.deliver();
    await firstEqual(pipeline, reader);
    const dies = async (process: TidemarkProcess, at: string) =>
      expect(await process.exitsWithin(60_000), `it dies at ${at}`).toBe('SIGKILL');
    let stray = 0;
    for (const [role, death] of [
      ['reader', 'before-chunk-commit=kill'],
      ['reader', 'after-chunk-commit=kill'],
      ['reader', 'after-high-mark=kill'],
      ['delivery', 'postgres-sink-staged=kill'],
      ['delivery', 'postgres-sink-before-commit=kill'],
      ['delivery', 'postgres-sink-committed=kill'],
      ['delivery', 'parquet:before-manifest=kill'],
      ['delivery', 'parquet:after-manifest=kill'],
      ['delivery', 'after-merge=kill'],
      ['delivery', 'after-ledger=kill'],
    ] as const) {
      stray++;
      await deleteUnseen(pipeline, `delete from app.notes where id = ${stray}`);
      await source.query(`update app.notes set title = 'changed' where id % 7 = ${stray % 7}`);
      await replica.query(`insert into app.notes values (${-stray}, 'stray', null)`);
      await pipeline.published();
      if (role === 'reader') {
        await reader.kill();
        await snapshot(pipeline, 'start', 'app.notes');
        await dies(pipeline.replicate(death), death);
        reader = pipeline.replicate();
      } else {
        // A consumer that leaves is not waited for, as one is that was killed.
        await delivery.stop();
        await snapshot(pipeline, 'start', 'app.notes');
        await snapshotsDone(pipeline);
        await dies(pipeline.deliver(death), death);
        delivery = pipeline.deliver();
      }
      await snapshotsDone(pipeline);
      for (const destination of pipeline.destinations) await pipeline.verify(destination);
    }
    await pipeline.conclude(reader, delivery);
  }));

test('paused, killed, truncated and reshaped meanwhile, a snapshot under load still leaves what the source has', () =>
  faults.run('sweep-load', { config: { 'source.snapshot.chunk.rows': '50' } }, async (pipeline) => {
    const { source } = pipeline;
    await seedSample(source, { seed: pipeline.id, findings: 60 });
    await bulkFindings(source, { rows: 1500, seed: pipeline.id });
    let reader = pipeline.replicate();
    const delivery = pipeline.deliver();
    await firstEqual(pipeline, reader);
    const strays = await deleteUnseen(
      pipeline,
      `delete from app.findings f where rule_id = 'bulk.generated' and hashtext(id::text) % 5 = 0`,
    );
    expect(strays).toBeGreaterThan(50);
    await reader.kill();
    reader = pipeline.replicate('before-chunk-read=sleep:1000');
    await pipeline.streaming(reader);
    pipeline.workload.start({ seed: 'sweep-load', ...pipeline.usualLoad });
    const tables = await source.query<{ name: string }>(
      `select relname as name from pg_class where relnamespace = 'app'::regnamespace and relkind in ('r', 'p') and not relispartition and relreplident = 'd'
        and exists (select from pg_index where indrelid = pg_class.oid and indisprimary)`,
    );
    await snapshot(pipeline, 'start', ...tables.rows.map(({ name }) => `app.${name}`));
    const findings = async () => {
      const { rows } = await pipeline.control.query<{ state: string; rows: string }>(
        `select state, rows from tidemark.snapshots where table_name = 'app.findings' and kind = 'ad-hoc'`,
      );
      return { state: rows[0]!.state, rows: Number(rows[0]!.rows) };
    };
    await until('rows are read', 30_000, async () => (await findings()).rows > 0);
    await snapshot(pipeline, 'pause', 'app.findings');
    await reader.kill();
    await source.query(`alter table app.findings add column swept_meanwhile text default 'yes'`);
    reader = pipeline.replicate('before-chunk-read=sleep:50');
    await pipeline.streaming(reader);
    await pipeline.workload.committed(30);
    expect((await findings()).state).toBe('paused');
    await snapshot(pipeline, 'resume', 'app.findings');
    await snapshotsDone(pipeline);
    await pipeline.workload.committed(20);
    await pipeline.conclude(reader, delivery);
  }));

test('a snapshot for one destination mends it, and no other gets a row', () =>
  faults.run(
    'sweep-for',
    { config: { 'source.tables': '[app.notes]', 'source.snapshot.chunk.rows': '50' } },
    async (pipeline) => {
      const { source, replica } = pipeline;
      await createNotes(source, 400);
      let reader = pipeline.replicate();
      let delivery = pipeline.deliver();
      await firstEqual(pipeline, reader);
      const unknown = await pipeline.command(['snapshot', 'start', 'app.notes', '--for', 'nowhere']);
      expect(unknown.stderr).toMatch(/TM224: there is no destination nowhere[\s\S]*lake, replica/);
      // Rows that only the destinations have, and rows that only the source has.
      const damage = async (place: number) => {
        await replica.query(`insert into app.notes values (${-place}, 'stray', null)`);
        await replica.query(`delete from app.notes where id = ${place}`);
        await source.query(
          `update app.notes set title = 'changed' where id % 7 = ${place % 7} and id <> ${place}`,
        );
      };
      const received = async (destination: string) => {
        const { rows } = await pipeline.control.query<{ rows: string }>(
          `select coalesce(sum((receipt->'rows'->>'appended')::int + (receipt->'rows'->>'upserted')::int), 0) as rows
           from tidemark.deliveries where destination = $1`,
          [destination],
        );
        return Number(rows[0]!.rows);
      };
      await damage(1);
      for (const destination of pipeline.destinations) await pipeline.command(['verify', destination]);
      const lakeBefore = await received('lake');
      const replicaBefore = await received('replica');
      await reader.kill();
      await snapshot(pipeline, 'start', 'app.notes', '--for', 'replica');
      const refused = await pipeline.command(['snapshot', 'start', 'app.notes', '--for', 'lake']);
      expect(refused.stderr).toContain('open already, for replica');
      expect(await snapshot(pipeline, 'status')).toContain('for replica alone');
      reader = pipeline.replicate();
      await snapshotsDone(pipeline);
      for (const destination of pipeline.destinations) await pipeline.verify(destination);
      expect(await received('replica')).toBe(replicaBefore + 400);
      expect(await received('lake')).toBe(lakeBefore);
      // The topic is there now: whoever dies, and wherever the other one stands.
      for (const [role, death] of [
        ['reader', 'after-chunk-commit=kill@2'],
        ['delivery', 'postgres-sink-before-commit=kill'],
      ] as const) {
        const place = role === 'reader' ? 8 : 9;
        const process = role === 'reader' ? reader : delivery;
        await process.kill();
        if (role === 'delivery') await source.query(`update app.notes set title = 'meanwhile' where id = 20`);
        await damage(place);
        await snapshot(pipeline, 'start', 'app.notes', '--for', 'replica');
        const doomed = role === 'reader' ? pipeline.replicate(death) : pipeline.deliver(death);
        expect(await doomed.exitsWithin(60_000), `it dies at ${death}`).toBe('SIGKILL');
        if (role === 'reader') reader = pipeline.replicate();
        else delivery = pipeline.deliver();
        await snapshotsDone(pipeline);
        for (const destination of pipeline.destinations) await pipeline.verify(destination);
      }
      // Deleted behind the pipeline's back: gone from the one that asked, still in the other.
      await deleteUnseen(pipeline, 'delete from app.notes where id = 33');
      await snapshot(pipeline, 'start', 'app.notes', '--for', 'lake');
      await snapshotsDone(pipeline);
      await pipeline.verify('lake');
      await differs(pipeline, 'replica');
      await snapshot(pipeline, 'start', 'app.notes');
      await snapshotsDone(pipeline);
      const { snapshotRows } = await pipeline.conclude(reader, delivery);
      expect(snapshotRows).toBeGreaterThan(1900);
      const { stdout } = await pipeline.command(['teardown', '--topics', '--yes']);
      expect(stdout).toContain('6 topics deleted');
    },
  ));
