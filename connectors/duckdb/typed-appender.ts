/** Rows of typed columns into a table of DuckDB's, a vector of each column at a time. */
import type { DuckDBConnection } from '@duckdb/node-api';
import duckdb from '@duckdb/node-bindings';
import { type ColumnWriter, HeapWriter, type RowSlot, vectorRows } from './column-writers.ts';
import { TableAppender } from './table-appender.ts';

/** Of strings, after which a chunk is not filled up. */
const mostHeapBytes = 8 << 20;

export class TypedAppender {
  readonly #slot: RowSlot;
  readonly #columns: readonly ColumnWriter[];
  readonly #table: TableAppender;

  /** @param slot the one that the columns write to */
  constructor(slot: RowSlot, columns: readonly ColumnWriter[]) {
    this.#slot = slot;
    this.#columns = columns;
    this.#table = new TableAppender(columns.map(({ type }) => type));
  }

  /** SQL of the table's columns. @param names quoted */
  definition(names: readonly string[]): string {
    return this.#columns.map(({ type }, i) => `${names[i]!} ${type.toString()}`).join(', ');
  }

  /** As TableAppender.into. */
  into(connection: DuckDBConnection, table: string): Promise<void> {
    return this.#table.into(connection, table);
  }

  /** Ends the row in the slot. */
  endRow(): void {
    this.#slot.row++;
    this.#slot.fits = true;
    if (this.#slot.row === vectorRows || this.#slot.heapBytes > mostHeapBytes) this.#append();
  }

  /** Forgets what was written of the row in the slot. */
  dropRow(): void {
    this.#slot.fits = true;
  }

  #append(): void {
    const { row: rows } = this.#slot;
    if (rows === 0) return;
    const { chunk } = this.#table;
    chunk.rowCount = rows;
    for (const [i, column] of this.#columns.entries()) {
      const vector = duckdb.data_chunk_get_vector(chunk.chunk, i);
      if (column instanceof HeapWriter) {
        const entries = column.placed(rows, heapOf(vector, column));
        duckdb.copy_data_to_vector(vector, 0, entries, 0, entries.byteLength);
        column.empty();
      } else {
        const { data } = column;
        duckdb.copy_data_to_vector(
          vector,
          0,
          data.buffer as ArrayBuffer,
          0,
          (data.byteLength / vectorRows) * rows,
        );
      }
      duckdb.vector_ensure_validity_writable(vector);
      const { buffer, byteLength } = column.validity;
      duckdb.copy_data_to_vector_validity(vector, 0, buffer, 0, byteLength);
    }
    this.#table.append();
    this.#slot.row = 0;
    this.#slot.heapBytes = 0;
  }

  /** All rows are in the table. */
  end(): void {
    this.#append();
    this.#table.end();
  }
}

/**
 * Gives the vector all of the column's longer strings as one, and says where DuckDB keeps it: entries may point anywhere
 * into what the vector owns, as its own do. A call for each string costs more than all the rest.
 */
function heapOf(vector: Parameters<typeof duckdb.vector_get_data>[0], column: HeapWriter): bigint {
  if (column.used === 0) return 0n;
  duckdb.vector_assign_string_element_len(vector, 0, column.heap.subarray(0, column.used));
  const entry = duckdb.vector_get_data(vector, 16);
  const view = new DataView(entry.buffer, entry.byteOffset, 16);
  // A single short one would stand in the entry itself; the writers keep none of these in the heap.
  return view.getBigUint64(8, true);
}
