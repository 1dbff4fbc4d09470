/** Rows of COPY's binary format, one after the other in a buffer. */
import type { CellReceiver, NativeRow } from '../../../src/connector/native-row.ts';
import type { Cell } from '../../../src/connector/sink.ts';
import type { BinaryColumn, ByteSink } from './binary-parts.ts';

/** Signature, flags and length of the extension (PostgreSQL manual, COPY, "Binary Format"). */
const header = Buffer.concat([Buffer.from('PGCOPY\n\xff\r\n\0', 'latin1'), Buffer.alloc(8)]);
const trailerBytes = 2;

export class BinaryRows implements ByteSink {
  bytes: Buffer = header;
  view: DataView = viewOf(header);
  /** Where the next byte goes. */
  at = 0;
  /** Every value of the row so far has a binary form. */
  fits = true;
  readonly #columns: readonly BinaryColumn[];
  readonly #receivers: readonly CellReceiver[];
  readonly #capacity: number;
  #used = false;

  /** @param capacity bytes that a chunk is expected to reach */
  constructor(columns: readonly BinaryColumn[], capacity: number) {
    this.#columns = columns;
    this.#receivers = columns.map((column) => column.receiver(this));
    this.#capacity = capacity;
  }

  get size(): number {
    return this.#used ? this.at : 0;
  }

  /** The row's bytes, for as long as nothing else is added; null where a value has another form. */
  add(cells: readonly Cell[]): Uint8Array | null {
    const start = this.#begin();
    for (let i = 0; i < cells.length && this.fits; i++) {
      const cell = cells[i]!;
      if (cell === null) this.#receivers[i]!.nothing();
      else this.#receivers[i]!.text(cell);
    }
    return this.#end(start);
  }

  /** As `add`. Columns that the row lacks are null. */
  addNative(row: NativeRow, width: number): Uint8Array | null {
    const start = this.#begin();
    row.pass(this.#receivers);
    for (let i = width; i < this.#columns.length; i++) this.#receivers[i]!.nothing();
    return this.#end(start);
  }

  #begin(): number {
    if (!this.#used) {
      this.#used = true;
      this.bytes = Buffer.allocUnsafeSlow(this.#capacity);
      this.view = viewOf(this.bytes);
      this.bytes.set(header);
      this.at = header.length;
    }
    this.fits = true;
    this.ensure(2);
    this.view.setInt16(this.at, this.#columns.length);
    this.at += 2;
    return this.at - 2;
  }

  #end(start: number): Uint8Array | null {
    if (this.fits) return this.bytes.subarray(start, this.at);
    this.at = start;
    return null;
  }

  /** Makes room for so many bytes, and for what follows the last row. */
  ensure(more: number): void {
    const needed = this.at + more + trailerBytes;
    if (needed <= this.bytes.length) return;
    const larger = Buffer.allocUnsafeSlow(needed + (needed >> 2));
    larger.set(this.bytes.subarray(0, this.at));
    this.bytes = larger;
    this.view = viewOf(larger);
  }

  /** All rows so far, as the whole input of a COPY. */
  take(): Buffer | null {
    if (!this.#used) return null;
    this.view.setInt16(this.at, -1);
    this.#used = false;
    return this.bytes.subarray(0, this.at + trailerBytes);
  }
}

function viewOf(bytes: Buffer): DataView {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
}
