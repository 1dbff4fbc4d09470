/** A Change as the encoders write it: cells sorted into native, exact and unchanged, and the content hashed. */
import { createHash } from 'node:crypto';
import { TidemarkError } from '../../../src/connector/failure.ts';
import { RowHash } from '../../../src/connector/row-hash.ts';
import { type TableShape, tableName } from '../../../src/connector/shape.ts';
import type { Cell, PartialRow, RowEvent } from '../../../src/connector/sink.ts';
import { fitsNatively, type StoredColumn } from './columns.ts';
import type { EncoderName } from './options.ts';

export interface ChangeRow {
  op: RowEvent['op'];
  position: string;
  /** Microseconds since 1970 UTC. */
  commitTimeUs: bigint;
  /** Text for the native columns, in the shape's order; null for NULL, for `_exact` and for unchanged ones. */
  cells: Cell[];
  /** Fields that the change left untouched and whose value is not known. */
  unchanged: string[] | null;
  previousKey: Cell[] | null;
  /** JSON object, field to Postgres text or null; of `s`: `since` and its Position. */
  before: string | null;
  /** JSON object, field to Postgres text. */
  exact: string | null;
  /** Keyless tables: 32 digits of hash of the row added and of the row removed by this change. */
  image: string | null;
  beforeImage: string | null;
  /** `undefined` where the change has no tenant. */
  tenant: string | null | undefined;
  /** Commit date in UTC, YYYY-MM-DD. */
  date: string;
  /** Characters of text in the row: what the encoders budget by. */
  size: number;
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

export function noRows(): Record<RowEvent['op'], number> {
  return { c: 0, u: 0, d: 0, t: 0, r: 0, s: 0 };
}

export class ChangeRows {
  readonly counts: Record<RowEvent['op'], number>;
  readonly #hash: RowHash;
  readonly #shape: TableShape;
  readonly #columns: readonly StoredColumn[];
  readonly #byName: number[];
  readonly #encoder: EncoderName;
  #day = -1n;
  #date = '';

  /** @param earlier of the same Window, in another shape: counting and hashing go on from there */
  constructor(
    shape: TableShape,
    columns: readonly StoredColumn[],
    encoder: EncoderName,
    earlier: ChangeRows | null,
  ) {
    this.counts = earlier?.counts ?? noRows();
    this.#hash = earlier ? earlier.#hash : new RowHash();
    this.#shape = shape;
    this.#columns = columns;
    this.#encoder = encoder;
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

  /** @throws TidemarkError TM405 where a change of a keyless table does not tell its whole old row. */
  from(event: RowEvent): ChangeRow {
    const { op, position, commitTimeUs, previousKey } = event;
    const keyless = this.#shape.keyColumns.length === 0;
    const rowless = op === 't' || op === 's';
    const values = rowless ? [] : this.#values(event, keyless);
    const removed = keyless && (op === 'u' || op === 'd') ? this.#removed(event) : null;
    const before =
      op === 's' ? JSON.stringify({ since: event.since }) : event.before && this.#object(event.before);
    const cells: Cell[] = new Array(this.#columns.length).fill(null);
    let unchanged: string[] | null = null;
    let exact: Record<string, string> | null = null;
    let size = 96 + (before?.length ?? 0);
    for (const [index, column] of this.#columns.entries()) {
      const value = rowless ? null : values[index];
      if (value === undefined) {
        // A delete shows its identity only; nothing of it is "unchanged".
        if (op === 'd') continue;
        unchanged ??= [];
        unchanged.push(column.field);
      } else if (value !== null) {
        size += value.length + 8;
        if (fitsNatively(column.storage, value, this.#encoder)) {
          cells[index] = value;
        } else {
          exact ??= Object.create(null) as Record<string, string>;
          exact[column.field] = value;
        }
      }
    }
    this.counts[op] += 1;
    this.#hash.add([op, position, previousKey && JSON.stringify(previousKey), before, ...values]);
    const { tenantColumn } = this.#shape;
    return {
      op,
      position,
      commitTimeUs,
      cells,
      unchanged,
      previousKey,
      before,
      exact: exact && JSON.stringify(exact),
      image:
        keyless && (op === 'c' || op === 'u' || op === 'r')
          ? rowImage(this.#columns, this.#byName, this.#whole(values))
          : null,
      beforeImage: removed && rowImage(this.#columns, this.#byName, removed),
      tenant: tenantColumn === null || rowless ? undefined : values[tenantColumn],
      date: this.#dateOf(commitTimeUs),
      size,
    };
  }

  /** The cells with the key's own values in place, and, for a keyless update, unchanged ones from the old row. */
  #values(event: RowEvent, keyless: boolean): PartialRow {
    const values: PartialRow = event.values.slice();
    values.length = this.#columns.length;
    if (keyless && event.before !== null) {
      for (let index = 0; index < values.length; index += 1) {
        if (values[index] === undefined) values[index] = event.before[index]!;
      }
    }
    if (event.key.length > 0) {
      for (const [part, index] of this.#shape.keyColumns.entries()) values[index] = event.key[part];
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

  #object(row: readonly Cell[]): string {
    const object = Object.create(null) as Record<string, Cell>;
    for (const [index, { field }] of this.#columns.entries()) object[field] = row[index] ?? null;
    return JSON.stringify(object);
  }

  #dateOf(commitTimeUs: bigint): string {
    const day = commitTimeUs / 86_400_000_000n;
    if (day !== this.#day) {
      this.#day = day;
      this.#date = new Date(Number(day) * 86_400_000).toISOString().slice(0, 10);
    }
    return this.#date;
  }
}
