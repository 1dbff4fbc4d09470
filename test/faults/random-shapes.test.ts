/**
 * Random legal DDL between random rows, on many tables at once, and both destinations equal the source in the end.
 * TIDEMARK_SEED replays the schedules; TIDEMARK_SHAPES says how many. In CI they are 214, of 10 or 14 steps each and
 * up to four changes of shape in a step.
 */
import pg from 'pg';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { Prng } from '../../src/sample/prng.ts';
import { FaultStack, type Pipeline } from '../fixtures/pipeline.ts';
import { installShapeNotes, moodType, ShapeSchedule } from '../fixtures/shape-schedule.ts';

let faults: FaultStack;
beforeAll(async () => {
  faults = await FaultStack.start('random-shapes');
});
afterAll(async () => {
  await faults?.stop();
});

const schedules = Number(process.env.TIDEMARK_SHAPES ?? (process.env.CI === 'true' ? 170 : 12));
const rekeyed = Math.ceil(schedules / 6);
const unnoted = Math.ceil(schedules / 12);
const seed = process.env.TIDEMARK_SEED ?? String(Date.now());
const connections = 4;
/** Hundreds of versions are registered one after the other. */
const patienceMs = 300_000;

interface Plan {
  count: number;
  steps: number;
  notes: boolean;
  keyed(prng: Prng): boolean;
  rekeys: boolean;
  reached(pipeline: Pipeline): Promise<void>;
}

async function follow(pipeline: Pipeline, plan: Plan): Promise<void> {
  const { source } = pipeline;
  const phases: string[] = [];
  let since = performance.now();
  const reached = (phase: string) => {
    const now = performance.now();
    phases.push(`${phase} ${((now - since) / 1000).toFixed(1)} s`);
    since = now;
  };
  const labels = ['good', "o'dd"];
  await source.query(`create type ${moodType} as enum ('good', 'o''dd')`);
  if (plan.notes) await installShapeNotes(source);
  const clients = await Promise.all(
    Array.from({ length: plan.notes ? Math.min(connections, plan.count) : 1 }, async () => {
      const client = new pg.Client({ connectionString: pipeline.sourceUrl });
      await client.connect();
      return client;
    }),
  );
  try {
    const all = Array.from({ length: plan.count }, (_, i) => {
      const prng = new Prng(`shapes/${seed}/${i}`);
      return new ShapeSchedule(clients[i % clients.length]!, {
        prng,
        table: `app.shape_${i}`,
        keyed: plan.keyed(prng),
        rekeys: plan.rekeys,
        transactions: plan.notes,
        labels,
        reached: () => plan.reached(pipeline),
      });
    });
    for (const schedule of all) await schedule.create();
    reached('tables made');
    const reader = pipeline.replicate();
    const delivery = pipeline.deliver();
    await pipeline.streaming(reader);
    for (const schedule of all) await schedule.begin();
    await pipeline.published(patienceMs);
    reached('begun');
    try {
      await Promise.all(
        clients.map(async (_, lane) => {
          for (let i = lane; i < all.length; i += clients.length) await all[i]!.run(plan.steps);
        }),
      );
      reached('run');
      await pipeline.published(patienceMs);
      reached('published');
      expect((await pipeline.status()).progress?.parked ?? []).toEqual([]);
      for (const destination of pipeline.destinations) {
        const { tables } = await pipeline.verify(destination);
        const ours = tables.filter(({ table }) => table.startsWith('app.shape_'));
        expect(ours.length).toBe(plan.count);
        // A hint would name columns that were not compared.
        for (const { table, hint, sourceRows } of ours)
          expect({ table, hint, rows: sourceRows! > 0 }).toEqual({ table, hint: null, rows: true });
        reached(`${destination} verified`);
      }
    } catch (error) {
      const named = all.filter((_, i) => String(error).includes(`app.shape_${i}"`));
      const logs = named.slice(0, 2).map(({ log }) => `\n${log.join(';\n')}`);
      if (error instanceof Error) error.message += `\nTIDEMARK_SEED=${seed}${logs.join('\n')}`;
      throw error;
    }
    console.log(`${plan.count} schedules: ${phases.join(', ')}`);
    await Promise.all([reader.stop(), delivery.stop()]);
  } finally {
    for (const client of clients) await client.end();
  }
}

const config = { 'kafka.topic.partitions': '2' };

test(`${schedules} schedules at full speed, with the event trigger, TIDEMARK_SEED=${seed}`, async () => {
  console.log(`TIDEMARK_SEED=${seed}, ${schedules} + ${rekeyed} + ${unnoted} schedules`);
  await faults.run('shapes', { config }, (pipeline) =>
    follow(pipeline, {
      count: schedules,
      steps: 14,
      notes: true,
      keyed: (prng) => prng.chance(0.75),
      rekeys: false,
      reached: async () => {},
    }),
  );
}, 900_000);

test(`keys that come and go, into the replica, TIDEMARK_SEED=${seed}`, () =>
  faults.run('shapes-keys', { config, destinations: ['replica'] }, (pipeline) =>
    follow(pipeline, {
      count: rekeyed,
      steps: 14,
      notes: true,
      keyed: (prng) => prng.chance(0.5),
      rekeys: true,
      reached: async () => {},
    }),
  ));

test(`without the event trigger, where the reader keeps up, TIDEMARK_SEED=${seed}`, () =>
  faults.run('shapes-plain', { config }, (pipeline) =>
    follow(pipeline, {
      count: unnoted,
      steps: 10,
      notes: false,
      keyed: () => true,
      rekeys: false,
      reached: () => pipeline.published(),
    }),
  ));
