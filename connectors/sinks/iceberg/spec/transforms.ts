/** Partition transforms (Iceberg specification, "Partition Transforms", Appendix B). */
import { malformed } from '../failures.ts';
import { dateFromDays, dayMicros, floorDivide, hourMicros } from './calendar.ts';
import { murmur3 } from './murmur3.ts';
import { unscaledToBytes, valueToBytes } from './single-value.ts';
import { firstCodePoints } from './truncate-bound.ts';
import { type PrimitiveType, typeKind, type Value } from './types.ts';

export type Transform =
  | { kind: 'identity' | 'year' | 'month' | 'day' | 'hour' | 'void' }
  | { kind: 'bucket'; buckets: number }
  | { kind: 'truncate'; width: number }
  /** Somebody's of a later version: its partitions can be read, and never written. */
  | { kind: 'unknown'; text: string };

const plainKinds = ['identity', 'year', 'month', 'day', 'hour', 'void'] as const;

export function parseTransform(text: string): Transform {
  const kind = plainKinds.find((each) => each === text);
  if (kind !== undefined) return { kind };
  const match = /^(bucket|truncate)\[(\d+)\]$/.exec(text);
  const parameter = Number(match?.[2] ?? 0);
  if (!Number.isSafeInteger(parameter) || parameter < 1 || parameter > 0x7fffffff)
    return { kind: 'unknown', text };
  return match![1] === 'bucket'
    ? { kind: 'bucket', buckets: parameter }
    : { kind: 'truncate', width: parameter };
}

const integerTypes = ['int', 'long', 'decimal'];
const timestampTypes = ['timestamp', 'timestamptz', 'timestamp_ns', 'timestamptz_ns'];
const bucketTypes = [...integerTypes, ...timestampTypes, 'date', 'time', 'string', 'uuid', 'fixed', 'binary'];

export function canTransform({ kind }: Transform, source: PrimitiveType): boolean {
  const type = typeKind(source);
  if (kind === 'bucket') return bucketTypes.includes(type);
  if (kind === 'truncate') return [...integerTypes, 'string', 'binary'].includes(type);
  if (kind === 'hour') return timestampTypes.includes(type);
  if (kind === 'year' || kind === 'month' || kind === 'day')
    return type === 'date' || timestampTypes.includes(type);
  return true;
}

/** @throws TidemarkError TM405 where the transform does not take the type. */
export function transformedType(transform: Transform, source: PrimitiveType): PrimitiveType {
  if (!canTransform(transform, source))
    throw malformed(`a column of type ${source} is partitioned by ${transform.kind}`);
  switch (transform.kind) {
    case 'bucket':
    case 'year':
    case 'month':
    case 'hour':
      return 'int';
    case 'day':
      return 'date';
    // Its values are never looked at; the specification reads what it cannot compute as text.
    case 'unknown':
      return 'string';
    default:
      return source;
  }
}

/** Null for null. @throws TidemarkError TM405 for an unknown transform, which nothing may be written with. */
export function applyTransform(
  transform: Transform,
  source: PrimitiveType,
  value: Value | null,
): Value | null {
  if (value === null || transform.kind === 'void') return null;
  switch (transform.kind) {
    case 'identity':
      return value;
    case 'bucket':
      return (hashValue(source, value) & 0x7fffffff) % transform.buckets;
    case 'truncate':
      return truncateValue(source, value, transform.width);
    case 'unknown':
      throw malformed('the table is partitioned by a transform of a later version');
    default:
      return datePart(transform.kind, source, value);
  }
}

/** 32-bit hash of the bucket transform; int and long, and all precisions of timestamps, agree. */
export function hashValue(source: PrimitiveType, value: Value): number {
  switch (typeKind(source)) {
    case 'int':
    case 'date':
      return murmur3(valueToBytes('long', BigInt(value as number)));
    case 'timestamp_ns':
    case 'timestamptz_ns':
      return murmur3(valueToBytes('long', floorDivide(value as bigint, 1000n)));
    case 'decimal':
      return murmur3(unscaledToBytes(value as bigint));
    default:
      return murmur3(valueToBytes(source, value));
  }
}

function truncateValue(source: PrimitiveType, value: Value, width: number): Value {
  if (typeof value === 'string') return firstCodePoints(value, width);
  if (value instanceof Uint8Array) return value.slice(0, width);
  // Below the smallest integer it wraps around, as in the reference implementation: files of both must agree.
  if (source === 'int') return (Math.floor((value as number) / width) * width) | 0;
  // A decimal's width counts in units of its last digit, which is what its unscaled value is in.
  const truncated = floorDivide(value as bigint, BigInt(width)) * BigInt(width);
  return source === 'long' ? BigInt.asIntN(64, truncated) : truncated;
}

function datePart(kind: 'year' | 'month' | 'day' | 'hour', source: PrimitiveType, value: Value): number {
  if (source === 'date') return ofDays(kind, value as number);
  const micros = source.endsWith('_ns') ? floorDivide(value as bigint, 1000n) : (value as bigint);
  if (kind === 'hour') return Number(floorDivide(micros, hourMicros));
  return ofDays(kind, Number(floorDivide(micros, dayMicros)));
}

function ofDays(kind: 'year' | 'month' | 'day' | 'hour', days: number): number {
  if (kind === 'day') return days;
  const { year, month } = dateFromDays(days);
  return kind === 'year' ? year - 1970 : (year - 1970) * 12 + month - 1;
}
