/** The DuckDB that files are written with. Its relations are the input of write-data-files.ts. */
import type { DuckDBConnection } from '@duckdb/node-api';
import { lendInstance } from '../../../duckdb/instances.ts';

export interface Database {
  connection: DuckDBConnection;
  /** Nothing in it failed: whoever is next may have it. */
  giveBack(): void;
  /** Nothing to do where it was given back. */
  close(): void;
}

/**
 * One thread writes rows in the order of the query although DuckDB is not told to keep it, which it can only do without
 * a limit on the bytes of a row group.
 * @param folder for what does not fit into memory
 */
export async function openDatabase(folder: string, memoryBytes: number): Promise<Database> {
  const instance = await lendInstance({ folder, memoryBytes });
  const connection = await instance.connect();
  await connection.run("SET TimeZone = 'UTC'");
  let isGivenBack = false;
  return {
    connection,
    giveBack() {
      isGivenBack = true;
      connection.closeSync();
      instance.giveBack();
    },
    close() {
      if (isGivenBack) return;
      connection.closeSync();
      instance.close();
    },
  };
}
