/**
 * One-dimensional arrays with lower bound 1 become Avro arrays of nullable items; any other array is null with its
 * text in the exactness header.
 */
import { TidemarkError } from '../../platform/errors.ts';
import type { AvroSchema, Codec } from './codec.ts';

/** @param element codec of the elements; @param schema what stands for the element in the array's schema. */
export function arrayOf(element: Codec, schema: AvroSchema = element.schema): Codec {
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
        return `{${items.join(',')}}`;
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
      return `{${items.join(',')}}`;
    },
  };
}

/** Quoting as array_out does it, for the comma delimiter. */
export function quoteItem(item: string): string {
  if (item !== '' && !/[{}",\\ \t\n\v\f\r]/.test(item) && item.toUpperCase() !== 'NULL') return item;
  return `"${item.replace(/["\\]/g, '\\$&')}"`;
}
