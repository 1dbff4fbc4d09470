/** The `raw` shape: the Change as it was, with values as Postgres prints them. */
import type { TableShape } from '../../../src/connector/shape.ts';
import type { Cell, RowEvent } from '../../../src/connector/sink.ts';
import { emptyRecord, eventId, timestampOf } from './event.ts';

export interface ChangeParts {
  key: Record<string, Cell>;
  /** Columns whose value is known; of a delete the key alone, unless the replica identity shows more. */
  row: Record<string, Cell>;
  /** Columns that the change left as they were and whose value is not in the stream. */
  unchanged: string[];
  previousKey: Record<string, Cell> | null;
  before: Record<string, Cell> | null;
}

export function partsOf(event: RowEvent, { columns, keyColumns }: TableShape): ChangeParts {
  const row = emptyRecord<Cell>();
  const unchanged: string[] = [];
  for (const [index, value] of event.values.entries()) {
    const { name } = columns[index]!;
    if (value !== undefined) row[name] = value;
    // What a delete does not show was not left alone: it is gone.
    else if (event.op !== 'd') unchanged.push(name);
  }
  const byKey = (values: readonly Cell[]) => named(columns, keyColumns, values);
  return {
    key: byKey(event.key),
    row,
    unchanged,
    previousKey: event.previousKey && byKey(event.previousKey),
    before: event.before && named(columns, columns.keys(), event.before),
  };
}

function named(
  columns: TableShape['columns'],
  indexes: Iterable<number>,
  values: readonly Cell[],
): Record<string, Cell> {
  const record = emptyRecord<Cell>();
  let part = 0;
  for (const index of indexes) {
    record[columns[index]!.name] = values[part++]!;
  }
  return record;
}

export function encodeRaw(sourceId: string): (event: RowEvent, shape: TableShape) => string {
  return (event, shape) => {
    const { key, row, unchanged, previousKey, before } = partsOf(event, shape);
    return JSON.stringify({
      id: eventId(sourceId, shape, event),
      op: event.op,
      source: sourceId,
      schema: shape.schema,
      table: shape.name,
      position: event.position,
      commit_time: timestampOf(event.commitTimeUs),
      key,
      row,
      ...(unchanged.length > 0 ? { unchanged } : {}),
      ...(previousKey ? { previous_key: previousKey } : {}),
      ...(before ? { before } : {}),
      ...(event.since === undefined ? {} : { since: event.since }),
    });
  };
}
