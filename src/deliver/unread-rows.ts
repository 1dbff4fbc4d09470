/** Rows as the SDK has them, of which nothing is decoded before a sink asks for it. */
import type { NativeRow } from '../connector/native-row.ts';
import type { Position } from '../connector/position.ts';
import type { Cell, Row, RowEvent, RowState } from '../connector/sink.ts';
import type { PeekedChange, RowReader, UnreadRow } from './row-schemas.ts';
import type { StoredChange } from './stored-change.ts';

class Unread {
  protected readonly change: StoredChange;
  protected readonly reader: RowReader;
  readonly #row: UnreadRow | null;
  #position: Position | null = null;
  #key: Cell[] | null = null;
  #values: Row | null = null;

  constructor(change: StoredChange, row: UnreadRow | null, reader: RowReader) {
    this.change = change;
    this.reader = reader;
    this.#row = row;
  }

  get position(): Position {
    this.#position ??= this.change.position;
    return this.#position;
  }

  get key(): Cell[] {
    this.#key ??= this.reader.readKey(this.change.key!, this.change);
    return this.#key;
  }

  get values(): Row {
    this.#values ??= this.#row?.cells() ?? [];
    return this.#values;
  }

  get native(): NativeRow | undefined {
    return this.#row ?? undefined;
  }
}

/** Of a whole row. */
export class UnreadState extends Unread implements Extract<RowState, { op: 'upsert' }> {
  readonly op = 'upsert';
  readonly fillFrom = null;
}

/** Of a whole row that was evicted after that. */
export class UnreadRetiredState extends UnreadState {
  readonly retired = true;
  readonly #eviction: StoredChange;

  constructor(change: StoredChange, row: UnreadRow, reader: RowReader, eviction: StoredChange) {
    super(change, row, reader);
    this.#eviction = eviction;
  }

  override get position(): Position {
    return this.#eviction.position;
  }
}

/** Of a table with a key; not of a truncate. */
export class UnreadEvent extends Unread implements RowEvent {
  readonly op: RowEvent['op'];
  readonly commitTimeUs: bigint;
  readonly before = null;

  constructor(change: StoredChange, { op, commitTimeUs, before, after }: PeekedChange, reader: RowReader) {
    super(change, op === 'd' ? before : after, reader);
    this.op = op;
    this.commitTimeUs = commitTimeUs;
  }

  get previousKey(): Cell[] | null {
    const { oldKey } = this.change;
    return oldKey && this.reader.readKey(oldKey, this.change);
  }
}
