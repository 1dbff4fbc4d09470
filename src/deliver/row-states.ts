/**
 * Last state per key of a Window. One pass over the Changes ordered by key and Position; of a key only its state so
 * far is in memory, and of Changes that a later full one supersedes nothing is decoded.
 */
import type { PartialRow, RowState } from '../connector/sink.ts';
import { TidemarkError } from '../platform/errors.ts';
import type { LineageStep } from './row-lineage.ts';
import type { RowReader, ShapedChange } from './row-schemas.ts';
import type { Range, StoredChange } from './stored-change.ts';
import type { UnitStore } from './unit-store.ts';
import { UnreadRetiredState, UnreadState } from './unread-rows.ts';

/** Values that a batch holds at most, beside its last row. */
export const batchBytes = 96 << 10;

/** A row as far as it is known; `fillKey` names the destination's row that supplies what is not. */
interface KnownRow {
  values: PartialRow;
  fillKey: Buffer | null;
  /** That row may not be there yet: a snapshot brings it, whole. */
  pending: boolean;
}

/**
 * A key's state: a Change not looked into yet, or a row put together from several; and the eviction after it, unless that
 * is all there is (`last` is it then).
 */
type KeyState = { last: StoredChange; known: KnownRow | null; retired?: StoredChange };

/** @param borrows TopicContent.borrows */
export async function* rowStates(
  store: UnitStore,
  range: Range,
  topic: number,
  reader: RowReader,
  borrows: boolean,
): AsyncIterable<RowState[]> {
  const lineage = borrows ? await Lineage.open(store, range, topic, reader) : null;
  try {
    let state: KeyState | null = null;
    for await (const changes of store.read(range, topic, 'key')) {
      let states: RowState[] = [];
      let bytes = 0;
      for (const change of changes) {
        if (change.keyless) throw keyless(reader);
        if (state && !change.hasKeyOf(state.last)) {
          states.push(finish(state, reader));
          bytes += state.last.bytes;
          state = null;
          if (bytes > batchBytes) {
            yield states;
            states = [];
            bytes = 0;
          }
        }
        if (change.eviction && state) state = evicted(state, change);
        else if (!change.partial) state = { last: change, known: null };
        else if (change.oldKey !== null) {
          const base = await lineage!.before(change);
          state = { last: change, known: overlay(reader.read(change), base) };
        } else {
          const base: KnownRow = state ? knownRow(state, reader) : untouched(reader, change.key!);
          state = { last: change, known: overlay(reader.read(change), base) };
        }
      }
      if (states.length > 0) yield states;
    }
    if (state) yield [finish(state, reader)];
  } finally {
    await lineage?.close();
  }
}

function evicted({ last, known }: KeyState, eviction: StoredChange): KeyState {
  return { last, known, retired: eviction };
}

function finish({ last, known, retired }: KeyState, reader: RowReader): RowState {
  const row = known || last.eviction ? undefined : reader.after(last);
  if (row && retired) return new UnreadRetiredState(last, row, reader, retired);
  if (row) return new UnreadState(last, row, reader);
  const key = reader.readKey(last.key!, last);
  const { position } = retired ?? last;
  if (last.eviction) return { op: 'retire', key, position };
  const mark = retired ? { retired: true as const } : {};
  if (row === null) return { op: 'delete', key, position };
  if (known) {
    return {
      op: 'upsert',
      key,
      values: known.values,
      fillFrom: known.fillKey && reader.readKey(known.fillKey, last),
      ...(known.fillKey && known.pending ? { mayBeAbsent: true as const } : {}),
      ...mark,
      position,
    };
  }
  const { op, after } = reader.read(last);
  if (op === 'd') return { op: 'delete', key, position };
  return { op: 'upsert', key, values: after!, fillFrom: null, ...mark, position };
}

/** @throws TidemarkError TM407 for a row that was deleted or evicted: nothing can be taken from it */
function knownRow({ last, known }: KeyState, reader: RowReader): KnownRow {
  if (known) return known;
  const { op, after } = reader.read(last);
  if (!after) {
    const { schema, name } = reader.shape;
    throw new TidemarkError(
      'TM407',
      `a row of ${schema}.${name} was updated after it had gone (op ${op}, ${last.position})`,
    );
  }
  return { values: after, fillKey: null, pending: false };
}

function untouched(reader: RowReader, key: Buffer): KnownRow {
  return { values: reader.shape.columns.map(() => undefined), fillKey: key, pending: false };
}

/** `after` over `base`, column by column. */
function overlay({ after, pending }: ShapedChange, base: KnownRow): KnownRow {
  let complete = true;
  const values = after!.map((cell, i) => {
    const value = cell === undefined ? base.values[i] : cell;
    if (value === undefined) complete = false;
    return value;
  });
  return { values, fillKey: complete ? null : base.fillKey, pending: pending || base.pending };
}

function keyless(reader: RowReader): TidemarkError {
  const { schema, name } = reader.shape;
  return new TidemarkError(
    'TM208',
    `${schema}.${name} got its key within the Window: older changes have none`,
    {
      remedy: 'Rebuild the table in the destination.',
    },
  );
}

/** The rows under former keys, in step with the pass over the creates that need them. */
class Lineage {
  readonly #reader: RowReader;
  readonly #close: () => void;
  readonly #batches: AsyncIterator<LineageStep[]>;
  #batch: LineageStep[] = [];
  #next = 0;

  private constructor(reader: RowReader, batches: AsyncIterator<LineageStep[]>, close: () => void) {
    this.#reader = reader;
    this.#batches = batches;
    this.#close = close;
  }

  static async open(store: UnitStore, range: Range, topic: number, reader: RowReader): Promise<Lineage> {
    const { rowLineage } = await import('./row-lineage.ts');
    const spilled = await store.spilled();
    const connection = await spilled.connect();
    const steps = rowLineage(spilled, connection, spilled.rowsSql(range, topic)!);
    return new Lineage(reader, steps[Symbol.asyncIterator](), () => connection.closeSync());
  }

  /** The row under its old key, just before `create`. Creates are asked for in order of key and Position. */
  async before(create: StoredChange): Promise<KnownRow> {
    let row: KnownRow | null = null;
    for (let step = await this.#peek(); step; step = await this.#peek()) {
      if (step.targetPosition !== create.position || !step.targetKey.equals(create.key!)) break;
      this.#next++;
      row = this.#take(step, row);
    }
    if (!row) throw new TidemarkError('TM901', `the key change at ${create.position} has no former key`);
    return row;
  }

  #take({ sourceKey, fromDestination, change }: LineageStep, row: KnownRow | null): KnownRow {
    const reader = this.#reader;
    const base = row ?? (fromDestination ? untouched(reader, sourceKey) : null);
    if (!change) return base ?? untouched(reader, sourceKey);
    if (!change.partial) return knownRow({ last: change, known: null }, reader);
    if (!base) throw new TidemarkError('TM901', `the key change at ${change.position} has no former key`);
    return overlay(reader.read(change), base);
  }

  async #peek(): Promise<LineageStep | null> {
    while (this.#next >= this.#batch.length) {
      const { done, value } = await this.#batches.next();
      if (done) return null;
      this.#batch = value;
      this.#next = 0;
    }
    return this.#batch[this.#next]!;
  }

  async close(): Promise<void> {
    await this.#batches.return?.();
    this.#close();
  }
}
