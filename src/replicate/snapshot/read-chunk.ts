/** One chunk's read: a short transaction on a plain connection, no lock that anybody waits for but a TRUNCATE or ALTER. */
import type { ClientBase } from 'pg';
import { valueStatements } from '../value-session.ts';
import { CopyParser, type CopyRows } from './copy-binary.ts';
import type { CopyClient } from './copy-client.ts';
import { isUnchanged, scanReference, type TableScan } from './table-scan.ts';
import { type PgSnapshot, parsePgSnapshot } from './visibility.ts';

export interface ChunkRead {
  rows: CopyRows;
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

/** Under the table's lock, so that no change of it is under way that the stream may have passed already. */
export async function isStillUnchanged(client: ClientBase, scan: TableScan): Promise<boolean> {
  return underLock(client, scan, () => isUnchanged(client, scan));
}

/**
 * Under read committed, and with the lock first: an ALTER that rewrites the table, or a TRUNCATE, leaves nothing to
 * snapshots that are older than it, and none of ours is.
 */
async function underLock<T>(client: ClientBase, scan: TableScan, work: () => Promise<T>): Promise<T> {
  await client.query('begin isolation level read committed read only');
  try {
    // As LOCK TABLE … IN ACCESS SHARE MODE would, but a grant on single columns is enough.
    await client.query(`select from ${scanReference(scan)} limit 0`);
    return await work();
  } finally {
    // Also after an error, so that the connection can be used again; where it is gone, the next statement says so.
    await client.query('commit').catch(() => {});
  }
}

/**
 * @param accept gets the snapshot before anything is read: whatever it sees, the rows show; false: not now
 * @returns null where `accept` said no, or the table is not what the scan says any more
 */
export async function readChunk(
  client: CopyClient,
  scan: TableScan,
  query: string,
  into: CopyRows,
  maxBytes: number,
  accept: (snapshot: PgSnapshot) => boolean,
): Promise<ChunkRead | null> {
  return underLock(client, scan, async () => {
    const { rows: taken } = await client.query<{ snapshot: string }>(
      'select pg_current_snapshot()::text as snapshot',
    );
    const snapshot = parsePgSnapshot(taken[0]!.snapshot);
    if (!accept(snapshot) || !(await isUnchanged(client, scan))) return null;
    const parser = new CopyParser(into, maxBytes);
    await client.copy(`copy (${query}) to stdout (format binary)`, (bytes, start, end) =>
      parser.take(bytes, start, end),
    );
    parser.end();
    return { rows: into, cut: parser.dropped > 0 };
  });
}
