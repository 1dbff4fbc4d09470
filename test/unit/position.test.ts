/** Position is a total order: text, bytes and numbers agree (the resume point, the ledger and DuckDB compare each). */
import { describe, expect, it, vi } from 'vitest';
import {
  asPosition,
  beforeEverything,
  formatLsn,
  formatPosition,
  ordinalText,
  type PositionParts,
  parseLsn,
  parsePosition,
  positionLength,
  positionPrefix,
} from '../../src/connector/position.ts';
import type { Prng } from '../../src/sample/prng.ts';
import { cases, replayable } from '../fixtures/pgoutput/replay.ts';

const few = [0n, 1n, 9n, 10n, 15n, 16n, 255n, 256n, 0xffffffffn, 0x100000000n, 2n ** 53n - 1n];

function parts(prng: Prng): PositionParts {
  const number = (bits: bigint) =>
    prng.chance(0.5)
      ? BigInt.asUintN(Number(bits), prng.pick(few))
      : BigInt.asUintN(Number(bits), prng.bytes(8).readBigUInt64BE() >> BigInt(prng.integer(0, 60)));
  return { epoch: Number(number(32n)), lsn: number(64n), ordinal: Number(number(53n)) };
}

function compareNumbers(a: PositionParts, b: PositionParts): number {
  if (a.epoch !== b.epoch) return a.epoch < b.epoch ? -1 : 1;
  if (a.lsn !== b.lsn) return a.lsn < b.lsn ? -1 : 1;
  return Math.sign(a.ordinal - b.ordinal);
}

vi.setConfig({ testTimeout: 60_000 });

describe('Position', () => {
  it('orders the same as text, as bytes and as numbers', () =>
    replayable((prng) => {
      for (let i = 0; i < cases(10_000, 100_000); i++) {
        const [a, b] = [parts(prng), parts(prng)];
        if (prng.chance(0.5)) b.epoch = a.epoch;
        if (prng.chance(0.5)) b.lsn = a.lsn;
        const [left, right] = [formatPosition(a), formatPosition(b)];
        const order = compareNumbers(a, b);
        expect(left < right ? -1 : left > right ? 1 : 0).toBe(order);
        expect(Buffer.compare(Buffer.from(left), Buffer.from(right))).toBe(order);
      }
    }));

  it('comes back from its text, whole and in the parts that the publisher writes', () =>
    replayable((prng) => {
      for (let i = 0; i < cases(10_000, 100_000); i++) {
        const all = parts(prng);
        const text = formatPosition(all);
        expect(text).toHaveLength(positionLength);
        expect(parsePosition(text)).toEqual(all);
        expect(asPosition(text)).toBe(text);
        expect(positionPrefix(all.epoch, all.lsn) + ordinalText(all.ordinal)).toBe(text);
        expect(text >= beforeEverything).toBe(true);
      }
    }));

  it.each([
    '',
    '0',
    beforeEverything.slice(1),
    `${beforeEverything}0`,
    beforeEverything.replace('/', ':'),
    beforeEverything.replace(/0$/, 'a'),
    beforeEverything.replace(/0$/, 'G'),
    `${beforeEverything}\n`,
  ])('refuses %j', (text) => {
    expect(() => parsePosition(text)).toThrow(RangeError);
    expect(() => asPosition(text)).toThrow(RangeError);
  });
});

describe('LSN', () => {
  it('comes back from its text', () =>
    replayable((prng) => {
      for (let i = 0; i < 10_000; i++) {
        const { lsn } = parts(prng);
        expect(parseLsn(formatLsn(lsn))).toBe(lsn);
      }
      expect(formatLsn(0x16b3748n)).toBe('0/16B3748');
      expect(parseLsn('ff/1')).toBe(0xff00000001n);
    }));

  it.each(['', '1', '0/', '/0', '0/123456789', '0/0/0', '-1/0', '0/0 '])('refuses %j', (text) => {
    expect(() => parseLsn(text)).toThrow(RangeError);
  });
});
