/** A Window's rows in the store as the SDK hands them to a sink. */
import type { AppendTable, MergeTable, RowCount, RowEvent } from '../connector/sink.ts';
import { fillUnchanged } from './keyless-rows.ts';
import type { RowReader, RowReaders } from './row-schemas.ts';
import { batchBytes, rowStates } from './row-states.ts';
import type { WindowSnapshots } from './snapshot-list.ts';
import type { Range, TopicContent } from './stored-change.ts';
import type { UnitStore } from './unit-store.ts';

/** @param content what the store holds of the Window, from `UnitStore.content` */
export async function mergeTables(
  store: UnitStore,
  content: readonly TopicContent[],
  schemas: RowReaders,
  { topics, snapshots }: { topics: readonly string[]; snapshots: WindowSnapshots },
): Promise<MergeTable[]> {
  const all = [...snapshots.open, ...snapshots.ended];
  return Promise.all(
    content.map(async ({ topic, range, truncatedAt, schemaId, borrows }): Promise<MergeTable> => {
      const reader = await schemas.reader(schemaId);
      const keyless = reader.shape.keyColumns.length === 0;
      // What came before the last truncate is gone.
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
