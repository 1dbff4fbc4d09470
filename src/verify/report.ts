/** What verify answers, and what it tells while it works. Only the report holds keys; nothing here is ever logged. */
import type { Position } from '../connector/position.ts';

export type TableStatus = 'equal' | 'different' | 'parked' | 'not-replicated';

/** A row that the two sides do not agree on. */
export interface KeyDifference {
  /** missing: the destination lacks it. extra: the destination alone has it. different: other values. */
  kind: 'missing' | 'extra' | 'different';
  /** Key columns and their text; of a table without a key the whole row, long values cut. */
  key: Record<string, string | null>;
  /** Of a `different` row: the columns that differ. */
  columns: string[];
  /** Tables without a key: that many copies. Else 1. */
  count: number;
}

export interface TableReport {
  /** `schema.name` */
  table: string;
  status: TableStatus;
  /** Rows at the Position; null where they were not read. */
  sourceRows: number | null;
  destinationRows: number | null;
  /** RowHash over the compared columns, 32 hexadecimal digits; null where rows were not read. */
  sourceHash: string | null;
  destinationHash: string | null;
  missing: number;
  extra: number;
  different: number;
  /** False: there are at least that many; more did not fit into memory at once. */
  countsExact: boolean;
  /** At most `limit`. */
  keys: KeyDifference[];
  /** Rows that the destination refused and that wait in Quarantine, or were dropped from it. */
  quarantined: number;
  /** Rows that the source let go of and the destination keeps: they are in none of the other counts, and not compared. */
  evicted: number;
  /** What it means and what to do; null where there is nothing to say. */
  hint: string | null;
  durationMs: number;
}

export interface VerifyReport {
  sourceId: string;
  destination: string;
  /** Both sides were compared as of this Position. */
  position: Position;
  equal: boolean;
  tables: TableReport[];
  /** Milliseconds. */
  durations: { snapshotMs: number; deliverMs: number; compareMs: number; totalMs: number };
}

/** A Unit that has not reached the Position yet. */
export interface UnitBehind {
  unit: string;
  mark: Position | null;
  /** Milliseconds since its worker last wrote to the ledger; null: no worker ever did. */
  seenMsAgo: number | null;
  errorCode: string | null;
}

export type VerifyEvent =
  /** First snapshots are still being read. */
  | {
      phase: 'rows';
      waitedMs: number;
      tables: { table: string; rows: number; estimatedRows: number | null }[];
    }
  /** The source waits for transactions that began earlier. */
  | { phase: 'snapshot'; waitedMs: number; transactions: number; oldestMs: number | null; pids: number[] }
  | { phase: 'deliver'; waitedMs: number; reached: number; behind: UnitBehind[] }
  /** Rows read so far; pass 1 compares sums, 2 finds differing rows, 3 fetches their keys. */
  | {
      phase: 'compare';
      table: string;
      pass: 1 | 2 | 3;
      sourceRows: number;
      destinationRows: number;
    };
