/**
 * COPY's binary format (PostgreSQL manual, COPY, "Binary Format"): a signature, flags and an extension, then per row a
 * 16-bit count and per value a 32-bit length with its bytes, then -1. Values are as pgoutput has them with
 * `binary 'true'`, so the same codecs read both.
 */
import { TidemarkError } from '../../platform/errors.ts';
import { type Tuple, valueKind } from '../pgoutput.ts';

const signature = Buffer.from('PGCOPY\n\xff\r\n\0', 'latin1');
/** Signature, flags, length of the extension. */
const headerBytes = signature.length + 8;

const firstBytes = 64 << 10;
const nothing = Buffer.alloc(0);

/** Whole rows of one COPY, one behind the other, and where each begins. */
export class CopyRows {
  readonly starts: number[] = [];
  readonly #columns: number;
  /** Columns that are Postgres' text. */
  readonly #text: readonly boolean[];
  #rows: Buffer;
  #length = 0;

  /** @param space that nobody else writes to: what earlier rows left behind, if any */
  constructor(columns: number, text: readonly boolean[] = [], space: Buffer = nothing) {
    this.#columns = columns;
    this.#text = text;
    this.#rows = space;
  }

  get columns(): number {
    return this.#columns;
  }

  get count(): number {
    return this.starts.length;
  }

  get bytes(): number {
    return this.#length;
  }

  /** The rows are used up. */
  clear(): void {
    this.starts.length = 0;
    this.#length = 0;
  }

  /** The rows are used up for good. @returns the space that they took */
  leave(): Buffer {
    this.clear();
    const space = this.#rows;
    this.#rows = nothing;
    return space;
  }

  /** Keeps a copy of one row, without its count field. */
  add(bytes: Buffer, start: number, end: number): void {
    const length = this.#length + end - start;
    if (length > this.#rows.length) {
      const larger = Buffer.allocUnsafeSlow(Math.max(firstBytes, length * 2));
      this.#rows.copy(larger, 0, 0, this.#length);
      this.#rows = larger;
    }
    bytes.copy(this.#rows, this.#length, start, end);
    this.starts.push(this.#length);
    this.#length = length;
  }

  /** Fills the tuple with a row; it is valid until the next call. */
  read(index: number, tuple: Tuple): void {
    const bytes = this.#rows;
    const columns = this.#columns;
    if (columns > tuple.kinds.length) {
      tuple.kinds = new Uint8Array(columns);
      tuple.starts = new Int32Array(columns);
      tuple.ends = new Int32Array(columns);
    }
    tuple.bytes = bytes;
    tuple.count = columns;
    let at = this.starts[index]!;
    for (let i = 0; i < columns; i++) {
      const length = bytes.readInt32BE(at);
      at += 4;
      tuple.kinds[i] = length < 0 ? valueKind.null : this.#text[i] ? valueKind.text : valueKind.binary;
      tuple.starts[i] = at;
      if (length > 0) at += length;
      tuple.ends[i] = at;
    }
  }
}

/** Cuts COPY's bytes, which arrive in pieces of any size, into rows. */
export class CopyParser {
  readonly rows: CopyRows;
  /** Rows beyond `maxBytes` are read and dropped: COPY cannot be ended early without its connection. */
  dropped = 0;
  readonly #maxBytes: number;
  #pieces: Buffer[] = [];
  #length = 0;
  /** Not looked at again before it is twice as long: a large row comes in very many pieces. */
  #enough = 0;
  #headerSeen = false;
  #ended = false;

  /** @param rows where they are collected, from the first on */
  constructor(rows: CopyRows, maxBytes: number) {
    this.rows = rows;
    this.#maxBytes = maxBytes;
  }

  /** The bytes are free again after the call. @throws TidemarkError TM206 for bytes that are no such COPY */
  take(bytes: Buffer, start = 0, end = bytes.length): void {
    // The server puts whole rows into its messages, as a rule.
    const at = this.#length === 0 ? this.#takeRows(bytes, start, end) : start;
    if (at === end) return;
    this.#pieces.push(Buffer.from(bytes.subarray(at, end)));
    this.#length += end - at;
    if (this.#length >= this.#enough) this.#parse();
  }

  /** @throws TidemarkError TM206 when COPY ended in the middle of something */
  end(): void {
    this.#parse();
    if (!this.#ended) throw broken();
  }

  #parse(): void {
    const bytes = this.#pieces.length === 1 ? this.#pieces[0]! : Buffer.concat(this.#pieces);
    const at = this.#takeRows(bytes, 0, bytes.length);
    const rest = bytes.subarray(at);
    this.#pieces = rest.length === 0 ? [] : [rest];
    this.#length = rest.length;
    this.#enough = rest.length * 2;
  }

  /** @returns how far the bytes were used up */
  #takeRows(bytes: Buffer, start: number, end: number): number {
    let at = start;
    if (!this.#headerSeen) {
      if (end - at < headerBytes) return at;
      if (!bytes.subarray(at, at + signature.length).equals(signature)) throw broken();
      const size = headerBytes + bytes.readUInt32BE(at + headerBytes - 4);
      if (end - at < size) return at;
      at += size;
      this.#headerSeen = true;
    }
    while (at < end) {
      const rowEnd = this.#rowEnd(bytes, at, end);
      if (rowEnd < 0) break;
      if (this.rows.count > 0 && this.rows.bytes + (rowEnd - at) > this.#maxBytes) this.dropped++;
      else if (this.dropped === 0) this.rows.add(bytes, at + 2, rowEnd);
      else this.dropped++;
      at = rowEnd;
    }
    return at;
  }

  /** Offset after the row at `at`; negative where it is not whole yet, or after the last. */
  #rowEnd(bytes: Buffer, at: number, end: number): number {
    if (this.#ended || at + 2 > end) return -1;
    const count = bytes.readInt16BE(at);
    if (count === -1) {
      this.#ended = true;
      return -1;
    }
    if (count !== this.rows.columns) throw broken();
    let rowEnd = at + 2;
    for (let i = 0; i < count; i++) {
      if (rowEnd + 4 > end) return -1;
      const length = bytes.readInt32BE(rowEnd);
      rowEnd += 4 + Math.max(0, length);
    }
    return rowEnd > end ? -1 : rowEnd;
  }
}

function broken(): TidemarkError {
  return new TidemarkError('TM206', 'the source sent a COPY that is not in the binary format');
}
