/**
 * Partitions that are dropped once their rows went: never one with a row in it, whoever writes, holds or has it in use meanwhile
 * and whatever dies; and no destination loses a row by it. RETENTION_SEED=<n> replays the random history.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import type { Client } from 'pg';
import pg from 'pg';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { endpointFromUrl } from '../../src/platform/postgres-endpoint.ts';
import { setUpRetention } from '../../src/retain/setup.ts';
import { seeded } from '../conformance/random.ts';
import { FaultStack, type Pipeline, until } from '../fixtures/pipeline.ts';
import {
  addPolicy,
  notesLeft,
  retainOnce,
  retentionOptions,
  retiredRows,
  tombstones,
  verified,
} from '../fixtures/retention.ts';

const options = { ...retentionOptions, tables: 'app.notes' };
/** Days back at which each of them begins, and the next one ends. */
const bounds = [400, 300, 200, 100, 40, -40];

let faults: FaultStack;
beforeAll(async () => {
  faults = await FaultStack.start('retention-partitions');
});
afterAll(async () => {
  await faults?.stop();
});

/** app.notes in partitions `n400` to `n40`, three rows of two tenants with 30 days in each; delivered everywhere. */
async function prepare(pipeline: Pipeline) {
  await setUpRetention(await endpointFromUrl(pipeline.sourceUrl));
  const partitions = bounds.slice(0, -1).map(
    (days, i) => `execute format(
    'create table app.n${days} partition of app.notes for values from (%L) to (%L)', now() - interval '${days} days', now() - interval '${bounds[i + 1]!} days');`,
  );
  await pipeline.source.query(`
    create table app.tenants (id int primary key, data_retention_days int);
    insert into app.tenants values (1, 30), (2, 30);
    create table app.notes (organization_id int, id int, body text, created_at timestamptz,
      primary key (organization_id, id, created_at)) partition by range (created_at);
    do $$ begin ${partitions.join('\n')} end $$;
    insert into app.notes select 1 + n % 2, age * 10 + n, 'body ' || n, date_trunc('second', now()) - age * interval '1 day' + interval '1 hour'
      from unnest('{${bounds.slice(0, -2).join(',')},20}'::int[]) age, generate_series(1, 3) n;`);
  const reader = pipeline.replicate();
  const delivery = pipeline.deliver();
  await pipeline.streaming(reader);
  for (const destination of pipeline.destinations) await pipeline.verify(destination);
  return { reader, delivery };
}

async function partitions(client: Client): Promise<string[]> {
  const { rows } = await client.query<{ name: string }>(
    `select relid::regclass::text as name from pg_partition_tree('app.notes') where isleaf order by 1`,
  );
  return rows.map(({ name }) => name.replace('app.', ''));
}

async function allEqual(pipeline: Pipeline, evicted: number): Promise<void> {
  for (const destination of pipeline.destinations) {
    expect(await verified(pipeline, destination), destination).toMatchObject({ status: 'equal', evicted });
    expect(await retiredRows(pipeline, destination), destination).toHaveLength(evicted);
  }
}

const ids = (...ages: number[]) => ages.flatMap((age) => [1, 2, 3].map((n) => age * 10 + n));

test('a partition goes after its rows; one that is written to, in use or under a hold stays, with its rows', () =>
  faults.run('partitions', options, async (pipeline) => {
    const { source } = pipeline;
    const { reader, delivery } = await prepare(pipeline);
    // With digits that Postgres does not print: it is the same row.
    await source.query(`insert into tidemark_retention.legal_holds (tenant, table_schema, table_name, row_keys, reason)
      select '1', 'app', 'notes', array[json_build_array(organization_id::text, id::text, to_char(created_at at time zone 'UTC', 'YYYY-MM-DD HH24:MI:SS.US') || '+00')::text], 'case'
        from app.notes where id = 2002`);
    await addPolicy(pipeline);
    expect((await retainOnce(pipeline)).tables).toMatchObject([{ evicted: 11, problem: null }]);
    const all = bounds.slice(0, -1).map((days) => `n${days}`);
    expect((await partitions(source)).sort()).toEqual([...all].sort());

    // A row that comes late, of a transaction that is open while the partition is to go: nobody waits for long, and it stays.
    await addPolicy(pipeline, { drop_partitions: 'true' });
    const application = new pg.Client(pipeline.sourceUrl);
    await application.connect();
    await application.query(
      `begin; insert into app.notes values (1, 999, 'late', now() - interval '350 days')`,
    );
    expect((await retainOnce(pipeline)).tables).toMatchObject([{ evicted: 0, problem: null }]);
    expect(await partitions(source)).toHaveLength(5);
    await application.query('commit');
    expect((await retainOnce(pipeline)).tables).toMatchObject([{ evicted: 1, problem: null }]);
    // n200 has the row on hold, n40 is still to come for rows that are not old enough.
    expect((await partitions(source)).sort()).toEqual(['n200', 'n40']);
    expect(await notesLeft(pipeline)).toEqual([201, 202, 203, 2002]);
    await allEqual(pipeline, 12);
    await expect(
      application.query(`insert into app.notes values (1, 998, 'x', now() - interval '350 days')`),
    ).rejects.toMatchObject({ code: '23514' });
    await application.end();

    await source.query(
      `update tidemark_retention.legal_holds set released_at = now(), released_by = session_user, release_reason = 'over'`,
    );
    for (const [point, left] of [
      ['before-drop-commit', ['n200', 'n40']],
      ['after-drop-commit', ['n40']],
    ] as const) {
      const service = pipeline.retain(`${point}=kill`);
      expect(await service.exitsWithin(60_000), service.output().slice(-2000)).toBe('SIGKILL');
      expect((await partitions(source)).sort()).toEqual(left);
    }
    const { rows } = await source.query('select partition_name from tidemark_retention.dropped_partitions');
    expect(rows.map(({ partition_name }) => partition_name).sort()).toEqual([
      'app.n100',
      'app.n200',
      'app.n300',
      'app.n400',
    ]);
    await allEqual(pipeline, 13);

    // Whatever rebuilds a destination leaves them.
    expect((await pipeline.command(['destination', 'resync', 'replica', 'app.notes'])).code).toBe(0);
    await source.query('truncate app.notes');
    await allEqual(pipeline, 13);
    await Promise.all([reader.stop(), delivery.stop()]);
  }));

test('whoever writes where and whenever, and whatever dies: no row is lost, and no partition with one is dropped', async () => {
  const seed = Number(process.env.RETENTION_SEED ?? Math.floor(Math.random() * 2 ** 31));
  const random = seeded(seed);
  await faults
    .run('partitions-random', options, async (pipeline) => {
      const { source } = pipeline;
      const { reader, delivery } = await prepare(pipeline);
      await addPolicy(pipeline, { drop_partitions: 'true', batch_rows: '3' });
      const points = ['', 'before-evict-commit=kill@2', 'before-drop-commit=kill', 'after-drop-commit=kill'];
      let service = pipeline.retain(random.pick(points));
      const written = new Set(ids(...bounds.slice(0, -2), 20));
      let dropped = 0;
      for (let step = 0; step < 40; step++) {
        const id = 10_000 + step;
        const days = random.pick([0, 50, 150, 250, 350]);
        try {
          await source.query('begin');
          await source.query(`insert into app.notes values ($1, $2, 'late', now() - $3 * interval '1 day')`, [
            1 + random.below(2),
            id,
            days,
          ]);
          await sleep(random.below(1200));
          await source.query(random.chance(0.8) ? 'commit' : 'rollback');
        } catch (error) {
          await source.query('rollback');
          // Its partition is gone. (Nothing else fails for an application: nobody made it wait.)
          expect((error as { code?: string }).code).toBe('23514');
          dropped++;
          continue;
        }
        const { rows } = await source.query(
          `select from app.notes where id = $1 union all
           select from tidemark_retention.cold_storage_archive where (row_key::jsonb ->> 1)::int = $1`,
          [id],
        );
        if (rows.length > 0) written.add(id);
        if (random.chance(0.25)) {
          await service.kill();
          service = pipeline.retain(random.pick(points));
        }
      }
      await service.kill();
      await until('all rows that may go are gone', 60_000, async () => (await retainOnce(pipeline)).ok);
      const left = new Set(await notesLeft(pipeline));
      const cold = (await tombstones(pipeline)).map(({ row_key }) =>
        Number((JSON.parse(row_key as string) as string[])[1]),
      );
      expect([...left, ...cold].sort()).toEqual([...written].sort());
      await allEqual(pipeline, cold.length);
      const { rows } = await source.query('select from tidemark_retention.dropped_partitions');
      expect(rows).toHaveLength(4);
      expect(await partitions(source)).toEqual(['n40']);
      pipeline.note(`seed ${seed}: ${cold.length} rows went, ${dropped} found no partition`);
      await Promise.all([reader.stop(), delivery.stop()]);
    })
    .catch((error: unknown) => {
      if (error instanceof Error) error.message = `RETENTION_SEED=${seed}: ${error.message}`;
      throw error;
    });
});
