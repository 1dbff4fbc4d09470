/** Positions as numbers: 20 bytes each, and nothing that the collector has to look at. */
import { type Position, positionLength } from '../connector/position.ts';

/** Of 32 bits: epoch, both halves of the LSN, both halves of the ordinal. */
export const positionNumbers = 5;
/** Where each begins in the text. */
const partAt = [0, 9, 17, 26, 34] as const;
const digits = Buffer.from('0123456789ABCDEF', 'latin1');
const scratch = Buffer.alloc(positionLength, '/');

export interface PackedRange {
  from: Uint32Array;
  to: Uint32Array;
}

export function packRange({ from, to }: { from: Position; to: Position }): PackedRange {
  return { from: packed(from), to: packed(to) };
}

export function packed(position: Position): Uint32Array {
  const numbers = new Uint32Array(positionNumbers);
  pack(position, numbers, 0);
  return numbers;
}

export function pack(position: Position, into: Uint32Array, at: number): void {
  for (let i = 0; i < positionNumbers; i++) {
    let number = 0;
    for (let c = partAt[i]!; c < partAt[i]! + 8; c++) {
      const code = position.charCodeAt(c);
      number = (number << 4) | (code < 58 ? code - 48 : code - 55);
    }
    into[at + i] = number;
  }
}

export function unpack(numbers: Uint32Array, at: number): Position {
  for (let i = 0; i < positionNumbers; i++) {
    let number = numbers[at + i]!;
    for (let place = partAt[i]! + 7; place >= partAt[i]!; place--) {
      scratch[place] = digits[number & 15]!;
      number >>>= 4;
    }
  }
  return scratch.toString('latin1') as Position;
}

/** Below zero where the first comes before the second. */
export function comparePacked(a: Uint32Array, aAt: number, b: Uint32Array, bAt: number): number {
  for (let i = 0; i < positionNumbers; i++) {
    const difference = a[aAt + i]! - b[bAt + i]!;
    if (difference !== 0) return difference;
  }
  return 0;
}

/** Whether it lies between: exclusive, inclusive. */
export function isWithin(numbers: Uint32Array, at: number, { from, to }: PackedRange): boolean {
  return comparePacked(numbers, at, from, 0) > 0 && comparePacked(numbers, at, to, 0) <= 0;
}
