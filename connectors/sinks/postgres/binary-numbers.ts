/** Numbers in their binary form. */
import { digits, int64, numericHeader, type Write, writeInt64 } from './binary-parts.ts';

/** Of at most 15 digits, which a number holds exactly; NaN for all else. */
function integerOf(text: string): number {
  const negative = text.charCodeAt(0) === 45;
  if (text.length > 16) return Number.NaN;
  const value = digits(text, negative ? 1 : 0, text.length);
  return negative ? -value : value;
}

function fixedInteger(size: 2 | 4, least: number, most: number): Write {
  return (to, at, text) => {
    const value = integerOf(text);
    if (!(value >= least && value <= most)) return -1;
    to.view.setInt32(at, size);
    if (size === 2) to.view.setInt16(at + 4, value);
    else to.view.setInt32(at + 4, value);
    return at + 4 + size;
  };
}

const wholeNumber = /^-?\d{1,19}$/;

export const bigint: Write = (to, at, text) => {
  const value = integerOf(text);
  if (Number.isSafeInteger(value)) return writeInt64(to, at, value);
  if (!wholeNumber.test(text)) return -1;
  const exact = BigInt(text);
  if (exact < int64.least || exact > int64.most) return -1;
  to.view.setInt32(at, 8);
  to.view.setBigInt64(at + 4, exact);
  return at + 12;
};

export const smallint = fixedInteger(2, -0x8000, 0x7fff);
export const integer = fixedInteger(4, -0x8000_0000, 0x7fff_ffff);

export const doublePrecision: Write = (to, at, text) => {
  const value = Number(text);
  if (text === '' || text.startsWith(' ') || (Number.isNaN(value) && text !== 'NaN')) return -1;
  to.view.setInt32(at, 8);
  to.view.setFloat64(at + 4, value);
  return at + 12;
};

export const numeric: Write = (to, at, text) => {
  const { view } = to;
  if (text === 'NaN') return numericHeader(to, at, 0, 0, 0xc000, 0);
  const negative = text.charCodeAt(0) === 45;
  const from = negative ? 1 : 0;
  const point = text.indexOf('.');
  const whole = (point < 0 ? text.length : point) - from;
  const scale = point < 0 ? 0 : text.length - point - 1;
  if (whole < 1) return -1;
  const weight = Math.ceil(whole / 4) - 1;
  const count = weight + 1 + Math.ceil(scale / 4);
  let end = numericHeader(to, at, count, weight, negative ? 0x4000 : 0, scale);
  for (let i = from, size = whole - weight * 4; i < from + whole; i += size, size = 4) {
    const group = digits(text, i, i + size);
    if (Number.isNaN(group)) return -1;
    view.setInt16(end, group);
    end += 2;
  }
  for (let i = point + 1; point >= 0 && i < text.length; i += 4) {
    const size = Math.min(4, text.length - i);
    const group = digits(text, i, i + size) * 10 ** (4 - size);
    if (Number.isNaN(group)) return -1;
    view.setInt16(end, group);
    end += 2;
  }
  return end;
};
