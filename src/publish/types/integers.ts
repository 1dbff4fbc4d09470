/** Booleans, integers and floats. */
import type { ByteReader, ByteWriter } from '../byte-writer.ts';
import type { Codec } from './codec.ts';

export const bool: Codec = {
  schema: 'boolean',
  encode(bytes, start, _end, out) {
    out.byte(bytes[start]! ? 1 : 0);
    return true;
  },
  text: (bytes, start) => (bytes[start] ? 't' : 'f'),
  decode: (reader) => (reader.byte() ? 't' : 'f'),
};

export const int2: Codec = {
  schema: { type: 'int', 'connect.type': 'int16' },
  encode(bytes, start, _end, out) {
    out.long(bytes.readInt16BE(start));
    return true;
  },
  text: (bytes, start) => String(bytes.readInt16BE(start)),
  decode: (reader) => String(reader.long()),
};

export const int4: Codec = {
  schema: 'int',
  encode(bytes, start, _end, out) {
    out.long(bytes.readInt32BE(start));
    return true;
  },
  text: (bytes, start) => String(bytes.readInt32BE(start)),
  decode: (reader) => String(reader.long()),
};

export const int8: Codec = {
  schema: 'long',
  encode(bytes, start, _end, out) {
    writeInt64(bytes, start, out);
    return true;
  },
  text: (bytes, start) => String(bytes.readBigInt64BE(start)),
  decode: readInt64Text,
};

export const oid: Codec = {
  schema: 'long',
  encode(bytes, start, _end, out) {
    out.long(bytes.readUInt32BE(start));
    return true;
  },
  text: (bytes, start) => String(bytes.readUInt32BE(start)),
  decode: (reader) => String(reader.long()),
};

export const float4: Codec = {
  schema: 'float',
  encode(bytes, start, _end, out) {
    out.ensure(4);
    out.bytes.writeFloatLE(bytes.readFloatBE(start), out.position);
    out.position += 4;
    return true;
  },
  text: (bytes, start) => float4Text(bytes.readFloatBE(start)),
  decode(reader) {
    const value = reader.bytes.readFloatLE(reader.position);
    reader.position += 4;
    return float4Text(value);
  },
};

export const float8: Codec = {
  schema: 'double',
  encode(bytes, start, _end, out) {
    out.ensure(8);
    out.bytes.writeDoubleLE(bytes.readDoubleBE(start), out.position);
    out.position += 8;
    return true;
  },
  text: (bytes, start) => float8Text(bytes.readDoubleBE(start)),
  decode(reader) {
    const value = reader.bytes.readDoubleLE(reader.position);
    reader.position += 8;
    return float8Text(value);
  },
};

/** Without a bigint where the value is a safe integer, which nearly all are. */
export function writeInt64(bytes: Buffer, start: number, out: ByteWriter): void {
  const high = bytes.readInt32BE(start);
  if (high >= -0x100000 && high < 0x100000) out.long(high * 0x100000000 + bytes.readUInt32BE(start + 4));
  else out.bigLong(bytes.readBigInt64BE(start));
}

function readInt64Text(reader: ByteReader): string {
  const at = reader.position;
  const value = reader.long();
  if (Number.isSafeInteger(value)) return String(value);
  reader.position = at;
  return String(reader.bigLong());
}

/** Shortest text that reads back as the same double, spelled the way Postgres prints it. */
export function float8Text(value: number): string {
  return postgresFloat(value, shortestDigits(value), 15);
}

/** As float8Text, for a value of 24 bits of precision. */
export function float4Text(value: number): string {
  if (!Number.isFinite(value) || value === 0) return postgresFloat(value, { digits: '0', exponent: 0 }, 6);
  for (let precision = 1; precision <= 9; precision++) {
    const text = value.toExponential(precision - 1);
    if (Math.fround(Number(text)) === value) return postgresFloat(value, parseExponential(text), 6);
  }
  return postgresFloat(value, shortestDigits(value), 6);
}

interface Digits {
  digits: string;
  /** Decimal exponent of the first digit. */
  exponent: number;
}

function shortestDigits(value: number): Digits {
  if (!Number.isFinite(value) || value === 0) return { digits: '0', exponent: 0 };
  return parseExponential(value.toExponential());
}

function parseExponential(text: string): Digits {
  const [mantissa, exponent] = text.replace('-', text.startsWith('-') ? '' : '-').split('e') as [
    string,
    string,
  ];
  return { digits: mantissa.replace('.', '').replace(/0+$/, '') || '0', exponent: Number(exponent) };
}

/** Postgres prints plain digits for exponents from -4 up to (not including) `limit`, else scientific. */
function postgresFloat(value: number, { digits, exponent }: Digits, limit: number): string {
  if (Number.isNaN(value)) return 'NaN';
  if (value === Number.POSITIVE_INFINITY) return 'Infinity';
  if (value === Number.NEGATIVE_INFINITY) return '-Infinity';
  const sign = value < 0 || Object.is(value, -0) ? '-' : '';
  if (exponent < -4 || exponent >= limit) {
    const fraction = digits.length > 1 ? `.${digits.slice(1)}` : '';
    const size = Math.abs(exponent).toString().padStart(2, '0');
    return `${sign}${digits[0]}${fraction}e${exponent < 0 ? '-' : '+'}${size}`;
  }
  if (exponent < 0) return `${sign}0.${'0'.repeat(-exponent - 1)}${digits}`;
  if (digits.length <= exponent + 1) return `${sign}${digits.padEnd(exponent + 1, '0')}`;
  return `${sign}${digits.slice(0, exponent + 1)}.${digits.slice(exponent + 1)}`;
}
