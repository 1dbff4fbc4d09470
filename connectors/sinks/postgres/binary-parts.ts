/** What the binary forms of values are put together from. */

import type { CellReceiver } from '../../../src/connector/native-row.ts';

/** Where bytes go. There is always as much room as the encoder asks for. */
export interface ByteSink {
  bytes: Buffer;
  view: DataView;
}

/** Writes the value with its length in front; the offset behind it, or -1 where the text has another form. */
export type Write = (to: ByteSink, at: number, text: string) => number;

export interface CellEncoder {
  write: Write;
  /** So many bytes are enough for a value and its length. */
  room(text: string): number;
}

/** A growing row. */
export interface BinaryWriter extends ByteSink {
  /** Where the next byte goes. */
  at: number;
  /** Unset by a value that has no binary form; what is written of the row then does not count. */
  fits: boolean;
  /** Makes room for so many bytes. */
  ensure(more: number): void;
}

/** What a column's values become. */
export interface BinaryColumn {
  receiver(to: BinaryWriter): CellReceiver;
}

/** Digits from `from` to `to`; NaN where there is anything else. */
export function digits(text: string, from: number, to: number): number {
  let value = 0;
  for (let i = from; i < to; i++) {
    const digit = text.charCodeAt(i) - 48;
    if (!(digit >= 0 && digit <= 9)) return Number.NaN;
    value = value * 10 + digit;
  }
  return from < to ? value : Number.NaN;
}

export const int64 = { least: -(2n ** 63n), most: 2n ** 63n - 1n };

/** numeric_recv: number of base-10000 digits, weight of the first, sign, display scale, the digits. */
export function numericHeader(
  { view }: ByteSink,
  at: number,
  count: number,
  weight: number,
  sign: number,
  scale: number,
): number {
  view.setInt32(at, 8 + count * 2);
  view.setInt16(at + 4, count);
  view.setInt16(at + 6, weight);
  view.setUint16(at + 8, sign);
  view.setUint16(at + 10, scale);
  return at + 12;
}

/** @param value an exact integer */
export function writeInt64(to: ByteSink, at: number, value: number): number {
  to.view.setInt32(at, 8);
  to.view.setInt32(at + 4, Math.floor(value / 0x1_0000_0000));
  to.view.setUint32(at + 8, value >>> 0);
  return at + 12;
}
