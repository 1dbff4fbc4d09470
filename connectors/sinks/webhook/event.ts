/** A Change on its way to the endpoint: its JSON, and what ordering, batching and refusing need to know of it. */
import { type TableShape, tableName } from '../../../src/connector/shape.ts';
import type { Position, RowEvent } from '../../../src/connector/sink.ts';

export interface OutgoingEvent {
  json: string;
  /** Of `json` in UTF-8. */
  bytes: number;
  /** JSON of the key's values; empty where the event concerns the whole table or the table has no key. */
  key: string;
  place: string;
  position: Position;
  shape: TableShape;
}

/** What becomes of an event is decided by the `shape` option. */
export type EncodeEvent = (event: RowEvent, shape: TableShape) => string;

/**
 * Order of an event within its Window. A Position alone does not tell the two halves of a key change apart, nor the end
 * of a snapshot from the snapshot's last row.
 */
export function placeOf({ position, op }: RowEvent): string {
  return `${position}/${op === 'd' ? 0 : op === 's' ? 2 : 1}`;
}

/** Names the Change for ever, in whatever request it is sent. */
export function eventId(sourceId: string, shape: TableShape, { position, op }: RowEvent): string {
  return `${sourceId}/${tableName(shape)}/${position}/${op}`;
}

/** It has to come after everything before it and before everything after it, whatever the key. */
export function concernsWholeTable({ op }: RowEvent): boolean {
  return op === 't' || op === 's';
}

/** RFC 3339 in UTC, to the microsecond. */
export function timestampOf(microseconds: bigint): string {
  const second = new Date(Number(microseconds / 1000n)).toISOString().slice(0, 20);
  return `${second}${String(microseconds % 1_000_000n).padStart(6, '0')}Z`;
}

/** An object with a member for each column, by name: `__proto__` is a name like any other. */
export function emptyRecord<T>(): Record<string, T> {
  return Object.create(null) as Record<string, T>;
}
