/**
 * An older Postgres as the source: the main path on it, beside the stack's own. 14 is not packaged for every platform, and
 * has no column lists, so
 * there the reader drops what the policy drops. TIDEMARK_POSTGRES_BIN (a folder with postgres and initdb) runs it on
 * that version instead.
 */
import { rmSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { bulkFindings } from '../../src/sample/bulk.ts';
import { seedSample } from '../../src/sample/seed.ts';
import { FaultStack, type Pipeline, until } from '../fixtures/pipeline.ts';
import { type OlderVersion, SourceServer } from '../fixtures/source-server.ts';

let faults: FaultStack;
let folder: string;
const servers: SourceServer[] = [];

beforeAll(async () => {
  faults = await FaultStack.start('postgres-versions');
  folder = join(faults.stack.directory, 'sources');
  rmSync(folder, { recursive: true, force: true });
});
afterAll(async () => {
  for (const server of servers) await server.stop('SIGQUIT');
  if (folder) rmSync(folder, { recursive: true, force: true });
  await faults?.stop();
});

const versions: readonly (OlderVersion | null)[] = process.env.TIDEMARK_POSTGRES_BIN ? [null] : [15];

const tables = `
  create table app.people (id int primary key, name text, email text);
  comment on column app.people.email is '@personal';
  create table app.heap (id int, note text);
  alter table app.heap replica identity full;
  create table app.measured (day date, id int, value text, primary key (day, id)) partition by range (day);
  create table app.measured_1 partition of app.measured for values from ('2026-01-01') to ('2026-02-01');
  create table app.measured_2 partition of app.measured for values from ('2026-02-01') to ('2026-03-01');
  insert into app.people select i, 'name ' || i, 'someone' || i || '@example.com' from generate_series(1, 300) i;
  insert into app.heap select i % 7, 'twice' from generate_series(1, 20) i;
  insert into app.measured select date '2026-01-01' + i, i, 'before' from generate_series(1, 50) i;`;

async function snapshotsDone({ control }: Pipeline, tables: number): Promise<void> {
  await until('the snapshots are done', 60_000, async () => {
    // That rows have values which the column list came too late for is one that asks to be started (TM226).
    const { rows } = await control.query<{ state: string }>(
      `select state from tidemark.snapshots where error_code is distinct from 'TM226'`,
    );
    return rows.length >= tables && rows.every(({ state }) => state === 'done');
  });
}

describe.each(versions)('Postgres %s as the source', (version) => {
  test('snapshots, streams, follows a changed shape and a truncate, and equals the replica', async () => {
    const source = await SourceServer.create(join(folder, `source-${version}`), {}, version);
    servers.push(source);
    const { rows: server } = await source.query(
      `select current_setting('server_version_num')::int / 10000 as major`,
    );
    if (version) expect(server[0].major).toBe(version);
    const options = {
      source,
      destinations: ['replica' as const],
      config: { 'source.publication.interval': '1s', 'source.snapshot.chunk.rows': '500' },
    };
    await faults.run(`postgres-${server[0].major}`, options, async (pipeline) => {
      await seedSample(pipeline.source, { seed: pipeline.id, findings: 60 });
      await bulkFindings(pipeline.source, { rows: 1000, seed: pipeline.id });
      await pipeline.source.query(tables);
      const check = await pipeline.command(['check']);
      expect(check.stdout).toContain(`source answers: Postgres ${server[0].major}`);
      expect(check.stdout.includes('Postgres sends email all the same')).toBe(server[0].major < 15);
      const reader = pipeline.replicate();
      const delivery = pipeline.deliver();
      await pipeline.streaming(reader);
      await pipeline.followSource();
      pipeline.workload.start({ seed: 'versions', ...pipeline.usualLoad });
      await snapshotsDone(pipeline, 10);
      await pipeline.delivering();

      await pipeline.source.query(`alter table app.people add column nick text default 'none';
        alter table app.people rename column name to title`);
      await pipeline.source.query(`insert into app.people values (1000, 'new', 'new@example.com', 'n')`);
      await pipeline.source.query(`update app.people set nick = 'changed' where id % 3 = 0`);
      await pipeline.source.query(`delete from app.heap where id = 3; update app.heap set id = id + 1`);
      await pipeline.source.query(
        `update app.measured set day = day + 31 where id = 1; delete from app.measured where id = 40`,
      );
      await pipeline.workload.committed(30);
      for (const name of pipeline.destinations) await pipeline.verify(name);

      await pipeline.source.query('truncate app.measured, app.heap');
      await pipeline.source.query(`insert into app.measured values ('2026-01-05', 1, 'after')`);
      const again = await pipeline.command(['snapshot', 'start', 'app.people']);
      expect(again.code).toBe(0);
      await snapshotsDone(pipeline, 11);
      await pipeline.conclude(reader, delivery);
      const { rows } = await pipeline.replica.query('select * from app.people limit 1');
      expect(Object.keys(rows[0]).sort()).toEqual(['id', 'nick', 'title']);
    });
    await source.stop('SIGQUIT');
  });
});
