/**
 * One-dimensional arrays with lower bound 1 become Avro arrays of nullable items; any other array is null with its
 * text in the exactness header.
 */
import { TidemarkError } from '../../platform/errors.ts';
import type { AvroSchema, Codec } from './codec.ts';

/** @param delimiter the element type's: a semicolon for box, a comma for every other built-in */
export function arrayOf(element: Codec, delimiter = ','): Codec {
  const schema: AvroSchema = element.schema;
  const quoteItem = quoteFor(delimiter);
  return {
    schema: { type: 'array', items: ['null', schema] },
    encode(bytes, start, _end, out) {
      const dimensions = bytes.readInt32BE(start);
      if (dimensions === 0) {
        out.byte(0);
        return true;
      }
      if (dimensions !== 1 || bytes.readInt32BE(start + 16) !== 1) return false;
      const length = bytes.readInt32BE(start + 12);
      out.long(length);
      let at = start + 20;
      for (let i = 0; i < length; i++) {
        const size = bytes.readInt32BE(at);
        at += 4;
        if (size < 0) {
          out.byte(0);
          continue;
        }
        out.byte(2);
        if (!element.encode(bytes, at, at + size, out)) return false;
        at += size;
      }
      out.byte(0);
      return true;
    },
    encodeText(bytes, start, end, out) {
      const items = simpleItems(bytes, start, end, delimiter.charCodeAt(0));
      if (!items) return false;
      if (items.length > 0) out.long(items.length);
      for (const item of items) {
        if (item === null) {
          out.byte(0);
          continue;
        }
        out.byte(2);
        if (!element.encodeText(item, 0, item.length, out)) return false;
      }
      out.byte(0);
      return true;
    },
    text(bytes, start) {
      const dimensions = bytes.readInt32BE(start);
      if (dimensions === 0) return '{}';
      const lengths: number[] = [];
      const bounds: number[] = [];
      for (let d = 0; d < dimensions; d++) {
        lengths.push(bytes.readInt32BE(start + 12 + d * 8));
        bounds.push(bytes.readInt32BE(start + 16 + d * 8));
      }
      let at = start + 12 + dimensions * 8;
      const level = (d: number): string => {
        const items: string[] = [];
        for (let i = 0; i < lengths[d]!; i++) {
          if (d + 1 < dimensions) {
            items.push(level(d + 1));
            continue;
          }
          const size = bytes.readInt32BE(at);
          at += 4;
          items.push(size < 0 ? 'NULL' : quoteItem(element.text(bytes, at, at + size)));
          if (size > 0) at += size;
        }
        return `{${items.join(delimiter)}}`;
      };
      const prefix = bounds.every((bound) => bound === 1)
        ? ''
        : `${bounds.map((bound, d) => `[${bound}:${bound + lengths[d]! - 1}]`).join('')}=`;
      return prefix + level(0);
    },
    decode(reader) {
      const items: string[] = [];
      for (let count = reader.long(); count !== 0; count = reader.long()) {
        if (count < 0) {
          reader.long();
          count = -count;
        }
        if (count > reader.bytes.length - reader.position)
          throw new TidemarkError('TM206', 'an array in a record is longer than the record');
        for (let i = 0; i < count; i++) {
          items.push(reader.long() === 0 ? 'NULL' : quoteItem(element.decode(reader)));
        }
      }
      return `{${items.join(delimiter)}}`;
    },
  };
}

/** Quoting as array_out does it. */
function quoteFor(delimiter: string): (item: string) => string {
  const special = new RegExp(`[{}"${delimiter}\\\\ \\t\\n\\v\\f\\r]`);
  return (item) => {
    if (item !== '' && !special.test(item) && item.toUpperCase() !== 'NULL') return item;
    return `"${item.replace(/["\\]/g, '\\$&')}"`;
  };
}

const quote = 0x22;
const backslash = 0x5c;
const open = 0x7b;
const close = 0x7d;

function unescaped(item: Buffer): Buffer {
  if (!item.includes(backslash)) return item;
  const plain = Buffer.allocUnsafe(item.length);
  let length = 0;
  for (let at = 0; at < item.length; at++) {
    if (item[at] === backslash) at++;
    plain[length++] = item[at]!;
  }
  return plain.subarray(0, length);
}

/** The items of an array's text; null where it has other bounds than 1 or more than one dimension. */
function simpleItems(bytes: Buffer, start: number, end: number, delimiter: number): (Buffer | null)[] | null {
  if (bytes[start] !== open || bytes[start + 1] === open) return null;
  const items: (Buffer | null)[] = [];
  let at = start + 1;
  while (at < end && bytes[at] !== close) {
    if (bytes[at] === quote) {
      const from = at + 1;
      for (at++; at < end && bytes[at] !== quote; at++) if (bytes[at] === backslash) at++;
      items.push(unescaped(bytes.subarray(from, at)));
      at++;
    } else {
      const from = at;
      while (at < end && bytes[at] !== delimiter && bytes[at] !== close) at++;
      const item = bytes.subarray(from, at);
      items.push(item.length === 4 && item.toString('latin1') === 'NULL' ? null : item);
    }
    if (bytes[at] === delimiter) at++;
  }
  return items;
}
