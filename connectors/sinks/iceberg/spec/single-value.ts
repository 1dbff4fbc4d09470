/** Single values as bytes, and their order (Iceberg specification, Appendix D): what bounds are made of. */
import { malformed } from '../failures.ts';
import { type PrimitiveType, typeKind, type Value } from './types.ts';

/** @throws TypeError where the value is not of the type, which is a mistake of the caller. */
export function valueToBytes(type: PrimitiveType, value: Value): Buffer {
  switch (typeKind(type)) {
    case 'boolean':
      return Buffer.from([value === true ? 1 : 0]);
    case 'int':
    case 'date': {
      const bytes = Buffer.alloc(4);
      bytes.writeInt32LE(value as number);
      return bytes;
    }
    case 'long':
    case 'time':
    case 'timestamp':
    case 'timestamptz':
    case 'timestamp_ns':
    case 'timestamptz_ns': {
      const bytes = Buffer.alloc(8);
      bytes.writeBigInt64LE(value as bigint);
      return bytes;
    }
    case 'float': {
      const bytes = Buffer.alloc(4);
      bytes.writeFloatLE(value as number);
      return bytes;
    }
    case 'double': {
      const bytes = Buffer.alloc(8);
      bytes.writeDoubleLE(value as number);
      return bytes;
    }
    case 'string':
      return Buffer.from(value as string, 'utf8');
    case 'uuid':
      return Buffer.from((value as string).replaceAll('-', ''), 'hex');
    case 'decimal':
      return unscaledToBytes(value as bigint);
    default:
      return Buffer.from(value as Uint8Array);
  }
}

/**
 * Also of a value that was written before its column's type was promoted: int as long, float as double.
 * @throws TidemarkError TM405
 */
export function valueFromBytes(type: PrimitiveType, bytes: Uint8Array): Value {
  const buffer = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const { length } = buffer;
  switch (typeKind(type)) {
    case 'boolean':
      if (length === 1) return buffer[0] !== 0;
      break;
    case 'int':
    case 'date':
      if (length === 4) return buffer.readInt32LE();
      break;
    case 'long':
      if (length === 4) return BigInt(buffer.readInt32LE());
      if (length === 8) return buffer.readBigInt64LE();
      break;
    case 'time':
    case 'timestamp':
    case 'timestamptz':
    case 'timestamp_ns':
    case 'timestamptz_ns':
      if (length === 8) return buffer.readBigInt64LE();
      break;
    case 'float':
      if (length === 4) return buffer.readFloatLE();
      break;
    case 'double':
      if (length === 4) return buffer.readFloatLE();
      if (length === 8) return buffer.readDoubleLE();
      break;
    case 'string':
      return buffer.toString('utf8');
    case 'uuid':
      if (length === 16) return uuidFromBytes(buffer);
      break;
    case 'decimal':
      if (length > 0) return unscaledFromBytes(buffer);
      break;
    default:
      return buffer;
  }
  throw malformed(`${length} bytes are no ${type}`);
}

export function uuidFromBytes(bytes: Uint8Array): string {
  const hex = Buffer.from(bytes).toString('hex');
  return `${hex.slice(0, 8)}-${hex.slice(8, 12)}-${hex.slice(12, 16)}-${hex.slice(16, 20)}-${hex.slice(20)}`;
}

/** Two's complement, big-endian; as few bytes as hold it, or so many. */
export function unscaledToBytes(unscaled: bigint, length = minimalLength(unscaled)): Buffer {
  const hex = BigInt.asUintN(length * 8, unscaled)
    .toString(16)
    .padStart(length * 2, '0');
  return Buffer.from(hex, 'hex');
}

function minimalLength(unscaled: bigint): number {
  // The sign needs a bit of its own.
  const bits = (unscaled < 0n ? -unscaled - 1n : unscaled).toString(2);
  return Math.floor((bits === '0' ? 0 : bits.length) / 8) + 1;
}

export function unscaledFromBytes(bytes: Uint8Array): bigint {
  return BigInt.asIntN(bytes.length * 8, BigInt(`0x${Buffer.from(bytes).toString('hex')}`));
}

/**
 * Negative, zero or positive. Text goes by code points, bytes and uuids by unsigned bytes, -0 before 0 and NaN last.
 */
export function compareValues(type: PrimitiveType, left: Value, right: Value): number {
  switch (typeKind(type)) {
    case 'string':
      // JavaScript would compare UTF-16 units, where U+FFFF comes after everything beyond it.
      return Buffer.compare(Buffer.from(left as string, 'utf8'), Buffer.from(right as string, 'utf8'));
    case 'fixed':
    case 'binary':
      return Buffer.compare(left as Uint8Array, right as Uint8Array);
    case 'float':
    case 'double':
      return compareFloats(left as number, right as number);
    default:
      return left < right ? -1 : left > right ? 1 : 0;
  }
}

function compareFloats(left: number, right: number): number {
  if (Object.is(left, right)) return 0;
  if (Number.isNaN(left)) return 1;
  if (Number.isNaN(right)) return -1;
  if (left === right) return Object.is(left, -0) ? -1 : 1;
  return left < right ? -1 : 1;
}
