/** Dates, times, timestamps and intervals, in Debezium's semantic types with microseconds. */
import type { ByteReader, ByteWriter } from '../byte-writer.ts';
import type { Codec } from './codec.ts';
import { writeInt64 } from './integers.ts';

/** Days and microseconds from 1970-01-01 to Postgres' epoch, 2000-01-01. */
const epochDays = 10957;
const epochMicros = 946684800000000n;
const maxInt64 = 0x7fffffffffffffffn;
const minInt64 = -0x8000000000000000n;
const maxInt32 = 0x7fffffff;
const minInt32 = -0x80000000;
const dayMicros = 86400000000n;

export const date: Codec = {
  schema: { type: 'int', 'connect.version': 1, 'connect.name': 'io.debezium.time.Date' },
  encode(bytes, start, _end, out) {
    const days = bytes.readInt32BE(start);
    if (days === maxInt32 || days === minInt32) return false;
    out.long(days + epochDays);
    return true;
  },
  text(bytes, start) {
    const days = bytes.readInt32BE(start);
    if (days === maxInt32) return 'infinity';
    if (days === minInt32) return '-infinity';
    return dateText(days + epochDays);
  },
  decode: (reader) => dateText(reader.long()),
};

/** Infinite timestamps are null, with their text in the exactness header. */
export const timestamp: Codec = {
  schema: { type: 'long', 'connect.version': 1, 'connect.name': 'io.debezium.time.MicroTimestamp' },
  encode(bytes, start, _end, out) {
    const high = bytes.readInt32BE(start);
    if (high > -0x80000 && high < 0x80000) {
      out.long(high * 0x100000000 + bytes.readUInt32BE(start + 4) + 946684800000000);
      return true;
    }
    const micros = bytes.readBigInt64BE(start);
    // Postgres counts from 2000: its last 30 years, and infinity, are past what 64 bits hold when counted from 1970.
    if (micros > maxInt64 - epochMicros || micros === minInt64) return false;
    out.bigLong(micros + epochMicros);
    return true;
  },
  text: (bytes, start) => infinityOr(bytes.readBigInt64BE(start), timestampText),
  decode: (reader) => timestampText(reader.bigLong()),
};

export const timestamptz: Codec = {
  schema: { type: 'string', 'connect.version': 1, 'connect.name': 'io.debezium.time.ZonedTimestamp' },
  encode(bytes, start, _end, out) {
    const high = bytes.readInt32BE(start);
    // About years 1858 to 2142 without bigint; -40000000 keeps the year at four digits in any case.
    if (high > -0x100000 && high < 0x100000) {
      const micros = high * 0x100000000 + bytes.readUInt32BE(start + 4) + 946684800000000;
      const days = Math.floor(micros / 86400000000);
      writeZoned(out, days, micros - days * 86400000000);
      return true;
    }
    const micros = bytes.readBigInt64BE(start);
    if (micros === maxInt64 || micros === minInt64) return false;
    const [days, rest] = splitDay(micros + epochMicros);
    const { year, month, day } = civil(days);
    // ISO 8601 (Java's form) has a year 0 and a sign beyond four digits.
    if (year < 0 || year > 9999) {
      const yearText = `${year < 0 ? '-' : '+'}${Math.abs(year).toString().padStart(4, '0')}`;
      out.ascii(`${yearText}-${two(month)}-${two(day)}T${clock(rest, 6)}Z`);
    } else writeZoned(out, days, rest);
    return true;
  },
  text: (bytes, start) =>
    infinityOr(bytes.readBigInt64BE(start), (micros) => `${timestampText(micros, '+00')}`),
  decode: (reader) => zonedToPostgres(reader.text()),
};

export const time: Codec = {
  schema: { type: 'long', 'connect.version': 1, 'connect.name': 'io.debezium.time.MicroTime' },
  encode(bytes, start, _end, out) {
    writeInt64(bytes, start, out);
    return true;
  },
  text: (bytes, start) => clock(Number(bytes.readBigInt64BE(start)), 0),
  decode: (reader: ByteReader) => clock(reader.long(), 0),
};

/** Months and days have no fixed length: only intervals without them are exact as microseconds. */
export const interval: Codec = {
  schema: { type: 'long', 'connect.version': 1, 'connect.name': 'io.debezium.time.MicroDuration' },
  encode(bytes, start, _end, out) {
    if (bytes.readInt32BE(start + 8) !== 0 || bytes.readInt32BE(start + 12) !== 0) return false;
    writeInt64(bytes, start, out);
    return true;
  },
  text(bytes, start) {
    const micros = bytes.readBigInt64BE(start);
    const days = bytes.readInt32BE(start + 8);
    const months = bytes.readInt32BE(start + 12);
    // Postgres 17 and later.
    if (months === maxInt32 && days === maxInt32 && micros === maxInt64) return 'infinity';
    if (months === minInt32 && days === minInt32 && micros === minInt64) return '-infinity';
    return intervalText(months, days, micros);
  },
  decode: (reader) => intervalText(0, 0, reader.bigLong()),
};

function infinityOr(micros: bigint, format: (microsSince1970: bigint) => string): string {
  if (micros === maxInt64) return 'infinity';
  if (micros === minInt64) return '-infinity';
  return format(micros + epochMicros);
}

function splitDay(microsSince1970: bigint): [number, number] {
  let days = microsSince1970 / dayMicros;
  let rest = microsSince1970 % dayMicros;
  if (rest < 0n) {
    rest += dayMicros;
    days -= 1n;
  }
  return [Number(days), Number(rest)];
}

interface CivilDate {
  /** Astronomical: 0 is 1 BC. */
  year: number;
  month: number;
  day: number;
}

/** Proleptic Gregorian date of a day number since 1970-01-01, by counting in 400-year eras from March. */
function civil(days: number): CivilDate {
  const shifted = days + 719468;
  const era = Math.floor(shifted / 146097);
  const dayOfEra = shifted - era * 146097;
  const yearOfEra = Math.floor(
    (dayOfEra - Math.floor(dayOfEra / 1460) + Math.floor(dayOfEra / 36524) - Math.floor(dayOfEra / 146096)) /
      365,
  );
  const dayOfYear = dayOfEra - (365 * yearOfEra + Math.floor(yearOfEra / 4) - Math.floor(yearOfEra / 100));
  const shiftedMonth = Math.floor((5 * dayOfYear + 2) / 153);
  const month = shiftedMonth < 10 ? shiftedMonth + 3 : shiftedMonth - 9;
  return {
    year: yearOfEra + era * 400 + (month <= 2 ? 1 : 0),
    month,
    day: dayOfYear - Math.floor((153 * shiftedMonth + 2) / 5) + 1,
  };
}

/** Consecutive rows mostly share their date; the last one is kept as text. */
let cachedDay = Number.NaN;
let cachedText = '';

function writeZoned(out: ByteWriter, days: number, microsOfDay: number): void {
  if (days !== cachedDay) {
    const { year, month, day } = civil(days);
    cachedText = `${year.toString().padStart(4, '0')}-${two(month)}-${two(day)}T`;
    cachedDay = days;
  }
  // 2026-11-24T02:20:00.123456Z: 27 characters, Avro length byte 54.
  out.ensure(28);
  out.bytes[out.position++] = 54;
  out.asciiRaw(cachedText);
  const { bytes } = out;
  let at = out.position;
  const seconds = Math.floor(microsOfDay / 1000000);
  let micros = microsOfDay - seconds * 1000000;
  const hour = (seconds / 3600) | 0;
  const minute = ((seconds - hour * 3600) / 60) | 0;
  const second = seconds - hour * 3600 - minute * 60;
  bytes[at] = 48 + ((hour / 10) | 0);
  bytes[at + 1] = 48 + (hour % 10);
  bytes[at + 2] = 58;
  bytes[at + 3] = 48 + ((minute / 10) | 0);
  bytes[at + 4] = 48 + (minute % 10);
  bytes[at + 5] = 58;
  bytes[at + 6] = 48 + ((second / 10) | 0);
  bytes[at + 7] = 48 + (second % 10);
  bytes[at + 8] = 46;
  for (let digit = 14; digit > 8; digit--) {
    bytes[at + digit] = 48 + (micros % 10);
    micros = (micros / 10) | 0;
  }
  bytes[at + 15] = 90;
  at += 16;
  out.position = at;
}

function two(n: number): string {
  return n < 10 ? `0${n}` : String(n);
}

/** `HH:MM:SS[.ffffff]`; trailing zeros of the fraction stay when minimumFraction is 6, and go when it is 0. */
function clock(micros: number, minimumFraction: 0 | 6): string {
  const seconds = Math.floor(micros / 1000000);
  const text = `${two(Math.floor(seconds / 3600))}:${two(Math.floor(seconds / 60) % 60)}:${two(seconds % 60)}`;
  const fraction = (micros - seconds * 1000000).toString().padStart(6, '0');
  if (minimumFraction === 6) return `${text}.${fraction}`;
  const trimmed = fraction.replace(/0+$/, '');
  return trimmed ? `${text}.${trimmed}` : text;
}

function dateText(days: number): string {
  const { year, month, day } = civil(days);
  const shown = year > 0 ? year : 1 - year;
  return `${shown.toString().padStart(4, '0')}-${two(month)}-${two(day)}${year > 0 ? '' : ' BC'}`;
}

function timestampText(microsSince1970: bigint, zone = ''): string {
  const [days, rest] = splitDay(microsSince1970);
  const { year, month, day } = civil(days);
  const shown = year > 0 ? year : 1 - year;
  return `${shown.toString().padStart(4, '0')}-${two(month)}-${two(day)} ${clock(rest, 0)}${zone}${year > 0 ? '' : ' BC'}`;
}

/** `2026-11-24T02:20:00.120000Z` to `2026-11-24 02:20:00.12+00`. */
function zonedToPostgres(text: string): string {
  const match = /^([+-]?)(\d{4,})-(\d\d-\d\d)T(\d\d:\d\d:\d\d)(?:\.(\d+))?Z$/.exec(text);
  if (!match) return text;
  const [, sign, digits, monthDay, hms, fraction = ''] = match;
  const year = Number(digits) * (sign === '-' ? -1 : 1);
  const shown = (year > 0 ? year : 1 - year).toString().padStart(4, '0');
  const trimmed = fraction.replace(/0+$/, '');
  return `${shown}-${monthDay} ${hms}${trimmed && `.${trimmed}`}+00${year > 0 ? '' : ' BC'}`;
}

/** As Postgres prints an interval with intervalstyle postgres. */
export function intervalText(months: number, days: number, micros: bigint): string {
  const parts: string[] = [];
  const years = Math.trunc(months / 12);
  const restMonths = months % 12;
  // A positive part after a negative one carries an explicit plus.
  let negative = false;
  const part = (value: number, unit: string) => {
    if (value === 0) return;
    const plural = value === 1 ? '' : 's';
    parts.push(`${negative && value > 0 ? '+' : ''}${value} ${unit}${plural}`);
    negative = value < 0;
  };
  part(years, 'year');
  part(restMonths, 'mon');
  part(days, 'day');
  if (micros !== 0n || parts.length === 0) {
    const absolute = micros < 0n ? -micros : micros;
    const seconds = absolute / 1000000n;
    const hours = (seconds / 3600n).toString().padStart(2, '0');
    const fraction = (absolute % 1000000n).toString().padStart(6, '0').replace(/0+$/, '');
    const sign = micros < 0n ? '-' : negative ? '+' : '';
    const rest = `${two(Number((seconds / 60n) % 60n))}:${two(Number(seconds % 60n))}${fraction && `.${fraction}`}`;
    parts.push(`${sign}${hours}:${rest}`);
  }
  return parts.join(' ');
}
