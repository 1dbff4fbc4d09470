/** Booleans, integers and floats. */
import type { CellReceiver } from '../../connector/native-row.ts';
import type { ByteReader, ByteWriter } from '../byte-writer.ts';
import type { Codec } from './codec.ts';

export const bool: Codec = {
  schema: 'boolean',
  encode(bytes, start, _end, out) {
    out.byte(bytes[start]! ? 1 : 0);
    return true;
  },
  encodeText(bytes, start, _end, out) {
    out.byte(bytes[start] === 0x74 ? 1 : 0);
    return true;
  },
  text: (bytes, start) => (bytes[start] ? 't' : 'f'),
  decode: (reader) => (reader.byte() ? 't' : 'f'),
  pass(reader, to) {
    const value = reader.byte() !== 0;
    if (to.boolean) to.boolean(value);
    else to.text(value ? 't' : 'f');
  },
};

export const int2: Codec = {
  schema: { type: 'int', 'connect.type': 'int16' },
  encode(bytes, start, _end, out) {
    out.long(bytes.readInt16BE(start));
    return true;
  },
  encodeText: writeIntegerText,
  text: (bytes, start) => String(bytes.readInt16BE(start)),
  decode: (reader) => String(reader.long()),
  pass: passInteger,
};

export const int4: Codec = {
  schema: 'int',
  encode(bytes, start, _end, out) {
    out.long(bytes.readInt32BE(start));
    return true;
  },
  encodeText: writeIntegerText,
  text: (bytes, start) => String(bytes.readInt32BE(start)),
  decode: (reader) => String(reader.long()),
  pass: passInteger,
};

export const int8: Codec = {
  schema: 'long',
  encode(bytes, start, _end, out) {
    writeInt64(bytes, start, out);
    return true;
  },
  encodeText: writeIntegerText,
  text: (bytes, start) => String(bytes.readBigInt64BE(start)),
  decode: readInt64Text,
  pass: passInteger,
};

export const oid: Codec = {
  schema: 'long',
  encode(bytes, start, _end, out) {
    out.long(bytes.readUInt32BE(start));
    return true;
  },
  encodeText: writeIntegerText,
  text: (bytes, start) => String(bytes.readUInt32BE(start)),
  decode: (reader) => String(reader.long()),
  pass: passInteger,
};

export const float4: Codec = {
  schema: 'float',
  encode(bytes, start, _end, out) {
    out.ensure(4);
    out.bytes.writeFloatLE(bytes.readFloatBE(start), out.position);
    out.position += 4;
    return true;
  },
  encodeText(bytes, start, end, out) {
    out.ensure(4);
    out.bytes.writeFloatLE(Number(bytes.toString('latin1', start, end)), out.position);
    out.position += 4;
    return true;
  },
  text: (bytes, start) => float4Text(bytes.readFloatBE(start)),
  decode(reader) {
    const value = reader.bytes.readFloatLE(reader.position);
    reader.position += 4;
    return float4Text(value);
  },
  pass(reader, to) {
    if (!to.real) return to.text(float4.decode(reader));
    reader.position += 4;
    to.real(reader.bytes.readFloatLE(reader.position - 4));
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
  encodeText(bytes, start, end, out) {
    out.ensure(8);
    out.bytes.writeDoubleLE(Number(bytes.toString('latin1', start, end)), out.position);
    out.position += 8;
    return true;
  },
  text: (bytes, start) => float8Text(bytes.readDoubleBE(start)),
  decode(reader) {
    const value = reader.bytes.readDoubleLE(reader.position);
    reader.position += 8;
    return float8Text(value);
  },
  pass(reader, to) {
    if (!to.double) return to.text(float8.decode(reader));
    reader.position += 8;
    to.double(reader.bytes.readDoubleLE(reader.position - 8));
  },
};

/** Without a bigint where the value is a safe integer, which nearly all are. */
export function writeInt64(bytes: Buffer, start: number, out: ByteWriter): void {
  const high = bytes.readInt32BE(start);
  if (high >= -0x100000 && high < 0x100000) out.long(high * 0x100000000 + bytes.readUInt32BE(start + 4));
  else out.bigLong(bytes.readBigInt64BE(start));
}

function writeIntegerText(bytes: Buffer, start: number, end: number, out: ByteWriter): true {
  // 15 digits and a sign are a safe integer.
  if (end - start <= 15) out.long(Number(bytes.toString('latin1', start, end)));
  else out.bigLong(BigInt(bytes.toString('latin1', start, end)));
  return true;
}

function readInt64Text(reader: ByteReader): string {
  const value = safeLong(reader);
  return String(Number.isNaN(value) ? reader.bigLong() : value);
}

function passInteger(reader: ByteReader, to: CellReceiver): void {
  const value = to.integer ? safeLong(reader) : Number.NaN;
  if (Number.isNaN(value)) to.text(readInt64Text(reader));
  else to.integer!(value);
}

/** A long that a number holds exactly; else NaN, and nothing is read. */
export function safeLong(reader: ByteReader): number {
  const at = reader.position;
  const value = reader.long();
  // Below −2^52 the odd zig-zag number is past 2^53, and rounding it makes it even: another sign.
  if (value > -(2 ** 52) && value < 2 ** 52) return value;
  reader.position = at;
  return Number.NaN;
}

/** Shortest text that reads back as the same double, spelled the way Postgres prints it. */
export function float8Text(value: number): string {
  return postgresFloat(value, shortestDigits(value), 15);
}

/** As float8Text, for a value of 24 bits of precision: the fewest digits strictly between the neighbours' midpoints. */
export function float4Text(value: number): string {
  if (!Number.isFinite(value) || value === 0) return postgresFloat(value, { digits: '0', exponent: 0 }, 6);
  const magnitude = Math.abs(value);
  singleBits.setFloat32(0, magnitude);
  const bits = singleBits.getUint32(0);
  singleBits.setUint32(0, bits - 1);
  const below = singleBits.getFloat32(0);
  singleBits.setUint32(0, bits + 1);
  const above = singleBits.getFloat32(0);
  const low = (below + magnitude) / 2;
  const high = Number.isFinite(above) ? (magnitude + above) / 2 : magnitude + (magnitude - low);
  for (let precision = 1; ; precision++) {
    const { digits, exponent } = parseExponential(magnitude.toExponential(precision - 1), false);
    const near = Number(digits);
    // JavaScript rounds a half up, Postgres to even. At a power of two the gap below is half the gap above: there
    // the next digits up may fit where the nearest do not.
    const half =
      near % 2 === 1 &&
      magnitude
        .toExponential(25)
        .slice(precision + 1)
        .startsWith(halfUp(precision));
    for (const found of half ? [near - 1, near] : [near, near + 1]) {
      const read = Number(`${found}e${exponent - precision + 1}`);
      if (read > low && read < high) {
        return postgresFloat(value, { digits: String(found).replace(/0+$/, ''), exponent }, 6);
      }
    }
  }
}

/** What follows the first digits of a 26-digit number that lies halfway. */
function halfUp(precision: number): string {
  return `5${'0'.repeat(25 - precision)}e`;
}

const singleBits = new DataView(new ArrayBuffer(4));
const doubleBits = new DataView(new ArrayBuffer(8));

interface Digits {
  digits: string;
  /** Decimal exponent of the first digit. */
  exponent: number;
}

function shortestDigits(value: number): Digits {
  if (!Number.isFinite(value) || value === 0) return { digits: '0', exponent: 0 };
  const magnitude = Math.abs(value);
  const shortest = parseExponential(magnitude.toExponential());
  // JavaScript takes digits that lie exactly between two doubles (1e23), Postgres looks for more. So few digits can
  // lie there only above 2^53, and below 1e40: the midpoint has 54 bits and must hold all the fives of 10^n.
  if (magnitude < 2 ** 53 || magnitude > 1e40 || !isMidpoint(magnitude, shortest)) return shortest;
  for (let precision = shortest.digits.length + 1; precision <= 17; precision++) {
    const longer = parseExponential(magnitude.toExponential(precision - 1));
    const reads = Number(`${longer.digits}e${longer.exponent - longer.digits.length + 1}`);
    if (reads === magnitude && !isMidpoint(magnitude, longer)) return longer;
  }
  return shortest;
}

/** Whether the digits lie exactly between a whole double and its neighbour. */
function isMidpoint(magnitude: number, { digits, exponent }: Digits): boolean {
  const shown = BigInt(digits) * 10n ** BigInt(exponent + 1 - digits.length);
  const exact = BigInt(magnitude);
  doubleBits.setFloat64(0, magnitude);
  doubleBits.setBigUint64(0, doubleBits.getBigUint64(0) + (shown > exact ? 1n : -1n));
  return shown * 2n === exact + BigInt(doubleBits.getFloat64(0));
}

/** @param trim whether zeros at the end go */
function parseExponential(text: string, trim = true): Digits {
  const [mantissa, exponent] = text.split('e') as [string, string];
  const digits = mantissa.replace('.', '');
  return { digits: (trim && digits.replace(/0+$/, '')) || digits, exponent: Number(exponent) };
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
