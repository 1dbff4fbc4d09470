/** Ranges, multiranges and composites: always their text, made of their parts' texts. */
import type { BinaryText } from './codec.ts';

const empty = 0x01;
const lowerInclusive = 0x02;
const upperInclusive = 0x04;
const lowerInfinite = 0x08;
const upperInfinite = 0x10;

/** A byte of flags, then each bound that there is, with its length. */
export function rangeText(subtype: BinaryText): BinaryText {
  return (bytes, start) => {
    const flags = bytes[start]!;
    if (flags & empty) return 'empty';
    let at = start + 1;
    const bound = () => {
      const size = bytes.readInt32BE(at);
      at += 4 + size;
      return quoteBound(subtype(bytes, at - size, at));
    };
    const lower = flags & lowerInfinite ? '' : bound();
    const upper = flags & upperInfinite ? '' : bound();
    return `${flags & lowerInclusive ? '[' : '('}${lower},${upper}${flags & upperInclusive ? ']' : ')'}`;
  };
}

/** The number of ranges, then each with its length. */
export function multirangeText(subtype: BinaryText): BinaryText {
  const range = rangeText(subtype);
  return (bytes, start) => {
    const ranges: string[] = [];
    let at = start + 4;
    for (let i = bytes.readInt32BE(start); i > 0; i--) {
      const size = bytes.readInt32BE(at);
      ranges.push(range(bytes, at + 4, at + 4 + size));
      at += 4 + size;
    }
    return `{${ranges.join(',')}}`;
  };
}

/**
 * The number of attributes; of each its type, its length (−1 for null) and the value. The types come with the value,
 * so that an altered type is read as it was when the row was written.
 */
export function compositeText(typeText: (oid: number) => BinaryText): BinaryText {
  return (bytes, start) => {
    const parts: string[] = [];
    let at = start + 4;
    for (let i = bytes.readInt32BE(start); i > 0; i--) {
      const oid = bytes.readUInt32BE(at);
      const size = bytes.readInt32BE(at + 4);
      at += 8;
      parts.push(size < 0 ? '' : quoteAttribute(typeText(oid)(bytes, at, at + size)));
      if (size > 0) at += size;
    }
    return `(${parts.join(',')})`;
  };
}

/** As range_out quotes. */
function quoteBound(text: string): string {
  return text === '' || /[()[\],"\\ \t\n\v\f\r]/.test(text) ? `"${text.replace(/["\\]/g, '$&$&')}"` : text;
}

/** As record_out quotes. */
function quoteAttribute(text: string): string {
  return text === '' || /[(),"\\ \t\n\v\f\r]/.test(text) ? `"${text.replace(/["\\]/g, '$&$&')}"` : text;
}
