/** Values of Iceberg's types: at random, and as the text that format-witness.py reads and writes. */
import { formatDecimal } from '../../connectors/sinks/iceberg/spec/partition-path.ts';
import {
  decimalParts,
  fixedLength,
  type PrimitiveType,
  typeKind,
  type Value,
} from '../../connectors/sinks/iceberg/spec/types.ts';
import type { Random } from '../unit/deliver-random.ts';

export const valueTypes: readonly PrimitiveType[] = [
  'boolean',
  'int',
  'long',
  'float',
  'double',
  'date',
  'time',
  'timestamp',
  'timestamptz',
  'string',
  'uuid',
  'binary',
  'fixed[5]',
  'decimal(9,2)',
  'decimal(18,0)',
  'decimal(38,10)',
];

export function valueText(type: PrimitiveType, value: Value | null): string | null {
  if (value === null) return null;
  if (value instanceof Uint8Array) return Buffer.from(value).toString('hex');
  const decimal = decimalParts(type);
  if (decimal) return formatDecimal(value as bigint, decimal.scale);
  if (type === 'float' || type === 'double') {
    const bytes = Buffer.alloc(8);
    bytes.writeDoubleBE(value as number);
    return bytes.toString('hex');
  }
  return String(value);
}

const texts = ['', 'a', 'iceberg', "it's", 'é', '\u{1F600}', '\uFFFF', '\u{10FFFF}', 'ÿ', '\u0001', '~', 'ß'];

export function randomText(random: Random, longest: number): string {
  let text = '';
  for (let left = random.integer(longest + 1); left > 0; left -= 1) text += random.pick(texts);
  return text;
}

function randomBytes(random: Random, length: number): Buffer {
  return Buffer.from(
    Array.from({ length }, () => random.pick([0, 1, 0x7f, 0x80, 0xff, random.integer(256)])),
  );
}

/** A signed integer of up to so many bits, extremes often. */
function randomInteger(random: Random, bits: number): bigint {
  const used = random.pick([3, 8, 16, bits - 1, bits - 1]);
  const limit = 1n << BigInt(Math.min(used, bits - 1));
  const extremes = [0n, 1n, -1n, limit - 1n, -limit];
  if (random.next() < 0.3) return random.pick(extremes);
  const drawn = randomBytes(random, 8).readBigUInt64LE() % limit;
  return random.next() < 0.5 ? drawn : -drawn;
}

export function randomValue(random: Random, type: PrimitiveType): Value {
  switch (typeKind(type)) {
    case 'boolean':
      return random.next() < 0.5;
    case 'int':
      return Number(randomInteger(random, 32));
    // Python's dates end with the year 9999.
    case 'date':
      return Number(randomInteger(random, 21));
    case 'float':
      return Math.fround(randomFloat(random));
    case 'double':
      return randomFloat(random);
    case 'time':
      return BigInt(random.integer(86_400_000)) * 1000n + BigInt(random.integer(1000));
    case 'timestamp':
    case 'timestamptz':
      return randomInteger(random, 56);
    case 'string':
      return randomText(random, 24);
    case 'uuid': {
      const hex = randomBytes(random, 16).toString('hex');
      return hex.replace(/^(.{8})(.{4})(.{4})(.{4})(.{12})$/, '$1-$2-$3-$4-$5');
    }
    case 'fixed':
      return randomBytes(random, fixedLength(type)!);
    case 'binary':
      return randomBytes(random, random.integer(24));
    case 'decimal': {
      const limit = 10n ** BigInt(decimalParts(type)!.precision);
      return random.next() < 0.1 ? limit - 1n : randomInteger(random, 100) % limit;
    }
    default:
      return randomInteger(random, 64);
  }
}

function randomFloat(random: Random): number {
  return random.pick([
    0,
    -0,
    1,
    -1.5,
    1e-30,
    3.4e38,
    Infinity,
    -Infinity,
    random.next(),
    -random.next() * 1e9,
  ]);
}
