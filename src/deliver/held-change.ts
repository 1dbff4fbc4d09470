/** A held row: what is not asked for is not made. */
import type { Position } from '../connector/position.ts';
import { bodyOf } from './change-body.ts';
import {
  evictionFlag,
  flagsAt,
  HeldBlock,
  headerBytesAt,
  keySizeAt,
  numbersPerRow,
  oldKeySizeAt,
  partialFlag,
  schemaIdAt,
  startAt,
  topicAt,
  truncateFlag,
  valueBytesAt,
} from './held-block.ts';
import type { BodyView, ChangeBody, StoredChange } from './stored-change.ts';

export class HeldChange implements StoredChange {
  readonly #block: HeldBlock;
  readonly #row: number;

  constructor(block: HeldBlock, row: number) {
    this.#block = block;
    this.#row = row;
  }

  #number(which: number): number {
    return this.#block.numbers[this.#row * numbersPerRow + which]!;
  }

  get topic(): number {
    return this.#number(topicAt);
  }

  get position(): Position {
    return this.#block.position(this.#row);
  }

  get schemaId(): number {
    return this.#number(schemaIdAt);
  }

  get truncate(): boolean {
    return (this.#number(flagsAt) & truncateFlag) !== 0;
  }

  get eviction(): boolean {
    return (this.#number(flagsAt) & evictionFlag) !== 0;
  }

  get partial(): boolean {
    return (this.#number(flagsAt) & partialFlag) !== 0;
  }

  get keyless(): boolean {
    return this.#number(keySizeAt) === 0;
  }

  get key(): Buffer | null {
    const at = this.#number(startAt);
    const size = this.#number(keySizeAt);
    return size === 0 ? null : this.#block.bytes.subarray(at, at + size - 1);
  }

  get oldKey(): Buffer | null {
    const size = this.#number(oldKeySizeAt);
    const end = this.#valueAt;
    return size === 0 ? null : this.#block.bytes.subarray(end - size + 1, end);
  }

  get bytes(): number {
    return this.#number(valueBytesAt) + this.#number(headerBytesAt);
  }

  get #valueAt(): number {
    const keyBytes = Math.max(0, this.#number(keySizeAt) - 1);
    return this.#number(startAt) + keyBytes + Math.max(0, this.#number(oldKeySizeAt) - 1);
  }

  hasKeyOf(other: StoredChange): boolean {
    if (other instanceof HeldChange)
      return HeldBlock.sameKey(this.#block, this.#row, other.#block, other.#row);
    return this.key!.equals(other.key!);
  }

  view(): BodyView | null {
    if (this.#number(headerBytesAt) !== 0) return null;
    const start = this.#valueAt;
    return { bytes: this.#block.bytes, start, end: start + this.#number(valueBytesAt) };
  }

  load(): ChangeBody {
    const valueAt = this.#valueAt;
    const headersAt = valueAt + this.#number(valueBytesAt);
    const { bytes } = this.#block;
    return bodyOf(
      bytes.subarray(valueAt, headersAt),
      bytes.subarray(headersAt, headersAt + this.#number(headerBytesAt)),
    );
  }
}
