/** numeric: base-10000 digits on the wire; Connect's Decimal, or Debezium's VariableScaleDecimal without a scale. */
import type { CellReceiver } from '../../connector/native-row.ts';
import type { ByteReader, ByteWriter } from '../byte-writer.ts';
import type { Codec } from './codec.ts';

const negative = 0x4000;
const special = 0xc000; // NaN, Infinity and -Infinity have both upper bits of the sign word set

interface Unscaled {
  value: bigint;
  /** Decimal digits after the point, as displayed. */
  scale: number;
}

/** Binary layout: ndigits, weight, sign, dscale (int16 each), then the digits (src/backend/utils/adt/numeric.c). */
function unscaled(bytes: Buffer, start: number): Unscaled | null {
  const digits = bytes.readInt16BE(start);
  const weight = bytes.readInt16BE(start + 2);
  const sign = bytes.readUInt16BE(start + 4);
  const scale = bytes.readInt16BE(start + 6);
  if ((sign & special) === special) return null;
  // The digits stand for value × 10000^(weight − digits + 1); shift that to × 10^−scale.
  let value = 0n;
  if (digits <= 3) {
    let small = 0;
    for (let i = 0; i < digits; i++) small = small * 10000 + bytes.readInt16BE(start + 8 + i * 2);
    value = BigInt(small);
  } else
    for (let i = 0; i < digits; i++) value = value * 10000n + BigInt(bytes.readInt16BE(start + 8 + i * 2));
  const shift = (weight - digits + 1) * 4 + scale;
  if (shift > 0) value *= 10n ** BigInt(shift);
  else if (shift < 0) value /= 10n ** BigInt(-shift);
  return { value: sign === negative ? -value : value, scale };
}

/** Most numbers of most tables: of few digits, so that no bigint has to be made of them. Else NaN. */
function smallUnscaled(bytes: Buffer, start: number): number {
  const digits = bytes.readInt16BE(start);
  const sign = bytes.readUInt16BE(start + 4);
  if (digits > 3 || (sign & special) === special) return Number.NaN;
  let value = 0;
  for (let i = 0; i < digits; i++) value = value * 10000 + bytes.readInt16BE(start + 8 + i * 2);
  const shift = (bytes.readInt16BE(start + 2) - digits + 1) * 4 + bytes.readInt16BE(start + 6);
  if (shift < -12 || shift > 12) return Number.NaN;
  // Divides without a rest: no digit is stored beyond the scale.
  value = shift >= 0 ? value * powersOfTen[shift]! : Math.floor(value / powersOfTen[-shift]!);
  if (value > 0x7fffffff) return Number.NaN;
  return sign === negative ? -value : value;
}

const powersOfTen = Array.from({ length: 13 }, (_, exponent) => 10 ** exponent);

/** From numeric_out's text; null for NaN and the infinities. */
function unscaledOfText(bytes: Buffer, start: number, end: number): Unscaled | null {
  const text = bytes.toString('latin1', start, end);
  if (/[Ny]$/.test(text)) return null;
  const point = text.indexOf('.');
  if (point < 0) return { value: BigInt(text), scale: 0 };
  return { value: BigInt(text.slice(0, point) + text.slice(point + 1)), scale: text.length - point - 1 };
}

function specialText(bytes: Buffer, start: number): string {
  const sign = bytes.readUInt16BE(start + 4);
  return sign === 0xc000 ? 'NaN' : sign === 0xd000 ? 'Infinity' : '-Infinity';
}

/** Texts of numbers below, by scale: amounts and scores of a table are few, and a text is made of several. */
const shortTexts: string[][] = [];
const mostShort = 10_001;
const mostShortScale = 6;

/** @param value an exact integer */
function decimalText(value: bigint | number, scale: number): string {
  if (typeof value !== 'number' || value < 0 || value >= mostShort || scale > mostShortScale)
    return madeText(value, scale);
  let texts = shortTexts[scale];
  if (!texts) {
    texts = new Array(mostShort);
    shortTexts[scale] = texts;
  }
  let text = texts[value];
  if (text === undefined) {
    text = madeText(value, scale);
    texts[value] = text;
  }
  return text;
}

function madeText(value: bigint | number, scale: number): string {
  const sign = value < 0 ? '-' : '';
  const digits = (value < 0 ? -value : value).toString().padStart(scale + 1, '0');
  return scale > 0 ? `${sign}${digits.slice(0, -scale)}.${digits.slice(-scale)}` : `${sign}${digits}`;
}

/** Big-endian two's complement in as few bytes as hold it, with its Avro length. @param small of 32 bits */
function writeSmall(out: ByteWriter, small: number): void {
  const width =
    small >= -0x80 && small < 0x80
      ? 1
      : small >= -0x8000 && small < 0x8000
        ? 2
        : small >= -0x800000 && small < 0x800000
          ? 3
          : 4;
  out.long(width);
  out.ensure(4);
  for (let shift = (width - 1) * 8; shift >= 0; shift -= 8)
    out.bytes[out.position++] = (small >> shift) & 0xff;
}

function writeUnscaled(out: ByteWriter, value: bigint): void {
  if (value >= -0x80000000n && value <= 0x7fffffffn) {
    writeSmall(out, Number(value));
    return;
  }
  let width = 5;
  while (BigInt.asIntN(width * 8, value) !== value) width++;
  const hex = BigInt.asUintN(width * 8, value)
    .toString(16)
    .padStart(width * 2, '0');
  out.long(width);
  out.ensure(width);
  out.position += out.bytes.write(hex, out.position, width, 'hex');
}

function readUnscaled(reader: ByteReader): bigint {
  const view = reader.lengthPrefixed();
  if (view.length === 0) return 0n;
  if (view.length <= 6) return BigInt(view.readIntBE(0, view.length));
  return BigInt.asIntN(view.length * 8, BigInt(`0x${view.toString('hex')}`));
}

/** numeric(precision, scale) with a scale of zero or more. NaN and infinities go to the exactness header. */
export function decimal(precision: number, scale: number): Codec {
  return {
    schema: {
      type: 'bytes',
      scale,
      precision,
      'connect.version': 1,
      'connect.parameters': { scale: String(scale), 'connect.decimal.precision': String(precision) },
      'connect.name': 'org.apache.kafka.connect.data.Decimal',
      logicalType: 'decimal',
    },
    encode(bytes, start, _end, out) {
      const small = smallUnscaled(bytes, start);
      if (!Number.isNaN(small)) {
        if (bytes.readInt16BE(start + 6) !== scale) return false;
        writeSmall(out, small);
        return true;
      }
      const number = unscaled(bytes, start);
      // The decoder knows the column's scale alone: digits of another scale would be another number.
      if (!number || number.scale !== scale) return false;
      writeUnscaled(out, number.value);
      return true;
    },
    encodeText(bytes, start, end, out) {
      const number = unscaledOfText(bytes, start, end);
      if (!number || number.scale !== scale) return false;
      writeUnscaled(out, number.value);
      return true;
    },
    text(bytes, start) {
      const number = unscaled(bytes, start);
      return number ? decimalText(number.value, number.scale) : specialText(bytes, start);
    },
    decode: (reader) => readDecimalText(reader, scale),
    pass: (reader, to) => passDecimal(reader, to, scale),
  };
}

/** Of up to six bytes, which a number holds exactly; else NaN, and nothing is read. */
function readSmall(reader: ByteReader): number {
  const at = reader.position;
  const length = reader.long();
  if (length > 0 && length <= 6) {
    reader.position += length;
    return reader.bytes.readIntBE(reader.position - length, length);
  }
  reader.position = at;
  return Number.NaN;
}

function passDecimal(reader: ByteReader, to: CellReceiver, scale: number): void {
  const value = to.decimal ? readSmall(reader) : Number.NaN;
  if (Number.isNaN(value)) to.text(readDecimalText(reader, scale));
  else to.decimal!(value, scale);
}

function readDecimalText(reader: ByteReader, scale: number): string {
  const value = readSmall(reader);
  return decimalText(Number.isNaN(value) ? readUnscaled(reader) : value, scale);
}

export const variableScaleDecimalName = 'io.debezium.data.VariableScaleDecimal';

export const variableScaleDecimal: Codec = {
  schema: {
    type: 'record',
    name: 'VariableScaleDecimal',
    namespace: 'io.debezium.data',
    fields: [
      { name: 'scale', type: 'int' },
      { name: 'value', type: 'bytes' },
    ],
    'connect.doc': 'Variable scaled decimal',
    'connect.version': 1,
    'connect.name': variableScaleDecimalName,
  },
  encode(bytes, start, _end, out) {
    const small = smallUnscaled(bytes, start);
    if (!Number.isNaN(small)) {
      out.long(bytes.readInt16BE(start + 6));
      writeSmall(out, small);
      return true;
    }
    const number = unscaled(bytes, start);
    if (!number) return false;
    out.long(number.scale);
    writeUnscaled(out, number.value);
    return true;
  },
  encodeText(bytes, start, end, out) {
    const number = unscaledOfText(bytes, start, end);
    if (!number) return false;
    out.long(number.scale);
    writeUnscaled(out, number.value);
    return true;
  },
  text(bytes, start) {
    const number = unscaled(bytes, start);
    return number ? decimalText(number.value, number.scale) : specialText(bytes, start);
  },
  decode(reader) {
    const scale = reader.long();
    return readDecimalText(reader, scale);
  },
  pass: (reader, to) => passDecimal(reader, to, reader.long()),
};

/**
 * A key must be exact, and NaN is a key like any other. Without digits at all it is no number to anybody, and no
 * number looks like it.
 */
export function decimalKey(precision: number, scale: number): Codec {
  const codec = decimal(precision, scale);
  return {
    ...codec,
    encode: (bytes, start, end, out) =>
      codec.encode(bytes, start, end, out) || writeNaN(codec.text(bytes, start, end), out),
    encodeText: (bytes, start, end, out) =>
      codec.encodeText(bytes, start, end, out) || writeNaN(bytes.toString('latin1', start, end), out),
    decode(reader) {
      if (reader.bytes[reader.position] !== 0) return codec.decode(reader);
      reader.position++;
      return 'NaN';
    },
    pass(reader, to) {
      if (reader.bytes[reader.position] !== 0) return passDecimal(reader, to, scale);
      reader.position++;
      to.text('NaN');
    },
  };
}

function writeNaN(text: string, out: ByteWriter): boolean {
  if (text !== 'NaN') return false;
  out.long(0);
  return true;
}

const specials = ['-Infinity', 'NaN', 'Infinity'];

/** As decimalKey; the scale says which of the three that are no numbers it is. */
export const variableScaleDecimalKey: Codec = {
  ...variableScaleDecimal,
  encode: (bytes, start, end, out) =>
    variableScaleDecimal.encode(bytes, start, end, out) ||
    writeSpecial(variableScaleDecimal.text(bytes, start, end), out),
  encodeText: (bytes, start, end, out) =>
    variableScaleDecimal.encodeText(bytes, start, end, out) ||
    writeSpecial(bytes.toString('latin1', start, end), out),
  decode(reader) {
    const scale = reader.long();
    if (reader.bytes[reader.position] !== 0) return readDecimalText(reader, scale);
    reader.position++;
    return specials[scale + 1] ?? 'NaN';
  },
  pass(reader, to) {
    const at = reader.position;
    const scale = reader.long();
    if (reader.bytes[reader.position] !== 0) return passDecimal(reader, to, scale);
    reader.position = at;
    to.text(variableScaleDecimalKey.decode(reader));
  },
};

function writeSpecial(text: string, out: ByteWriter): boolean {
  out.long(specials.indexOf(text) - 1);
  out.long(0);
  return true;
}

/**
 * money: 64 bits of the smallest unit. Two digits after the point, as lc_monetary C has it and Debezium by default;
 * the text is the one under lc_monetary C.
 */
export const money: Codec = {
  schema: {
    type: 'bytes',
    scale: 2,
    precision: 64,
    'connect.version': 1,
    'connect.parameters': { scale: '2' },
    'connect.name': 'org.apache.kafka.connect.data.Decimal',
    logicalType: 'decimal',
  },
  encode(bytes, start, _end, out) {
    writeUnscaled(out, bytes.readBigInt64BE(start));
    return true;
  },
  encodeText(bytes, start, end, out) {
    writeUnscaled(out, BigInt(bytes.toString('latin1', start, end).replace(/[$,.]/g, '')));
    return true;
  },
  text: (bytes, start) => moneyText(bytes.readBigInt64BE(start)),
  decode: (reader) => moneyText(readUnscaled(reader)),
};

function moneyText(value: bigint): string {
  const [whole, fraction] = decimalText(value < 0n ? -value : value, 2).split('.') as [string, string];
  return `${value < 0n ? '-' : ''}$${whole.replace(/\B(?=(\d{3})+$)/g, ',')}.${fraction}`;
}
