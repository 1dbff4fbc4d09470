/**
 * kill -9 at every named point of the protocol, at an early and at a later pass, under load. Invariants 1 and 2:
 * nothing is lost, nothing is applied twice; 3: what was acknowledged was durable.
 */
import { afterAll, beforeAll, expect, test } from 'vitest';
import { destinations, FaultStack, type Pipeline } from '../fixtures/pipeline.ts';
import type { TidemarkProcess } from '../fixtures/tidemark-process.ts';

let faults: FaultStack;
beforeAll(async () => {
  faults = await FaultStack.start('named-points');
});
afterAll(async () => {
  await faults?.stop();
});

/** Produced but not committed; committed, but the slot was not told. */
const readerPoints = ['after-produce', 'after-kafka-commit'];

/** Merged but not in the ledger; in the ledger, but the offsets not committed. */
const workerPoints = ['after-merge', 'after-ledger'];

const sinkPoints = {
  replica: ['postgres-sink-staged', 'postgres-sink-before-commit', 'postgres-sink-committed'],
  lake: ['parquet:before-upload', 'parquet:before-manifest', 'parquet:after-manifest'],
};

interface Death {
  point: string;
  /** Which time it comes there. */
  pass: number;
}

/** Every point at an early and at a later pass where there is time; else they take turns. */
function deathsAt(points: readonly string[], later: number): Death[] {
  const both = points.flatMap((point, i) => [
    { point, pass: i % 2 === 0 ? 1 : later },
    { point, pass: i % 2 === 0 ? later : 1 },
  ]);
  return process.env.CI || points.length === 2 ? both : both.filter((_, i) => i % 2 === 0);
}

/** Starts it with each failpoint in turn, and waits until it died there. */
async function dieAt(
  pipeline: Pipeline,
  deaths: readonly Death[],
  start: (failpoints: string) => TidemarkProcess,
): Promise<void> {
  for (const { point, pass } of deaths) {
    const doomed = start(`${point}=kill@${pass}`);
    const gone = await doomed.exitsWithin(300_000);
    expect(gone, `${doomed.name} dies at pass ${pass} of ${point}`).toBe('SIGKILL');
    await pipeline.workload.committed(10);
  }
}

test('nothing is lost or repeated when reader and workers die at every named point', () =>
  faults.run('named-points', {}, async (pipeline) => {
    const { reader, delivery } = await pipeline.begin();
    pipeline.workload.start({ seed: 'named-points', ...pipeline.usualLoad });
    await Promise.all([reader.kill(), delivery.kill()]);
    // Side by side: each dies while the others do, and is away while they begin.
    await Promise.all([
      dieAt(pipeline, deathsAt(readerPoints, 12), (failpoints) => pipeline.replicate(failpoints)).then(() =>
        pipeline.replicate(),
      ),
      ...destinations.map((name) =>
        dieAt(
          pipeline,
          deathsAt([...sinkPoints[name], ...workerPoints], name === 'lake' ? 5 : 12),
          (failpoints) => pipeline.deliver(failpoints, name),
        ),
      ),
    ]);
    const { transactions } = await pipeline.conclude(pipeline.newest('replicate'), pipeline.deliver());
    expect(transactions).toBeGreaterThan(100);
  }));
