/** Dates and times in their binary form. */
import { digits, int64, type Write, writeInt64 } from './binary-parts.ts';

/** Days from 2000-01-01 to a date of the Gregorian calendar (H. Hinnant, "chrono-Compatible Low-Level Date Algorithms"). */
function dayNumber(year: number, month: number, day: number): number {
  const shifted = month <= 2 ? year - 1 : year;
  const era = Math.floor(shifted / 400);
  const ofEra = shifted - era * 400;
  const ofYear = Math.floor((153 * (month + (month > 2 ? -3 : 9)) + 2) / 5) + day - 1;
  return era * 146_097 + ofEra * 365 + Math.floor(ofEra / 4) - Math.floor(ofEra / 100) + ofYear - 730_425;
}

/** Of `YYYY-MM-DD` at the start of the text; NaN for other years. */
function dayOf(text: string): number {
  if (text.charCodeAt(4) !== 45 || text.charCodeAt(7) !== 45) return Number.NaN;
  return dayNumber(digits(text, 0, 4), digits(text, 5, 7), digits(text, 8, 10));
}

/** Microseconds of `HH:MM:SS` with up to six decimals; NaN for all else. */
function timeOf(text: string, from: number, to: number): number {
  if (to - from < 8 || text.charCodeAt(from + 2) !== 58 || text.charCodeAt(from + 5) !== 58)
    return Number.NaN;
  const hours = digits(text, from, from + 2);
  const minutes = digits(text, from + 3, from + 5);
  const seconds = digits(text, from + 6, from + 8);
  let micros = 0;
  if (to - from > 8) {
    const decimals = to - from - 9;
    if (text.charCodeAt(from + 8) !== 46 || decimals > 6) return Number.NaN;
    micros = digits(text, from + 9, to) * 10 ** (6 - decimals);
  }
  return ((hours * 60 + minutes) * 60 + seconds) * 1_000_000 + micros;
}

export const date: Write = (to, at, text) => {
  let days = text.length === 10 ? dayOf(text) : Number.NaN;
  if (text === 'infinity') days = 0x7fff_ffff;
  if (text === '-infinity') days = -0x8000_0000;
  if (Number.isNaN(days)) return -1;
  to.view.setInt32(at, 4);
  to.view.setInt32(at + 4, days);
  return at + 8;
};

export const time: Write = (to, at, text) => {
  const micros = timeOf(text, 0, text.length);
  return Number.isNaN(micros) ? -1 : writeInt64(to, at, micros);
};

/** @param suffix what follows the time: the zone, which is UTC in everything that is streamed */
export function timestamp(suffix: string): Write {
  return (to, at, text) => {
    if (text === 'infinity' || text === '-infinity') {
      to.view.setInt32(at, 8);
      to.view.setBigInt64(at + 4, text === 'infinity' ? int64.most : int64.least);
      return at + 12;
    }
    if (text.charCodeAt(10) !== 32 || !text.endsWith(suffix)) return -1;
    const micros = dayOf(text) * 86_400_000_000 + timeOf(text, 11, text.length - suffix.length);
    return Number.isSafeInteger(micros) ? writeInt64(to, at, micros) : -1;
  };
}

const intervalText =
  /^(?:([+-]?\d+) years?)? ?(?:([+-]?\d+) mons?)? ?(?:([+-]?\d+) days?)? ?(?:([+-])?(\d{2,}):(\d\d):(\d\d)(?:\.(\d{1,6}))?)?$/;

/** interval_recv: microseconds, days, months. In the style `postgres`, which everything streamed has. */
export const interval: Write = (to, at, text) => {
  const found = text === '' ? null : intervalText.exec(text);
  if (!found) return -1;
  const [
    ,
    years = '0',
    months = '0',
    days = '0',
    sign,
    hours = '0',
    minutes = '0',
    seconds = '0',
    decimals = '',
  ] = found;
  const time =
    ((Number(hours) * 60 + Number(minutes)) * 60 + Number(seconds)) * 1_000_000 +
    Number(decimals.padEnd(6, '0'));
  if (!Number.isSafeInteger(time)) return -1;
  const end = writeInt64(to, at, sign === '-' ? -time : time);
  to.view.setInt32(at, 16);
  to.view.setInt32(end, Number(days));
  to.view.setInt32(end + 4, Number(years) * 12 + Number(months));
  return end + 8;
};
