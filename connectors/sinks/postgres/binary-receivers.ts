/** Values in the forms that they travel in, to the bytes that their type's receive function takes. */
import type { CellReceiver } from '../../../src/connector/native-row.ts';
import { uuidBytes } from '../../../src/connector/uuid-bytes.ts';
import { type BinaryWriter, type CellEncoder, numericHeader, writeInt64 } from './binary-parts.ts';

/** Whatever has no shorter way goes by its text. */
export class TextReceiver implements CellReceiver {
  protected readonly to: BinaryWriter;
  readonly #encoder: CellEncoder;

  constructor(to: BinaryWriter, encoder: CellEncoder) {
    this.to = to;
    this.#encoder = encoder;
  }

  nothing(): void {
    const { to } = this;
    to.ensure(4);
    to.view.setInt32(to.at, -1);
    to.at += 4;
  }

  text(cell: string): void {
    const { to } = this;
    to.ensure(this.#encoder.room(cell));
    const end = this.#encoder.write(to, to.at, cell);
    if (end < 0) to.fits = false;
    else to.at = end;
  }
}

/** Below it a loop is faster than the call. */
const shortText = 32;

/** With the length in front. @param version where the type has one before its bytes */
function lengthPrefixed(
  to: BinaryWriter,
  bytes: Buffer,
  start: number,
  end: number,
  version: number | null = null,
): void {
  const versionBytes = version === null ? 0 : 1;
  to.ensure(4 + versionBytes + end - start);
  to.view.setInt32(to.at, versionBytes + end - start);
  to.at += 4;
  if (version !== null) to.bytes[to.at++] = version;
  const target = to.bytes;
  let { at } = to;
  if (end - start < shortText) for (let i = start; i < end; i++) target[at++] = bytes[i]!;
  else at += bytes.copy(target, at, start, end);
  to.at = at;
}

export class BytesReceiver extends TextReceiver {
  utf8(bytes: Buffer, start: number, end: number): void {
    lengthPrefixed(this.to, bytes, start, end);
  }
}

export class ByteaReceiver extends TextReceiver {
  binary(bytes: Buffer, start: number, end: number): void {
    lengthPrefixed(this.to, bytes, start, end);
  }
}

/** jsonb_recv: a version, then the text. */
export class JsonbReceiver extends TextReceiver {
  utf8(bytes: Buffer, start: number, end: number): void {
    lengthPrefixed(this.to, bytes, start, end, 1);
  }
}

export class UuidReceiver extends TextReceiver {
  utf8(bytes: Buffer, start: number, end: number): void {
    const { to } = this;
    to.ensure(20);
    to.view.setInt32(to.at, 16);
    if (!uuidBytes(bytes, start, end, to.bytes, to.at + 4)) to.fits = false;
    to.at += 20;
  }
}

export class BooleanReceiver extends TextReceiver {
  boolean(value: boolean): void {
    const { to } = this;
    to.ensure(5);
    to.view.setInt32(to.at, 1);
    to.bytes[to.at + 4] = value ? 1 : 0;
    to.at += 5;
  }
}

export class SmallintReceiver extends TextReceiver {
  integer(value: number): void {
    const { to } = this;
    to.ensure(6);
    to.view.setInt32(to.at, 2);
    to.view.setInt16(to.at + 4, value);
    if (value < -0x8000 || value > 0x7fff) to.fits = false;
    to.at += 6;
  }
}

export class IntegerReceiver extends TextReceiver {
  integer(value: number): void {
    const { to } = this;
    to.ensure(8);
    to.view.setInt32(to.at, 4);
    to.view.setInt32(to.at + 4, value);
    if (value !== (value | 0)) to.fits = false;
    to.at += 8;
  }
}

function int64(to: BinaryWriter, value: number): void {
  to.ensure(12);
  to.at = writeInt64(to, to.at, value);
}

export class BigintReceiver extends TextReceiver {
  integer(value: number): void {
    int64(this.to, value);
  }
}

export class DoubleReceiver extends TextReceiver {
  double(value: number): void {
    const { to } = this;
    to.ensure(12);
    to.view.setInt32(to.at, 8);
    to.view.setFloat64(to.at + 4, value);
    to.at += 12;
  }
}

/** Days and microseconds from 1970-01-01 to Postgres' epoch, 2000-01-01. */
const epochDays = 10957;
const epochMicros = 946_684_800_000_000;

export class DateReceiver extends TextReceiver {
  date(days: number): void {
    const { to } = this;
    to.ensure(8);
    to.view.setInt32(to.at, 4);
    to.view.setInt32(to.at + 4, days - epochDays);
    to.at += 8;
  }
}

export class TimeReceiver extends TextReceiver {
  time(micros: number): void {
    int64(this.to, micros);
  }
}

export class TimestampReceiver extends TextReceiver {
  timestamp(micros: number): void {
    int64(this.to, micros - epochMicros);
  }
}

/** Beyond it a fraction, filled up to four digits, may be more than a number holds exactly. */
const mostDecimals = 12;
const powersOfTen = Array.from({ length: mostDecimals + 4 }, (_, exponent) => 10 ** exponent);

export class NumericReceiver extends TextReceiver {
  decimal(value: number, scale: number): void {
    if (scale > mostDecimals) {
      this.text(decimalText(value, scale));
      return;
    }
    const { to } = this;
    const magnitude = Math.abs(value);
    const whole = Math.floor(magnitude / powersOfTen[scale]!);
    const groups = scale === 0 ? 0 : Math.ceil(scale / 4);
    let fraction = (magnitude - whole * powersOfTen[scale]!) * powersOfTen[groups * 4 - scale]!;
    let weight = 0;
    for (let rest = whole; rest >= 10_000; rest = Math.floor(rest / 10_000)) weight++;
    const count = weight + 1 + groups;
    to.ensure(12 + count * 2);
    to.at = numericHeader(to, to.at, count, weight, value < 0 ? 0x4000 : 0, scale);
    let rest = whole;
    for (let i = weight; i >= 0; i--) {
      to.view.setInt16(to.at + i * 2, rest % 10_000);
      rest = Math.floor(rest / 10_000);
    }
    for (let i = count - 1; i > weight; i--) {
      to.view.setInt16(to.at + i * 2, fraction % 10_000);
      fraction = Math.floor(fraction / 10_000);
    }
    to.at += count * 2;
  }
}

function decimalText(value: number, scale: number): string {
  const digits = String(Math.abs(value)).padStart(scale + 1, '0');
  return `${value < 0 ? '-' : ''}${digits.slice(0, -scale)}.${digits.slice(-scale)}`;
}
