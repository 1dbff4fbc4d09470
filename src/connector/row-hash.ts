/**
 * Order-independent content hash of a set of rows: the sum, modulo 2^128, of one 128-bit hash per row, together
 * with the row count. Equal multisets of rows give equal sums in whatever order they are read.
 */
import { hash } from 'node:crypto';
import type { Cell } from './sink.ts';

const mask = (1n << 128n) - 1n;

/**
 * 128-bit hash of one row. Every cell is prefixed with its length, so that neighbouring cells cannot be confused,
 * and NULL differs from the empty text.
 */
export function hashCells(cells: readonly (Cell | undefined)[]): bigint {
  let text = '';
  for (const cell of cells) {
    text += cell === null ? 'n;' : cell === undefined ? 'u;' : `${cell.length}:${cell};`;
  }
  // The one-shot form costs half of createHash, update and digest.
  return BigInt(`0x${hash('md5', text, 'hex')}`);
}

export class RowHash {
  #sum = 0n;
  #count = 0;

  add(cells: readonly (Cell | undefined)[]): void {
    this.addHash(hashCells(cells), 1);
  }

  addHash(hash: bigint, times: number): void {
    this.#sum = (this.#sum + hash * BigInt(times)) & mask;
    this.#count += times;
  }

  get count(): number {
    return this.#count;
  }

  /** 32 hexadecimal digits. */
  get hex(): string {
    return this.#sum.toString(16).padStart(32, '0');
  }
}
