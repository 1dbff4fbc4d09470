/** How a column's values stand in a record: Connect's types where they hold every value, else Postgres' own text. */
import type { ColumnShape } from '../../../src/connector/shape.ts';
import type { RowSettings } from './settings.ts';

export type Form =
  | {
      kind:
        | 'boolean'
        | 'int16'
        | 'int32'
        | 'int64'
        | 'float32'
        | 'float64'
        | 'string'
        | 'bytes'
        | 'date'
        | 'timestamp';
    }
  | { kind: 'decimal'; precision: number; scale: number };

const plainForms: Readonly<Record<string, Form['kind'] & Exclude<Form['kind'], 'decimal'>>> = {
  boolean: 'boolean',
  smallint: 'int16',
  integer: 'int32',
  bigint: 'int64',
  oid: 'int64',
  real: 'float32',
  'double precision': 'float64',
};

/** Exact whatever the value is, and the same bytes for equal values. */
const keyKinds: readonly Form['kind'][] = ['boolean', 'int16', 'int32', 'int64', 'bytes'];

export const text: Form = { kind: 'string' };

/** A header has what a value cannot hold, but says nothing of a key: there every form is exact. */
export function formOf(column: ColumnShape, settings: RowSettings): Form {
  const type = column.form === 'text' ? 'text' : (column.base ?? column.type);
  const form = formOfType(type, settings);
  if (column.key && !keyKinds.includes(form.kind)) return text;
  // Readers of JSON without schemas have no types to go by.
  const bare = settings.format === 'json' && !settings.schemas;
  return bare && ['bytes', 'date', 'timestamp', 'decimal'].includes(form.kind) ? text : form;
}

function formOfType(type: string, { timestamps }: RowSettings): Form {
  const plain = plainForms[Object.hasOwn(plainForms, type) ? type : ''];
  if (plain !== undefined) return { kind: plain };
  if (type === 'bytea') return { kind: 'bytes' };
  if (type === 'date') return { kind: 'date' };
  const decimal = /^numeric\((\d+),(\d+)\)$/.exec(type);
  if (decimal) {
    const [precision, scale] = [Number(decimal[1]), Number(decimal[2])];
    // Avro has no decimal of more digits behind the point than in all.
    return scale <= precision ? { kind: 'decimal', precision, scale } : text;
  }
  const instant = /^timestamp(?:\((\d)\))? with(?:out)? time zone$/.exec(type);
  if (instant && (timestamps === 'millis' || Number(instant[1] ?? 6) <= 3)) return { kind: 'timestamp' };
  return text;
}

const digits = /^-?\d+(?:\.\d+)?$/;

/** Scaled to an integer; null for NaN. */
export function unscaled(value: string): bigint | null {
  return digits.test(value) ? BigInt(value.replace('.', '')) : null;
}

/** Two's complement, the highest byte first, as few bytes as hold it: Connect's Decimal. */
export function decimalBytes(value: bigint): Buffer {
  let hex = (value < 0n ? -value - 1n : value).toString(16);
  if (hex.length % 2 === 1) hex = `0${hex}`;
  // The highest bit is the sign.
  if (Number.parseInt(hex[0]!, 16) >= 8) hex = `00${hex}`;
  const bytes = Buffer.from(hex, 'hex');
  if (value < 0n) for (let i = 0; i < bytes.length; i += 1) bytes[i] = ~bytes[i]! & 0xff;
  return bytes;
}

const isoDate = /^(\d{4,})-(\d\d)-(\d\d)( BC)?$/;

/** Since 1970; null for infinity. Proleptic Gregorian, as Postgres counts. */
export function daysOf(value: string): number | null {
  const match = isoDate.exec(value);
  if (!match) return null;
  const [, years, month, day, bc] = match;
  return daysFromCivil(bc ? 1 - Number(years) : Number(years), Number(month), Number(day));
}

/** Days before each month of a year that begins in March. */
function daysFromCivil(year: number, month: number, day: number): number {
  const shifted = month <= 2 ? year - 1 : year;
  const era = Math.floor(shifted / 400);
  const yearOfEra = shifted - era * 400;
  const dayOfYear = Math.floor((153 * (month > 2 ? month - 3 : month + 9) + 2) / 5) + day - 1;
  const dayOfEra = yearOfEra * 365 + Math.floor(yearOfEra / 4) - Math.floor(yearOfEra / 100) + dayOfYear;
  return era * 146_097 + dayOfEra - 719_468;
}

const isoInstant = /^(\d{4,}-\d\d-\d\d) (\d\d):(\d\d):(\d\d)(?:\.(\d{1,6}))?(?:\+00)?( BC)?$/;

/** Milliseconds since 1970 UTC, and whether that is the whole value; null for infinity and beyond 2^53. */
export function millisOf(value: string): { millis: number; whole: boolean } | null {
  const match = isoInstant.exec(value);
  if (!match) return null;
  const [, date, hours, minutes, seconds, fraction = '', bc = ''] = match;
  const days = daysOf(`${date}${bc}`)!;
  const micros = fraction.padEnd(6, '0');
  const ofDay =
    (Number(hours) * 60 + Number(minutes)) * 60_000 + Number(seconds) * 1000 + Number(micros.slice(0, 3));
  const millis = days * 86_400_000 + ofDay;
  return Number.isSafeInteger(millis) ? { millis, whole: micros.endsWith('000') } : null;
}

export function bytesOf(value: string): Buffer {
  return Buffer.from(value.slice(2), 'hex');
}

export function isTrue(value: string): boolean {
  return value.startsWith('t');
}

/** Whether the record's value is the whole value, or its `tidemark.exact` header has to say more. */
export function isExact(form: Form, value: string, format: 'json' | 'avro'): boolean {
  switch (form.kind) {
    case 'decimal':
      return digits.test(value);
    case 'date':
      return isoDate.test(value);
    case 'timestamp':
      return millisOf(value)?.whole === true;
    case 'float32':
    case 'float64':
      // JSON has no NaN and no infinities.
      return format === 'avro' || !/[ny]$/i.test(value);
    default:
      return true;
  }
}

/** Debezium's, for a TOASTed value that the change left untouched. */
export const placeholder = '__debezium_unavailable_value';
