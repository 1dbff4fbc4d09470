/** One chunk's read: a short transaction on a plain connection, no lock that anybody waits for but a TRUNCATE or ALTER. */
import type { ClientBase, QueryResult } from 'pg';
import { valueStatements } from '../value-session.ts';
import { CopyParser, type CopyRows } from './copy-binary.ts';
import type { CopyClient } from './copy-client.ts';
import { isUnchanged, scanReference, type TableScan, unchangedCheck } from './table-scan.ts';
import { type PgSnapshot, parsePgSnapshot } from './visibility.ts';

export interface ChunkRead {
  /** Whatever it sees, the rows show. */
  snapshot: PgSnapshot;
  rows: CopyRows;
  /** Of the table, once its rows were locked. */
  pages: number;
  /** Rows were left out because of their bytes: the table goes on after the last one. */
  cut: boolean;
}

/** Settings under which rows are complete, keys' texts are what codecs print, and the index gives the order. */
export const scanSession = [
  ...valueStatements,
  // A policy would hide rows that replication carries; an error is better.
  'set row_security = off',
  // The marks' commits wait for no standby: they carry no data.
  'set synchronous_commit = local',
  // Sorting the whole table for every chunk would make the scan quadratic.
  'set enable_seqscan = off',
  'set enable_bitmapscan = off',
  'set enable_sort = off',
  'set statement_timeout = 0',
  // A table that is being altered comes later.
  "set lock_timeout = '5s'",
  'set idle_in_transaction_session_timeout = 0',
].join('; ');

const beginReading = 'begin isolation level read committed read only';

/** As LOCK TABLE … IN ACCESS SHARE MODE would, but a grant on single columns is enough. */
function lockStatement(scan: TableScan): string {
  return `select from ${scanReference(scan)} limit 0`;
}

/** Under the table's lock, so that no change of it is under way that the stream may have passed already. */
export async function isStillUnchanged(client: ClientBase, scan: TableScan): Promise<boolean> {
  return underLock(client, scan, () => isUnchanged(client, scan));
}

/**
 * Under read committed, and with the lock first: an ALTER that rewrites the table, or a TRUNCATE, leaves nothing to
 * snapshots that are older than it, and none of ours is.
 */
async function underLock<T>(client: ClientBase, scan: TableScan, work: () => Promise<T>): Promise<T> {
  await client.query(beginReading);
  try {
    await client.query(lockStatement(scan));
    return await work();
  } finally {
    // Also after an error, so that the connection can be used again; where it is gone, the next statement says so.
    await client.query('commit').catch(() => {});
  }
}

/**
 * All in one message to the server, so that it reads while what came before is encoded here.
 * @param first statements before it, each a transaction of its own
 * @returns null where the table is not what the scan says any more
 */
export async function readChunk(
  client: CopyClient,
  scan: TableScan,
  query: string,
  into: CopyRows,
  { first, maxBytes }: { first: readonly string[]; maxBytes: number },
): Promise<ChunkRead | null> {
  const check = unchangedCheck(scan);
  const statements = [
    ...first.flatMap((statement) => ['begin', statement, 'commit']),
    beginReading,
    lockStatement(scan),
    'select pg_current_snapshot()::text as snapshot',
    check.query,
    // After the low mark: whatever lies on later pages is streamed after it.
    `select (pg_relation_size(${scan.table.oid}) / current_setting('block_size')::int)::float8 as pages`,
    `copy (${query}) to stdout (format binary)`,
    'commit',
  ];
  const parser = new CopyParser(into, maxBytes);
  let results: QueryResult[];
  try {
    results = await client.copy(statements.join(';\n'), (bytes, start, end) =>
      parser.take(bytes, start, end),
    );
  } catch (error) {
    // It was made for the table as it was: an error says nothing of the table as it is.
    await client.query('rollback');
    if (await isStillUnchanged(client, scan)) throw error;
    return null;
  }
  const [snapshot, columns, pages] = results.slice(-5);
  if (!check.holds(columns!.rows)) return null;
  parser.end();
  return {
    snapshot: parsePgSnapshot(snapshot!.rows[0].snapshot),
    pages: pages!.rows[0].pages,
    cut: parser.dropped > 0,
    rows: into,
  };
}
