/**
 * DuckDB in memory, for a piece of work at a time. To make one takes 15 ms of CPU, as much as a small Window does, so one that
 * was given back is lent again; after a while that nobody wants it, it is closed.
 */
import { join } from 'node:path';
import { type DuckDBConnection, DuckDBInstance } from '@duckdb/node-api';
import { quoteName, quoteText } from '../object-log/sql-text.ts';

export interface InstanceOptions {
  memoryBytes: number;
  /** For what does not fit into memory. */
  folder: string;
}

export interface LentInstance {
  connect(): Promise<DuckDBConnection>;
  /** Every connection is closed. What was made outside of temporary tables goes. */
  giveBack(): void;
  /** Instead of giving it back: something in it failed. */
  close(): void;
}

/** Whoever works continuously wants it again within a second or two. */
const idleMs = 10_000;
/** One of a memory limit; more work at a time has instances of its own. */
const idle = new Map<number, { instance: DuckDBInstance; timer: NodeJS.Timeout }>();

/** @throws what DuckDB reports */
export async function lendInstance({ memoryBytes, folder }: InstanceOptions): Promise<LentInstance> {
  const spill = join(folder, 'spill');
  const instance = (await again(memoryBytes, spill)) ?? (await create(memoryBytes, spill));
  return {
    connect: () => instance.connect(),
    giveBack: () => void keep(memoryBytes, instance),
    close: () => instance.closeSync(),
  };
}

/** One thread: each holds row groups of its own, and rows come from one. */
function create(memoryBytes: number, spill: string): Promise<DuckDBInstance> {
  return DuckDBInstance.create(':memory:', {
    threads: '1',
    memory_limit: `${memoryBytes}B`,
    temp_directory: spill,
    preserve_insertion_order: 'false',
    autoinstall_known_extensions: 'false',
    autoload_known_extensions: 'false',
  });
}

async function again(memoryBytes: number, spill: string): Promise<DuckDBInstance | null> {
  const kept = idle.get(memoryBytes);
  if (!kept) return null;
  idle.delete(memoryBytes);
  clearTimeout(kept.timer);
  try {
    // Refused where it has spilled to another folder.
    await once(kept.instance, (connection) =>
      connection.run(`SET GLOBAL temp_directory = ${quoteText(spill)}`),
    );
    return kept.instance;
  } catch {
    kept.instance.closeSync();
    return null;
  }
}

async function keep(memoryBytes: number, instance: DuckDBInstance): Promise<void> {
  try {
    await once(instance, async (connection) => {
      const names = await connection.runAndReadAll(
        'SELECT table_name FROM duckdb_tables() WHERE NOT temporary AND NOT internal',
      );
      for (const [name] of names.getRows()) await connection.run(`DROP TABLE ${quoteName(String(name))}`);
    });
  } catch {
    instance.closeSync();
    return;
  }
  if (idle.has(memoryBytes)) return instance.closeSync();
  const timer = setTimeout(() => {
    idle.delete(memoryBytes);
    instance.closeSync();
  }, idleMs);
  timer.unref();
  idle.set(memoryBytes, { instance, timer });
}

async function once(
  instance: DuckDBInstance,
  work: (connection: DuckDBConnection) => Promise<unknown>,
): Promise<void> {
  const connection = await instance.connect();
  try {
    await work(connection);
  } finally {
    connection.closeSync();
  }
}
