/**
 * Changes of a Unit that wait in memory: bytes in slabs, everything else in columns, so that a row is no object and costs
 * the collector nothing until it is read. What does not fit, and whatever needs SQL, goes to the window store (unit-store.ts).
 */
import type { Position } from '../connector/position.ts';
import type { ChangeBody, IncomingChange, Range, StoredChange } from './stored-change.ts';

/** Beside a row's bytes: its columns, and its Position's text. */
const rowOverheadBytes = 120;
const slabBytes = 1 << 20;
/** Objects of so many rows live at a time, so that they do not outlive the nursery. */
const chunkRows = 200;
/** Sorting by key packs a hash and a row's number into one double. */
const mostRows = 1 << 20;

const truncateFlag = 1;
const partialFlag = 2;
const none = -1;

/** One entry for each row. */
class Columns {
  readonly topic: Int32Array;
  readonly schemaId: Int32Array;
  readonly flags: Uint8Array;
  readonly keyHash: Uint32Array;
  readonly slab: Int32Array;
  /** In the slab: key, old key, value and headers, one after the other. */
  readonly at: Int32Array;
  readonly keyBytes: Int32Array;
  readonly oldKeyBytes: Int32Array;
  readonly valueBytes: Int32Array;
  readonly headerBytes: Int32Array;

  constructor(capacity: number, from: Columns | null = null) {
    this.topic = grown(new Int32Array(capacity), from?.topic);
    this.schemaId = grown(new Int32Array(capacity), from?.schemaId);
    this.flags = grown(new Uint8Array(capacity), from?.flags);
    this.keyHash = grown(new Uint32Array(capacity), from?.keyHash);
    this.slab = grown(new Int32Array(capacity), from?.slab);
    this.at = grown(new Int32Array(capacity), from?.at);
    this.keyBytes = grown(new Int32Array(capacity), from?.keyBytes);
    this.oldKeyBytes = grown(new Int32Array(capacity), from?.oldKeyBytes);
    this.valueBytes = grown(new Int32Array(capacity), from?.valueBytes);
    this.headerBytes = grown(new Int32Array(capacity), from?.headerBytes);
  }
}

function grown<T extends Int32Array | Uint32Array | Uint8Array>(into: T, from: T | undefined): T {
  if (from) into.set(from);
  return into;
}

/** What a Window holds of one topic. */
export interface HeldContent {
  topic: number;
  changes: number;
  truncatedAt: Position | null;
  schemaId: number;
}

export class HeldRows {
  #columns = new Columns(chunkRows);
  #capacity = chunkRows;
  #slabs: Buffer[] = [];
  #slabFill = 0;
  #positions: Position[] = [];
  /** Of the rows whose key changed: where the delete half is. */
  #oldKeyEnds = new Map<number, Position>();
  #bytes = 0;

  get rows(): number {
    return this.#positions.length;
  }

  get bytes(): number {
    return this.#bytes + this.rows * rowOverheadBytes;
  }

  /** What `append` would add. */
  static bytesOf(changes: readonly IncomingChange[]): number {
    let bytes = changes.length * rowOverheadBytes;
    for (const { key, oldKey, value } of changes)
      bytes += (key?.length ?? 0) + (oldKey?.length ?? 0) + value.length;
    return bytes;
  }

  takes(changes: number): boolean {
    return this.rows + changes <= mostRows;
  }

  append(changes: readonly IncomingChange[]): void {
    this.#reserve(this.rows + changes.length);
    for (const change of changes) this.#add(change);
  }

  #add({
    topic,
    position,
    schemaId,
    truncate,
    key,
    oldKey,
    oldKeyEnd,
    value,
    unchanged,
    exact,
    pending,
  }: IncomingChange): void {
    const columns = this.#columns;
    const row = this.#positions.length;
    const headers = packedHeaders({ unchanged, exact, pending });
    const bytes = (key?.length ?? 0) + (oldKey?.length ?? 0) + value.length + (headers?.length ?? 0);
    let at = this.#room(bytes);
    const number = this.#slabs.length - 1;
    const slab = this.#slabs[number]!;
    columns.topic[row] = topic;
    columns.schemaId[row] = schemaId;
    columns.flags[row] = (truncate ? truncateFlag : 0) | (unchanged === null ? 0 : partialFlag);
    columns.keyHash[row] = key ? hashOf(key) : 0;
    columns.slab[row] = number;
    columns.at[row] = at;
    columns.keyBytes[row] = key ? key.length : none;
    columns.oldKeyBytes[row] = oldKey ? oldKey.length : none;
    columns.valueBytes[row] = value.length;
    columns.headerBytes[row] = headers?.length ?? 0;
    for (const part of [key, oldKey, value, headers]) {
      if (!part) continue;
      slab.set(part, at);
      at += part.length;
    }
    if (oldKeyEnd !== null) this.#oldKeyEnds.set(row, oldKeyEnd);
    this.#positions.push(position);
    this.#bytes += bytes;
  }

  /** Per topic; null where it takes SQL: a table's schema changed within the range, or a key change borrows values. */
  content(range: Range): HeldContent[] | null {
    const { topic, schemaId, flags, oldKeyBytes } = this.#columns;
    const found = new Map<number, HeldContent>();
    for (let row = 0; row < this.rows; row++) {
      const position = this.#positions[row]!;
      if (position <= range.from || position > range.to) continue;
      let content = found.get(topic[row]!);
      if (!content) {
        content = { topic: topic[row]!, changes: 0, truncatedAt: null, schemaId: schemaId[row]! };
        found.set(content.topic, content);
      }
      if (content.schemaId !== schemaId[row]) return null;
      if ((flags[row]! & partialFlag) !== 0 && oldKeyBytes[row] !== none) return null;
      content.changes++;
      if (
        (flags[row]! & truncateFlag) !== 0 &&
        (content.truncatedAt === null || position > content.truncatedAt)
      )
        content.truncatedAt = position;
    }
    return [...found.values()].sort((a, b) => a.topic - b.topic);
  }

  /** As UnitStore.read. What is appended meanwhile is not in it. */
  *read(range: Range, topic: number, order: 'key' | 'position'): Generator<StoredChange[]> {
    const rows = this.#select(range, topic, order === 'key');
    if (order === 'key') this.#sortByKey(rows);
    else this.#sortByPosition(rows);
    for (let from = 0; from < rows.length; from += chunkRows) {
      const chunk: StoredChange[] = [];
      for (const row of rows.subarray(from, from + chunkRows)) chunk.push(this.#stored(row));
      yield chunk;
    }
  }

  /** Everything, as it came. */
  *all(rowsAtATime = chunkRows): Generator<IncomingChange[]> {
    for (let from = 0; from < this.rows; from += rowsAtATime) {
      const chunk: IncomingChange[] = [];
      for (let row = from; row < Math.min(this.rows, from + rowsAtATime); row++) {
        const { load, partial: _, bytes: __, ...head } = this.#stored(row);
        chunk.push({ ...head, ...load(), oldKeyEnd: this.#oldKeyEnds.get(row) ?? null });
      }
      yield chunk;
    }
  }

  /** Without what lies at or below the mark, as far as that is worth it: it is not read in any case. */
  after(mark: Position): HeldRows {
    let left = 0;
    for (const position of this.#positions) if (position > mark) left++;
    if (left * 2 > this.rows) return this;
    const kept = new HeldRows();
    if (left === 0) return kept;
    for (const changes of this.all()) kept.append(changes.filter(({ position }) => position > mark));
    return kept;
  }

  #select(range: Range, wanted: number, withoutTruncates: boolean): Uint32Array {
    const { topic, flags } = this.#columns;
    const rows = new Uint32Array(this.rows);
    let count = 0;
    for (let row = 0; row < this.#positions.length; row++) {
      if (topic[row] !== wanted) continue;
      const position = this.#positions[row]!;
      if (position <= range.from || position > range.to) continue;
      if (withoutTruncates && (flags[row]! & truncateFlag) !== 0) continue;
      rows[count++] = row;
    }
    return rows.subarray(0, count);
  }

  /** Rows come in order from each partition, and mostly from all of them. */
  #sortByPosition(rows: Uint32Array): void {
    const positions = this.#positions;
    let sorted = true;
    for (let i = 1; i < rows.length && sorted; i++) sorted = positions[rows[i - 1]!]! <= positions[rows[i]!]!;
    if (!sorted) rows.sort((a, b) => this.#byPosition(a, b));
  }

  /** By the key's hash, which no caller minds: what has one key stands together. */
  #sortByKey(rows: Uint32Array): void {
    const { keyHash } = this.#columns;
    const packed = new Float64Array(rows.length);
    for (let i = 0; i < rows.length; i++) packed[i] = keyHash[rows[i]!]! * mostRows + rows[i]!;
    packed.sort();
    for (let i = 0; i < rows.length; i++) rows[i] = packed[i]! % mostRows;
    for (let from = 0, to = 1; from < rows.length; from = to++) {
      while (to < rows.length && keyHash[rows[to]!] === keyHash[rows[from]!]) to++;
      if (to - from > 1)
        rows
          .subarray(from, to)
          .sort((a, b) => this.#key(a)!.compare(this.#key(b)!) || this.#byPosition(a, b));
    }
  }

  #byPosition(a: number, b: number): number {
    const [left, right] = [this.#positions[a]!, this.#positions[b]!];
    return left < right ? -1 : left > right ? 1 : a - b;
  }

  #key(row: number): Buffer | null {
    const { slab, at, keyBytes } = this.#columns;
    if (keyBytes[row] === none) return null;
    return this.#slabs[slab[row]!]!.subarray(at[row], at[row]! + keyBytes[row]!);
  }

  #stored(row: number): StoredChange {
    const { topic, schemaId, flags, slab, at, keyBytes, oldKeyBytes, valueBytes, headerBytes } =
      this.#columns;
    const bytes = this.#slabs[slab[row]!]!;
    const oldKeyAt = at[row]! + Math.max(0, keyBytes[row]!);
    const valueAt = oldKeyAt + Math.max(0, oldKeyBytes[row]!);
    const headersAt = valueAt + valueBytes[row]!;
    const end = headersAt + headerBytes[row]!;
    return {
      topic: topic[row]!,
      position: this.#positions[row]!,
      schemaId: schemaId[row]!,
      truncate: (flags[row]! & truncateFlag) !== 0,
      partial: (flags[row]! & partialFlag) !== 0,
      key: this.#key(row),
      oldKey: oldKeyBytes[row] === none ? null : bytes.subarray(oldKeyAt, valueAt),
      bytes: end - valueAt,
      load: () => bodyOf(bytes.subarray(valueAt, headersAt), bytes.subarray(headersAt, end)),
    };
  }

  #reserve(rows: number): void {
    if (rows <= this.#capacity) return;
    this.#capacity = Math.max(rows, this.#capacity * 2);
    this.#columns = new Columns(this.#capacity, this.#columns);
  }

  /** @returns where in the newest slab there is room */
  #room(bytes: number): number {
    const newest = this.#slabs.at(-1);
    if (!newest || this.#slabFill + bytes > newest.length) {
      // The first one of a small Window is small: there may be hundreds of Units.
      const size = this.#slabs.length === 0 ? slabBytes / 16 : slabBytes;
      this.#slabs.push(Buffer.allocUnsafeSlow(Math.max(size, bytes)));
      this.#slabFill = 0;
    }
    this.#slabFill += bytes;
    return this.#slabFill - bytes;
  }
}

/** Null where they say nothing, as nearly always. */
export function packedHeaders({
  unchanged,
  exact,
  pending = false,
}: Pick<IncomingChange, 'unchanged' | 'exact'> & { pending?: boolean | undefined }): Buffer | null {
  if (unchanged === null && exact === null && !pending) return null;
  return Buffer.from(JSON.stringify([unchanged, exact, pending]));
}

/** @param headers what `packedHeaders` gave, or nothing */
export function bodyOf(value: Buffer, headers: Buffer): ChangeBody {
  if (headers.length === 0) return { value, unchanged: null, exact: null };
  const [unchanged, exact, pending] = JSON.parse(headers.toString()) as [
    string | null,
    string | null,
    boolean,
  ];
  return { value, unchanged, exact, pending };
}

/** FNV-1a. */
function hashOf(key: Buffer): number {
  let hash = 0x811c9dc5;
  for (let i = 0; i < key.length; i++) hash = Math.imul(hash ^ key[i]!, 0x01000193);
  return hash >>> 0;
}
