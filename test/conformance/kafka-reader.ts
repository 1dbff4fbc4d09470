/** What a consumer of the mirror makes of it: every Change in order, and the last state per key. */

import { type CommittedReader, type FetchedRecord, headerOf } from '../../src/connector/kafka.ts';
import type { TableShape } from '../../src/connector/shape.ts';
import type { Cell, PartialRow, Row, RowEvent } from '../../src/connector/sink.ts';
import type { Decoder, ShapeColumn } from './kafka-decode.ts';
import type { SeenEvent } from './subject.ts';

interface Change {
  op: RowEvent['op'];
  position: string;
  key: Cell[];
  previousKey: Cell[] | null;
  columns: ShapeColumn[] | null;
  oid: number | undefined;
  values: PartialRow;
  since: string;
}

/** Of Changes at one Position: what empties the table first, of a key change the delete before the create. */
const rank: Record<RowEvent['op'], number> = { t: 0, d: 1, c: 2, u: 2, r: 2, e: 3, s: 4 };

export interface MirrorTopics {
  rows: string;
  control: string;
}

export async function changesOf(
  reader: CommittedReader,
  decoder: Decoder,
  { rows, control }: MirrorTopics,
): Promise<Change[]> {
  const changes: Change[] = [];
  for await (const records of reader.read(rows)) {
    for (const record of records) changes.push(await changeOf(record, decoder));
  }
  const controls: FetchedRecord[] = [];
  for await (const records of reader.read(control)) controls.push(...records);
  for (const record of controls) {
    const told = JSON.parse(record.value!.toString()) as Record<string, string> & { key?: [string, Cell][] };
    if (told.topic !== rows) continue;
    changes.push({
      op: told.op as 't' | 's' | 'e',
      position: told.position!,
      key: (told.key ?? []).map(([, cell]) => cell),
      previousKey: null,
      columns: null,
      oid: undefined,
      values: [],
      since: told.since ?? '',
    });
  }
  changes.sort((a, b) =>
    a.position < b.position ? -1 : a.position > b.position ? 1 : rank[a.op] - rank[b.op],
  );
  return changes;
}

async function changeOf(record: FetchedRecord, decoder: Decoder): Promise<Change> {
  const { key, value } = record;
  const header = (name: string) => headerOf(record, name)?.toString();
  const change: Change = {
    op: 'd',
    position: header('tidemark.position')!,
    key: key ? (await decoder.decode(key)).cells : [],
    previousKey: JSON.parse(header('tidemark.previous.key') ?? 'null') as Cell[] | null,
    columns: null,
    oid: undefined,
    values: [],
    since: '',
  };
  if (value === null) return change;
  const { columns, oid, fields, cells } = await decoder.decode(value);
  change.op = cells[fields.lastIndexOf('__op')] as RowEvent['op'];
  change.columns = columns;
  change.oid = oid;
  const unchanged = new Set(JSON.parse(header('tidemark.unchanged') ?? '[]') as string[]);
  const exact = JSON.parse(header('tidemark.exact') ?? '{}') as Record<string, string>;
  change.values = columns!.map(({ name }, i) => {
    if (unchanged.has(name)) return undefined;
    return Object.hasOwn(exact, name) ? exact[name]! : cells[i]!;
  });
  return change;
}

export function seenEvents(changes: readonly Change[], shape: TableShape): SeenEvent[] {
  const keyNames = shape.keyColumns.map((i) => shape.columns[i]!.name);
  const seen: SeenEvent[] = [];
  for (const [i, { op, position, key, columns, values }] of changes.entries()) {
    // In a table without a key an update is two records.
    const next = changes[i + 1];
    if (key.length === 0 && op === 'd' && next?.op === 'u' && next.position === position) continue;
    const named: Record<string, Cell> = Object.create(null) as Record<string, Cell>;
    for (const [j, { name }] of (columns ?? []).entries())
      if (values[j] !== undefined) named[name] = values[j];
    if (op === 'd') for (const [j, name] of keyNames.entries()) if (key.length > 0) named[name] = key[j]!;
    seen.push({ op, position, key, values: named });
  }
  return seen;
}

interface HeldRow {
  values: Row;
  position: string;
  retired: boolean;
}

/** The last state per key; without one, the bag of rows. */
export function foldedRows(changes: readonly Change[], shape: TableShape): Row[] {
  let columns: ShapeColumn[] = [];
  const rows = new Map<string, HeldRow>();
  const bag: HeldRow[] = [];
  let gone: { position: string; key: string; row: HeldRow | undefined } | null = null;
  const take = (now: ShapeColumn[]) => {
    if (JSON.stringify(now) === JSON.stringify(columns)) return;
    for (const row of [...rows.values(), ...bag]) row.values = reshaped(row.values, columns, now);
    columns = now;
  };
  const empty = (leaves: (row: HeldRow) => boolean) => {
    for (const [key, row] of rows) if (!leaves(row)) rows.delete(key);
    bag.splice(0, bag.length, ...bag.filter(leaves));
  };
  for (const change of changes) {
    const { op, position, values, previousKey } = change;
    if (change.columns) take(change.columns);
    const key = JSON.stringify(change.key);
    if (op === 't') empty(({ retired }) => retired);
    else if (op === 's') empty((row) => row.retired || row.position > change.since);
    else if (op === 'e') Object.assign(rows.get(key)!, { retired: true, position });
    else if (op === 'd' && change.key.length > 0) {
      gone = { position, key, row: rows.get(key) };
      rows.delete(key);
    } else if (op === 'd') {
      const text = JSON.stringify(values);
      bag.splice(
        bag.findIndex((row) => JSON.stringify(row.values) === text),
        1,
      );
    } else {
      const from = JSON.stringify(previousKey ?? change.key);
      const before = gone?.position === position && gone.key === from ? gone.row : rows.get(from);
      const whole = values.map((cell, i) => (cell === undefined ? before!.values[i]! : cell));
      const row = { values: whole, position, retired: false };
      if (change.key.length > 0) rows.set(key, row);
      else bag.push(row);
    }
  }
  take(
    shape.columns.map(({ name, type, number, missing }) => ({ name, type, number, missing }) as ShapeColumn),
  );
  return [...rows.values(), ...bag].map(({ values }) => values);
}

function reshaped(values: Row, before: readonly ShapeColumn[], after: readonly ShapeColumn[]): Row {
  return after.map(({ name, number, missing }) => {
    const i = before.findIndex((old) => (number === undefined ? old.name === name : old.number === number));
    return i === -1 ? (missing ?? null) : values[i]!;
  });
}
