/** In which order held rows are read. A row is told by one integer: the number of its block, and its own in it. */
import { blockRowBits, HeldBlock, keyHashAt, numbersPerRow } from './held-block.ts';
import { comparePacked } from './packed-positions.ts';

const rowMask = (1 << blockRowBits) - 1;

export function blockOf(blocks: readonly HeldBlock[], row: number): HeldBlock {
  return blocks[row >>> blockRowBits]!;
}

export function rowInBlock(row: number): number {
  return row & rowMask;
}

/** Rows come in order from each partition, and mostly from all of them. @returns them, or a sorted copy */
export function byPosition(blocks: readonly HeldBlock[], rows: Uint32Array): Uint32Array {
  for (let i = 1; i < rows.length; i++) {
    // An array's own sort merges the runs that it finds, a typed array's does not.
    if (compareRows(blocks, rows[i - 1]!, rows[i]!) > 0)
      return Uint32Array.from(Array.from(rows).sort((a, b) => compareRows(blocks, a, b) || a - b));
  }
  return rows;
}

function compareRows(blocks: readonly HeldBlock[], a: number, b: number): number {
  return comparePacked(
    blockOf(blocks, a).numbers,
    rowInBlock(a) * numbersPerRow,
    blockOf(blocks, b).numbers,
    rowInBlock(b) * numbersPerRow,
  );
}

/**
 * A key's rows stand where its first one came, in order of Position; else they are as they came. So they are read as they lie
 * in memory: in the order of their keys' hashes, as before, every row was several misses of the cache.
 * @param rows as they came, each with a key
 */
export function byKey(blocks: readonly HeldBlock[], rows: Uint32Array): Uint32Array {
  const { next, follows } = chains(blocks, rows);
  if (!next) return rows;
  const ordered = new Uint32Array(rows.length);
  let count = 0;
  for (let i = 0; i < rows.length; i++) {
    if (follows[i] !== 0) continue;
    const start = count;
    for (let at = i; at >= 0; at = next[at]! - 1) ordered[count++] = rows[at]!;
    if (count - start > 1) {
      const ofKey = ordered.subarray(start, count);
      ofKey.set(byPosition(blocks, ofKey));
    }
  }
  return ordered;
}

/**
 * What follows what: one more than the place of the next row of the same key, 0 for none; and which rows do follow another.
 * Null: no key has two rows.
 */
function chains(
  blocks: readonly HeldBlock[],
  rows: Uint32Array,
): { next: Int32Array | null; follows: Uint8Array } {
  const places = new Int32Array(2 ** Math.ceil(Math.log2(rows.length * 2 + 2)));
  const mask = places.length - 1;
  const next = new Int32Array(rows.length);
  const last = new Int32Array(rows.length);
  const follows = new Uint8Array(rows.length);
  let repeated = false;
  for (let i = 0; i < rows.length; i++) {
    const block = blockOf(blocks, rows[i]!);
    const row = rowInBlock(rows[i]!);
    const hash = block.numbers[row * numbersPerRow + keyHashAt]!;
    for (let place = hash & mask; ; place = (place + 1) & mask) {
      const first = places[place]! - 1;
      if (first < 0) {
        places[place] = i + 1;
        last[i] = i;
        break;
      }
      const other = rows[first]!;
      if (!HeldBlock.sameKey(block, row, blockOf(blocks, other), rowInBlock(other))) continue;
      next[last[first]!] = i + 1;
      last[first] = i;
      follows[i] = 1;
      repeated = true;
      break;
    }
  }
  return { next: repeated ? next : null, follows };
}
