/**
 * Invariant 7 under random interleavings: an application that writes as it likes, holds, days and children that come and go,
 * destinations that pause, and every process killed now and then, while rows are evicted. What the application wrote and
 * did not delete is in the source, or is kept by every destination as it was last. RETENTION_SEED=<n> replays a history.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import type pg from 'pg';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { seeded } from '../conformance/random.ts';
import { FaultStack, type Pipeline } from '../fixtures/pipeline.ts';
import {
  addPolicy,
  createNotes,
  retainOnce,
  retentionOptions,
  retiredRows,
  tombstones,
  verified,
} from '../fixtures/retention.ts';
import type { TidemarkProcess } from '../fixtures/tidemark-process.ts';

const steps = 160;

let faults: FaultStack;
beforeAll(async () => {
  faults = await FaultStack.start('retention-interleavings');
});
afterAll(async () => {
  await faults?.stop();
});

/** What the application wrote and did not delete: `tenant/id` to the body. */
class Application {
  readonly rows = new Map<string, string>();
  readonly #source: pg.Client;
  readonly #random: ReturnType<typeof seeded>;
  #serial = 0;

  constructor(source: pg.Client, random: ReturnType<typeof seeded>) {
    this.#source = source;
    this.#random = random;
  }

  async load(): Promise<void> {
    const { rows } = await this.#source.query('select organization_id, id, body from app.notes');
    for (const row of rows) this.rows.set(`${row.organization_id}/${row.id}`, row.body);
  }

  async step(): Promise<void> {
    const { below, pick, chance } = this.#random;
    const body = `text ${this.#serial++}`;
    const known = [...this.rows.keys()];
    const dice = below(100);
    if (dice < 30 || known.length === 0) return this.#insert(1 + below(4), 10_000 + this.#serial, body);
    // A key again that was used before, perhaps of a row that was evicted.
    if (dice < 42) return this.#insert(...keyOf(pick(known)), body);
    if (dice < 65) return this.#update(pick(known), body);
    if (dice < 75) return this.#delete(pick(known));
    if (dice < 78) return this.#truncate();
    if (dice < 82)
      await this.#source.query('update app.tenants set data_retention_days = $1 where id = $2', [
        pick([1, 30, 60, null]),
        1 + below(4),
      ]);
    else if (dice < 86)
      await this.#source.query(
        'insert into app.comments select organization_id, $1, id from app.notes order by random() limit 1',
        [this.#serial],
      );
    else if (dice < 90) await this.#source.query('delete from app.comments');
    else if (dice < 93) await this.#hold(pick(known));
    else if (dice < 95)
      await this.#source.query(
        `update tidemark_retention.legal_holds set released_at = now(), released_by = session_user, release_reason = 'over' where released_at is null`,
      );
    else await this.#lockAWhile(pick(known), body, chance(0.5));
  }

  async #insert(tenant: number, id: number, body: string): Promise<void> {
    const { rowCount } = await this.#source.query(
      `insert into app.notes (organization_id, id, body, created_at) values ($1, $2, $3, now() - $4 * interval '1 day') on conflict do nothing`,
      [tenant, id, body, this.#random.pick([0, 20, 45, 100, 400])],
    );
    if (rowCount === 1) this.rows.set(`${tenant}/${id}`, body);
  }

  async #update(key: string, body: string): Promise<void> {
    const { rowCount } = await this.#source.query(
      'update app.notes set body = $3 where organization_id = $1 and id = $2',
      [...keyOf(key), body],
    );
    // None, where it was evicted: then it stays as it was.
    if (rowCount === 1) this.rows.set(key, body);
  }

  async #delete(key: string): Promise<void> {
    const { rowCount } = await this.#source.query(
      'delete from app.notes where organization_id = $1 and id = $2',
      keyOf(key),
    );
    if (rowCount === 1) this.rows.delete(key);
  }

  async #truncate(): Promise<void> {
    await this.#source.query('begin');
    await this.#source.query('lock table app.notes in access exclusive mode');
    const { rows } = await this.#source.query('select organization_id, id from app.notes');
    await this.#source.query('truncate app.notes cascade');
    await this.#source.query('commit');
    for (const row of rows) this.rows.delete(`${row.organization_id}/${row.id}`);
  }

  async #hold(key: string): Promise<void> {
    const rows = this.#random.chance(0.5) ? `array['${JSON.stringify(keyOf(key).map(String))}']` : 'null';
    await this.#source.query(
      `insert into tidemark_retention.legal_holds (tenant, table_schema, table_name, row_keys, reason) values ($1, 'app', 'notes', ${rows}, 'r')`,
      [String(keyOf(key)[0])],
    );
  }

  /** A row that the application has in its hands while others are evicted, and changes in the end or not. */
  async #lockAWhile(key: string, body: string, commits: boolean): Promise<void> {
    await this.#source.query('begin');
    const { rowCount } = await this.#source.query(
      'update app.notes set body = $3 where organization_id = $1 and id = $2',
      [...keyOf(key), body],
    );
    await sleep(this.#random.below(1200));
    await this.#source.query(commits ? 'commit' : 'rollback');
    if (commits && rowCount === 1) this.rows.set(key, body);
  }
}

function keyOf(key: string): [number, number] {
  const [tenant, id] = key.split('/').map(Number);
  return [tenant!, id!];
}

class Processes {
  readonly #pipeline: Pipeline;
  readonly #running = new Map<'replicate' | 'deliver' | 'retain', TidemarkProcess>();

  constructor(pipeline: Pipeline) {
    this.#pipeline = pipeline;
    for (const role of ['replicate', 'deliver', 'retain'] as const) this.#start(role);
  }

  #start(role: 'replicate' | 'deliver' | 'retain'): void {
    this.#running.set(role, this.#pipeline[role]());
  }

  async kill(role: 'replicate' | 'deliver' | 'retain'): Promise<void> {
    await this.#running.get(role)!.kill();
    this.#start(role);
  }

  /** Perhaps it was only just started, and cannot be asked to stop yet. */
  async end(role: 'replicate' | 'deliver' | 'retain'): Promise<void> {
    await this.#running.get(role)!.kill();
  }
}

test('whatever is written, held, paused and killed, no row is lost and none is let go of too early', async () => {
  const seed = Number(process.env.RETENTION_SEED ?? Math.floor(Math.random() * 2 ** 31));
  const random = seeded(seed);
  await faults
    .run('interleavings', retentionOptions, async (pipeline) => {
      await createNotes(pipeline);
      await addPolicy(pipeline, { batch_rows: '3' });
      const processes = new Processes(pipeline);
      await pipeline.streaming(pipeline.newest('replicate'));
      for (const destination of pipeline.destinations) await pipeline.verify(destination);
      const application = new Application(pipeline.source, random);
      await application.load();
      // What went before the application was told of it counts as well.
      for (const row of await tombstones(pipeline)) {
        const [tenant, id] = JSON.parse(row.row_key as string) as [string, string];
        application.rows.set(`${tenant}/${id}`, `body ${Number(id) % 10}`);
      }
      let paused = false;
      for (let step = 0; step < steps; step++) {
        const dice = random.below(100);
        if (dice < 3) await processes.kill('retain');
        else if (dice < 5) await processes.kill('deliver');
        else if (dice < 6) await processes.kill('replicate');
        else if (dice < 8) {
          paused = !paused;
          await pipeline.control.query(
            paused
              ? `update tidemark.destinations set paused_at = now(), paused_by = 'test', pause_reason = 'r' where destination = 'lake'`
              : `update tidemark.destinations set paused_at = null, paused_by = null, pause_reason = null where destination = 'lake'`,
          );
        } else await application.step();
        if (random.chance(0.5)) await sleep(random.below(250));
      }
      await pipeline.control.query(
        `update tidemark.destinations set paused_at = null, paused_by = null, pause_reason = null`,
      );
      await processes.end('retain');
      await pipeline.source.query(`update tidemark_retention.legal_holds set released_at = now(), released_by = session_user, release_reason = 'over' where released_at is null;
        update app.tenants set data_retention_days = 30; delete from app.comments`);
      expect(await retainOnce(pipeline, '90s')).toMatchObject({ ok: true });

      const { rows } = await pipeline.source.query(
        `select organization_id, id, body, created_at < now() - interval '30 days' as due from app.notes`,
      );
      expect(rows.filter(({ due }) => due)).toEqual([]);
      const left = new Map(rows.map((row) => [`${row.organization_id}/${row.id}`, row.body as string]));
      const evicted = new Map([...application.rows].filter(([key]) => !left.has(key)));
      for (const [key, body] of left) expect(application.rows.get(key), key).toBe(body);
      const ever = (await tombstones(pipeline)).length;
      pipeline.note(`seed ${seed}: ${evicted.size} rows are evicted, ${ever} ever were`);
      expect(ever).toBeGreaterThan(5);
      for (const destination of pipeline.destinations) {
        expect(await verified(pipeline, destination)).toMatchObject({
          status: 'equal',
          evicted: evicted.size,
        });
        const kept = (await retiredRows(pipeline, destination)).map((row) => [
          `${row.get('organization_id')}/${row.get('id')}`,
          row.get('body'),
        ]);
        expect(kept.sort(), destination).toEqual([...evicted].sort());
      }
      await processes.end('deliver');
      await processes.end('replicate');
    })
    .catch((error: unknown) => {
      if (error instanceof Error) error.message = `RETENTION_SEED=${seed}: ${error.message}`;
      throw error;
    });
});
