import { expect, test, vi } from 'vitest';
import { SettingsWatch } from '../../src/deliver/settings-watch.ts';
import { createLogger } from '../../src/platform/log.ts';
import type { DestinationConfig } from '../../src/platform/resolved-config.ts';

test('a destination whose new settings hang holds up no other', async () => {
  const { promise: hanging, resolve: answer } = Promise.withResolvers<void>();
  const told: string[] = [];
  const watch = new SettingsWatch({
    reload: async () => ['hangs', 'fails', 'works'].map((name) => ({ name }) as DestinationConfig),
    changed: async ({ name }) => {
      told.push(name);
      if (name === 'hangs') await hanging;
      if (name === 'fails') throw new Error('not today');
    },
    log: createLogger({ level: 'error' }),
  });
  const times = (name: string) => told.filter((each) => each === name).length;
  watch.start();
  for (const looks of [1, 2]) {
    await vi.waitFor(() => {
      watch.look();
      expect(times('works')).toBeGreaterThanOrEqual(looks);
      expect(times('fails')).toBeGreaterThanOrEqual(looks);
    });
  }
  expect(times('hangs')).toBe(1);
  answer();
  await vi.waitFor(() => {
    watch.look();
    expect(times('hangs')).toBeGreaterThan(1);
  });
  await watch.stop();
});
