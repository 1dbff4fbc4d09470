/**
 * The stream's side of snapshots: where each stands (it goes into Progress), which keys change between a chunk's
 * marks, and whether a chunk may be published when its high mark is met.
 *
 * TOAST makes one thing harder than dropping changed keys: an update that leaves a column untouched does not carry
 * it, so of a row that no chunk has brought yet the stream alone never makes a whole one. Such keys are read again,
 * in a chunk of their own: those that were dropped from a chunk, and those that such an update moved to a place where
 * the scan may have been already, by another key or, where the order is that on disk, by being an update.
 */
import type { Position } from '../../connector/position.ts';
import { type Mark, readMark } from '../../replicate/snapshot/marks.ts';
import { TransactionWatch } from '../../replicate/snapshot/visibility.ts';
import { AttachedPartitions } from '../attached-partitions.ts';
import type { SnapshotState } from '../progress.ts';
import type { TableEncoder } from '../table-encoder.ts';
import type { Chunk, VoidReason } from './chunk.ts';
import { byKey, isPhysical } from './scan-order.ts';

/** A window remembers at most this many keys, about 150 bytes each. */
const mostChangedKeys = 100_000;

/** Keys to be read again are in every Progress; with more of them the scan starts over, and by key. */
const mostKeysAgain = 256;

interface Window {
  chunk: Chunk;
  /** Commits streamed before the low mark; null: the low mark was not met yet. */
  before: number | null;
  changed: Set<string>;
  /** Of those, keys whose row the stream does not have whole. */
  partial: Set<string>;
  voided: VoidReason | null;
  /** The shape that the stream gave the table since the low mark, as text; null: none. */
  shape: string | null;
}

/** A row of the stream, while some chunk may be under way. */
export interface ChangedRow {
  /** It leaves columns untouched that nothing in the stream supplies. */
  partial: boolean;
  /** It had another key before. */
  moved: boolean;
  /** Its key as Postgres' text. */
  cursor(): string[];
}

interface TrackedTable {
  state: SnapshotState;
  /** Every update moves its row in the order of the scan, and not only one that changes the key. */
  physical: boolean;
  /** Of chunks that are under way, in order. Between its marks the stream is with one of them at most. */
  windows: Window[];
}

export class TableSnapshots {
  readonly watch = new TransactionWatch();
  readonly partitions = new AttachedPartitions();
  /** A snapshot moved although no record came with it: worth a Progress. */
  moved = false;
  readonly #sourceId: string;
  /** By topic. */
  readonly #tables = new Map<string, TrackedTable>();
  #due: Window | null = null;
  /** Topics of tables that join the stream, and whose snapshot nobody could ask for yet. */
  readonly #announced = new Set<string>();

  constructor(sourceId: string) {
    this.#sourceId = sourceId;
  }

  /** For the hot path: whether anything is to be told at all. */
  get idle(): boolean {
    return this.#tables.size === 0;
  }

  /** From now on the table's changes are watched. Before anything is streamed for a snapshot that goes on. */
  track(topic: string, state: SnapshotState): void {
    const physical = isPhysical(state.key);
    this.#tables.set(topic, { state: { ...state, again: [...state.again] }, physical, windows: [] });
    this.partitions.snapshotOpened(topic);
    this.moved = true;
  }

  /** The scan reads in this order: where the cursor is of another one, it starts over. */
  describe(topic: string, id: string, order: string): void {
    const table = this.#tables.get(topic);
    if (table?.state.id !== id || table.state.key === order) return;
    if (table.state.key !== null) startOver(table.state);
    table.state.key = order;
    table.physical = isPhysical(order);
  }

  untrack(topic: string): void {
    for (const { chunk } of this.#tables.get(topic)?.windows ?? [])
      chunk.settle({ kind: 'void', reason: 'cancelled' });
    this.#tables.delete(topic);
    this.moved = true;
  }

  state(topic: string): Readonly<SnapshotState> | null {
    return this.#tables.get(topic)?.state ?? null;
  }

  /** For Progress: by topic. */
  states(): Record<string, SnapshotState> {
    this.moved = false;
    return Object.fromEntries(
      [...this.#tables].map(([topic, { state }]) => [topic, { ...state, again: [...state.again] }]),
    );
  }

  /** Before a table joins the stream: its first changes may be of rows that are nowhere yet. */
  announce(topics: readonly string[]): void {
    for (const topic of topics) this.#announced.add(topic);
  }

  /** Those whose snapshot was asked for are tracked by now. */
  joined(topics: readonly string[]): void {
    for (const topic of topics) this.#announced.delete(topic);
  }

  /** The snapshot because of which some row of the table may be nowhere yet, or null. */
  incomplete(topic: string): Pick<SnapshotState, 'destination'> | null {
    if (this.#announced.has(topic) || this.partitions.incomplete(topic)) return { destination: null };
    const state = this.#tables.get(topic)?.state;
    return state && !isComplete(state) ? state : null;
  }

  /** Before the chunk's low mark is written. */
  expect(chunk: Chunk): void {
    const table = this.#tables.get(chunk.topic);
    if (table?.state.id !== chunk.snapshotId) return;
    const [changed, partial] = [new Set<string>(), new Set<string>()];
    table.windows.push({ chunk, before: null, changed, partial, voided: null, shape: null });
  }

  abandon(chunk: Chunk): void {
    const table = this.#tables.get(chunk.topic);
    if (table) table.windows = table.windows.filter((window) => window.chunk !== chunk);
  }

  message(prefix: string, content: Buffer): void {
    const mark = readMark(this.#sourceId, prefix, content);
    if (!mark) return;
    const window = this.#windowOf(mark);
    // A mark that is streamed again after a restart: its chunk went with the process that read it.
    if (!window) return;
    if (mark.kind === 'low') window.before = this.watch.streamed;
    else this.#due = window;
  }

  /** At each commit. @returns the chunk whose high mark this Transaction is, with what became of it between the marks */
  committed(xid: number): DueChunk | null {
    const due = this.#due;
    this.#due = null;
    let result: DueChunk | null = null;
    if (due) {
      const table = this.#tables.get(due.chunk.topic);
      if (table?.windows.includes(due)) {
        this.abandon(due.chunk);
        const reason = this.#voidReason(due, table.state);
        if (reason) due.chunk.settle({ kind: 'void', reason });
        else {
          result = new DueChunk(due.chunk, table, due);
          // Also where no row is left of it.
          this.moved = true;
        }
      }
    }
    this.watch.committed(xid);
    return result;
  }

  rowChanged(topic: string, key: Buffer, { partial, moved, cursor }: ChangedRow): void {
    const table = this.#tables.get(topic);
    if (!table) return;
    if (partial && (moved || table.physical) && !isComplete(table.state)) readAgain(table.state, cursor());
    const window = openWindow(table);
    if (!window) return;
    const text = key.toString('latin1');
    window.changed.add(text);
    if (partial) window.partial.add(text);
    if (window.changed.size <= mostChangedKeys) return;
    window.voided ??= 'busy';
    window.changed.clear();
    window.partial.clear();
  }

  /** The stream describes the table, for the first time or anew. */
  prepared({ topic, shape }: Pick<TableEncoder, 'topic' | 'shape'>): void {
    const window = openWindow(this.#tables.get(topic));
    if (window) window.shape = JSON.stringify(shape);
  }

  truncated(topic: string): void {
    const window = openWindow(this.#tables.get(topic));
    if (window) window.voided ??= 'truncated';
  }

  #windowOf({ chunk }: Mark): Window | null {
    for (const { windows } of this.#tables.values())
      for (const window of windows) if (window.chunk.id === chunk) return window;
    return null;
  }

  #voidReason({ chunk, before, voided }: Window, state: SnapshotState): VoidReason | null {
    if (voided) return voided;
    if (!chunk.keys && (state.read || JSON.stringify(state.cursor) !== JSON.stringify(chunk.from)))
      return 'detached';
    if (this.watch.overflowed) return 'crowded';
    // Without its low mark, or without rows, nothing is known of what came between.
    if (before === null || !chunk.snapshot || !chunk.content) return 'unseen';
    return this.watch.missing(chunk.snapshot, before) > 0 ? 'unseen' : null;
  }
}

/** The chunk whose low mark was met and whose high mark was not. */
function openWindow(table: TrackedTable | undefined): Window | null {
  return table?.windows.find(({ before }) => before !== null) ?? null;
}

/** A chunk whose high mark was met and whose snapshot saw what it had to see. */
export class DueChunk {
  readonly chunk: Chunk;
  readonly #table: TrackedTable;
  readonly #window: Window;
  readonly #again: string[][] = [];
  #rows = 0;
  #dropped = 0;

  constructor(chunk: Chunk, table: TrackedTable, window: Window) {
    this.chunk = chunk;
    this.#table = table;
    this.#window = window;
  }

  /**
   * The stream has rows of another shape since the low mark. (One from before it is older than the chunk's: a chunk
   * locks its table, so whatever it was read as, it was committed before the high mark.)
   */
  get reshaped(): boolean {
    const { shape } = this.#window;
    return shape !== null && shape !== JSON.stringify(this.chunk.content!.encoder.shape);
  }

  /**
   * @param cursor the key as Postgres' text
   * @returns whether the row is to be published: false where the stream has a newer state of it
   */
  take(key: Buffer, cursor: () => string[]): boolean {
    const { changed } = this.#window;
    const text = changed.size === 0 ? '' : key.toString('latin1');
    if (changed.size === 0 || !changed.has(text)) {
      this.#rows++;
      return true;
    }
    this.#dropped++;
    if (this.#window.partial.has(text)) this.#again.push(cursor());
    return false;
  }

  /**
   * The rows are in the batch: the snapshot stands after them.
   * @param position of the last of them, or of the high mark
   */
  published(position: Position, tooMany: () => void): void {
    const { state } = this.#table;
    const { chunk } = this;
    state.rows += BigInt(this.#rows);
    if (chunk.keys) {
      const asked = new Set(chunk.keys.map((key) => JSON.stringify(key)));
      state.again = state.again.filter((key) => !asked.has(JSON.stringify(key)));
    } else {
      state.cursor = chunk.content!.next;
      state.read = chunk.content!.last;
    }
    for (const key of this.#again) if (readAgain(state, key)) tooMany();
    state.schemaId = chunk.content!.encoder.valueSchemaId;
    if (isComplete(state)) state.until = position;
    chunk.settle({ kind: 'published', rows: this.#rows, dropped: this.#dropped });
  }
}

export function isComplete({ read, again }: SnapshotState): boolean {
  return read && again.length === 0;
}

/** @returns true where there were too many and the scan starts over */
function readAgain(state: SnapshotState, key: string[]): boolean {
  const text = JSON.stringify(key);
  if (state.again.some((other) => JSON.stringify(other) === text)) return false;
  state.again.push(key);
  if (state.again.length <= mostKeysAgain) return false;
  startOver(state);
  state.key = byKey;
  return true;
}

/** `since` stays: what was brought since then was in the source, or the stream deletes it. */
function startOver(state: SnapshotState): void {
  state.again = [];
  state.cursor = null;
  state.read = false;
}
