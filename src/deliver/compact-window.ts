/** A Window's rows in the store as the SDK hands them to a sink. */
import { type Position, positionBefore } from '../connector/position.ts';
import type { AppendTable, MergeTable, RowCount, RowEvent } from '../connector/sink.ts';
import { evictionsOf } from '../publish/record-format.ts';
import { fillUnchanged } from './keyless-rows.ts';
import type { RowReader, RowReaders } from './row-schemas.ts';
import { batchBytes, rowStates } from './row-states.ts';
import type { WindowSnapshots } from './snapshot-list.ts';
import type { Range, TopicContent } from './stored-change.ts';
import type { UnitStore } from './unit-store.ts';
import { UnreadEvent } from './unread-rows.ts';

/**
 * @param content what the store holds of the Window, from `UnitStore.content`
 * @param topics as the store numbers them
 */
export async function mergeTables(
  store: UnitStore,
  content: readonly TopicContent[],
  schemas: RowReaders,
  { topics, snapshots }: { topics: readonly string[]; snapshots: WindowSnapshots },
): Promise<MergeTable[]> {
  const all = [...snapshots.open, ...snapshots.ended];
  const parts = await Promise.all(
    content.map((part) =>
      topics.includes(evictionsOf(topics[part.topic]!)) ? untilTruncates(store, part) : [part],
    ),
  );
  return Promise.all(
    parts.flat().map(async ({ topic, range, truncatedAt, schemaId, borrows }): Promise<MergeTable> => {
      const reader = await schemas.reader(schemaId);
      const keyless = reader.shape.keyColumns.length === 0;
      // What came before the last truncate is gone: where rows can be retired, nothing came.
      const rest = { from: truncatedAt ?? range.from, to: range.to };
      return {
        shape: reader.shape,
        truncated: truncatedAt !== null,
        snapshots: all
          .filter((snapshot) => snapshot.topic === topics[topic])
          .map(({ id, since }) => ({ id, since })),
        states: () => (keyless ? nothing() : rowStates(store, rest, topic, reader, borrows)),
        counts: () => (keyless ? counted(store, rest, topic, reader) : nothing()),
        events: () => rowEvents(store, range, topic, reader),
      };
    }),
  );
}

/**
 * Cut at every truncate that something came before: a truncate leaves retired rows, and which ones these are is known when
 * what came before it is merged.
 */
async function untilTruncates(store: UnitStore, whole: TopicContent): Promise<TopicContent[]> {
  if (whole.truncatedAt === null) return [whole];
  const parts: TopicContent[] = [];
  let part = { ...whole, range: { ...whole.range }, truncatedAt: null as Position | null, changes: 0 };
  for await (const changes of store.read(whole.range, whole.topic, 'position')) {
    for (const { truncate, position } of changes) {
      // One record per partition, all with the same Position.
      if (truncate && position !== part.truncatedAt && part.changes > 0) {
        const to = positionBefore(position);
        parts.push({ ...part, range: { from: part.range.from, to } });
        part = { ...part, range: { from: to, to: whole.range.to }, changes: 0 };
      }
      if (truncate) part.truncatedAt = position;
      else part.changes++;
    }
  }
  return [...parts, part];
}

export async function appendTables(
  store: UnitStore,
  content: readonly TopicContent[],
  schemas: RowReaders,
): Promise<AppendTable[]> {
  return Promise.all(
    content.map(async ({ topic, range, schemaId }): Promise<AppendTable> => {
      const reader = await schemas.reader(schemaId);
      return { shape: reader.shape, events: () => rowEvents(store, range, topic, reader) };
    }),
  );
}

async function* rowEvents(
  store: UnitStore,
  range: Range,
  topic: number,
  reader: RowReader,
): AsyncIterable<RowEvent[]> {
  const keyless = reader.shape.keyColumns.length === 0;
  let truncatedAt: string | null = null;
  for await (const changes of store.read(range, topic, 'position')) {
    let events: RowEvent[] = [];
    let bytes = 0;
    for (const change of changes) {
      bytes += change.bytes;
      if (bytes > batchBytes) {
        if (events.length > 0) yield events;
        events = [];
        bytes = change.bytes;
      }
      const peeked = keyless || change.truncate ? null : reader.peek(change);
      if (peeked) {
        events.push(new UnreadEvent(change, peeked, reader));
        continue;
      }
      const { op, commitTimeUs, before, after } = reader.read(change);
      const { position } = change;
      if (op === 't') {
        // One record per partition, all with the same Position.
        if (position === truncatedAt) continue;
        truncatedAt = position;
        events.push({ op, position, commitTimeUs, key: [], values: [], previousKey: null, before: null });
        continue;
      }
      const row = op === 'd' ? before : after;
      events.push({
        op,
        position,
        commitTimeUs,
        key: change.key ? reader.readKey(change.key, change) : [],
        values: keyless && row && before ? fillUnchanged(row, before, reader) : (row ?? []),
        previousKey: change.oldKey && reader.readKey(change.oldKey, change),
        before: keyless ? before : null,
      });
    }
    if (events.length > 0) yield events;
  }
}

/** Loaded by those who have such a table, with DuckDB. */
async function* counted(
  store: UnitStore,
  range: Range,
  topic: number,
  reader: RowReader,
): AsyncIterable<RowCount[]> {
  const { rowCounts } = await import('./row-counts.ts');
  yield* rowCounts(store, range, topic, reader);
}

async function* nothing(): AsyncIterable<never> {}
