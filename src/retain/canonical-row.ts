/**
 * The canonical form of a row, version 1, and its salted hash: docs/retention.md, "The content hash". Tombstones are kept
 * for years, so neither ever changes: another form is another version beside this one.
 */
import { createHash, randomBytes, timingSafeEqual } from 'node:crypto';
import type { Cell } from '../connector/sink.ts';

export const hashVersion = 1;
export const saltBytes = 32;

const head = Buffer.from('tidemark-row-v1\n');

/** What a Tombstone keeps of a row's content. */
export interface ContentHash {
  version: number;
  /** Columns that it covers, in the order of their names' bytes. */
  columns: string[];
  hash: Buffer;
  /** Null: erased. */
  salt: Buffer | null;
}

/** @param cells by column name; a Cell is Postgres' own text (connector/sink.ts) */
export function canonicalRow(cells: ReadonlyMap<string, Cell>): Buffer {
  const parts: Buffer[] = [head];
  for (const name of byName(cells.keys())) {
    const cell = cells.get(name)!;
    parts.push(
      sized(name),
      Buffer.from('='),
      cell === null ? Buffer.from('n') : sized(cell),
      Buffer.from(';'),
    );
  }
  return Buffer.concat(parts);
}

/** SHA-256 over the salt and the canonical form. */
export function hashRow(
  cells: ReadonlyMap<string, Cell>,
  salt: Buffer = randomBytes(saltBytes),
): ContentHash {
  const hash = createHash('sha256').update(salt).update(canonicalRow(cells)).digest();
  return { version: hashVersion, columns: byName(cells.keys()), hash, salt };
}

/**
 * Whether a row, as a destination hands it back, is the one that was let go of. Columns that came later do not count.
 * @returns null where that cannot be known: the salt was erased, or the version is a later one
 */
export function isRow(cells: ReadonlyMap<string, Cell>, known: ContentHash): boolean | null {
  if (known.salt === null || known.version !== hashVersion) return null;
  if (known.columns.some((name) => !cells.has(name))) return false;
  const covered = new Map(known.columns.map((name) => [name, cells.get(name)!]));
  return timingSafeEqual(hashRow(covered, known.salt).hash, known.hash);
}

/** The length in bytes of UTF-8, a colon, and the text. */
function sized(text: string): Buffer {
  const bytes = Buffer.from(text, 'utf8');
  return Buffer.concat([Buffer.from(`${bytes.length}:`), bytes]);
}

function byName(names: Iterable<string>): string[] {
  return [...names].sort((a, b) => Buffer.compare(Buffer.from(a, 'utf8'), Buffer.from(b, 'utf8')));
}
