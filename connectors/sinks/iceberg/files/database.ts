/** The DuckDB that files are written with. Its relations are the input of write-data-files.ts. */
import { join } from 'node:path';
import { type DuckDBConnection, DuckDBInstance } from '@duckdb/node-api';

export interface Database {
  instance: DuckDBInstance;
  connection: DuckDBConnection;
  close(): void;
}

/**
 * One thread writes rows in the order of the query although DuckDB is not told to keep it, which it can only do without
 * a limit on the bytes of a row group.
 * @param folder for what does not fit into memory
 */
export async function openDatabase(
  folder: string,
  memoryBytes: number,
  file = ':memory:',
): Promise<Database> {
  const instance = await DuckDBInstance.create(file, {
    threads: '1',
    memory_limit: `${memoryBytes}B`,
    temp_directory: join(folder, 'spill'),
    preserve_insertion_order: 'false',
    autoinstall_known_extensions: 'false',
    autoload_known_extensions: 'false',
  });
  const connection = await instance.connect();
  await connection.run("SET TimeZone = 'UTC'");
  return {
    instance,
    connection,
    close() {
      connection.closeSync();
      instance.closeSync();
    },
  };
}
