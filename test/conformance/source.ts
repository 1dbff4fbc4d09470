/**
 * A source in memory: its tables, its Transactions, and what a destination must hold of them. It shares no code with
 * src/deliver: a key's last state comes from the rows' own history here, not from compacting Changes.
 */
import { formatPosition, type Position } from '../../src/connector/position.ts';
import { type TableShape, tableName } from '../../src/connector/shape.ts';
import type { Row, RowCount, RowEvent, RowState, Sweep, TableSnapshot } from '../../src/connector/sink.ts';
import { KeyedTable } from './keyed-table.ts';
import { KeylessTable } from './keyless-table.ts';

/** What happened to a table under one shape, since the last cut. */
export interface Part {
  /** In the order in which the parts began. */
  number: number;
  shape: TableShape;
  truncated: boolean;
  snapshots: readonly TableSnapshot[];
  states: RowState[];
  counts: RowCount[];
  events: RowEvent[];
}

/** A Change as it was published: under the shape of its time. */
export interface PastEvent {
  shape: TableShape;
  event: RowEvent;
}

/** What a stranger must see of a table. */
export interface ExpectedTable {
  shape: TableShape;
  rows: Row[];
  /** Those of the rows that the source let go of. */
  retired: Row[];
  events: PastEvent[];
}

export interface Cut {
  position: Position;
  commitTimeUs: bigint;
  parts: Part[];
  sweeps: Sweep[];
  /** Of every table there is. */
  expected: ExpectedTable[];
}

/** Where and when a Change is. */
export interface Moment {
  position: Position;
  commitTimeUs: bigint;
}

export class Source {
  readonly #tables = new Map<string, KeyedTable | KeylessTable>();
  #lsn = 0x1000n;
  #ordinal = 0;
  #within = false;
  #parts = 0;
  /** End of 2026-11-24, so that a few Transactions later another day begins. */
  #commitTimeUs = 1_795_564_795_000_000n;

  keyed(shape: TableShape): KeyedTable {
    const table = new KeyedTable(this, shape);
    this.#tables.set(tableName(shape), table);
    return table;
  }

  keyless(shape: TableShape): KeylessTable {
    const table = new KeylessTable(this, shape);
    this.#tables.set(tableName(shape), table);
    return table;
  }

  /** Changes of one commit. A Change outside of this is a Transaction of its own. */
  transaction(work: () => void): void {
    this.#begin();
    this.#within = true;
    try {
      work();
    } finally {
      this.#within = false;
    }
  }

  /** The next Change's place. */
  next(): Moment {
    if (!this.#within) this.#begin();
    this.#ordinal += 1;
    return { position: this.position, commitTimeUs: this.#commitTimeUs };
  }

  /** Of the last Change. */
  get position(): Position {
    return formatPosition({ epoch: 1, lsn: this.#lsn, ordinal: this.#ordinal });
  }

  nextPart(): number {
    this.#parts += 1;
    return this.#parts;
  }

  /** Ends what is open in all tables: the next Window. */
  cut(): Cut {
    const tables = [...this.#tables.values()];
    const taken = tables.map((table) => table.take());
    return {
      position: this.position,
      commitTimeUs: this.#commitTimeUs,
      parts: taken.flatMap(({ parts }) => parts).sort((a, b) => a.number - b.number),
      sweeps: taken.flatMap(({ sweeps }) => sweeps).sort((a, b) => (a.position < b.position ? -1 : 1)),
      expected: this.expected(),
    };
  }

  expected(): ExpectedTable[] {
    return [...this.#tables.values()].map((table) => table.expected());
  }

  #begin(): void {
    this.#lsn += 0x100n;
    this.#ordinal = 0;
    this.#commitTimeUs += 1_000_000n;
  }
}
