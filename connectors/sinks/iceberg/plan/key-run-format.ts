/**
 * The file of a run of the key index: entries of 20 bytes in the order of their hashes, then the first word of the first hash
 * of every block of them ("fences", which stay in memory: 4 bytes for 64 rows), then a JSON footer.
 */

/** Words of 32 bits. */
export const hashWords = 3;
/** The hash, the number of the file, the position in it. */
export const entryWords = hashWords + 2;
export const entryBytes = entryWords * 4;
export const blockEntries = 64;
export const blockBytes = blockEntries * entryBytes;
/** Blocks that are written or read in a row. */
export const manyBlocks = 512;
export const magic = 'TMKEYS02';
export const trailerBytes = 16;

/** A data file of a run: its number in the entries, its path, and how many entries it has. */
export type RunFile = [number: number, path: string, entries: number];

export interface Footer {
  entries: number;
  files: RunFile[];
}

export function compareHashes(
  left: Uint32Array,
  leftAt: number,
  right: Uint32Array,
  rightAt: number,
): number {
  for (let word = 0; word < hashWords; word += 1) {
    const a = left[leftAt + word]!;
    const b = right[rightAt + word]!;
    if (a !== b) return a < b ? -1 : 1;
  }
  return 0;
}
