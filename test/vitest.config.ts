import { defineConfig } from 'vitest/config';

/**
 * Two projects: `unit` runs in parallel; `servers` starts real Postgres, Kafka and registries and runs file after
 * file, because two cores cannot time two clusters at once.
 */
export default defineConfig({
  test: {
    root: new URL('..', import.meta.url).pathname,
    projects: [
      {
        test: {
          name: 'unit',
          include: ['test/unit/**/*.test.ts', 'test/property/**/*.test.ts'],
          testTimeout: 60_000,
          hookTimeout: 60_000,
        },
      },
      {
        test: {
          name: 'servers',
          include: [
            'test/integration/**/*.test.ts',
            'test/regression/**/*.test.ts',
            'test/faults/**/*.test.ts',
            'test/conformance/**/*.test.ts',
          ],
          fileParallelism: false,
          testTimeout: 300_000,
          hookTimeout: 600_000,
        },
      },
    ],
  },
});
