import { describe, expect, test } from 'vitest';
import { day, SampleClock, timestamp } from '../../src/sample/clock.ts';
import { operationKinds } from '../../src/sample/operations.ts';
import { githubPayload, providerPayload } from '../../src/sample/payloads.ts';
import { Prng, skewed, Weighted } from '../../src/sample/prng.ts';
import { Pool } from '../../src/sample/state.ts';
import * as values from '../../src/sample/values.ts';

describe('the sample is replayed by its seed', () => {
  test('equal seeds give equal streams, other seeds others', () => {
    const draw = (seed: number | string) => {
      const prng = new Prng(seed);
      return [prng.uint32(), prng.unit(), prng.uuid(), prng.bytes(7).toString('hex'), values.phrase(prng, 5)];
    };
    expect(draw(1)).toEqual(draw(1));
    expect(draw('1')).toEqual(draw(1));
    expect(draw(2)).not.toEqual(draw(1));
    const firsts = new Set(Array.from({ length: 1000 }, (_, seed) => new Prng(seed).uint32()));
    expect(firsts.size).toBe(1000);
  });

  test('a virtual clock always advances and is replayed; a wall clock never stands still', () => {
    const ticks = (seed: number) => {
      const clock = new SampleClock(new Prng(seed));
      return Array.from({ length: 50 }, () => clock.tick());
    };
    expect(ticks(3)).toEqual(ticks(3));
    expect(ticks(3).every((value, index, all) => index === 0 || value > all[index - 1]!)).toBe(true);
    const wall = new SampleClock(new Prng(1), { wall: () => 1_000 });
    expect(wall.tick()).toBeLessThan(wall.tick());
  });

  test('payloads are replayed and never equal to the next', () => {
    const prng = new Prng(5);
    const again = new Prng(5);
    const first = githubPayload(prng, 1_767_600_000_000_000);
    expect(githubPayload(again, 1_767_600_000_000_000)).toEqual(first);
    expect(githubPayload(prng, 1_767_600_000_000_000)).not.toEqual(first);
  });
});

describe('values are what Postgres takes', () => {
  test('uuids have version and variant, and do not repeat', () => {
    const prng = new Prng(1);
    const seen = new Set<string>();
    for (let i = 0; i < 10_000; i++) {
      const uuid = prng.uuid();
      expect(uuid).toMatch(/^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/);
      seen.add(uuid);
    }
    expect(seen.size).toBe(10_000);
  });

  test('integers reach both ends and nothing beyond', () => {
    const prng = new Prng(2);
    const seen = new Set(Array.from({ length: 2000 }, () => prng.integer(-2, 3)));
    expect([...seen].sort((a, b) => a - b)).toEqual([-2, -1, 0, 1, 2, 3]);
  });

  test('weights are respected, zero never drawn', () => {
    const prng = new Prng(3);
    const counts = [0, 0, 0, 0];
    const weighted = new Weighted([1, 0, 3, 0]);
    for (let i = 0; i < 20_000; i++) counts[weighted.draw(prng)]!++;
    expect(counts[1]! + counts[3]!).toBe(0);
    expect(counts[2]! / counts[0]!).toBeGreaterThan(2.7);
    expect(counts[2]! / counts[0]!).toBeLessThan(3.3);
    const skew = skewed(5);
    const owners = [0, 0, 0, 0, 0];
    for (let i = 0; i < 20_000; i++) owners[skew.draw(prng)]!++;
    expect(owners[0]! / owners[4]!).toBeGreaterThan(4);
  });

  test('timestamps keep microseconds, before 1970 too', () => {
    expect(timestamp(1_767_600_000_000_001)).toBe('2026-01-05T08:00:00.000001Z');
    expect(timestamp(-1)).toBe('1969-12-31T23:59:59.999999Z');
    expect(day(1_767_600_000_000_001)).toBe('2026-01-05');
  });

  test('payloads are JSON, of real size, with whole numbers beyond a double', () => {
    const prng = new Prng(4);
    let bytes = 0;
    for (let i = 0; i < 400; i++) {
      const { json } = githubPayload(prng, 1_767_600_000_000_000);
      JSON.parse(json);
      bytes += json.length;
    }
    expect(bytes / 400).toBeGreaterThan(4000);
    const { json, eventType } = providerPayload(prng, 'okta', ['repo']);
    expect(JSON.parse(json)).toMatchObject({ scopes: ['repo'] });
    expect(/"serial":(\d+)/.exec(json)![1]!.length).toBeGreaterThanOrEqual(19);
    expect(eventType).toMatch(/^okta\./);
  });

  test('texts hold neither NUL nor lone surrogates, and some are empty or beyond ASCII', () => {
    const prng = new Prng(6);
    const texts = Array.from({ length: 5000 }, () => values.phrase(prng, 3));
    expect(texts.every((text) => text.isWellFormed() && !text.includes('\0'))).toBe(true);
    expect(texts).toContain('');
    expect(texts.some((text) => /\p{Script=Han}/u.test(text))).toBe(true);
  });

  test('hostile numbers appear only when asked for', () => {
    const draw = (hostile: boolean) => {
      const prng = new Prng(8);
      return Array.from({ length: 5000 }, () => [
        values.riskScore(prng, hostile),
        values.exposure(prng, hostile),
        values.confidence(prng, hostile),
        values.suppressedUntil(prng, 0, hostile),
      ]).flat();
    };
    expect(draw(true)).toEqual(expect.arrayContaining(['NaN', 'Infinity', 'infinity', '-infinity']));
    expect(draw(false).some((text) => /nan|inf/i.test(text ?? ''))).toBe(false);
  });
});

test('a full pool forgets old keys, and removal keeps the others', () => {
  const pool = new Pool<number>(3);
  for (let i = 0; i < 10; i++) pool.add(i);
  expect(pool.size).toBe(3);
  const left = new Set(pool.pickSome(new Prng(1), 100));
  const [gone] = left;
  pool.remove(gone!);
  pool.remove(-1);
  left.delete(gone!);
  expect(new Set(pool.pickSome(new Prng(2), 100))).toEqual(left);
  expect(new Pool<number>().pick(new Prng(1))).toBeUndefined();
  expect(new Pool<number>().pickOld(new Prng(1))).toBeUndefined();
});

test('every operation has a name', () => {
  expect(new Set(operationKinds).size).toBeGreaterThanOrEqual(25);
});
