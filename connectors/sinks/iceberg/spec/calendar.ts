/**
 * Days and microseconds since 1970-01-01 in the proleptic Gregorian calendar, from and to the text of DuckDB and of
 * Postgres in UTC. JavaScript's Date ends within the range of either.
 */
export const dayMicros = 86_400_000_000n;
export const hourMicros = 3_600_000_000n;

export interface YearMonthDay {
  /** Astronomical: the year before 1 is 0. */
  year: number;
  /** 1 to 12. */
  month: number;
  day: number;
}

const daysPerEra = 146_097;
/** From 0000-03-01, where the era's leap days come out even, to 1970-01-01. */
const daysBeforeEpoch = 719_468;

export function daysFromDate({ year, month, day }: YearMonthDay): number {
  const shifted = month <= 2 ? year - 1 : year;
  const era = Math.floor(shifted / 400);
  const yearOfEra = shifted - era * 400;
  const dayOfYear = Math.floor((153 * ((month + 9) % 12) + 2) / 5) + day - 1;
  const dayOfEra = yearOfEra * 365 + Math.floor(yearOfEra / 4) - Math.floor(yearOfEra / 100) + dayOfYear;
  return era * daysPerEra + dayOfEra - daysBeforeEpoch;
}

export function dateFromDays(days: number): YearMonthDay {
  const shifted = days + daysBeforeEpoch;
  const era = Math.floor(shifted / daysPerEra);
  const dayOfEra = shifted - era * daysPerEra;
  const leaps = Math.floor(dayOfEra / 1460) - Math.floor(dayOfEra / 36_524) + Math.floor(dayOfEra / 146_096);
  const yearOfEra = Math.floor((dayOfEra - leaps) / 365);
  const dayOfYear = dayOfEra - (365 * yearOfEra + Math.floor(yearOfEra / 4) - Math.floor(yearOfEra / 100));
  const shiftedMonth = Math.floor((5 * dayOfYear + 2) / 153);
  const month = shiftedMonth < 10 ? shiftedMonth + 3 : shiftedMonth - 9;
  return {
    year: yearOfEra + era * 400 + (month <= 2 ? 1 : 0),
    month,
    day: dayOfYear - Math.floor((153 * shiftedMonth + 2) / 5) + 1,
  };
}

export function floorDivide(value: bigint, by: bigint): bigint {
  const quotient = value / by;
  return value % by < 0n ? quotient - 1n : quotient;
}

const datePattern = /^(\d{4,})-(\d\d)-(\d\d)( \(?BC\)?)?$/;
const timePattern = /^(\d\d):(\d\d):(\d\d)(?:\.(\d{1,6}))?$/;
const momentPattern = /^(\d{4,}-\d\d-\d\d)( \(BC\))? (\d\d:\d\d:\d\d(?:\.\d{1,6})?)(?:\+00(?::00)?)?( BC)?$/;

/** Null for text that is no date: `infinity`. */
export function parseDays(text: string): number | null {
  const match = datePattern.exec(text);
  if (!match) return null;
  const year = match[4] ? 1 - Number(match[1]) : Number(match[1]);
  return daysFromDate({ year, month: Number(match[2]), day: Number(match[3]) });
}

/** Microseconds since midnight. */
export function parseTimeMicros(text: string): bigint | null {
  const match = timePattern.exec(text);
  if (!match) return null;
  const seconds = Number(match[1]) * 3600 + Number(match[2]) * 60 + Number(match[3]);
  return BigInt(seconds) * 1_000_000n + BigInt((match[4] ?? '').padEnd(6, '0'));
}

/** Of a timestamp in UTC or without a zone. */
export function parseTimestampMicros(text: string): bigint | null {
  const match = momentPattern.exec(text);
  if (!match) return null;
  const days = parseDays(match[1]! + (match[2] ?? match[4] ?? ''));
  const time = parseTimeMicros(match[3]!);
  return days === null || time === null ? null : BigInt(days) * dayMicros + time;
}

/** `2017-11-16`; years outside of 0 to 9999 with a sign, as ISO 8601 has them. */
export function formatDays(days: number): string {
  const { year, month, day } = dateFromDays(days);
  return `${formatYear(year)}-${twoDigits(month)}-${twoDigits(day)}`;
}

export function formatYear(year: number): string {
  if (year >= 0 && year <= 9999) return String(year).padStart(4, '0');
  return `${year < 0 ? '-' : '+'}${String(Math.abs(year)).padStart(4, '0')}`;
}

/** `22:31:08`, with as many digits of microseconds as it needs. */
export function formatTimeMicros(micros: bigint): string {
  const seconds = Number(micros / 1_000_000n);
  const fraction = String(micros % 1_000_000n)
    .padStart(6, '0')
    .replace(/0+$/, '');
  const clock = [Math.floor(seconds / 3600), Math.floor(seconds / 60) % 60, seconds % 60];
  return clock.map(twoDigits).join(':') + (fraction === '' ? '' : `.${fraction}`);
}

export function formatTimestampMicros(micros: bigint): string {
  const days = floorDivide(micros, dayMicros);
  return `${formatDays(Number(days))}T${formatTimeMicros(micros - days * dayMicros)}`;
}

export function twoDigits(value: number): string {
  return String(value).padStart(2, '0');
}
