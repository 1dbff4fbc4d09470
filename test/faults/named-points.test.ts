/**
 * kill -9 at every named point of the protocol, at an early and at a later pass, under load. Invariants 1 and 2:
 * nothing is lost, nothing is applied twice; 3: what was acknowledged was durable.
 */
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { type DestinationName, destinations, FaultStack, type Pipeline } from '../fixtures/pipeline.ts';
import type { TidemarkProcess } from '../fixtures/tidemark-process.ts';

let faults: FaultStack;
beforeAll(async () => {
  faults = await FaultStack.start();
});
afterAll(async () => {
  await faults?.stop();
});

const load = {
  seed: 'named-points',
  transactionsPerSecond: 80,
  hostileValues: true,
  mix: { truncateLog: 15 },
};
interface Death {
  point: string;
  /** Which time it comes there. */
  pass: number;
}

/** Every point at an early and at a later pass where there is time; else they take turns. */
function deathsAt(points: readonly string[]): Death[] {
  const both = points.flatMap((point, i) => [
    { point, pass: i % 2 === 0 ? 1 : 12 },
    { point, pass: i % 2 === 0 ? 12 : 1 },
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
    const gone = await doomed.exitsWithin(60_000);
    expect(gone, `${doomed.name} dies at pass ${pass} of ${point}`).toBe('SIGKILL');
    await pipeline.workload.committed(20);
  }
}

describe('nothing is lost or repeated when the reader dies', () => {
  // Produced but not committed; committed, but the slot was not told.
  const points = ['after-produce', 'after-kafka-commit'];
  test('between producing, committing and acknowledging', () =>
    faults.run('reader', {}, async (pipeline) => {
      const { reader, delivery } = await pipeline.begin();
      pipeline.workload.start(load);
      await reader.kill();
      await dieAt(pipeline, deathsAt(points), (failpoints) => pipeline.replicate(failpoints));
      const last = pipeline.replicate();
      await pipeline.workload.committed(50);
      const { transactions } = await pipeline.conclude(last, delivery);
      expect(transactions).toBeGreaterThan(100);
    }));
});

const replicaPoints = [
  'postgres-sink-staged',
  'postgres-sink-before-commit',
  'postgres-sink-committed',
  'after-merge',
  'after-ledger',
];

const lakePoints = [
  'parquet:before-upload',
  'parquet:before-manifest',
  'parquet:after-manifest',
  'after-merge',
  'after-ledger',
];

describe('nothing is lost or repeated when the delivery worker dies', () => {
  const dieDelivering = (destination: DestinationName, points: readonly string[]) =>
    faults.run(`${destination}-points`, {}, async (pipeline) => {
      const { reader, delivery } = await pipeline.begin();
      pipeline.workload.start(load);
      await delivery.kill();
      await dieAt(pipeline, deathsAt(points), (failpoints) => pipeline.deliver(failpoints, destination));
      await pipeline.conclude(reader, pipeline.deliver());
    });

  test('at every point of a merge into Postgres', () => dieDelivering('replica', replicaPoints));
  test.runIf(destinations.includes('lake'))('at every point of an append to the lake', () =>
    dieDelivering('lake', lakePoints),
  );
});
