/**
 * Digests of rows, as the SDK's hashCells gives them, about twice as fast: they are all that verify computes per row
 * (1.2 M/s against 0.6 M/s for six short cells on one core, Node 24). test/unit/verify-buckets.test.ts holds the two
 * together.
 */
import { hash } from 'node:crypto';
import type { Row } from '../connector/sink.ts';

/** The text that hashCells digests, of the cells at `indexes`. */
export function cellsText(row: Row, indexes: readonly number[]): string {
  let text = '';
  for (const i of indexes) {
    const cell = row[i]!;
    text += cell === null ? 'n;' : `${cell.length}:${cell};`;
  }
  return text;
}

/** 128 bits as 16 characters of Latin-1: the smallest form that can be a Map's key. */
export function digest(text: string): string {
  return hash('md5', text, 'binary');
}

/** 32 bits of a digest, the `lane`th of four from the most significant. */
export function digestLane(digest: string, lane: number): number {
  const at = lane * 4;
  return (
    ((digest.charCodeAt(at) << 24) |
      (digest.charCodeAt(at + 1) << 16) |
      (digest.charCodeAt(at + 2) << 8) |
      digest.charCodeAt(at + 3)) >>>
    0
  );
}

/** FNV-1a over UTF-16 units, with a final mix because the low bits choose the bucket. 32 bits. */
export function spread(text: string): number {
  let h = 0x811c9dc5;
  for (let i = 0; i < text.length; i++) h = Math.imul(h ^ text.charCodeAt(i), 0x01000193);
  h = Math.imul(h ^ (h >>> 16), 0x85ebca6b);
  h = Math.imul(h ^ (h >>> 13), 0xc2b2ae35);
  return (h ^ (h >>> 16)) >>> 0;
}

/** How a table's rows are told apart: by the cells at `key`, or as a whole where it has none. */
export interface RowLayout {
  /** Indexes of all compared cells. */
  all: readonly number[];
  key: readonly number[];
}

/** What identifies a row: a table without a key counts equal rows. */
export function rowPlace(row: Row, layout: RowLayout, whole: string): number {
  return layout.key.length === 0 ? digestLane(whole, 0) : spread(cellsText(row, layout.key));
}
