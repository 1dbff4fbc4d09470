/** How DuckDB's columns carry a Change, and how rows of a query are read. */
import {
  BIGINT,
  BLOB,
  BOOLEAN,
  type DuckDBBlobValue,
  type DuckDBConnection,
  type DuckDBValue,
  INTEGER,
  VARCHAR,
} from '@duckdb/node-api';
import { storeError } from './window-store.ts';

/** Columns that SpilledRows.storedChange needs, in this order. */
export const changeColumns =
  'topic, position, schema_id, truncate, partial, key, old_key, file, place, value_bytes, header_bytes, eviction';
/** Of a table's columns: those above and old_key_end. */
export const columnTypes = [
  INTEGER,
  VARCHAR,
  INTEGER,
  BOOLEAN,
  BOOLEAN,
  BLOB,
  BLOB,
  INTEGER,
  BIGINT,
  INTEGER,
  INTEGER,
  BOOLEAN,
  VARCHAR,
];
export const tableColumns = `topic integer, position varchar, schema_id integer, truncate boolean, partial boolean, key blob,
  old_key blob, file integer, place bigint, value_bytes integer, header_bytes integer, eviction boolean, old_key_end varchar`;

/** `changeColumns` of an alias. */
export function changeColumnsOf(alias: string): string {
  return changeColumns.replaceAll(/\w+/g, (name) => `${alias}.${name}`);
}

/** Streams a query's rows in chunks of at most 2,048. @throws TidemarkError TM406 */
export async function* streamRows<T>(
  connection: DuckDBConnection,
  sql: string,
  read: (columns: DuckDBValue[][], row: number) => T,
): AsyncIterable<T[]> {
  let failed = true;
  try {
    const result = await connection.stream(sql);
    for (;;) {
      const chunk = await result.fetchChunk();
      if (!chunk || chunk.rowCount === 0) return;
      const values = chunk.getColumns();
      const rows: T[] = new Array(chunk.rowCount);
      for (let i = 0; i < rows.length; i++) rows[i] = read(values, i);
      // Its strings live outside the heap, where no collection sees how large they are.
      chunk.reset();
      failed = false;
      yield rows;
      failed = true;
    }
  } catch (error) {
    throw failed ? storeError(error) : error;
  }
}

/** A BLOB cell's bytes. */
export function blob(value: DuckDBValue): Buffer | null {
  if (value === null) return null;
  const { bytes } = value as DuckDBBlobValue;
  return Buffer.isBuffer(bytes) ? bytes : Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}
