/**
 * A Window of rows that were in Quarantine: their Changes from the dead-letter topic, in a store of their own, folded as
 * in any Window. The destination's table has gone on meanwhile: rows are handed over in the shape that it has now.
 */
import { beforeEverything, formatPosition, type Position } from '../../connector/position.ts';
import { type TableShape, tableName } from '../../connector/shape.ts';
import { pairColumns } from '../../connector/shape-versions.ts';
import type { Cell, PartialRow, Row } from '../../connector/sink.ts';
import { TidemarkError } from '../../platform/errors.ts';
import { readRecord } from '../read-record.ts';
import type { RowReader, RowReaders } from '../row-schemas.ts';
import type { TopicContent } from '../stored-change.ts';
import type { UnitStore } from '../unit-store.ts';
import type { DeadLetters } from './dead-letters.ts';
import type { QuarantineLedger } from './quarantine-ledger.ts';

const everything = {
  from: beforeEverything,
  to: formatPosition({ epoch: 0xffff_ffff, lsn: 0xffff_ffff_ffff_ffffn, ordinal: 0xffff_ffff }),
};

export interface Replayed {
  content: TopicContent[];
  /** Positions of the entries' Changes, to tell which one a refusal is about. */
  entryAt: ReadonlyMap<Position, number>;
}

/**
 * Reads the entries' Changes into the store, which must be empty.
 * @param topics as the store numbers them
 * @throws TidemarkError TM306 where the topic lost one, TM301, TM406, TM409
 */
export async function loadReplay(
  entries: readonly number[],
  {
    ledger,
    deadLetters,
    store,
    topics,
    destination,
  }: {
    ledger: QuarantineLedger;
    deadLetters: DeadLetters;
    store: UnitStore;
    topics: readonly string[];
    destination: string;
  },
): Promise<Replayed> {
  const changes = await ledger.changesOf(entries);
  const entryAt = new Map(changes.map(({ position, id }) => [position, id]));
  await deadLetters.read(
    changes.map(({ offset }) => offset),
    (records) =>
      store.append(
        records
          .map((record) => {
            const topic = deadLetters.topicOf(record);
            return readRecord(record, topics.indexOf(topic), topic, destination);
          })
          .filter((change) => change !== null),
      ),
  );
  return { content: await store.content(everything), entryAt };
}

/** Readers that hand rows over in the shapes that the destination has. */
export async function heldShapeReaders(
  readers: RowReaders,
  schemaIds: Readonly<Record<string, number>>,
): Promise<RowReaders> {
  const shapes = new Map<string, TableShape>();
  for (const id of Object.values(schemaIds)) {
    const { shape } = await readers.reader(id);
    shapes.set(tableName(shape), shape);
  }
  return {
    async reader(schemaId) {
      const reader = await readers.reader(schemaId);
      const shape = shapes.get(tableName(reader.shape));
      return shape ? reshaped(reader, shape) : reader;
    },
  };
}

/** @throws TidemarkError TM405 where the table has another key by now */
function reshaped(reader: RowReader, shape: TableShape): RowReader {
  const before = reader.shape;
  const { kept } = pairColumns(before, shape);
  const keyOf = (table: TableShape) => table.keyColumns.map((i) => table.columns[i]!);
  const sameKey =
    before.keyColumns.length === shape.keyColumns.length &&
    keyOf(before).every((column, i) => kept.some(([old, now]) => old === column && now === keyOf(shape)[i]));
  if (!sameKey) {
    throw new TidemarkError('TM405', `${tableName(shape)} got another key since its rows were set aside`, {
      remedy:
        'Drop them (`tidemark quarantine drop`), and read the table once more: `tidemark snapshot start`.',
    });
  }
  const places = shape.columns.map((column) => {
    const pair = kept.find(([, now]) => now === column);
    return pair ? before.columns.indexOf(pair[0]) : null;
  });
  const missing = shape.columns.map(({ missing = null }) => missing);
  const move = <T extends Cell | undefined>(row: readonly T[]): (T | Cell)[] =>
    places.map((place, i) => (place === null ? missing[i]! : row[place]!));
  return {
    shape,
    // In another shape nothing is what travels.
    peek: () => null,
    after: () => undefined,
    readKey: (key, change) => reader.readKey(key, change),
    read(change) {
      const found = reader.read(change);
      return {
        ...found,
        before: found.before && (move(found.before) as Row),
        after: found.after && (move(found.after) as PartialRow),
      };
    },
  };
}
