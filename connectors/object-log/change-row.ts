/** A Change as it is written: cells sorted into native, exact and unchanged, and the content hashed. */
import { createHash } from 'node:crypto';
import { TidemarkError } from '../../src/connector/failure.ts';
import type { Position } from '../../src/connector/position.ts';
import { hashNative, RowHash } from '../../src/connector/row-hash.ts';
import { type TableShape, tableName } from '../../src/connector/shape.ts';
import type { Cell, NativeRow, PartialRow, RowEvent } from '../../src/connector/sink.ts';
import type { StoredColumn } from './fields.ts';
import { CommitDates, type DateChoice, dateColumn, eventDate, type Partition } from './partition.ts';
import { RowPartition } from './row-partition.ts';
import type { Storage } from './storage.ts';

interface RowBase {
  op: RowEvent['op'];
  position: Position;
  /** Microseconds since 1970 UTC. */
  commitTimeUs: bigint;
  previousKey: Cell[] | null;
  /** Keyless tables: the whole old row, in the shape's order. */
  before: Cell[] | null;
  /** Of `s`. */
  since: Position | null;
}

export interface ChangeRow extends RowBase, Partition {
  /**
   * Text for the native columns, in the shape's order; null for NULL and for what stands in `exact`; undefined for what
   * the Change does not show. Empty for a truncate and the end of a snapshot.
   */
  cells: (Cell | undefined)[];
  /** Fields that the change left untouched and whose value is not known. */
  unchanged: string[] | null;
  /** JSON object, field to Postgres text. */
  exact: string | null;
  /** Keyless tables: 32 digits of hash of the row added and of the row removed by this change. */
  image: string | null;
  beforeImage: string | null;
  /** Characters of text in the row: what the encoders budget by. */
  size: number;
}

/** A Change whose whole row is there in the form it travels in. */
export interface NativeChange extends Partition {
  op: RowEvent['op'];
  position: Position;
  /** Microseconds since 1970 UTC. */
  commitTimeUs: bigint;
  native: NativeRow;
  /** Bytes of the row. */
  size: number;
  /** The same as cells. */
  cells(): ChangeRow;
}

export function sha256(text: string): string {
  return createHash('sha256').update(text, 'utf8').digest('hex');
}

/**
 * Identity of a row of a keyless table. Built from the non-null columns by name, so that a column added later
 * without a default leaves the identity of the rows before it as it was.
 */
function rowImage(columns: readonly StoredColumn[], order: readonly number[], row: readonly Cell[]): string {
  let text = '';
  for (const index of order) {
    const cell = row[index]!;
    if (cell === null) continue;
    const { name } = columns[index]!;
    text += `${name.length}:${name}${cell.length}:${cell}`;
  }
  return sha256(text).slice(0, 32);
}

export type OpCounts = Record<RowEvent['op'], number>;

export function noRows(): OpCounts {
  return { c: 0, u: 0, d: 0, t: 0, r: 0, e: 0, s: 0 };
}

/** What a format and a destination's options decide about rows. */
export interface RowChoices {
  /** Whether the field's storage gives this value's text back; what does not goes to `exact`. */
  fits(storage: Storage, value: string): boolean;
  dates: DateChoice;
}

export class ChangeRows {
  readonly counts: OpCounts;
  readonly #hash: RowHash;
  readonly #shape: TableShape;
  readonly #columns: readonly StoredColumn[];
  readonly #choices: RowChoices;
  readonly #keyless: boolean;
  readonly #byName: number[];
  readonly #dateColumn: number | null;
  readonly #commitDates = new CommitDates();
  readonly #partition: RowPartition;

  /** @param earlier of the same Window, in another shape: counting and hashing go on from there */
  constructor(
    shape: TableShape,
    columns: readonly StoredColumn[],
    choices: RowChoices,
    earlier: ChangeRows | null,
  ) {
    this.counts = earlier?.counts ?? noRows();
    this.#hash = earlier ? earlier.#hash : new RowHash();
    this.#shape = shape;
    this.#columns = columns;
    this.#choices = choices;
    this.#keyless = shape.keyColumns.length === 0;
    this.#dateColumn = dateColumn(shape, choices.dates);
    this.#partition = new RowPartition(shape, this.#dateColumn);
    this.#byName = columns
      .map((_, index) => index)
      .sort((a, b) => (columns[a]!.name < columns[b]!.name ? -1 : 1));
  }

  /** RowHash over `op, position, previous key, before, cells…` of every row, 32 hexadecimal digits. */
  get contentHash(): string {
    return this.#hash.hex;
  }

  get total(): number {
    return this.#hash.count;
  }

  /** Null where there is more to a Change than its row, or less. */
  native(event: RowEvent): NativeChange | null {
    const { op, native } = event;
    if (!native || this.#keyless || event.previousKey) return null;
    const { position, commitTimeUs } = event;
    this.counts[op] += 1;
    this.#hash.addHash(hashNative(native, op + position), 1);
    this.#partition.read(native);
    const { tenant, date = this.#commitDates.of(commitTimeUs) } = this.#partition;
    const size = 96 + native.bytes.length;
    return { op, position, commitTimeUs, native, tenant, date, size, cells: () => this.#cells(event) };
  }

  /** @throws TidemarkError TM405 where a change of a keyless table does not tell its whole old row. */
  from(event: RowEvent): ChangeRow {
    const values = this.#values(event);
    this.#count(event, event.op === 't' || event.op === 's' ? [] : values);
    return this.#cells(event, values);
  }

  #cells(event: RowEvent, values = this.#values(event)): ChangeRow {
    const { op, position, commitTimeUs, previousKey, before } = event;
    const since = op === 's' ? event.since! : null;
    const base = { op, position, commitTimeUs, previousKey, before, since };
    if (op === 't' || op === 's') return this.#ofTable(base);
    const keyless = this.#keyless;
    const columns = this.#columns;
    const cells: (Cell | undefined)[] = new Array(columns.length);
    let unchanged: string[] | null = null;
    let exact: Record<string, string> | null = null;
    let size = 96;
    for (let index = 0; index < columns.length; index += 1) {
      const value = values[index];
      cells[index] = value;
      if (value === null) continue;
      if (value === undefined) {
        // A delete shows its identity only, and so does an eviction; nothing of it is "unchanged".
        if (op === 'd' || op === 'e') continue;
        unchanged ??= [];
        unchanged.push(columns[index]!.field);
        continue;
      }
      size += value.length + 8;
      const { storage, field } = columns[index]!;
      if (storage.kind !== 'text' && !this.#choices.fits(storage, value)) {
        cells[index] = null;
        exact ??= Object.create(null) as Record<string, string>;
        exact[field] = value;
      }
    }
    if (before) for (const cell of before) size += (cell?.length ?? 0) + 8;
    const added = op === 'c' || op === 'u' || op === 'r';
    const removed = keyless && (op === 'u' || op === 'd') ? this.#removed(event) : null;
    const { tenantColumn } = this.#shape;
    return {
      ...base,
      cells,
      unchanged,
      exact: exact && JSON.stringify(exact),
      image: keyless && added ? rowImage(columns, this.#byName, this.#whole(values)) : null,
      beforeImage: removed && rowImage(columns, this.#byName, removed),
      tenant: tenantColumn === null ? undefined : values[tenantColumn],
      date:
        this.#dateColumn === null ? this.#commitDates.of(commitTimeUs) : eventDate(values[this.#dateColumn]!),
      size,
    };
  }

  /** A truncate, or the end of a snapshot: in no tenant's partition, and under the date of its commit. */
  #ofTable(base: RowBase): ChangeRow {
    const date = this.#commitDates.of(base.commitTimeUs);
    const nothing = { unchanged: null, exact: null, image: null, beforeImage: null };
    return { ...base, ...nothing, cells: [], tenant: undefined, date, size: 96 };
  }

  #count({ op, position, previousKey, before, since }: RowEvent, values: PartialRow): void {
    this.counts[op] += 1;
    const rest = before ? JSON.stringify(before) : op === 's' ? since! : null;
    this.#hash.add([op, position, previousKey && JSON.stringify(previousKey), rest, ...values]);
  }

  /** The cells with the key's own values in place, and, for a keyless update, unchanged ones from the old row. */
  #values(event: RowEvent): PartialRow {
    const values: PartialRow = event.values.slice();
    values.length = this.#columns.length;
    if (this.#keyless && event.before !== null) {
      for (let index = 0; index < values.length; index += 1) {
        if (values[index] === undefined) values[index] = event.before[index]!;
      }
    }
    if (event.key.length > 0) {
      const { keyColumns } = this.#shape;
      for (let part = 0; part < keyColumns.length; part += 1) values[keyColumns[part]!] = event.key[part];
    }
    return values;
  }

  #removed(event: RowEvent): Cell[] {
    return this.#whole(event.before ?? (event.op === 'd' ? event.values : []));
  }

  #whole(row: PartialRow): Cell[] {
    for (let index = 0; index < this.#columns.length; index += 1) {
      if (row[index] === undefined) {
        throw new TidemarkError(
          'TM405',
          `${tableName(this.#shape)} has no key, and a change of it does not show the whole row`,
          { remedy: 'Set REPLICA IDENTITY FULL on the table, or give it a primary key.' },
        );
      }
    }
    return row as Cell[];
  }
}
