/**
 * The connector SDK: what a sink is. A folder under connectors/sinks imports this room and nothing else of src/.
 *
 * A cell value is Postgres' own text for it (ISO dates, UTC, hex bytea, intervalstyle postgres, extra float digits),
 * null for NULL, and `undefined` for a TOASTed column that the change left untouched and whose value is not in
 * the stream. Text is exact for every type; a sink parses what it stores natively.
 */
import type { OptionField, OptionValues } from '../platform/option-field.ts';
import type { NativeRow } from './native-row.ts';
import type { Position } from './position.ts';
import type { TableId, TableShape } from './shape.ts';

export type Cell = string | null;

/** Values in the order of TableShape.columns. */
export type Row = Cell[];

/** As Row; `undefined` where the value did not change and is not known. */
export type PartialRow = (Cell | undefined)[];

/** The state of one key after a Window, for sinks that merge. */
export type RowState =
  | {
      op: 'upsert';
      key: Cell[];
      /** Read when it is first asked for, where `native` is set. */
      values: PartialRow;
      /** The same row as it travels, where it is whole. */
      native?: NativeRow | undefined;
      /**
       * Set where `values` has an `undefined`: the key whose row, as the destination held it before this Window,
       * supplies the missing values. It differs from `key` where the row's key changed.
       */
      fillFrom: Cell[] | null;
      /** The row under `fillFrom` may not be there yet; then this one is left out: a snapshot brings it whole. */
      mayBeAbsent?: true;
      /** After this state the row was retired, see `retire`. */
      retired?: true;
      position: Position;
    }
  | { op: 'delete'; key: Cell[]; position: Position }
  /**
   * The source let go of the row, on proof that it is here (an Eviction). It stays, also through truncates and sweeps,
   * until an upsert (which makes it an ordinary row again) or a delete of its key comes.
   */
  | { op: 'retire'; key: Cell[]; position: Position };

/** Net effect of a Window on one row image of a table without a key: that many copies more, or fewer. */
export interface RowCount {
  values: Row;
  count: number;
  /** Of the copies to remove, so many may not be there: a snapshot brings the table whole later. */
  mayBeAbsent?: number;
}

/** One Change as it happened, for sinks that append. */
export interface RowEvent {
  /**
   * Create, update, delete, truncate; `r`: a row as a snapshot read it, whole, which the destination may hold already;
   * `e`: the source let go of the row, which stays part of the table (see RowState.retire);
   * `s`: the end of a snapshot of the whole table, see `since` and Sweep.
   */
  op: 'c' | 'u' | 'd' | 't' | 'r' | 'e' | 's';
  position: Position;
  /** Commit time of its Transaction, microseconds since 1970 UTC. */
  commitTimeUs: bigint;
  /** Key columns' values; empty for truncate and for tables without a key. */
  key: Cell[];
  /** The new row; for a delete the old row as far as the replica identity shows it; empty for a truncate and an eviction. */
  values: PartialRow;
  /** The same row as it travels, where that is all of it. */
  native?: NativeRow | undefined;
  /** Set where the row had another key before this change (a key change is a delete and a create). */
  previousKey: Cell[] | null;
  /** The whole old row, where the replica identity is full and the table has no key. */
  before: Row | null;
  /** Of `s`: rows whose newest change lies at or before it are not in the source. */
  since?: Position;
}

/** A snapshot of a whole table that began before the Window's end. */
export interface TableSnapshot {
  /** Of no other snapshot, ever. */
  id: string;
  /** Position at which it began. */
  since: Position;
}

/**
 * A snapshot of a whole table with a key ended in this Window: it brought every row of the source, or the stream did
 * since it began. So rows of the destination whose newest state lies at or before `since` are not in the source (any
 * more), and the sink removes them but for retired ones, in the transaction of the Window, after all tables are merged.
 *
 * A sink that keeps no Positions with its rows can tell them by what it wrote: every Window that ends after `since` has
 * the snapshot in `MergeTable.snapshots` of the tables it writes to, so what no merge since the first such Window has
 * written is older. (`postgres` notes its own transaction id then, and compares it with the rows'.) Where a sink cannot
 * tell, it must leave the rows alone and log a warning: the operator starts another snapshot.
 */
export interface Sweep extends TableSnapshot {
  shape: TableShape;
  /** At which the snapshot ended. */
  position: Position;
  /** Rows that the snapshot brought. */
  rows: number;
}

export interface MergeTable {
  shape: TableShape;
  /**
   * The table was truncated in this Window: empty it, but for retired rows, before applying what follows. All of that came
   * after the truncate; where it counts what came before, that is a part of its own (see MergeWindow.tables).
   */
  truncated: boolean;
  /** Those of the table that had begun before the Window's end and not ended before its start; usually none. */
  snapshots: readonly TableSnapshot[];
  /** Last state per key, each key once, in batches. Empty for a table without a key. */
  states(): AsyncIterable<RowState[]>;
  /** Net row counts, in batches. Empty for a table with a key. */
  counts(): AsyncIterable<RowCount[]>;
  /** Every Change in Position order, in batches: for a sink that also keeps a history. Costs a pass of its own. */
  events(): AsyncIterable<RowEvent[]>;
}

export interface AppendTable {
  shape: TableShape;
  /** Every Change in Position order, in batches. */
  events(): AsyncIterable<RowEvent[]>;
}

interface WindowBase {
  sourceId: string;
  destination: string;
  /** `*` for the whole destination, else the table's unitName. */
  unit: string;
  /** 1-based number of the Window within its Unit, without gaps; decided once, reused by every retry. */
  sequence: number;
  /**
   * Exclusive. It may lie after the end of the Window before: Windows without records are not handed to a sink, and
   * have no sequence number.
   */
  from: Position;
  /** Inclusive, and a transaction boundary. */
  to: Position;
  /** Grows with every change of owner; a write with a smaller token than the destination has seen must fail. */
  fencingToken: bigint;
  /** Running maximum of commit times at `to`, microseconds since 1970 UTC. */
  commitTimeUs: bigint;
}

export interface MergeWindow extends WindowBase {
  /**
   * A table whose shape changed within the Window stands here once for each shape, in order. The destination's table
   * is brought to a shape, its rows included, when that one's turn comes: after the merge of the one before. And it stands
   * here once more for a truncate before which rows were retired in the same Window, or retired ones came back or were
   * deleted: which rows that truncate leaves is known when the part before it is merged.
   */
  tables: MergeTable[];
  /** In the order of their Positions; a table may be in no other part of the Window. */
  sweeps: readonly Sweep[];
}

export interface AppendWindow extends WindowBase {
  /** As MergeWindow.tables. */
  tables: AppendTable[];
}

/** What the destination acknowledged. Stored in the ledger. */
export interface Receipt {
  position: Position;
  rows: { upserted: number; deleted: number; appended: number };
  /** Bytes written to the destination, as far as it tells; otherwise bytes sent. */
  bytes: number;
  /** Order-independent hash over what was written (RowHash), hexadecimal. */
  contentHash: string;
  /** The destination's own name for the commit: transaction id, snapshot id, manifest key. */
  commitId: string;
  /** True when the destination already held this Window and nothing was written again. */
  alreadyHeld: boolean;
}

/** What the destination itself says it holds of a Unit: the truth about what was merged. */
export interface Held {
  position: Position;
  sequence: number;
  fencingToken: bigint;
}

/*
 * Capabilities are types. What a sink cannot do it does not have, and whoever needs it refuses the destination by name.
 */

/** Every sink. */
interface SinkBase {
  close(): Promise<void>;
}

/** The destination itself says what it holds: each of its Windows is there once, however often it was sent. */
export interface Holding {
  /** The last Window the destination holds of this Unit, or null where it never took one. */
  held(unit: string): Promise<Held | null>;
}

/** The destination can be read back, so that `tidemark verify` can compare it. */
export interface Readable {
  /**
   * The destination's current rows of a table, in batches, as of the Position where the sink keeps history, else as
   * they are now (the caller holds the Unit at that Position). Rows follow the shape's columns.
   * @param retired takes the rows that the source let go of (RowState.retire); without it they are among the others
   */
  readTable(shape: TableShape, at: Position, retired?: (rows: Row[]) => void): AsyncIterable<Row[]>;
}

/** What `tidemark maintain` does, in this order. */
export const upkeepSteps = ['compact', 'manifests', 'expire', 'orphans'] as const;
/**
 * `compact`: small files become few, and what was deleted leaves them; `manifests`: so do the lists of files; `expire`:
 * states of the past that no tag names go, with the files that only they have; `orphans`: files that nothing names.
 */
export type UpkeepStep = (typeof upkeepSteps)[number];

export interface UpkeepRequest {
  steps: readonly UpkeepStep[];
  /** Null: all of the destination. */
  tables: readonly TableId[] | null;
  /** States of the past stay so long, milliseconds; null: as the destination's own settings say. */
  expireAfterMs: number | null;
  /** So many states stay whatever their age; null: as the destination's own settings say. */
  keepLast: number | null;
  /** A file that nothing names is removed when it is older: a writer may be about to name it. Milliseconds. */
  orphanAgeMs: number;
  /** A file of which so large a part is deleted is written anew, 0 to 1. */
  deleteRatio: number;
  /** Say what would be done, and do nothing. */
  dryRun: boolean;
  /** Ends the work between two commits. */
  signal: AbortSignal;
  /** A step of a table was done. */
  onProgress(done: UpkeepDone): void;
}

export interface UpkeepDone {
  /** As the destination calls it. */
  table: string;
  step: UpkeepStep;
  /** What there was and what was done, by the destination's own words for it. */
  counts: Record<string, number>;
  /** Why some or all of it was left. */
  left: string | null;
}

/** What the destination keeps wants upkeep: small files, states of the past, files that nobody names. */
export interface Maintainable {
  /**
   * Runs beside whoever writes, this destination's own worker too, and changes no rows. Killed at any point it leaves
   * everything readable, and the next run takes away what it left behind.
   */
  maintain(request: UpkeepRequest): Promise<UpkeepDone[]>;
}

/** A state of all tables of a destination at one Position, by a name. */
export interface Tag {
  name: string;
  /** Everything up to it is in the tables as the tag names them, and nothing beyond. */
  position: Position;
  /** Running maximum of commit times there, microseconds since 1970 UTC. */
  commitTimeUs: string;
  /** When it was made, ISO 8601. */
  at: string;
  /** False of one that a crash left: some tables may lack it. */
  complete: boolean;
  /** As the destination calls them; null of a table that had no rows yet. */
  tables: { table: string; snapshot: string | null }[];
}

/** The destination can name a state of its own, which then stays as it is for whoever reads by the name. */
export interface Taggable {
  /** Beside the worker, which need not stop. @throws TidemarkError TM101 where the name is taken; TM408 */
  tag(name: string): Promise<Tag>;
  /** Oldest first. */
  tags(): Promise<Tag[]>;
  /** What only the tag kept goes with the next `maintain`. @returns null where there is none of the name */
  dropTag(name: string): Promise<Tag | null>;
}

/** Keeps one row per key: a replica. */
export interface MergeSink extends SinkBase, Holding, Partial<Readable & Maintainable & Taggable> {
  mode: 'merge';
  /**
   * Idempotent: merging a Window that the destination holds answers its Receipt with alreadyHeld.
   * @throws RefusedRows where the destination refuses rows; nothing of the Window may be visible then
   */
  mergeWindow(window: MergeWindow): Promise<Receipt>;
}

/** Keeps every Change. */
export interface AppendSink extends SinkBase, Holding, Partial<Readable & Maintainable & Taggable> {
  mode: 'append';
  /** As mergeWindow. @throws RefusedRows */
  appendWindow(window: AppendWindow): Promise<Receipt>;
}

/**
 * Passes every Change on to something that cannot say what it has. After a crash a Window is sent again from its
 * beginning, so whatever is sent names itself the same way each time: at least once, and recognizable.
 */
export interface SendSink extends SinkBase {
  mode: 'send';
  /**
   * In order; when it returns, the other side acknowledged everything. The ledger keeps zombies from cutting Windows, but
   * one may still send what it was sending: `events()` then throws TM403.
   * @throws RefusedRows where the other side refuses Changes for what they are; those before them may have arrived
   */
  sendWindow(window: AppendWindow): Promise<Receipt>;
}

export type Sink = MergeSink | AppendSink | SendSink;

export interface SinkContext {
  sourceId: string;
  destination: string;
  /** A folder of this destination's own for temporary files; wiped at start. */
  scratchDirectory: string;
  /** Structured log line; never pass a cell value. */
  log(level: 'info' | 'warn' | 'error', message: string, fields?: Record<string, unknown>): void;
  /** Named place where the fault tests stop or kill the process; free in production. */
  failpoint(name: string): Promise<void>;
}

/** How a sink is registered (connectors/sinks/registry.ts): one line each. */
export interface SinkKind {
  /** The value of `connector.class` in an instance file. */
  name: string;
  /** `destination`: all tables of a Window commit together; `table`: each table is a Unit of its own. */
  unit: 'destination' | 'table';
  /** The instance file's own keys, validated before `open` is called. */
  options: Record<string, OptionField>;
  /** Checks reachability and rights; one line per finding, each with its remedy. */
  check(context: SinkContext, options: OptionValues): Promise<CheckFinding[]>;
  open(context: SinkContext, options: OptionValues): Promise<Sink>;
  /** `tidemark destination test <name>`: sends one made-up Change that says what it is; one line per finding. */
  test?(context: SinkContext, options: OptionValues): Promise<CheckFinding[]>;
  /** Where sinks of the kind cannot be asked to `maintain`: what there is to say instead. */
  upkeep?: string;
  /** `false`: nobody can say whether a row that was delivered is still there. It is no proof for letting go of rows. */
  keepsRows?: false;
  /** What is left there of a row that was deleted, for `tidemark erase` to report. Absent: nobody can say. */
  leftovers?(options: OptionValues): Leftovers;
  /** A destination that fails for this long in a row is paused, until an operator resumes it. Absent: retried for ever. */
  pauseAfterMs?: number;
}

export interface Leftovers {
  /** Whether the row itself is gone for whoever reads the destination's tables and files. */
  row: 'gone' | 'stays';
  /** Where its values still are, each with what takes them away. */
  left: string[];
}

export interface CheckFinding {
  level: 'ok' | 'warn' | 'error';
  what: string;
  /** The statement or setting that mends it; null for `ok`. */
  remedy: string | null;
}

export type { CellReceiver, NativeRow } from './native-row.ts';
export type { OptionField, OptionValues, Position, TableId, TableShape };
