/**
 * Values as the readers hand them over, and as Postgres prints them. Raw forms lose nothing and are the same for all
 * readers: whole numbers and decimals in digits, floats as the unsigned number that their bits are, dates as days and
 * times as microseconds since 1970 UTC, bytes in hexadecimal, lists as arrays.
 */
import { postgresFloat } from '../../connectors/object-log/postgres-float.ts';
import type { Cell } from '../../src/connector/sink.ts';

export type Raw = string | null | Raw[];

/** @param kind as the reader names it: `list:` before the elements' kind */
export function cellText(raw: Raw, kind: string): Cell {
  if (raw === null) return null;
  if (Array.isArray(raw)) return arrayText(raw, kind);
  switch (kind) {
    case 'boolean':
      return raw === 'true' ? 't' : 'f';
    case 'float':
      return postgresFloat(fromBits(raw, 4), 'real');
    case 'double':
      return postgresFloat(fromBits(raw, 8), 'double');
    case 'date':
      return dateText(Number(raw));
    case 'time':
      return timeText(BigInt(raw));
    case 'timestamp':
      return momentText(BigInt(raw), '');
    case 'timestamptz':
      return momentText(BigInt(raw), '+00');
    case 'binary':
      return `\\x${raw}`;
    default:
      return raw;
  }
}

function fromBits(raw: string, bytes: 4 | 8): number {
  const buffer = Buffer.alloc(8);
  buffer.writeBigUInt64BE(BigInt(raw));
  return bytes === 4 ? buffer.readFloatBE(4) : buffer.readDoubleBE(0);
}

const dayMicros = 86_400_000_000n;

function momentText(micros: bigint, zone: string): string {
  const inDay = ((micros % dayMicros) + dayMicros) % dayMicros;
  const [date, era] = dateParts(Number((micros - inDay) / dayMicros));
  return `${date} ${timeText(inDay)}${zone}${era}`;
}

function timeText(micros: bigint): string {
  const seconds = Number(micros / 1_000_000n);
  const parts = [Math.floor(seconds / 3600), Math.floor(seconds / 60) % 60, seconds % 60];
  const fraction = (micros % 1_000_000n).toString().padStart(6, '0').replace(/0+$/, '');
  return `${parts.map(twoDigits).join(':')}${fraction === '' ? '' : `.${fraction}`}`;
}

function dateText(days: number): string {
  return dateParts(days).join('');
}

/** The date and what follows it (and the time of day) in the years before Christ. */
function dateParts(days: number): [string, string] {
  const { year, month, day } = civil(days);
  const era = year > 0 ? '' : ' BC';
  const shown = String(year > 0 ? year : 1 - year).padStart(4, '0');
  return [`${shown}-${twoDigits(month)}-${twoDigits(day)}`, era];
}

/** Proleptic Gregorian; years begin in March, so that a leap day is the last, and 400 of them always have 146,097 days. */
function civil(days: number): { year: number; month: number; day: number } {
  const shifted = days + 719_468;
  const era = Math.floor(shifted / 146_097);
  const inEra = shifted - era * 146_097;
  const yearOfEra = Math.floor(
    (inEra - Math.floor(inEra / 1460) + Math.floor(inEra / 36_524) - Math.floor(inEra / 146_096)) / 365,
  );
  const inYear = inEra - (365 * yearOfEra + Math.floor(yearOfEra / 4) - Math.floor(yearOfEra / 100));
  const march = Math.floor((5 * inYear + 2) / 153);
  const month = march < 10 ? march + 3 : march - 9;
  return {
    year: yearOfEra + era * 400 + (month <= 2 ? 1 : 0),
    month,
    day: inYear - Math.floor((153 * march + 2) / 5) + 1,
  };
}

function twoDigits(value: number): string {
  return String(value).padStart(2, '0');
}

/** As Postgres' array_out: quoted where it would be read otherwise. */
function arrayText(raw: Raw[], kind: string): string {
  const elementKind = kind.replace(/^list:/, '');
  const elements = raw.map((each) => {
    const text = cellText(each, elementKind);
    if (text === null) return 'NULL';
    if (Array.isArray(each)) return text;
    const plain = text !== '' && !/[{}",\\\s]/.test(text) && text.toUpperCase() !== 'NULL';
    return plain ? text : `"${text.replace(/[\\"]/g, '\\$&')}"`;
  });
  return `{${elements.join(',')}}`;
}
