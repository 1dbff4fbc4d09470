/** Iceberg's values: transforms, single values, bounds, calendar. The examples are those of its specification. */
import { describe, expect, it } from 'vitest';
import {
  dateFromDays,
  daysFromDate,
  formatTimestampMicros,
  parseDays,
  parseTimestampMicros,
} from '../../connectors/sinks/iceberg/spec/calendar.ts';
import {
  compareValues,
  valueFromBytes,
  valueToBytes,
} from '../../connectors/sinks/iceberg/spec/single-value.ts';
import {
  applyTransform,
  canTransform,
  hashValue,
  parseTransform,
} from '../../connectors/sinks/iceberg/spec/transforms.ts';
import { truncateLower, truncateUpper } from '../../connectors/sinks/iceberg/spec/truncate-bound.ts';
import {
  canPromote,
  decimalBytes,
  type PrimitiveType,
  parsePrimitiveType,
  type Value,
} from '../../connectors/sinks/iceberg/spec/types.ts';
import { randomText, randomValue, valueText, valueTypes } from '../iceberg/values.ts';
import { random } from './deliver-random.ts';

const day = (text: string) => parseDays(text)!;
const micros = (text: string) => parseTimestampMicros(text)!;

describe('the bucket hash of the specification', () => {
  const cases: [PrimitiveType, Value, number][] = [
    ['int', 34, 2017239379],
    ['long', 34n, 2017239379],
    ['decimal(9,2)', 1420n, -500754589],
    ['date', day('2017-11-16'), -653330422],
    ['time', 81_068_000_000n, -662762989],
    ['timestamp', micros('2017-11-16 22:31:08'), -2047944441],
    ['timestamptz', micros('2017-11-16 22:31:08.000001'), -1207196810],
    ['timestamp_ns', micros('2017-11-16 22:31:08.000001') * 1000n + 1n, -1207196810],
    ['string', 'iceberg', 1210000089],
    ['uuid', 'f79c3e09-677c-4bbd-a479-3f349cb785e7', 1488055340],
    ['fixed[4]', Buffer.from([0, 1, 2, 3]), -188683207],
    ['binary', Buffer.from([0, 1, 2, 3]), -188683207],
  ];
  it.each(cases)('%s', (type, value, hash) => {
    expect(hashValue(type, value)).toBe(hash);
  });
});

describe('transforms', () => {
  const cases: [string, PrimitiveType, Value | null, Value | null][] = [
    ['truncate[10]', 'int', 1, 0],
    ['truncate[10]', 'int', -1, -10],
    ['truncate[10]', 'long', -1n, -10n],
    ['truncate[50]', 'decimal(9,2)', 1065n, 1050n],
    ['truncate[3]', 'string', 'iceberg', 'ice'],
    ['truncate[1]', 'string', '\u{1F600}b', '\u{1F600}'],
    ['truncate[3]', 'binary', Buffer.from([1, 2, 3, 4]), Buffer.from([1, 2, 3])],
    ['year', 'date', day('1969-12-31'), -1],
    ['month', 'date', day('1969-12-31'), -1],
    ['month', 'timestamp', micros('2017-11-16 22:31:08'), 574],
    ['day', 'timestamptz', -1n, -1],
    ['hour', 'timestamp', -1n, -1],
    ['hour', 'timestamp_ns', 3_600_000_000_000n, 1],
    ['bucket[16]', 'string', null, null],
    ['void', 'string', 'x', null],
  ];
  it.each(cases)('%s of %s %s', (transform, type, value, expected) => {
    expect(applyTransform(parseTransform(transform), type, value)).toEqual(expected);
  });

  it.each(['bucket', 'bucket[0]', 'bucket[16', 'truncate[-1]', 'zorder', 'Day'])(
    '%s is not known',
    (text) => {
      expect(parseTransform(text)).toEqual({ kind: 'unknown', text });
      expect(() => applyTransform(parseTransform(text), 'int', 1)).toThrow(/later version/);
    },
  );

  it('take only the types that the specification lets them', () => {
    const taken = (text: string) => valueTypes.filter((type) => canTransform(parseTransform(text), type));
    expect(taken('hour')).toEqual(['timestamp', 'timestamptz']);
    expect(taken('day')).toEqual(['date', 'timestamp', 'timestamptz']);
    expect(taken('bucket[2]')).not.toContain('boolean');
    expect(taken('bucket[2]')).not.toContain('double');
    expect(taken('truncate[2]')).toEqual([
      'int',
      'long',
      'string',
      'binary',
      'decimal(9,2)',
      'decimal(18,0)',
      'decimal(38,10)',
    ]);
    expect(taken('identity')).toEqual([...valueTypes]);
  });
});

describe('types', () => {
  it.each([
    ['decimal(9, 2)', 'decimal(9,2)'],
    ['decimal( 38 ,0)', 'decimal(38,0)'],
    ['fixed[ 16 ]', 'fixed[16]'],
  ])('%s is %s', (text, expected) => {
    expect(parsePrimitiveType(text, 'x')).toBe(expected);
  });

  it.each(['decimal(39,0)', 'decimal(2,3)', 'variant', 'INT', 'map', ''])('%s is refused', (text) => {
    expect(() => parsePrimitiveType(text, 'x')).toThrow(/no type of format version 2/);
  });

  it('are promoted as the specification allows', () => {
    expect(canPromote('int', 'long')).toBe(true);
    expect(canPromote('long', 'int')).toBe(false);
    expect(canPromote('float', 'double')).toBe(true);
    expect(canPromote('decimal(9,2)', 'decimal(12,2)')).toBe(true);
    expect(canPromote('decimal(9,2)', 'decimal(12,3)')).toBe(false);
    expect(canPromote('decimal(9,2)', 'decimal(8,2)')).toBe(false);
    expect(canPromote('date', 'timestamp')).toBe(false);
    expect(canPromote('int', 'string')).toBe(false);
  });

  it('decimals take as few bytes as their digits need', () => {
    expect([1, 2, 3, 4, 9, 10, 18, 19, 38].map(decimalBytes)).toEqual([1, 1, 2, 2, 4, 5, 8, 9, 16]);
  });
});

describe('single values', () => {
  it('come back from their bytes', () => {
    const r = random();
    for (let run = 0; run < 3000; run += 1) {
      const type = r.pick(valueTypes);
      const value = randomValue(r, type);
      const back = valueFromBytes(type, valueToBytes(type, value));
      expect(valueText(type, back), `seed ${r.seed}, run ${run}`).toBe(valueText(type, value));
    }
  });

  it('written before a promotion are read as the new type', () => {
    expect(valueFromBytes('long', valueToBytes('int', -5))).toBe(-5n);
    expect(valueFromBytes('double', valueToBytes('float', 1.5))).toBe(1.5);
    expect(valueFromBytes('decimal(30,2)', valueToBytes('decimal(9,2)', -1n))).toBe(-1n);
  });

  it('of a wrong length are refused', () => {
    expect(() => valueFromBytes('int', Buffer.alloc(8))).toThrow(/8 bytes are no int/);
    expect(() => valueFromBytes('uuid', Buffer.alloc(4))).toThrow(/4 bytes/);
  });

  it('are ordered: text by code points, -0 before 0, NaN last', () => {
    const sorted = (type: PrimitiveType, values: Value[]) =>
      [...values].sort((a, b) => compareValues(type, a, b));
    expect(sorted('string', ['\u{1F600}', '\uFFFD', 'b', 'ab', ''])).toEqual([
      '',
      'ab',
      'b',
      '\uFFFD',
      '\u{1F600}',
    ]);
    expect(sorted('double', [NaN, 0, -0, -Infinity, 2])).toEqual([-Infinity, -0, 0, 2, NaN]);
    expect(sorted('long', [10n, 9n, -1n])).toEqual([-1n, 9n, 10n]);
    expect(sorted('binary', [Buffer.from([0x80]), Buffer.from([1, 0]), Buffer.from([1])])).toEqual([
      Buffer.from([1]),
      Buffer.from([1, 0]),
      Buffer.from([0x80]),
    ]);
  });
});

describe('bounds cut to 16', () => {
  it('enclose every text, and are text of at most 16 code points', () => {
    const r = random();
    for (let run = 0; run < 5000; run += 1) {
      const text = randomText(r, 20);
      const context = `seed ${r.seed}, run ${run}: ${JSON.stringify(text)}`;
      const lower = truncateLower('string', text, 16) as string;
      const upper = truncateUpper('string', text, 16) as string | null;
      expect(compareValues('string', lower, text), context).toBeLessThanOrEqual(0);
      expect([...lower].length, context).toBeLessThanOrEqual(16);
      if (upper === null) expect([...text].slice(0, 16).join(''), context).toBe('\u{10FFFF}'.repeat(16));
      else {
        expect(compareValues('string', upper, text), context).toBeGreaterThanOrEqual(0);
        expect([...upper].length, context).toBeLessThanOrEqual(16);
        expect(upper.isWellFormed(), context).toBe(true);
      }
    }
  });

  it.each([
    ['a'.repeat(16), 'a'.repeat(16)],
    ['a'.repeat(17), `${'a'.repeat(15)}b`],
    [`${'a'.repeat(15)}\u{10FFFF}b`, `${'a'.repeat(14)}b`],
    [`${'a'.repeat(15)}\uD7FFb`, `${'a'.repeat(15)}\uE000`],
    [`${'a'.repeat(15)}\uFFFFb`, `${'a'.repeat(15)}\u{10000}`],
  ])('%j is not above %j', (text, expected) => {
    expect(truncateUpper('string', text, 16)).toBe(expected);
  });

  it('bytes that are all 0xff have none above them', () => {
    expect(truncateUpper('binary', Buffer.alloc(17, 0xff), 16)).toBeNull();
    expect(truncateUpper('binary', Buffer.from([1, 0xff, 3]), 2)).toEqual(Buffer.from([2]));
    expect(truncateUpper('binary', Buffer.alloc(16, 0xff), 16)).toEqual(Buffer.alloc(16, 0xff));
  });
});

describe('calendar', () => {
  it('agrees with JavaScript where that reaches, and with itself beyond', () => {
    const r = random();
    for (let run = 0; run < 3000; run += 1) {
      const days = r.integer(6_000_000) - 3_000_000;
      const context = `seed ${r.seed}, run ${run}: ${days}`;
      const date = dateFromDays(days);
      expect(daysFromDate(date), context).toBe(days);
      const js = new Date(days * 86_400_000);
      expect([js.getUTCFullYear(), js.getUTCMonth() + 1, js.getUTCDate()], context).toEqual([
        date.year,
        date.month,
        date.day,
      ]);
    }
  });

  it.each([
    ['0044-03-15 BC', -735_160],
    ['0044-03-15 (BC)', -735_160],
    ['0001-01-01', -719_162],
    ['5874897-12-31', 2_145_042_905],
    ['infinity', null],
    ['', null],
  ])('%s', (text, days) => {
    expect(parseDays(text)).toBe(days);
  });

  it.each([
    ['1969-12-31 23:59:59.999999', -1n],
    ['1970-01-01 00:00:00.5+00', 500_000n],
    ['0044-03-15 (BC) 00:00:00', -735_160n * 86_400_000_000n],
    ['0044-03-15 00:00:00 BC', -735_160n * 86_400_000_000n],
    ['-infinity', null],
  ])('%s', (text, expected) => {
    expect(parseTimestampMicros(text)).toBe(expected);
  });

  it('prints what it reads', () => {
    expect(formatTimestampMicros(-1n)).toBe('1969-12-31T23:59:59.999999');
    expect(formatTimestampMicros(micros('2017-11-16 22:31:08'))).toBe('2017-11-16T22:31:08');
  });
});
