/** The folder of a partition, as other writers of Iceberg name theirs. Nobody reads it: manifests hold the values. */
import { createHash } from 'node:crypto';
import { keySegment } from '../file-store.ts';
import { formatDays, formatTimeMicros, formatTimestampMicros, formatYear, twoDigits } from './calendar.ts';
import type { BoundPartitionField, PartitionTuple } from './partition-spec.ts';
import { decimalParts, typeKind, type Value } from './types.ts';

/** Object stores take keys of 1,024 bytes and file systems names of 255. */
const longestSegment = 150;

/**
 * `<name>-<value>/…`; empty without partition fields. No `=`, which would make columns of it for readers of Hive's folders,
 * and dates without hyphens, which keySegment would spell out.
 */
export function partitionPath(fields: readonly BoundPartitionField[], tuple: PartitionTuple): string {
  return fields.map((field, index) => segment(field, tuple[index]!)).join('/');
}

function segment(field: BoundPartitionField, value: Value | null): string {
  const text = `${keySegment(field.name)}-${value === null ? 'null' : keySegment(humanValue(field, value).replace(/(?<=\d)[-:]/g, ''))}`;
  if (text.length <= longestSegment) return text;
  const hash = createHash('sha256').update(text).digest('hex').slice(0, 16);
  return `${text.slice(0, longestSegment - 20).replace(/-.?$/, '')}.${hash}`;
}

/** `2017-11` for a month, `10.50` for a decimal. */
function humanValue({ transform, resultType, sourceType }: BoundPartitionField, value: Value): string {
  if (transform.kind === 'year') return formatYear(1970 + (value as number));
  if (transform.kind === 'month') {
    const months = value as number;
    return `${formatYear(1970 + Math.floor(months / 12))}-${twoDigits((((months % 12) + 12) % 12) + 1)}`;
  }
  if (transform.kind === 'hour') {
    const hours = value as number;
    const days = Math.floor(hours / 24);
    return `${formatDays(days)}-${twoDigits(hours - days * 24)}`;
  }
  switch (typeKind(resultType)) {
    case 'date':
      return formatDays(value as number);
    case 'time':
      return formatTimeMicros(value as bigint);
    case 'timestamp':
      return formatTimestampMicros(value as bigint);
    case 'timestamptz':
      return `${formatTimestampMicros(value as bigint)}+00:00`;
    case 'decimal':
      return formatDecimal(value as bigint, decimalParts(sourceType ?? resultType)!.scale);
    case 'fixed':
    case 'binary':
      return Buffer.from(value as Uint8Array).toString('base64');
    default:
      return String(value);
  }
}

export function formatDecimal(unscaled: bigint, scale: number): string {
  const digits = String(unscaled < 0n ? -unscaled : unscaled).padStart(scale + 1, '0');
  const point = digits.length - scale;
  const text = scale === 0 ? digits : `${digits.slice(0, point)}.${digits.slice(point)}`;
  return unscaled < 0n ? `-${text}` : text;
}
