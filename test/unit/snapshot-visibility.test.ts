/** A chunk counts only if its snapshot sees every transaction that was streamed before its low mark. */
import { describe, expect, test } from 'vitest';
import { isOver, parsePgSnapshot, TransactionWatch } from '../../src/replicate/snapshot/visibility.ts';

const snapshot = parsePgSnapshot;

describe('pg_snapshot', () => {
  test('over is what lies below xmax and is not listed', () => {
    const at = snapshot('10:15:11,13');
    expect([9, 10, 11, 12, 13, 14, 15, 16].map((xid) => isOver(at, xid))).toEqual([
      true,
      true,
      false,
      true,
      false,
      true,
      false,
      false,
    ]);
  });

  test('ids of pgoutput have 32 bits: the nearest is meant, across a wrap too', () => {
    const wrap = 2n ** 32n;
    const at = snapshot(`${wrap * 3n - 2n}:${wrap * 3n + 5n}:${wrap * 3n + 1n}`);
    expect(isOver(at, 0xfffffffd)).toBe(true);
    expect(isOver(at, 0)).toBe(true);
    expect(isOver(at, 1)).toBe(false);
    expect(isOver(at, 4)).toBe(true);
    expect(isOver(at, 5)).toBe(false);
    // An id that was given out after the snapshot.
    expect(isOver(at, 1000)).toBe(false);
  });
});

describe('the watch', () => {
  test('a transaction streamed before the low mark and still in progress in the snapshot is missing', () => {
    const watch = new TransactionWatch();
    watch.begin();
    watch.suspect(snapshot('100:100:'));
    watch.committed(100);
    watch.committed(101);
    const before = watch.streamed;
    watch.committed(102);
    expect(watch.missing(snapshot('100:103:100,102'), before)).toBe(1);
    expect(
      watch.missing(snapshot('101:103:102'), before),
      'streamed after the low mark: its keys are dropped',
    ).toBe(0);
    expect(watch.missing(snapshot('100:100:'), before), 'not begun, as far as the snapshot knows').toBe(2);
  });

  test('what was in progress when the watch began may have been streamed before it', () => {
    const watch = new TransactionWatch();
    watch.committed(50);
    watch.begin();
    watch.suspect(snapshot('50:60:50,55'));
    expect(watch.suspects(snapshot('50:61:50,55'))).toBe(2);
    // Seen idle in its transaction: it commits later, and is streamed then.
    watch.clear([55]);
    expect(watch.suspects(snapshot('50:61:50,55'))).toBe(1);
    expect(watch.missing(snapshot('51:61:55'), watch.streamed)).toBe(0);
    // Streamed under our eyes: no suspect any more, but it must be visible like all others.
    watch.begin();
    watch.suspect(snapshot('50:60:50'));
    watch.committed(50);
    expect(watch.suspects(snapshot('50:61:50'))).toBe(0);
    expect(watch.missing(snapshot('50:61:50'), watch.streamed)).toBe(1);
  });

  test('a later snapshot that sees it makes up for nothing in an earlier one', () => {
    for (const late of [false, true]) {
      const watch = new TransactionWatch();
      watch.begin();
      watch.suspect(snapshot('100:100:'));
      const first = snapshot('100:105:100');
      if (!late) watch.committed(100);
      const sight = watch.expect();
      const later = watch.expect();
      // It may be known after one that was taken later.
      if (late) watch.hold(sight, first);
      watch.hold(later, snapshot('110:110:'));
      if (!late) watch.hold(sight, first);
      watch.release(later);
      // The stream may be far behind what is read.
      if (late) watch.committed(100);
      expect(watch.missing(first, watch.streamed)).toBe(1);
      watch.release(sight);
      watch.hold(watch.expect(), snapshot('120:120:'));
      expect(watch.missing(first, watch.streamed), 'nobody asks any more').toBe(0);
    }
  });

  test('memory is bounded: visible ones are forgotten, and too many make it start over', () => {
    const watch = new TransactionWatch();
    watch.begin();
    watch.suspect(snapshot('1:1:'));
    watch.hold(watch.expect(), snapshot('200000:200000:'));
    for (let xid = 1; xid < 150_000; xid++) watch.committed(xid);
    expect(watch.overflowed).toBe(false);
    for (let xid = 200_000; xid < 301_000; xid++) watch.committed(xid);
    expect(watch.overflowed).toBe(true);
    watch.begin();
    expect(watch.overflowed).toBe(false);
  });
});
