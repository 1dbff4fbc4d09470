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

/** Whole rows of one COPY, one behind the other, and where each begins. */
export class CopyRows {
  readonly starts: number[] = [];
  readonly #columns: number;
  /** Columns that are Postgres' text. */
  readonly #text: readonly boolean[];
  #rows: Buffer = Buffer.alloc(0);
  #length = 0;

  constructor(columns: number, text: readonly boolean[] = []) {
    this.#columns = columns;
    this.#text = text;
  }

  get count(): number {
    return this.starts.length;
  }

  get bytes(): number {
    return this.#length;
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
  rows: CopyRows;
  /** Rows beyond `maxBytes` are read and dropped: COPY cannot be ended early without its connection. */
  dropped = 0;
  readonly #columns: number;
  readonly #maxBytes: number;
  readonly #text: readonly boolean[];
  #pieces: Buffer[] = [];
  #length = 0;
  /** Not looked at again before it is twice as long: a large row comes in very many pieces. */
  #enough = 0;
  #headerSeen = false;
  #ended = false;

  constructor(columns: number, maxBytes: number, text: readonly boolean[] = []) {
    this.#columns = columns;
    this.#maxBytes = maxBytes;
    this.#text = text;
    this.rows = new CopyRows(columns, text);
  }

  /** The rows so far; the next ones are collected anew. */
  takeRows(): CopyRows {
    const { rows } = this;
    this.rows = new CopyRows(this.#columns, this.#text);
    return rows;
  }

  /** @throws TidemarkError TM206 for bytes that are no such COPY */
  take(piece: Buffer): void {
    this.#pieces.push(piece);
    this.#length += piece.length;
    if (this.#length >= this.#enough) this.#parse();
  }

  /** @throws TidemarkError TM206 when COPY ended in the middle of something */
  end(): void {
    this.#parse();
    if (!this.#ended) throw broken();
  }

  #parse(): void {
    const bytes = this.#pieces.length === 1 ? this.#pieces[0]! : Buffer.concat(this.#pieces);
    const at = this.#takeRows(bytes);
    const rest = bytes.subarray(at);
    this.#pieces = rest.length === 0 ? [] : [rest];
    this.#length = rest.length;
    this.#enough = rest.length * 2;
  }

  /** @returns how far the bytes were used up */
  #takeRows(bytes: Buffer): number {
    let at = 0;
    if (!this.#headerSeen) {
      if (bytes.length < headerBytes) return 0;
      if (!bytes.subarray(0, signature.length).equals(signature)) throw broken();
      const extension = bytes.readUInt32BE(headerBytes - 4);
      if (bytes.length < headerBytes + extension) return 0;
      at = headerBytes + extension;
      this.#headerSeen = true;
    }
    for (;;) {
      const end = this.#rowEnd(bytes, at);
      if (end === null) break;
      if (this.rows.count > 0 && this.rows.bytes + (end - at) > this.#maxBytes) this.dropped++;
      else if (this.dropped === 0) this.rows.add(bytes, at + 2, end);
      else this.dropped++;
      at = end;
    }
    return at;
  }

  /** Offset after the row at `at`; null where it is not whole yet, or after the last. */
  #rowEnd(bytes: Buffer, at: number): number | null {
    if (this.#ended || at + 2 > bytes.length) return null;
    const count = bytes.readInt16BE(at);
    if (count === -1) {
      this.#ended = true;
      return null;
    }
    if (count !== this.#columns) throw broken();
    let end = at + 2;
    for (let i = 0; i < count; i++) {
      if (end + 4 > bytes.length) return null;
      const length = bytes.readInt32BE(end);
      end += 4 + Math.max(0, length);
    }
    return end > bytes.length ? null : end;
  }
}

function broken(): TidemarkError {
  return new TidemarkError('TM206', 'the source sent a COPY that is not in the binary format');
}
