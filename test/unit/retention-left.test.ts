import { expect, test } from 'vitest';
import { retentionLeft } from '../../src/deliver/retention-left.ts';

const hour = 3_600_000;
const now = 1_800_000_000_000;
const at = (hoursAgo: number) => BigInt(now - hoursAgo * hour) * 1000n;

test('a Unit that has fallen behind by most of what Kafka keeps is told of in time', () => {
  const left = (hoursAgo: number) =>
    retentionLeft(100 * hour, { markTimeUs: at(hoursAgo), pending: true }, now);
  expect(left(10)).toEqual({ leftMs: 90 * hour, short: false });
  expect(left(74)).toEqual({ leftMs: 26 * hour, short: false });
  expect(left(76)).toEqual({ leftMs: 24 * hour, short: true });
  expect(left(200)).toEqual({ leftMs: 0, short: true });
});

test('nothing can be lost where nothing waits, or everything is kept', () => {
  expect(retentionLeft(hour, { markTimeUs: at(5), pending: false }, now)).toBeNull();
  expect(retentionLeft(-1, { markTimeUs: at(5), pending: true }, now)).toBeNull();
});
