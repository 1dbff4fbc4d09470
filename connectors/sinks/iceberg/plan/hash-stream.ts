/** Key hashes out of DuckDB, as words. */
import type { DuckDBConnection, DuckDBVector } from '@duckdb/node-api';
import { hashWords } from './key-run-format.ts';

/** A part of the result. */
export interface HashedRows {
  rows: number;
  /** Of each row, its hash. */
  words: Uint32Array;
  /** The columns behind the hash. */
  columns: DuckDBVector[];
}

/** @param query selects the words of a hash (key-hash.ts) first; in parts as DuckDB gives them */
export async function* hashedRows(connection: DuckDBConnection, query: string): AsyncIterable<HashedRows> {
  const result = await connection.stream(query);
  for (;;) {
    const chunk = await result.fetchChunk();
    if (chunk === null || chunk.rowCount === 0) return;
    const rows = chunk.rowCount;
    const words = new Uint32Array(rows * hashWords);
    const columns = Array.from({ length: chunk.columnCount }, (_, index) => chunk.getColumnVector(index));
    for (const [word, column] of columns.splice(0, hashWords).entries()) {
      for (let row = 0; row < rows; row += 1) words[row * hashWords + word] = column.getItem(row) as number;
    }
    yield { rows, words, columns };
  }
}
