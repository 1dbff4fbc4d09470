import { availableParallelism } from 'node:os';
import { defineConfig } from 'vitest/config';
import { LongestFirst } from './longest-first.ts';

/**
 * Two groups, one after the other. `unit` and `servers` share the first: real Postgres, Kafka, registries and the
 * processes under test wait much of their time, so that three files at a time keep two cores busy, and what is short
 * fills the gaps at the end. `alone` measures time, or lives off short timeouts, and has the machine to itself.
 */
const alone = [
  'test/integration/parquet-speed.test.ts',
  'test/integration/postgres-sink-speed.test.ts',
  'test/integration/webhook-speed.test.ts',
  'test/integration/clickhouse-sink-speed.test.ts',
  'test/integration/iceberg-growth.test.ts',
  'test/regression/exact-acknowledgement.test.ts',
];

/** More than six would be short of memory first: a file of servers takes up to 2 GiB. */
const beside = { maxWorkers: Math.min(Math.max(3, availableParallelism()), 6), sequence: { groupOrder: 0 } };

// What a test waits for has its own limit; this one only ends a run that hangs. named-points takes up to 260 s.
const servers = { testTimeout: 1_500_000, hookTimeout: 600_000, globalSetup: ['test/warm-up.ts'] };

export default defineConfig({
  test: {
    root: new URL('..', import.meta.url).pathname,
    sequence: { sequencer: LongestFirst },
    projects: [
      {
        test: {
          ...beside,
          name: 'unit',
          include: ['test/unit/**/*.test.ts'],
          testTimeout: 60_000,
          hookTimeout: 60_000,
        },
      },
      {
        test: {
          ...servers,
          ...beside,
          name: 'servers',
          include: [
            'test/integration/**/*.test.ts',
            'test/regression/**/*.test.ts',
            'test/faults/**/*.test.ts',
            'test/conformance/**/*.test.ts',
          ],
          exclude: alone,
        },
      },
      {
        test: { ...servers, name: 'alone', include: alone, maxWorkers: 1, sequence: { groupOrder: 1 } },
      },
    ],
  },
});
