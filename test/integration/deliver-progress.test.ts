/** The progress follower starts where the oldest mark needs it, steps back when asked, and finds the origin. */
import { afterAll, beforeAll, expect, test } from 'vitest';
import { SharedFetcher } from '../../src/deliver/fetch/shared-fetcher.ts';
import { ProgressFollower } from '../../src/deliver/progress-follower.ts';
import { topicNames } from '../../src/publish/record-format.ts';
import { type Harness, log, startHarness, until } from './deliver-harness.ts';
import { shape } from './deliver-records.ts';

let harness: Harness;
beforeAll(async () => {
  harness = await startHarness();
});
afterAll(async () => {
  await harness?.stop();
});

test('reading starts near the mark, and starts over for an older one and for the origin', async () => {
  const source = harness.source();
  await source.open([shape('notes', ['id', 'title'])]);
  const origin = source.position;
  const marks: { position: typeof origin; commitTimeUs: bigint }[] = [];
  for (let i = 0; i < 500; i++) {
    await source.commit([{ table: 'notes', change: { op: 'c', row: [String(i), 'x'] } }], {
      elapsedMs: 60_000,
    });
    // A time that misleads: looked up, it says that nothing was written since, so only stepping back helps.
    marks.push({ position: source.position, commitTimeUs: BigInt(Date.now() + 86_400_000) * 1000n });
  }
  const fetcher = new SharedFetcher(harness.kafka, log);
  const follower = new ProgressFollower({
    kafka: harness.kafka,
    topic: topicNames(source.prefix).progress,
    sourceId: source.sourceId,
    fetcher,
    log,
  });
  try {
    follower.track('young', marks[480]!);
    follower.start();
    await until('newest', () => follower.newest?.position === source.position);
    const near = follower.boundaries[0]!.position;
    expect(near <= marks[480]!.position).toBe(true);
    expect(near > marks[200]!.position).toBe(true);
    expect(follower.origin()).toBeNull();

    follower.track('old', marks[50]!);
    await until('older', () => {
      const oldest = follower.boundaries[0];
      return (
        oldest && oldest.position <= marks[50]!.position && follower.newest?.position === source.position
      );
    });
    const known = new Set(follower.boundaries.map(({ position }) => position));
    expect(marks.slice(50).every(({ position }) => known.has(position))).toBe(true);

    follower.track('new', null);
    const found = await until('origin', () => follower.origin());
    expect(found!.position).toBe(origin);

    // Once everybody is past them, boundaries are forgotten.
    for (const unit of ['young', 'old', 'new']) follower.track(unit, marks[499]!);
    expect(follower.boundaries.length).toBe(1);
  } finally {
    await follower.stop();
    await fetcher.close();
    await source.close();
  }
});
