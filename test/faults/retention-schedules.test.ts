/**
 * Invariant 7 over many random histories: each schedule has rows of its own, hundreds of them over one pipeline whose
 * processes are killed, whose destinations pause and are read again meanwhile. RETENTION_SEED=<n> gives the same steps again,
 * RETENTION_SCHEDULES=<n> other numbers of them.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import pg from 'pg';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { endpointFromUrl } from '../../src/platform/postgres-endpoint.ts';
import { recallRows } from '../../src/retain/recall-rows.ts';
import { connectRetention } from '../../src/retain/session.ts';
import { setUpRetention } from '../../src/retain/setup.ts';
import { describeSourceTable } from '../../src/retain/source-table.ts';
import { seeded } from '../conformance/random.ts';
import { FaultStack, type Pipeline } from '../fixtures/pipeline.ts';
import { addPolicy, retainOnce, retiredRows, verified } from '../fixtures/retention.ts';
import { RetentionRounds } from '../fixtures/retention-rounds.ts';
import { RetentionSchedule, type ScheduleWorld } from '../fixtures/retention-schedule.ts';

const schedules = Number(process.env.RETENTION_SCHEDULES ?? 500);
const steps = 14;
/** Fewer than schedules: the lake writes a file for each. */
const tenants = 25;
/** Rows that are to come back while everything goes on. */
const wanted = schedules / 50;
const longestMs = 480_000;

let faults: FaultStack;
beforeAll(async () => {
  faults = await FaultStack.start('retention-schedules');
});
afterAll(async () => {
  await faults?.stop();
});

const options = {
  lake: { cadence: '500ms' },
  tables: 'app.notes, app.comments',
  config: {
    'retain.enabled': 'true',
    'retain.interval': '200ms',
    'retain.tenants.table': 'app.tenants',
  },
};

async function prepare(pipeline: Pipeline): Promise<void> {
  await setUpRetention(await endpointFromUrl(pipeline.sourceUrl));
  await pipeline.source.query(`
    create table app.tenants (id int primary key, data_retention_days int);
    insert into app.tenants select n, 30 from generate_series(1, ${tenants}) n;
    create table app.notes (organization_id int, id int, body text, created_at timestamptz, primary key (organization_id, id));
    create table app.comments (organization_id int, id int, note int, primary key (organization_id, id),
      foreign key (organization_id, note) references app.notes on delete cascade);
    insert into app.notes values (0, 0, 'first', now())`);
  await addPolicy(pipeline, { batch_rows: '50', rows_per_second: '100000' });
}

/** Until it is told to stop: what happens to the pipeline as a whole. */
async function chaos(
  pipeline: Pipeline,
  random: ReturnType<typeof seeded>,
  stop: AbortSignal,
): Promise<string[]> {
  const happened: string[] = [];
  const running = {
    deliver: pipeline.newest('deliver'),
    replicate: pipeline.newest('replicate'),
    retain: pipeline.retain(),
  };
  while (!stop.aborted) {
    await sleep(4000 + random.below(4000), undefined, { signal: stop }).catch(() => {});
    if (stop.aborted) break;
    const what = random.pick(['retain', 'retain', 'deliver', 'replicate', 'pause', 'read again'] as const);
    happened.push(what);
    if (what === 'pause') {
      await pipeline.control.query(
        `update tidemark.destinations set paused_at = now(), paused_by = 'test', pause_reason = 'r' where destination = 'lake'`,
      );
      await sleep(random.below(2500));
      await pipeline.control.query(
        `update tidemark.destinations set paused_at = null, paused_by = null, pause_reason = null`,
      );
    } else if (what === 'read again') await pipeline.command(['snapshot', 'start', 'app.notes']);
    else {
      await running[what].kill();
      running[what] = pipeline[what]();
    }
  }
  await running.retain.kill();
  return happened;
}

function sum(all: readonly RetentionSchedule[], what: 'cold' | 'recalls' | 'checks'): number {
  return all.reduce((total, one) => total + one[what], 0);
}

test('whatever tenants write, hold and recall, and whatever fails meanwhile, no row is lost', async () => {
  const seed = Number(process.env.RETENTION_SEED ?? Math.floor(Math.random() * 2 ** 31));
  await faults
    .run('schedules', options, async (pipeline) => {
      await prepare(pipeline);
      const reader = pipeline.replicate();
      pipeline.deliver();
      await pipeline.streaming(reader);
      for (const destination of pipeline.destinations) await pipeline.verify(destination);
      await pipeline.replica.query(
        `alter table app.notes add constraint short check (body not like 'refused%')`,
      );
      const rounds = await RetentionRounds.over(pipeline);
      const client = await connectRetention(rounds.options.config.retain.endpoint, 'schedules');
      const table = await describeSourceTable(client, { schema: 'app', name: 'notes' });
      const pool = (url: string) => {
        const made = new pg.Pool({
          connectionString: url,
          max: 12,
          options: '-c TimeZone=UTC -c DateStyle=ISO',
        });
        made.on('error', () => {});
        return made;
      };
      let turn: Promise<unknown> = Promise.resolve();
      const world: ScheduleWorld = {
        source: pool(pipeline.sourceUrl),
        replica: pool(pipeline.environment.REPLICA_URL!),
        recall(key) {
          const wish = {
            selection: { table, keys: [key], where: null },
            reason: 'test',
            destination: 'replica',
          };
          const mine = turn.then(async () => (await recallRows(client, wish, rounds.options)).recalled === 1);
          turn = mine.catch(() => {});
          return mine;
        },
      };
      const stop = new AbortController();
      const happening = chaos(pipeline, seeded(seed), stop.signal);
      const all = Array.from(
        { length: schedules },
        (_, i) =>
          new RetentionSchedule(
            { tenant: 1 + (i % tenants), base: (i + 1) * 1000 },
            seeded(seed + i + 1),
            world,
          ),
      );
      const startedAt = performance.now();
      try {
        await Promise.all(all.map((one) => one.run(steps)));
        // On a machine that is slow little was evicted, and less recalled, by then.
        while (sum(all, 'recalls') <= wanted && performance.now() - startedAt < longestMs)
          await Promise.all(all.map((one) => one.go(1)));
      } catch (error) {
        await Promise.all([world.source.end(), world.replica.end()]);
        throw error;
      } finally {
        stop.abort();
        await happening.catch(() => {});
      }
      const happened = await happening;
      const seconds = (performance.now() - startedAt) / 1000;
      await pipeline.source.query(`update app.notes set body = 'was ' || body where body like 'refused%';
        delete from app.comments; update app.tenants set data_retention_days = 30;
        update tidemark_retention.legal_holds set released_at = now(), released_by = session_user, release_reason = 'over' where released_at is null`);
      for (const one of all)
        for (const [id, body] of one.rows) if (body.startsWith('refused')) one.rows.set(id, `was ${body}`);
      expect(await retainOnce(pipeline, '90s')).toMatchObject({ ok: true });
      let cold = 0;
      for (const one of all) cold += await one.check();
      const { rows } = await pipeline.source.query<{ ever: number }>(
        'select count(*)::int as ever from tidemark_retention.cold_storage_archive',
      );
      const [during, recalls, checks] = [sum(all, 'cold'), sum(all, 'recalls'), sum(all, 'checks')];
      const says = `seed ${seed}: ${schedules} schedules in ${seconds.toFixed(1)} s, ${checks} checks, ${during} of them with evicted rows, ${rows[0]!.ever} rows were evicted, ${recalls} recalled, ${cold} are at destinations alone; ${happened.join(', ')}`;
      process.stdout.write(`${says}\n`);
      pipeline.note(says);
      expect(rows[0]!.ever).toBeGreaterThan(schedules);
      expect(during).toBeGreaterThan(schedules);
      expect(recalls).toBeGreaterThan(wanted);
      for (const destination of pipeline.destinations) {
        expect(await verified(pipeline, destination), destination).toMatchObject({
          status: 'equal',
          evicted: cold,
        });
        expect(await retiredRows(pipeline, destination), destination).toHaveLength(cold);
      }
      await Promise.all([client.end(), world.source.end(), world.replica.end(), rounds.close()]);
    })
    .catch((error: unknown) => {
      if (error instanceof Error) error.message = `RETENTION_SEED=${seed}: ${error.message}`;
      throw error;
    });
});
