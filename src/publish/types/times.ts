/** Dates, times, timestamps and intervals, in Debezium's semantic types with microseconds. */
import type { CellReceiver } from '../../connector/native-row.ts';
import type { ByteReader, ByteWriter } from '../byte-writer.ts';
import type { Codec } from './codec.ts';
import { safeLong, writeInt64 } from './integers.ts';

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
  encodeText(bytes, start, end, out) {
    const text = bytes.toString('latin1', start, end);
    if (isInfinity(text)) return false;
    out.long(daysOfText(text));
    return true;
  },
  text(bytes, start) {
    const days = bytes.readInt32BE(start);
    if (days === maxInt32) return 'infinity';
    if (days === minInt32) return '-infinity';
    return dateText(days + epochDays);
  },
  decode: (reader) => dateText(reader.long()),
  pass(reader, to) {
    const days = reader.long();
    if (to.date) to.date(days);
    else to.text(dateText(days));
  },
};

/** A key must be exact: the ends of 32 bits are no date of Postgres' and stand for infinity. */
export const dateKey: Codec = {
  ...date,
  encode(bytes, start, end, out) {
    if (!date.encode(bytes, start, end, out)) out.long(bytes.readInt32BE(start));
    return true;
  },
  encodeText(bytes, start, end, out) {
    if (!date.encodeText(bytes, start, end, out)) out.long(bytes[start] === 0x2d ? minInt32 : maxInt32);
    return true;
  },
  decode(reader) {
    const days = reader.long();
    if (days === maxInt32) return 'infinity';
    if (days === minInt32) return '-infinity';
    return dateText(days);
  },
  pass(reader, to) {
    const at = reader.position;
    const days = reader.long();
    if (to.date && days !== maxInt32 && days !== minInt32) return to.date(days);
    reader.position = at;
    to.text(dateKey.decode(reader));
  },
};

/** Debezium's stand-ins for infinite timestamps. The first is an instant too, in the year 294247. */
const debeziumInfinity = 9223372036825200000n;
const debeziumMinusInfinity = -9223372036832400000n;

/** Infinite timestamps are Debezium's stand-ins, with their text in the exactness header. */
export const timestamp: Codec = {
  schema: { type: 'long', 'connect.version': 1, 'connect.name': 'io.debezium.time.MicroTimestamp' },
  encode(bytes, start, _end, out) {
    const high = bytes.readInt32BE(start);
    if (high > -0x80000 && high < 0x80000) {
      out.long(high * 0x100000000 + bytes.readUInt32BE(start + 4) + 946684800000000);
      return true;
    }
    const micros = bytes.readBigInt64BE(start);
    if (micros === maxInt64 || micros === minInt64) {
      out.bigLong(micros === maxInt64 ? debeziumInfinity : debeziumMinusInfinity);
      out.inexact = true;
      return true;
    }
    // Postgres counts from 2000: its last 30 years are past what 64 bits hold when counted from 1970.
    if (micros > maxInt64 - epochMicros) return false;
    out.bigLong(micros + epochMicros);
    return true;
  },
  encodeText(bytes, start, end, out) {
    scratch.writeBigInt64BE(momentOfText(bytes.toString('latin1', start, end)));
    return timestamp.encode(scratch, 0, 8, out);
  },
  text: (bytes, start) => infinityOr(bytes.readBigInt64BE(start), timestampText),
  decode: (reader) => timestampText(reader.bigLong()),
  pass: (reader, to) => passTimestamp(timestamp, reader, to),
};

function passTimestamp(codec: Codec, reader: ByteReader, to: CellReceiver): void {
  const micros = to.timestamp ? safeLong(reader) : Number.NaN;
  // What stands for infinity and for displaced instants is far outside.
  if (Number.isNaN(micros)) to.text(codec.decode(reader));
  else to.timestamp!(micros);
}

/** Far below 4713 BC, where no timestamp of Postgres' lies: the instants that 64 bits or Debezium leave no place for. */
const displaced = -9000000000000000000n;

/**
 * A key must be exact: infinity is Debezium's value, and the instants from there on, in the years 294247 to 294276,
 * move to where no other instant is.
 */
export const timestampKey: Codec = {
  ...timestamp,
  encode(bytes, start, end, out) {
    const micros = bytes.readBigInt64BE(start);
    if (micros === maxInt64 || micros + epochMicros < debeziumInfinity) {
      timestamp.encode(bytes, start, end, out);
      out.inexact = false;
    } else out.bigLong(micros + epochMicros - debeziumInfinity + displaced);
    return true;
  },
  encodeText(bytes, start, end, out) {
    scratch.writeBigInt64BE(momentOfText(bytes.toString('latin1', start, end)));
    return timestampKey.encode(scratch, 0, 8, out);
  },
  decode(reader) {
    const value = reader.bigLong();
    if (value === debeziumInfinity) return 'infinity';
    if (value === debeziumMinusInfinity) return '-infinity';
    // Below stands Debezium's minus infinity alone.
    return timestampText(value < displaced / 2n ? value - displaced + debeziumInfinity : value);
  },
  pass: (reader, to) => passTimestamp(timestampKey, reader, to),
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
    if (micros === maxInt64 || micros === minInt64) {
      out.ascii(micros === maxInt64 ? 'infinity' : '-infinity');
      return true;
    }
    const [days, rest] = splitDay(micros + epochMicros);
    const { year, month, day } = civil(days);
    // ISO 8601 (Java's form) has a year 0 and a sign beyond four digits.
    if (year < 0 || year > 9999) {
      const yearText = `${year < 0 ? '-' : '+'}${Math.abs(year).toString().padStart(4, '0')}`;
      out.ascii(`${yearText}-${two(month)}-${two(day)}T${clock(rest, 6)}Z`);
    } else writeZoned(out, days, rest);
    return true;
  },
  encodeText(bytes, start, end, out) {
    scratch.writeBigInt64BE(momentOfText(bytes.toString('latin1', start, end)));
    return timestamptz.encode(scratch, 0, 8, out);
  },
  text: (bytes, start) =>
    infinityOr(bytes.readBigInt64BE(start), (micros) => `${timestampText(micros, '+00')}`),
  decode: (reader) => zonedToPostgres(reader.text()),
  pass(reader, to) {
    const at = reader.position + 1;
    const micros =
      to.timestamp && reader.bytes[reader.position] === zonedLength * 2
        ? zonedMicros(reader.bytes, at)
        : Number.NaN;
    if (Number.isNaN(micros)) return to.text(timestamptz.decode(reader));
    reader.position = at + zonedLength;
    to.timestamp!(micros);
  },
};

export const time: Codec = {
  schema: { type: 'long', 'connect.version': 1, 'connect.name': 'io.debezium.time.MicroTime' },
  encode(bytes, start, _end, out) {
    writeInt64(bytes, start, out);
    return true;
  },
  encodeText(bytes, start, end, out) {
    out.long(clockOfText(bytes.toString('latin1', start, end)));
    return true;
  },
  text: (bytes, start) => clock(Number(bytes.readBigInt64BE(start)), 0),
  decode: (reader: ByteReader) => clock(reader.long(), 0),
  pass(reader, to) {
    const micros = reader.long();
    if (to.time) to.time(micros);
    else to.text(clock(micros, 0));
  },
};

/** Debezium's form is in UTC: another offset is lost, and so is 24:00. Binary: microseconds, seconds west of UTC. */
export const timetz: Codec = {
  schema: { type: 'string', 'connect.version': 1, 'connect.name': 'io.debezium.time.ZonedTime' },
  encode(bytes, start, _end, out) {
    const local = Number(bytes.readBigInt64BE(start));
    const west = bytes.readInt32BE(start + 8);
    const day = 86400000000;
    out.ascii(`${clock((((local + west * 1000000) % day) + day) % day, 0)}Z`);
    if (west !== 0 || local === day) out.inexact = true;
    return true;
  },
  encodeText(bytes, start, end, out) {
    const text = bytes.toString('latin1', start, end);
    const sign = Math.max(text.indexOf('+'), text.indexOf('-'));
    const [hours, minutes = 0, seconds = 0] = text
      .slice(sign + 1)
      .split(':')
      .map(Number);
    const offset = hours! * 3600 + minutes * 60 + seconds;
    scratch.writeBigInt64BE(BigInt(clockOfText(text)));
    scratch.writeInt32BE(text[sign] === '-' ? offset : -offset, 8);
    return timetz.encode(scratch, 0, 12, out);
  },
  text(bytes, start) {
    const west = bytes.readInt32BE(start + 8);
    const offset = Math.abs(west);
    const rest = [Math.floor(offset / 60) % 60, offset % 60];
    while (rest.at(-1) === 0) rest.pop();
    const zone = [Math.floor(offset / 3600), ...rest].map(two).join(':');
    return `${clock(Number(bytes.readBigInt64BE(start)), 0)}${west > 0 ? '-' : '+'}${zone}`;
  },
  decode: (reader) => reader.text().replace('Z', '+00'),
};

/** An average month in Debezium's reckoning, 365.25 / 12 days. */
const monthMicros = 2629800000000n;

/** Months and days have no fixed length: only intervals without them are exact as microseconds. */
export const interval: Codec = {
  schema: { type: 'long', 'connect.version': 1, 'connect.name': 'io.debezium.time.MicroDuration' },
  encode(bytes, start, _end, out) {
    const days = bytes.readInt32BE(start + 8);
    const months = bytes.readInt32BE(start + 12);
    if (days === 0 && months === 0) {
      writeInt64(bytes, start, out);
      return true;
    }
    const total = bytes.readBigInt64BE(start) + BigInt(days) * dayMicros + BigInt(months) * monthMicros;
    // The infinite ones are out of range too.
    if (BigInt.asIntN(64, total) !== total) return false;
    out.bigLong(total);
    out.inexact = true;
    return true;
  },
  encodeText(bytes, start, end, out) {
    writeInterval(bytes.toString('latin1', start, end), scratch);
    return interval.encode(scratch, 0, 16, out);
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

/** Consecutive rows mostly share their date; the last one is kept as text, with the time to be written into it. */
let zonedDay = Number.NaN;
/** Of `2026-11-24T02:20:00.123456Z`. */
const zonedLength = 27;
/** An Avro string. */
const zoned = Buffer.alloc(1 + zonedLength);
/** Of the numbers from 0 to 99, one behind the other. */
const digitPairs = Buffer.from(Array.from({ length: 100 }, (_, n) => two(n)).join(''));

function writeZoned(out: ByteWriter, days: number, microsOfDay: number): void {
  if (days !== zonedDay) {
    const { year, month, day } = civil(days);
    zoned[0] = zonedLength * 2;
    zoned.write(`${year.toString().padStart(4, '0')}-${two(month)}-${two(day)}T00:00:00.000000Z`, 1);
    zonedDay = days;
  }
  const seconds = Math.floor(microsOfDay / 1000000);
  const micros = microsOfDay - seconds * 1000000;
  const minutes = (seconds / 60) | 0;
  const hours = (minutes / 60) | 0;
  const high = (micros / 10000) | 0;
  const low = micros - high * 10000;
  const middle = (low / 100) | 0;
  out.ensure(zoned.length);
  const { bytes, position } = out;
  for (let i = 0; i < 12; i++) bytes[position + i] = zoned[i]!;
  bytes[position + 14] = 58;
  bytes[position + 17] = 58;
  bytes[position + 20] = 46;
  bytes[position + 27] = 90;
  pair(bytes, position + 12, hours);
  pair(bytes, position + 15, minutes - hours * 60);
  pair(bytes, position + 18, seconds - minutes * 60);
  pair(bytes, position + 21, high);
  pair(bytes, position + 23, middle);
  pair(bytes, position + 25, low - middle * 100);
  out.position = position + zoned.length;
}

/** Two digits; NaN for anything else. */
function number(bytes: Buffer, at: number): number {
  const tens = bytes[at]! - 48;
  const ones = bytes[at + 1]! - 48;
  return tens >= 0 && tens < 10 && ones >= 0 && ones < 10 ? tens * 10 + ones : Number.NaN;
}

/** Of the form that `writeZoned` writes; NaN for any other of its length. Consecutive rows mostly share their date. */
function zonedMicros(bytes: Buffer, at: number): number {
  const year = number(bytes, at) * 100 + number(bytes, at + 2);
  const month = number(bytes, at + 5);
  const day = number(bytes, at + 8);
  const seconds = (number(bytes, at + 11) * 60 + number(bytes, at + 14)) * 60 + number(bytes, at + 17);
  const micros = (number(bytes, at + 20) * 100 + number(bytes, at + 22)) * 100 + number(bytes, at + 24);
  if (bytes[at + 4] !== 45 || bytes[at + 10] !== 84 || bytes[at + 26] !== 90) return Number.NaN;
  const days = dayNumber(year, month, day);
  // Of more days a number does not hold the microseconds.
  return Math.abs(days) < 100000 ? days * 86400000000 + seconds * 1000000 + micros : Number.NaN;
}

/** Inverse of `civil`. */
function dayNumber(year: number, month: number, day: number): number {
  const shifted = month <= 2 ? year - 1 : year;
  const era = Math.floor(shifted / 400);
  const yearOfEra = shifted - era * 400;
  const dayOfYear = Math.floor((153 * (month + (month > 2 ? -3 : 9)) + 2) / 5) + day - 1;
  return (
    era * 146097 +
    yearOfEra * 365 +
    Math.floor(yearOfEra / 4) -
    Math.floor(yearOfEra / 100) +
    dayOfYear -
    719468
  );
}

/** Two digits. */
function pair(bytes: Buffer, at: number, n: number): void {
  bytes[at] = digitPairs[n * 2]!;
  bytes[at + 1] = digitPairs[n * 2 + 1]!;
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

/** Where a value's text becomes its binary form, so that both take the same way into Avro. */
const scratch = Buffer.alloc(16);

function isInfinity(text: string): boolean {
  return text.endsWith('infinity');
}

/** Days since 1970 of `YYYY-MM-DD[ …][ BC]`; the inverse of `civil`. */
function daysOfText(text: string): number {
  const dash = text.indexOf('-');
  const shown = Number(text.slice(0, dash));
  return dayNumber(
    text.endsWith('BC') ? 1 - shown : shown,
    Number(text.slice(dash + 1, dash + 3)),
    Number(text.slice(dash + 4, dash + 6)),
  );
}

/** Microseconds of `HH:MM:SS[.ffffff]…`, which may have more than two digits of hours. */
function clockOfText(text: string): number {
  const [, hours, minutes, seconds, fraction = ''] = /(\d+):(\d\d):(\d\d)(?:\.(\d+))?/.exec(text)!;
  const whole = Number(hours) * 3600 + Number(minutes) * 60 + Number(seconds);
  return whole * 1000000 + Number(fraction.padEnd(6, '0'));
}

/** Microseconds since 2000 of a timestamp's text, with or without `+00`. */
function momentOfText(text: string): bigint {
  if (isInfinity(text)) return text.charCodeAt(0) === 45 ? minInt64 : maxInt64;
  return BigInt(daysOfText(text)) * dayMicros + BigInt(clockOfText(text)) - epochMicros;
}

function writeInterval(text: string, out: Buffer): void {
  if (isInfinity(text)) {
    const negative = text.charCodeAt(0) === 45;
    out.writeBigInt64BE(negative ? minInt64 : maxInt64);
    out.writeInt32BE(negative ? minInt32 : maxInt32, 8);
    out.writeInt32BE(negative ? minInt32 : maxInt32, 12);
    return;
  }
  const part = (unit: string) => Number(new RegExp(`([+-]?\\d+) ${unit}s?`).exec(text)?.[1] ?? 0);
  const [, sign, hours, minutes, seconds, fraction = ''] =
    /([+-]?)(\d+):(\d\d):(\d\d)(?:\.(\d+))?/.exec(text) ?? [];
  const whole = BigInt(hours ?? 0) * 3600n + BigInt(minutes ?? 0) * 60n + BigInt(seconds ?? 0);
  const micros = whole * 1000000n + BigInt(fraction.padEnd(6, '0'));
  out.writeBigInt64BE(sign === '-' ? -micros : micros);
  out.writeInt32BE(part('day'), 8);
  out.writeInt32BE(part('year') * 12 + part('mon'), 12);
}
