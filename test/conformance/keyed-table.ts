/** A table with a key, of the in-memory source. */
import type { Position } from '../../src/connector/position.ts';
import type { Cell, PartialRow, Row, RowState, Sweep } from '../../src/connector/sink.ts';
import { ModelTable, type RunningSnapshot } from './model-table.ts';
import type { Moment, Part } from './source.ts';

interface ModelRow {
  values: Row;
  position: Position;
  /** The source let it go; the destination keeps it. */
  retired: boolean;
  /** The key under which the destination has it, as the open part began; null where it has come since. */
  origin: Cell[] | null;
  /** Columns whose value the open part tells. */
  told: boolean[];
}

export interface UpdateOptions {
  /** Columns kept out of line that the statement did not touch: the stream does not have their values. */
  untouched?: readonly string[];
}

export class KeyedTable extends ModelTable {
  #rows = new Map<string, ModelRow>();
  /** Keys that the open part has a state for. */
  #touched = new Map<string, Cell[]>();
  /** Those of rows that had been let go of before. */
  #revived = new Set<string>();
  /** States of rows that the destination may not have. */
  #absent = new Map<string, RowState>();
  #snapshots: RunningSnapshot[] = [];
  #ended: Sweep[] = [];

  rows(): Row[] {
    return [...this.#rows.values()].map(({ values }) => values);
  }

  retiredRows(): Row[] {
    return [...this.#rows.values()].filter(({ retired }) => retired).map(({ values }) => values);
  }

  /** Keys of rows that the source has: not of those that it let go. */
  keys(): Cell[][] {
    return [...this.#rows.values()].filter(({ retired }) => !retired).map((row) => this.keyOf(row.values));
  }

  sourceRows(): Row[] {
    return [...this.#rows.values()].filter(({ retired }) => !retired).map(({ values }) => [...values]);
  }

  /** In the open part rows were let go of, or came back, or went, that had been: what a truncate leaves hangs on it. */
  get #retires(): boolean {
    return [...this.#touched.keys()].some((text) => this.#rows.get(text)?.retired || this.#revived.has(text));
  }

  has(key: readonly Cell[]): boolean {
    return this.#rows.has(JSON.stringify(key));
  }

  keyOf(row: readonly Cell[]): Cell[] {
    return this.shape.keyColumns.map((column) => row[column]!);
  }

  insert(...rows: Row[]): void {
    for (const row of rows) this.#put('c', row);
  }

  /** A row as a snapshot read it. */
  read(...rows: Row[]): void {
    for (const row of rows) {
      this.#put('r', row);
      for (const snapshot of this.#snapshots) snapshot.rows += 1;
    }
  }

  update(key: Cell[], changes: Readonly<Record<string, Cell>>, { untouched = [] }: UpdateOptions = {}): void {
    const moment = this.source.next();
    const row = this.#row(key);
    const values = this.#apply(row, changes, untouched, moment);
    this.#touch(key);
    this.publish({ op: 'u', ...moment, key, values });
  }

  /** An update that gives the row another key: a delete and a create, at one Position. */
  move(key: Cell[], changes: Readonly<Record<string, Cell>>, { untouched = [] }: UpdateOptions = {}): void {
    const moment = this.source.next();
    const row = this.#row(key);
    const shown = this.shape.columns.map((_, i) =>
      this.shape.keyColumns.includes(i) ? row.values[i] : undefined,
    );
    const values = this.#apply(row, changes, untouched, moment);
    const newKey = this.keyOf(row.values);
    this.#rows.delete(JSON.stringify(key));
    this.#rows.set(JSON.stringify(newKey), row);
    this.#touch(key);
    this.#touch(newKey);
    this.publish({ op: 'd', ...moment, key, values: shown });
    this.publish({ op: 'c', ...moment, key: newKey, values, previousKey: key });
  }

  delete(key: Cell[]): void {
    const moment = this.source.next();
    this.#revive(key);
    this.#rows.delete(JSON.stringify(key));
    this.#touch(key);
    this.publish({ op: 'd', ...moment, key, values: this.#onlyKey(key) });
  }

  truncate(): void {
    // Of what comes before a truncate in its part there are no states, and this one leaves rows because of it.
    if (this.#retires) this.close();
    const moment = this.source.next();
    const part = this.part();
    for (const [text, row] of this.#rows) if (!row.retired) this.#rows.delete(text);
    this.#touched.clear();
    this.#absent.clear();
    part.truncated = true;
    this.publish({ op: 't', ...moment });
  }

  /** The source lets go of the row, on proof that destinations have it. */
  evict(key: Cell[]): void {
    const moment = this.source.next();
    const row = this.#row(key);
    row.retired = true;
    row.position = moment.position;
    this.#touch(key);
    this.publish({ op: 'e', ...moment, key });
  }

  /** A partial update of a row that the destination may have only later, from a snapshot. It is not there now. */
  updateOfAbsent(row: PartialRow): void {
    const moment = this.source.next();
    const key = this.keyOf(row as Row);
    if (this.has(key)) throw new Error('the row is there');
    this.#absent.set(JSON.stringify(key), {
      op: 'upsert',
      key,
      values: row,
      fillFrom: key,
      mayBeAbsent: true,
      position: moment.position,
    });
    this.publish({ op: 'u', ...moment, key, values: row });
  }

  beginSnapshot(id: string): void {
    this.#snapshots.push({ id, since: this.source.position, rows: 0 });
  }

  /** What it did not see goes, but for rows that were let go. */
  endSnapshot(id: string): void {
    const { since, rows } = this.#snapshots.find((snapshot) => snapshot.id === id)!;
    const moment = this.source.next();
    for (const [text, row] of this.#rows) if (row.position <= since && !row.retired) this.#rows.delete(text);
    this.#snapshots = this.#snapshots.filter((snapshot) => snapshot.id !== id);
    this.#ended.push({ id, since, rows, shape: this.shape, position: moment.position });
    this.publish({ op: 's', ...moment, since });
  }

  protected settle(part: Part): void {
    for (const [text, key] of this.#touched) {
      const row = this.#rows.get(text);
      part.states.push(
        row ? this.#stateOf(key, row) : { op: 'delete', key, position: part.events.at(-1)!.position },
      );
    }
    part.states.push(...this.#absent.values());
    this.#touched.clear();
    this.#absent.clear();
    this.#revived.clear();
    for (const row of this.#rows.values()) this.#settleRow(row);
  }

  #stateOf(key: Cell[], { values, position, retired, origin, told }: ModelRow): RowState {
    if (retired && !told.includes(true)) return { op: 'retire', key, position };
    const partial = origin !== null && told.includes(false);
    return {
      op: 'upsert',
      key,
      values: partial ? values.map((cell, i) => (told[i] ? cell : undefined)) : [...values],
      fillFrom: partial ? origin : null,
      ...(retired ? { retired: true as const } : {}),
      position,
    };
  }

  protected override takeSweeps(parts: Part[]): Sweep[] {
    const sweeps = this.#ended;
    this.#ended = [];
    const all = [...this.#snapshots, ...sweeps].map(({ id, since }) => ({ id, since }));
    for (const part of parts) part.snapshots = all;
    return sweeps;
  }

  protected reshape(convert: (row: Row) => Row): void {
    const rows = [...this.#rows.values()];
    this.#rows.clear();
    for (const row of rows) {
      row.values = convert(row.values);
      this.#settleRow(row);
      this.#rows.set(JSON.stringify(this.keyOf(row.values)), row);
    }
  }

  protected remake(): void {
    this.#rows.clear();
  }

  #settleRow(row: ModelRow): void {
    row.origin = this.keyOf(row.values);
    row.told = row.values.map(() => false);
  }

  #put(op: 'c' | 'r', values: Row): void {
    const moment = this.source.next();
    const key = this.keyOf(values);
    this.#revive(key);
    const row = { values: [...values], retired: false, origin: null, told: values.map(() => true) };
    this.#rows.set(JSON.stringify(key), { ...row, position: moment.position });
    this.#touch(key);
    this.publish({ op, ...moment, key, values: [...values] });
  }

  /** @returns the row as the stream has it */
  #apply(
    row: ModelRow,
    changes: Readonly<Record<string, Cell>>,
    untouched: readonly string[],
    { position }: Moment,
  ): PartialRow {
    for (const [name, cell] of Object.entries(changes)) row.values[this.place(name)] = cell;
    row.position = position;
    return row.values.map((cell, i) => {
      const { name } = this.shape.columns[i]!;
      if (untouched.includes(name) && !Object.hasOwn(changes, name)) return undefined;
      row.told[i] = true;
      return cell;
    });
  }

  #row(key: readonly Cell[]): ModelRow {
    const row = this.#rows.get(JSON.stringify(key));
    if (!row || row.retired) throw new Error('the source has no such row');
    return row;
  }

  #touch(key: Cell[]): void {
    this.part();
    this.#touched.set(JSON.stringify(key), key);
  }

  #revive(key: Cell[]): void {
    const text = JSON.stringify(key);
    if (this.#rows.get(text)?.retired) this.#revived.add(text);
  }

  #onlyKey(key: readonly Cell[]): PartialRow {
    const row: PartialRow = this.shape.columns.map(() => undefined);
    for (const [part, column] of this.shape.keyColumns.entries()) row[column] = key[part];
    return row;
  }
}
