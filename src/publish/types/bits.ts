/**
 * bit and bit varying as Debezium has them: one bit is a boolean, more are `Bits`, bytes with the last bit as the
 * lowest of the first byte, as many as the highest set bit needs. Binary form: number of bits, then the bits from the
 * highest of the first byte on.
 */
import type { ByteWriter } from '../byte-writer.ts';
import type { BinaryText, Codec } from './codec.ts';

export const bitText: BinaryText = (bytes, start) => {
  const length = bytes.readInt32BE(start);
  let text = '';
  for (let i = 0; i < length; i++) text += (bytes[start + 4 + (i >> 3)]! >> (7 - (i & 7))) & 1;
  return text;
};

/** @param length of bit(n): then the length is known; null for bit varying, where only the header has it */
export function bits(length: number | null, most: number): Codec {
  const exact = length !== null;
  if (most === 1) {
    const write = (text: string, out: ByteWriter) => {
      out.byte(text === '1' ? 1 : 0);
      if (text === '') out.inexact = true;
      return true;
    };
    return {
      schema: 'boolean',
      encode: (bytes, start, end, out) => write(bitText(bytes, start, end), out),
      encodeText: (bytes, start, end, out) => write(bytes.toString('latin1', start, end), out),
      text: bitText,
      decode: (reader) => (reader.byte() ? '1' : '0'),
    };
  }
  const write = (text: string, out: ByteWriter) => {
    const first = text.indexOf('1');
    const count = first < 0 ? 0 : text.length - first;
    const size = (count + 7) >> 3;
    out.long(size);
    out.ensure(size);
    for (let i = 0; i < size; i++) {
      let byte = 0;
      for (let bit = 0; bit < 8; bit++) if (text[text.length - 1 - i * 8 - bit] === '1') byte |= 1 << bit;
      out.bytes[out.position++] = byte;
    }
    if (!exact) out.inexact = true;
    return true;
  };
  return {
    schema: {
      type: 'bytes',
      'connect.version': 1,
      'connect.parameters': { length: String(most) },
      'connect.name': 'io.debezium.data.Bits',
    },
    encode: (bytes, start, end, out) => write(bitText(bytes, start, end), out),
    encodeText: (bytes, start, end, out) => write(bytes.toString('latin1', start, end), out),
    text: bitText,
    decode(reader) {
      let text = '';
      for (const byte of reader.lengthPrefixed()) text = byte.toString(2).padStart(8, '0') + text;
      const significant = text.replace(/^0+/, '');
      return length === null ? significant : significant.padStart(length, '0');
    },
  };
}
