import { defineConfig } from 'vitest/config';

/**
 * Three projects, one after the other: `unit` runs in parallel; `servers` starts real Postgres, Kafka and registries,
 * two files at a time, since they mostly wait; `alone` measures time or memory, and has the machine to itself.
 */
const alone = [
  'test/integration/parquet-speed.test.ts',
  'test/integration/postgres-sink-speed.test.ts',
  'test/integration/webhook-speed.test.ts',
  'test/integration/clickhouse-sink-speed.test.ts',
  'test/integration/deliver-memory.test.ts',
  'test/integration/deliver-many-tenants.test.ts',
  'test/integration/stack.test.ts',
  'test/integration/demo.test.ts',
  'test/regression/**/*.test.ts',
  'test/faults/big-transaction.test.ts',
];

// What a test waits for has its own limit; this one only ends a run that hangs. named-points takes up to 260 s.
const servers = { testTimeout: 600_000, hookTimeout: 600_000, globalSetup: ['test/warm-up.ts'] };

export default defineConfig({
  test: {
    root: new URL('..', import.meta.url).pathname,
    projects: [
      {
        test: {
          name: 'unit',
          include: ['test/unit/**/*.test.ts'],
          testTimeout: 60_000,
          hookTimeout: 60_000,
          sequence: { groupOrder: 0 },
        },
      },
      {
        test: {
          ...servers,
          name: 'servers',
          include: [
            'test/integration/**/*.test.ts',
            'test/faults/**/*.test.ts',
            'test/conformance/**/*.test.ts',
          ],
          exclude: alone,
          maxWorkers: 2,
          sequence: { groupOrder: 1 },
        },
      },
      {
        test: { ...servers, name: 'alone', include: alone, maxWorkers: 1, sequence: { groupOrder: 2 } },
      },
    ],
  },
});
