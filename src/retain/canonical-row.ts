/**
 * The canonical form of a row, version 1, and its salted hash: docs/retention.md, "The content hash". Tombstones are kept
 * for years, so neither ever changes: another form is another version beside this one.
 */
import { createHash, randomBytes, timingSafeEqual } from 'node:crypto';
import type { Cell } from '../connector/sink.ts';

export const hashVersion = 1;
export const saltBytes = 32;

const head = 'tidemark-row-v1\n';

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
  return Buffer.from(canonicalText(inOrder([...cells.keys()]), cells), 'utf8');
}

/** As one text: with a buffer for each part a row of 13 columns took 31 µs instead of 8.5. */
function canonicalText({ columns }: ColumnOrder, cells: ReadonlyMap<string, Cell>): string {
  let text = head;
  for (const { name, label } of columns) {
    const cell = cells.get(name)!;
    text += cell === null ? `${label}n;` : `${label}${sized(cell)};`;
  }
  return text;
}

/** SHA-256 over the salt and the canonical form. */
export function hashRow(cells: ReadonlyMap<string, Cell>, salt: Buffer = newSalt()): ContentHash {
  const order = inOrder([...cells.keys()]);
  return { version: hashVersion, columns: order.names, hash: digestOf(order, cells, salt), salt };
}

/**
 * Whether a row, as a destination hands it back, is the one that was let go of. Columns that came later do not count.
 * @returns null where that cannot be known: the salt was erased, or the version is a later one
 */
export function isRow(cells: ReadonlyMap<string, Cell>, known: ContentHash): boolean | null {
  if (known.salt === null || known.version !== hashVersion) return null;
  if (known.columns.some((name) => !cells.has(name))) return false;
  return timingSafeEqual(digestOf(inOrder(known.columns), cells, known.salt), known.hash);
}

function digestOf(order: ColumnOrder, cells: ReadonlyMap<string, Cell>, salt: Buffer): Buffer {
  return createHash('sha256').update(salt).update(canonicalText(order, cells), 'utf8').digest();
}

/** Random bytes cost by the call. */
let salts = Buffer.alloc(0);

function newSalt(): Buffer {
  if (salts.length < saltBytes) salts = randomBytes(256 * saltBytes);
  const salt = salts.subarray(0, saltBytes);
  salts = salts.subarray(saltBytes);
  return salt;
}

/** The length in bytes of UTF-8, a colon, and the text. */
function sized(text: string): string {
  return `${Buffer.byteLength(text, 'utf8')}:${text}`;
}

interface CanonicalColumn {
  name: string;
  /** What stands before its value. */
  label: string;
}

interface ColumnOrder {
  columns: CanonicalColumn[];
  names: string[];
}

/** Row after row has the same columns: the order of the last ones is kept. */
let last: { given: readonly string[]; order: ColumnOrder } = { given: [], order: { columns: [], names: [] } };

/** In the order of their bytes. @param given not changed by anybody later */
function inOrder(given: readonly string[]): ColumnOrder {
  const same = given.length === last.given.length && given.every((name, i) => name === last.given[i]);
  if (same) return last.order;
  const names = [...given].sort((a, b) => Buffer.compare(Buffer.from(a, 'utf8'), Buffer.from(b, 'utf8')));
  const columns = names.map((name) => ({ name, label: `${sized(name)}=` }));
  last = { given, order: { columns, names } };
  return last.order;
}
