/** Primitive types and their values (Iceberg specification, "Primitive Types", "Schema Evolution"). */
import { malformed } from '../failures.ts';

export type DecimalType = `decimal(${number},${number})`;
export type FixedType = `fixed[${number}]`;
/** The types of nanoseconds belong to format version 3; they are here because transforms and bounds know them. */
export type PrimitiveType =
  | 'boolean'
  | 'int'
  | 'long'
  | 'float'
  | 'double'
  | 'date'
  | 'time'
  | 'timestamp'
  | 'timestamptz'
  | 'timestamp_ns'
  | 'timestamptz_ns'
  | 'string'
  | 'uuid'
  | 'binary'
  | DecimalType
  | FixedType;

/**
 * A value by its type: int and date (days) are numbers; long, time, timestamps (micro- or nanoseconds) and decimals
 * (unscaled) are bigints; a uuid is lower-case text; fixed and binary are bytes.
 */
export type Value = boolean | number | bigint | string | Uint8Array;

const plain: ReadonlySet<string> = new Set([
  'boolean',
  'int',
  'long',
  'float',
  'double',
  'date',
  'time',
  'timestamp',
  'timestamptz',
  'timestamp_ns',
  'timestamptz_ns',
  'string',
  'uuid',
  'binary',
]);

/** @throws TidemarkError TM405 for anything but a primitive type. */
export function parsePrimitiveType(text: string, what: string): PrimitiveType {
  if (plain.has(text)) return text as PrimitiveType;
  const decimal = /^decimal\(\s*(\d+)\s*,\s*(\d+)\s*\)$/.exec(text);
  if (decimal) {
    const [precision, scale] = [Number(decimal[1]), Number(decimal[2])];
    if (precision >= 1 && precision <= 38 && scale <= precision) return decimalType(precision, scale);
  }
  const fixed = /^fixed\[\s*(\d+)\s*\]$/.exec(text);
  if (fixed) return `fixed[${Number(fixed[1])}]`;
  throw malformed(`${what}: no type of format version 2 that a column can have`);
}

export function decimalType(precision: number, scale: number): DecimalType {
  return `decimal(${precision},${scale})`;
}

export interface DecimalParts {
  precision: number;
  scale: number;
}

export function decimalParts(type: PrimitiveType): DecimalParts | null {
  const match = /^decimal\((\d+),(\d+)\)$/.exec(type);
  return match && { precision: Number(match[1]), scale: Number(match[2]) };
}

export function fixedLength(type: PrimitiveType): number | null {
  const match = /^fixed\[(\d+)\]$/.exec(type);
  return match && Number(match[1]);
}

/** The type without its parameters. */
export function typeKind(type: PrimitiveType): string {
  return /^[a-z_]+/.exec(type)![0];
}

/** Whether a column of the first type may become one of the second without touching its files: format version 2. */
export function canPromote(from: PrimitiveType, to: PrimitiveType): boolean {
  if (from === to) return true;
  if (from === 'int') return to === 'long';
  if (from === 'float') return to === 'double';
  const [narrow, wide] = [decimalParts(from), decimalParts(to)];
  return (
    narrow !== null && wide !== null && narrow.scale === wide.scale && narrow.precision <= wide.precision
  );
}

/** Bytes of the fixed that stores an unscaled decimal: two's complement of its largest value. */
export function decimalBytes(precision: number): number {
  const largest = 10n ** BigInt(precision) - 1n;
  return Math.floor(largest.toString(2).length / 8) + 1;
}
