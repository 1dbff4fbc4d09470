/**
 * Schedules of everything the other cases do one at a time, by chance. A schedule is named by its seed;
 * CONFORMANCE_SEED=<n> repeats that one alone.
 */
import { test } from 'vitest';
import { seeded } from '../random.ts';
import { Schedule } from '../schedule.ts';
import type { Subject } from '../subject.ts';
import type { InTrial } from '../suite.ts';

export function randomCases({ schedules = 12 }: Subject, inTrial: InTrial): void {
  const wanted = process.env.CONFORMANCE_SEED;
  const first = Math.floor(Math.random() * 2 ** 31);
  const seeds =
    wanted === undefined ? Array.from({ length: schedules }, (_, i) => first + i) : [Number(wanted)];
  test.each(seeds)('a schedule, CONFORMANCE_SEED=%i', (seed) =>
    inTrial((trial) => new Schedule(trial, seeded(seed)).run())(),
  );
}
