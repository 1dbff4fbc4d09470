/** Compares what a stranger reads at the destination with the in-memory source. */
import { expect } from 'vitest';
import type { ColumnShape, TableShape } from '../../src/connector/shape.ts';
import { tableName } from '../../src/connector/shape.ts';
import type { Cell, Row, RowEvent, Sink } from '../../src/connector/sink.ts';
import type { ExpectedTable, PastEvent, Source } from './source.ts';
import type { Place, SeenEvent, Subject } from './subject.ts';

/** The rows and, of sinks that have them, the Changes. */
export async function expectSame(
  subject: Subject,
  place: Place,
  tables: readonly ExpectedTable[],
): Promise<void> {
  for (const { shape, rows, events } of tables) {
    const name = tableName(shape);
    if (subject.mode !== 'send') expectRows(await place.rows(shape), rows, name);
    if (subject.mode === 'merge') continue;
    if (!place.events) throw new Error(`the subject ${subject.kind.name} says nothing of its events`);
    const seen = await place.events(shape);
    const once = subject.mode === 'send' ? withoutRepeats(seen) : seen;
    const wanted = events.filter(({ event }) => event.op !== 's').map((past) => comparable(past, shape));
    // A table made anew under its name may be told as a truncate of the old one.
    const anew = new Set(events.map((past) => past.shape.oid)).size > 1;
    const truncates = new Set(wanted.flatMap(({ op, position }) => (op === 't' ? [position] : [])));
    const told = ({ op, position }: SeenEvent) =>
      op !== 's' && !(anew && op === 't' && !truncates.has(position));
    const got = once.filter(told).map((event, i) => asWanted(event, wanted[i]));
    expect(got, `changes of ${name}`).toEqual(wanted);
  }
}

/** After expectSame, which has compared with the source what a stranger reads. */
export async function expectSameReadBack(subject: Subject, sink: Sink, source: Source): Promise<void> {
  const refusal = subject.refuses['read-back'];
  for (const { shape, rows: wanted, retired } of source.expected()) {
    if (sink.mode === 'send' || !sink.readTable) {
      expect(sink.mode === 'send' || refusal !== undefined, 'a sink without readTable says so').toBe(true);
      return;
    }
    expect(refusal, 'a sink with readTable does not refuse to be read back').toBeUndefined();
    const rows: Row[] = [];
    for await (const batch of sink.readTable(shape, source.position)) rows.push(...batch);
    expectRows(rows, wanted, `${tableName(shape)}, read back`);
    const apart: Row[] = [];
    const rest: Row[] = [];
    const readApart = sink.readTable(shape, source.position, (taken) => apart.push(...taken));
    for await (const batch of readApart) rest.push(...batch);
    expectRows(apart, retired, `${tableName(shape)}, read back, that were let go of`);
    expectRows([...rest, ...apart], wanted, `${tableName(shape)}, read back in two parts`);
  }
}

/** As bags: tables have no order. */
export function expectRows(seen: readonly Row[], wanted: readonly Row[], what: string): void {
  expect(sortedRows(seen), `rows of ${what}`).toEqual(sortedRows(wanted));
}

function sortedRows(rows: readonly Row[]): Row[] {
  const lines = rows.map((row) => JSON.stringify(row)).sort();
  return lines.map((line) => JSON.parse(line) as Row);
}

interface ComparableEvent {
  op: RowEvent['op'];
  position: string;
  key: Cell[];
  values: Readonly<Record<string, Cell>>;
  /** Columns of which the event says that it left them as they were. */
  untouched: string[];
}

/**
 * What a sink may show of an event in any form: the columns that are the same today, and of a delete and an eviction
 * the key alone.
 */
function comparable({ shape, event }: PastEvent, today: TableShape): ComparableEvent {
  const untouched: string[] = [];
  const values: Record<string, Cell> = Object.create(null) as Record<string, Cell>;
  for (const [i, column] of shape.columns.entries()) {
    const cell = event.values[i];
    if (!shown(event, shape, column) || !today.columns.some((each) => sameColumn(each, column))) continue;
    if (cell === undefined) untouched.push(column.name);
    else values[column.name] = cell;
  }
  return { op: event.op, position: event.position, key: event.key, values, untouched };
}

/** What was seen, as far as it is compared. */
function asWanted(event: SeenEvent, wanted: ComparableEvent | undefined): ComparableEvent {
  const values: Record<string, Cell> = Object.create(null) as Record<string, Cell>;
  const has = (name: string) => Object.hasOwn(event.values, name);
  for (const name of Object.keys(wanted?.values ?? {})) if (has(name)) values[name] = event.values[name]!;
  const untouched = (wanted?.untouched ?? []).filter((name) => !has(name));
  return { op: event.op, position: event.position, key: event.key, values, untouched };
}

/** A truncate and an eviction show no row. */
function shown({ op }: RowEvent, shape: TableShape, column: ColumnShape): boolean {
  return op !== 't' && op !== 'e' && (op !== 'd' || column.key || shape.keyColumns.length === 0);
}

function sameColumn(today: ColumnShape, then: ColumnShape): boolean {
  return today.name === then.name && today.type === then.type && today.number === then.number;
}

/** A repeat names itself as the first one did, and says the same. */
function withoutRepeats(seen: readonly SeenEvent[]): SeenEvent[] {
  const first = new Map<string, SeenEvent>();
  for (const event of seen) {
    const identity = event.identity;
    if (identity === undefined) throw new Error('what a sink sends names itself');
    const earlier = first.get(identity);
    if (earlier) expect(event, 'a repeat').toEqual(earlier);
    else first.set(identity, event);
  }
  return [...first.values()];
}
