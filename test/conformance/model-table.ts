/** What tables of the in-memory source have in common, with a key or without. */
import type { Position } from '../../src/connector/position.ts';
import type { TableShape } from '../../src/connector/shape.ts';
import type { Cell, Row, RowEvent, Sweep } from '../../src/connector/sink.ts';
import type { ExpectedTable, Part, PastEvent, Source } from './source.ts';

/** A value of an older shape, in the column's new type. */
export type Casts = Readonly<Record<string, (cell: Cell) => Cell>>;

export abstract class ModelTable {
  shape: TableShape;
  protected readonly source: Source;
  protected open: Part | null = null;
  #closed: Part[] = [];
  readonly #events: PastEvent[] = [];

  constructor(source: Source, shape: TableShape) {
    this.source = source;
    this.shape = shape;
  }

  /** The rows that a destination must hold. */
  abstract rows(): Row[];
  /** Those of them that the source let go of. */
  abstract retiredRows(): Row[];
  /** Says in the part what became of its rows, and forgets what was new in it. */
  protected abstract settle(part: Part): void;
  /** The rows under the new shape. */
  protected abstract reshape(convert: (row: Row) => Row): void;

  /** The part under way. */
  protected part(): Part {
    this.open ??= {
      number: this.source.nextPart(),
      shape: this.shape,
      truncated: false,
      snapshots: [],
      states: [],
      counts: [],
      events: [],
    };
    return this.open;
  }

  protected publish(event: Pick<RowEvent, 'op' | 'position' | 'commitTimeUs'> & Partial<RowEvent>): void {
    const whole: RowEvent = { key: [], values: [], previousKey: null, before: null, ...event };
    this.part().events.push(whole);
    this.#events.push({ shape: this.shape, event: whole });
  }

  /**
   * ALTER TABLE, as the source's rows see it. The stream tells of it with the next Change, so one has to follow.
   * @param casts by new column name, where a value's text changes with its type
   */
  alter(shape: TableShape, casts: Casts = {}): void {
    this.close();
    const before = this.shape;
    const anew = before.oid !== undefined && shape.oid !== undefined && before.oid !== shape.oid;
    const places = shape.columns.map(({ name, number }) =>
      before.columns.findIndex((old) => (number === undefined ? old.name === name : old.number === number)),
    );
    this.shape = shape;
    if (anew) this.remake();
    else {
      this.reshape((row) =>
        shape.columns.map(({ name, missing }, i) => {
          if (places[i] === -1) return missing ?? null;
          const cell = row[places[i]!]!;
          return casts[name]?.(cell) ?? cell;
        }),
      );
    }
  }

  /** DROP and CREATE under the same name. */
  protected abstract remake(): void;

  /** Nothing happened since the last cut. */
  get clean(): boolean {
    return this.open === null && this.#closed.length === 0;
  }

  take(): { parts: Part[]; sweeps: Sweep[] } {
    this.close();
    const parts = this.#closed;
    this.#closed = [];
    return { parts, sweeps: this.takeSweeps(parts) };
  }

  /** Those that ended since the last cut; notes in the parts which snapshots they were under. */
  protected takeSweeps(_parts: Part[]): Sweep[] {
    return [];
  }

  expected(): ExpectedTable {
    const copies = (rows: Row[]) => rows.map((row) => [...row]);
    return {
      shape: this.shape,
      rows: copies(this.rows()),
      retired: copies(this.retiredRows()),
      events: [...this.#events],
    };
  }

  /** Ends the part under way: what comes next is another. */
  protected close(): void {
    if (!this.open) return;
    this.settle(this.open);
    this.#closed.push(this.open);
    this.open = null;
  }

  protected place(name: string): number {
    const found = this.shape.columns.findIndex((column) => column.name === name);
    if (found === -1) throw new Error(`no column ${name}`);
    return found;
  }
}

export interface RunningSnapshot {
  id: string;
  since: Position;
  rows: number;
}
