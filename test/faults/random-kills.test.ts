/**
 * Random kills under load: reader, delivery worker or both, at any moment, and workers that come back from the dead.
 * TIDEMARK_SEED replays the choices; what they hit depends on the machine.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { Prng } from '../../src/sample/prng.ts';
import { FaultStack, type Pipeline, sessionTimeoutMs } from '../fixtures/pipeline.ts';
import type { TidemarkProcess } from '../fixtures/tidemark-process.ts';

let faults: FaultStack;
beforeAll(async () => {
  faults = await FaultStack.start('random-kills');
});
afterAll(async () => {
  await faults?.stop();
});

const kills = process.env.CI ? 30 : 6;
const seed = process.env.TIDEMARK_SEED ?? String(Date.now());

test(`nothing is lost or repeated after ${kills} kills at random, TIDEMARK_SEED=${seed}`, async () => {
  console.log(`TIDEMARK_SEED=${seed}`);
  await faults.run('random-kills', {}, async (pipeline) => {
    const prng = new Prng(`random-kills/${seed}`);
    let { reader, delivery } = await pipeline.begin();
    pipeline.workload.start({ seed, ...pipeline.usualLoad, connections: 2 });
    // Of six, one each is a kill of both and a zombie; the rest is drawn.
    const order = Array.from({ length: kills }, (_, i) => {
      if (i % 6 === 1) return 'both' as const;
      if (i % 6 === 4) return 'zombie' as const;
      return prng.pick(['reader', 'delivery'] as const);
    });
    for (const victim of order) {
      // Most of them at work, the others wherever they are, starting up included.
      if (prng.chance(0.7)) await Promise.all([pipeline.streaming(reader), pipeline.delivering()]);
      await sleep(prng.integer(0, 1500));
      if (victim === 'zombie') {
        delivery = await comeBackAsZombie(pipeline, delivery);
        continue;
      }
      if (victim !== 'delivery') reader.signal('SIGKILL');
      if (victim !== 'reader') delivery.signal('SIGKILL');
      if (victim !== 'delivery') {
        await reader.exited;
        reader = pipeline.replicate();
      }
      if (victim !== 'reader') {
        await delivery.exited;
        delivery = pipeline.deliver();
      }
    }
    await pipeline.streaming(reader);
    await pipeline.workload.committed(50);
    const { transactions } = await pipeline.conclude(reader, delivery);
    expect(transactions).toBeGreaterThan(100);
  });
});

/** A worker sleeps through its session, another takes its Units over, and then it wakes up and goes on writing. */
async function comeBackAsZombie(pipeline: Pipeline, zombie: TidemarkProcess): Promise<TidemarkProcess> {
  zombie.signal('SIGSTOP');
  const heir = pipeline.deliver();
  await pipeline.takenOver();
  zombie.signal('SIGCONT');
  // Long enough to be thrown out, and to share the Units by the group's rules.
  await sleep(sessionTimeoutMs);
  await zombie.kill();
  return heir;
}
