/**
 * A stretch of held rows: their bytes one after the other, and sixteen numbers for each, which lie in one line of the
 * processor's cache. Rows come and are read in order, and a block goes as a whole, so nothing is ever moved.
 */
import type { Position } from '../connector/position.ts';
import { comparePacked, pack, positionNumbers, unpack } from './packed-positions.ts';
import type { IncomingChange } from './stored-change.ts';

export const numbersPerRow = 16;
/** Where a row's numbers are; its Position begins at 0. */
export const keyHashAt = 5;
export const topicAt = 6;
export const schemaIdAt = 7;
export const flagsAt = 8;
/** Of its bytes: key, old key, value and headers, one after the other. */
export const startAt = 9;
/** One more than the key's bytes; 0: there is no key. */
export const keySizeAt = 10;
export const oldKeySizeAt = 11;
export const valueBytesAt = 12;
export const headerBytesAt = 13;

export const truncateFlag = 1;
export const partialFlag = 2;
export const evictionFlag = 4;

/** What a row takes beside its bytes. */
export const rowOverheadBytes = numbersPerRow * 4;
export const blockBytes = 1 << 20;
/** Rows are told by the number of their block and their own in it, in one integer. */
export const blockRowBits = 14;
const mostRows = 1 << blockRowBits;
const firstRows = 256;

export class HeldBlock {
  readonly bytes: Buffer;
  numbers = new Uint32Array(firstRows * numbersPerRow);
  rows = 0;
  fill = 0;
  /** Greatest Position in it. */
  readonly last = new Uint32Array(positionNumbers);
  /** Of the rows whose key changed: where the delete half is. */
  readonly #oldKeyEnds = new Map<number, Position>();

  constructor(size: number) {
    this.bytes = Buffer.allocUnsafeSlow(size);
  }

  takes(bytes: number): boolean {
    return this.fill + bytes <= this.bytes.length && this.rows < mostRows;
  }

  /** @returns the bytes that it takes, see `takes` */
  add(change: IncomingChange, headers: Buffer | null): number {
    const { topic, position, schemaId, truncate, eviction, key, oldKey, oldKeyEnd, value, unchanged } =
      change;
    const row = this.rows++;
    const at = row * numbersPerRow;
    if (at === this.numbers.length) this.#grow();
    const { numbers, bytes } = this;
    pack(position, numbers, at);
    if (comparePacked(numbers, at, this.last, 0) > 0)
      this.last.set(numbers.subarray(at, at + positionNumbers));
    numbers[at + keyHashAt] = key ? hashOf(key) : 0;
    numbers[at + topicAt] = topic;
    numbers[at + schemaIdAt] = schemaId;
    numbers[at + flagsAt] =
      (truncate ? truncateFlag : 0) | (unchanged === null ? 0 : partialFlag) | (eviction ? evictionFlag : 0);
    numbers[at + startAt] = this.fill;
    numbers[at + keySizeAt] = key ? key.length + 1 : 0;
    numbers[at + oldKeySizeAt] = oldKey ? oldKey.length + 1 : 0;
    numbers[at + valueBytesAt] = value.length;
    numbers[at + headerBytesAt] = headers?.length ?? 0;
    const start = this.fill;
    if (key) this.fill += key.copy(bytes, this.fill);
    if (oldKey) this.fill += oldKey.copy(bytes, this.fill);
    this.fill += value.copy(bytes, this.fill);
    if (headers) this.fill += headers.copy(bytes, this.fill);
    if (oldKeyEnd !== null) this.#oldKeyEnds.set(row, oldKeyEnd);
    return this.fill - start;
  }

  /** As it came, of a row. */
  oldKeyEnd(row: number): Position | null {
    return this.#oldKeyEnds.get(row) ?? null;
  }

  position(row: number): Position {
    return unpack(this.numbers, row * numbersPerRow);
  }

  /** Whether both rows, of which each has a key, have the same one. */
  static sameKey(a: HeldBlock, aRow: number, b: HeldBlock, bRow: number): boolean {
    const aAt = aRow * numbersPerRow;
    const bAt = bRow * numbersPerRow;
    if (a.numbers[aAt + keyHashAt] !== b.numbers[bAt + keyHashAt]) return false;
    const size = a.numbers[aAt + keySizeAt]! - 1;
    if (size !== b.numbers[bAt + keySizeAt]! - 1) return false;
    const aStart = a.numbers[aAt + startAt]!;
    const bStart = b.numbers[bAt + startAt]!;
    for (let i = 0; i < size; i++) if (a.bytes[aStart + i] !== b.bytes[bStart + i]) return false;
    return true;
  }

  /** Gives its memory back now: the collector would find it long after. Nothing of it can be read any more. */
  free(): void {
    this.rows = 0;
    (this.bytes.buffer as ArrayBuffer).transfer(0);
  }

  #grow(): void {
    const grown = new Uint32Array(this.numbers.length * 2);
    grown.set(this.numbers);
    this.numbers = grown;
  }
}

/** Bytes that a Change takes in a block. @param headers as they are kept there */
export function sizeOf({ key, oldKey, value }: IncomingChange, headers: Buffer | null): number {
  return (key?.length ?? 0) + (oldKey?.length ?? 0) + value.length + (headers?.length ?? 0);
}

/** Four bytes at a time, with murmur's mixing (public domain): a table of 2^n places takes the lowest bits. */
function hashOf(key: Buffer): number {
  let hash = key.length;
  const whole = key.length & ~3;
  for (let i = 0; i < whole; i += 4) {
    const word = key[i]! | (key[i + 1]! << 8) | (key[i + 2]! << 16) | (key[i + 3]! << 24);
    hash = Math.imul(hash ^ Math.imul(word, 0xcc9e2d51), 0x01000193);
    hash ^= hash >>> 15;
  }
  for (let i = whole; i < key.length; i++) hash = Math.imul(hash ^ key[i]!, 0x01000193);
  hash = Math.imul(hash ^ (hash >>> 16), 0x85ebca6b);
  return (hash ^ (hash >>> 13)) >>> 0;
}
