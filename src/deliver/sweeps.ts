/** The ends of snapshots of whole tables, as the SDK hands them to a sink. */
import type { AppendTable, RowEvent, Sweep } from '../connector/sink.ts';
import type { RowReaders } from './row-schemas.ts';
import type { EndedSnapshot, OpenSnapshot, WindowSnapshots } from './snapshot-list.ts';
import type { TopicContent } from './stored-change.ts';

type TopicSweep = Sweep & Pick<OpenSnapshot, 'topic'>;

/**
 * Rows that were evicted are in destinations, older than any snapshot, and not in the source. Sinks keep a mark with each
 * (RowState.retire), and a sweep leaves those alone: an eviction lies before the end of any snapshot that misses its row.
 */
export function sweepsOf({ ended }: WindowSnapshots, schemas: RowReaders): Promise<TopicSweep[]> {
  return Promise.all(
    ended.map(async ({ topic, id, since, until, rows, schemaId }: EndedSnapshot) => {
      const { shape } = await schemas.reader(schemaId);
      return { topic, shape, id, since, position: until, rows };
    }),
  );
}

/** For sinks that append, the end of a snapshot is an event of its table, in its place. */
export function withSweeps(
  tables: readonly AppendTable[],
  content: readonly TopicContent[],
  {
    topics,
    sweeps,
    commitTimeUs,
  }: { topics: readonly string[]; sweeps: readonly TopicSweep[]; commitTimeUs: bigint },
): AppendTable[] {
  const result = [...tables];
  for (const { topic, shape, since, position } of sweeps) {
    const event: RowEvent = {
      op: 's',
      position,
      commitTimeUs,
      key: [],
      values: [],
      previousKey: null,
      before: null,
      since,
    };
    const part = content.findIndex(
      ({ topic: number, range }) => topics[number] === topic && range.from < position && position <= range.to,
    );
    if (part < 0) {
      result.push({ shape, events: () => once([event]) });
      continue;
    }
    const { shape: own, events } = result[part]!;
    result[part] = { shape: own, events: () => inPlace(events(), event) };
  }
  return result;
}

/** Behind the events up to its Position: the snapshot's last rows are among them. */
async function* inPlace(batches: AsyncIterable<RowEvent[]>, event: RowEvent): AsyncIterable<RowEvent[]> {
  let placed = false;
  for await (const batch of batches) {
    const at = placed ? -1 : batch.findIndex(({ position }) => position > event.position);
    if (at < 0) yield batch;
    else {
      placed = true;
      yield batch.toSpliced(at, 0, event);
    }
  }
  if (!placed) yield [event];
}

async function* once<T>(value: T): AsyncIterable<T> {
  yield value;
}
