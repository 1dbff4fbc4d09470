/**
 * A Position as a row's version: UInt128 of epoch (24 bits), LSN (64) and ordinal (40). ReplacingMergeTree takes no
 * other type that is as long and ordered alike, and UInt256, which would hold all 160 bits, costs twice as much in every
 * row that a reader merges.
 */
import { TidemarkError } from '../../../src/connector/failure.ts';
import { formatPosition, type Position } from '../../../src/connector/position.ts';

const epochLimit = 1 << 24;
const ordinalBits = 40n;

/** Decimal digits. @throws TidemarkError TM901 beyond 16 million epochs or 10^12 Changes in a Transaction */
export function versionOf(position: Position): string {
  const epoch = Number.parseInt(position.slice(0, 8), 16);
  // Ten hexadecimal digits.
  if (epoch >= epochLimit || !position.startsWith('000000', 26)) {
    throw new TidemarkError('TM901', `the Position ${position} does not fit a version of 128 bits`);
  }
  return BigInt(`0x${position.slice(0, 8)}${position.slice(9, 25)}${position.slice(32)}`).toString();
}

export function positionOf(version: string): Position {
  const number = BigInt(version);
  return formatPosition({
    epoch: Number(number >> (64n + ordinalBits)),
    lsn: (number >> ordinalBits) & 0xffffffffffffffffn,
    ordinal: Number(number & ((1n << ordinalBits) - 1n)),
  });
}

/** Of the row that says what the table holds: grows with every Window and, within one, with the owner. */
export function markVersion(sequence: number, fencingToken: bigint): string {
  return ((BigInt(sequence) << 64n) | fencingToken).toString();
}
