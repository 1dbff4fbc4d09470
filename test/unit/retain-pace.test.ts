/** The pace of evictions follows what others feel, whatever the numbers are. */
import { expect, test } from 'vitest';
import { nobody, PaceRate } from '../../src/retain/pace-rate.ts';
import { seeded } from '../conformance/random.ts';

const most = 50_000;

/** After so many looks at a source whose small transactions take `restMs`, and longer by `each` for a row a second. */
function after(looks: number, restMs: number, each: number, random: ReturnType<typeof seeded>): PaceRate {
  const rate = new PaceRate();
  const about = (ms: number) => ms * (0.95 + random.below(100) / 1000);
  for (let i = 0; i < looks; i++) {
    if (i % 10 === 0) rate.atRest({ others: 500, slowMs: about(restMs) });
    else rate.whileGoing({ others: 500, slowMs: about(restMs + each * rate.current) }, most);
  }
  return rate;
}

test('nobody there: as fast as the policy lets it, soon', () => {
  const rate = new PaceRate();
  for (let i = 0; i < 7; i++) rate.whileGoing({ others: nobody - 1, slowMs: null }, most);
  expect(rate.current).toBe(most);
  rate.whileGoing({ others: 0, slowMs: null }, 3000);
  expect(rate.current).toBe(3000);
});

test('it settles where others take about a quarter longer, and goes as fast as may be where they feel nothing', () => {
  const random = seeded(Number(process.env.RETENTION_SEED ?? 7));
  for (let i = 0; i < 50; i++) {
    const restMs = 2 + random.below(20);
    const settled = 500 + random.below(20_000);
    const rate = after(80, restMs, (0.25 * restMs) / settled, random);
    expect(rate.current).toBeGreaterThan(settled / 4);
    expect(rate.current).toBeLessThan(settled * 2);
  }
  expect(after(80, 5, 0, random).current).toBe(most);
});

test('it never stands still, and changes nothing before it knows the rest', () => {
  const rate = new PaceRate();
  const { current } = rate;
  rate.whileGoing({ others: 500, slowMs: 900 }, most);
  expect(rate.current).toBe(current);
  rate.atRest({ others: 500, slowMs: 1 });
  for (let i = 0; i < 100; i++) rate.whileGoing({ others: 500, slowMs: 900 }, most);
  expect(rate.current).toBeGreaterThanOrEqual(20);
});
