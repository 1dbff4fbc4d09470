/**
 * Changes of a Unit that wait in memory: bytes and numbers in blocks, so that a row is no object and costs the collector
 * nothing until it is read. What does not fit, and whatever needs SQL, goes to the window store (unit-store.ts).
 */
import type { Position } from '../connector/position.ts';
import { packedHeaders } from './change-body.ts';
import {
  blockBytes,
  blockRowBits,
  flagsAt,
  HeldBlock,
  numbersPerRow,
  oldKeySizeAt,
  partialFlag,
  rowOverheadBytes,
  schemaIdAt,
  sizeOf,
  topicAt,
  truncateFlag,
} from './held-block.ts';
import { HeldChange } from './held-change.ts';
import { comparePacked, isWithin, type PackedRange, packed, packRange } from './packed-positions.ts';
import { blockOf, byKey, byPosition, rowInBlock } from './row-order.ts';
import type { IncomingChange, Range, StoredChange } from './stored-change.ts';

/** Objects of so many rows live at a time, so that they do not outlive the nursery. */
const chunkRows = 200;
/** The first one of a small Window is small: there may be hundreds of Units. */
const firstBlockBytes = blockBytes / 16;

/** What a Window holds of one topic. */
export interface HeldContent {
  topic: number;
  changes: number;
  truncatedAt: Position | null;
  schemaId: number;
}

export class HeldRows {
  #blocks: HeldBlock[] = [];
  #rows = 0;
  #bytes = 0;
  /** Somebody read a Window that is not released yet. */
  #lent = false;

  get rows(): number {
    return this.#rows;
  }

  get bytes(): number {
    return this.#bytes + this.#rows * rowOverheadBytes;
  }

  /** What `append` would add. */
  static bytesOf(changes: readonly IncomingChange[]): number {
    let bytes = changes.length * rowOverheadBytes;
    for (const change of changes) bytes += sizeOf(change, null);
    return bytes;
  }

  append(changes: readonly IncomingChange[]): void {
    for (const change of changes) {
      const headers = packedHeaders(change);
      this.#bytes += this.#blockFor(sizeOf(change, headers)).add(change, headers);
    }
    this.#rows += changes.length;
  }

  /** Per topic; null where it takes SQL: a table's schema changed within the range, or a key change borrows values. */
  content(range: Range): HeldContent[] | null {
    const found = new Map<number, HeldContent & { truncate: HeldBlock | null; truncateRow: number }>();
    const bounds = packRange(range);
    for (const block of this.#blocks) {
      const { numbers } = block;
      for (let row = 0, at = 0; row < block.rows; row++, at += numbersPerRow) {
        if (!isWithin(numbers, at, bounds)) continue;
        const topic = numbers[at + topicAt]!;
        const schemaId = numbers[at + schemaIdAt]!;
        const flags = numbers[at + flagsAt]!;
        let content = found.get(topic);
        if (!content) {
          content = { topic, changes: 0, truncatedAt: null, truncate: null, truncateRow: 0, schemaId };
          found.set(topic, content);
        }
        if (content.schemaId !== schemaId) return null;
        if ((flags & partialFlag) !== 0 && numbers[at + oldKeySizeAt] !== 0) return null;
        content.changes++;
        if ((flags & truncateFlag) === 0) continue;
        const { truncate, truncateRow } = content;
        if (truncate && comparePacked(numbers, at, truncate.numbers, truncateRow * numbersPerRow) <= 0)
          continue;
        content.truncate = block;
        content.truncateRow = row;
      }
    }
    return [...found.values()]
      .map(({ truncate, truncateRow, ...content }) => ({
        ...content,
        truncatedAt: truncate?.position(truncateRow) ?? null,
      }))
      .sort((a, b) => a.topic - b.topic);
  }

  /** As UnitStore.read. What is appended meanwhile is not in it. */
  *read(range: Range, topic: number, order: 'key' | 'position'): Generator<StoredChange[]> {
    this.#lent = true;
    const blocks = [...this.#blocks];
    const selected = select(blocks, packRange(range), topic, order === 'key');
    const rows = order === 'key' ? byKey(blocks, selected) : byPosition(blocks, selected);
    for (let from = 0; from < rows.length; from += chunkRows) {
      const chunk: StoredChange[] = [];
      for (const row of rows.subarray(from, from + chunkRows))
        chunk.push(new HeldChange(blockOf(blocks, row), rowInBlock(row)));
      yield chunk;
    }
  }

  /** Everything, as it came. What was handed out is let go of when more is asked for. */
  *drain(leastRows: number): Generator<IncomingChange[]> {
    while (this.#blocks.length > 0) {
      let rows = 0;
      let count = 0;
      while (count < this.#blocks.length && rows < leastRows) rows += this.#blocks[count++]!.rows;
      const blocks = this.#blocks.slice(0, count);
      yield blocks.flatMap(changesOf);
      this.#drop(blocks);
      // Whoever reads a Window may have its rows still.
      if (!this.#lent) for (const block of blocks) block.free();
    }
  }

  /** Lets go of what lies at or below the mark, as far as that is worth it: it is not read in any case. */
  release(mark: Position): void {
    const bound = packed(mark);
    this.#drop(this.#blocks.filter(({ last }) => comparePacked(last, 0, bound, 0) <= 0));
    this.#lent = false;
    let left = 0;
    for (const { numbers, rows } of this.#blocks)
      for (let row = 0; row < rows; row++)
        if (comparePacked(numbers, row * numbersPerRow, bound, 0) > 0) left++;
    if (left * 2 > this.#rows) return;
    const blocks = this.#blocks;
    this.#drop(blocks);
    for (const block of blocks) this.append(changesOf(block).filter(({ position }) => position > mark));
  }

  clear(): void {
    this.#drop(this.#blocks);
    this.#lent = false;
  }

  /** The collector frees them. */
  #drop(blocks: readonly HeldBlock[]): void {
    const gone = new Set(blocks);
    this.#blocks = this.#blocks.filter((block) => !gone.has(block));
    for (const { rows, fill } of gone) {
      this.#rows -= rows;
      this.#bytes -= fill;
    }
  }

  #blockFor(bytes: number): HeldBlock {
    const newest = this.#blocks.at(-1);
    if (newest?.takes(bytes)) return newest;
    const size = this.#blocks.length === 0 ? firstBlockBytes : blockBytes;
    const block = new HeldBlock(Math.max(size, bytes));
    this.#blocks.push(block);
    return block;
  }
}

function select(
  blocks: readonly HeldBlock[],
  range: PackedRange,
  topic: number,
  withoutTruncates: boolean,
): Uint32Array {
  const rows = new Uint32Array(blocks.reduce((sum, block) => sum + block.rows, 0));
  let count = 0;
  for (const [number, block] of blocks.entries()) {
    const { numbers } = block;
    for (let row = 0, at = 0; row < block.rows; row++, at += numbersPerRow) {
      if (numbers[at + topicAt] !== topic || !isWithin(numbers, at, range)) continue;
      if (withoutTruncates && (numbers[at + flagsAt]! & truncateFlag) !== 0) continue;
      rows[count++] = (number << blockRowBits) | row;
    }
  }
  return rows.subarray(0, count);
}

function changesOf(block: HeldBlock): IncomingChange[] {
  const changes: IncomingChange[] = [];
  for (let row = 0; row < block.rows; row++) {
    const change = new HeldChange(block, row);
    const { topic, position, schemaId, truncate, eviction, key, oldKey } = change;
    const head = { topic, position, schemaId, truncate, eviction, key, oldKey };
    changes.push({ ...head, ...change.load(), oldKeyEnd: block.oldKeyEnd(row) });
  }
  return changes;
}
