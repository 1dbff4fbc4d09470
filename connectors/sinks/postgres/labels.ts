/**
 * Labels of the replica's enum types. A new label cannot be used in the transaction that adds it, so labels are added
 * before the merge's, each by itself: nothing but a label too many is left where the merge then fails. The shape may
 * lack a label that a row has, since the source sends no Relation message for ALTER TYPE … ADD VALUE: then the row
 * tells of it, and the merge starts over.
 */
import type { CellReceiver, NativeRow } from '../../../src/connector/native-row.ts';
import type { ColumnShape, EnumType, TableShape } from '../../../src/connector/shape.ts';
import type { Cell, MergeTable, PartialRow } from '../../../src/connector/sink.ts';
import type { Session } from './client.ts';
import { quoteTable, quoteText } from './quote.ts';

/** Thrown out of the row streams: the merge is to start over with these. */
export class MissingLabels extends Error {
  readonly type: EnumType;
  readonly labels: string[];

  constructor(type: EnumType, labels: string[]) {
    super(`a row has a label that ${type.schema}.${type.name} lacks`);
    this.name = 'MissingLabels';
    this.type = type;
    this.labels = labels;
  }
}

/** Adds what existing types lack, in the order that the shape has. Types that do not exist are left alone. */
export async function addLabels(session: Session, types: readonly EnumType[]): Promise<string[]> {
  if (types.length === 0) return [];
  const names = types.map(({ schema, name }, i) => `(${i}, ${quoteText(schema)}, ${quoteText(name)})`);
  const [result] = await session.run(`SELECT w.i, json_agg(e.enumlabel)
FROM (VALUES ${names.join(', ')}) AS w (i, schema_name, type_name)
JOIN pg_catalog.pg_namespace n ON n.nspname = w.schema_name
JOIN pg_catalog.pg_type t ON t.typnamespace = n.oid AND t.typname = w.type_name AND t.typtype = 'e'
JOIN pg_catalog.pg_enum e ON e.enumtypid = t.oid
GROUP BY w.i`);
  const added: string[] = [];
  for (const [i, labels] of result!.rows) {
    const type = types[Number(i)]!;
    const existing = new Set(JSON.parse(labels!) as string[]);
    // From the end, so that the label behind a missing one is there already.
    for (let at = type.labels.length - 1; at >= 0; at--) {
      const label = type.labels[at]!;
      if (existing.has(label)) continue;
      const next = type.labels.slice(at + 1).find((each) => existing.has(each));
      const place = next === undefined ? '' : ` BEFORE ${quoteText(next)}`;
      await session.run(`ALTER TYPE ${quoteTable(type)} ADD VALUE IF NOT EXISTS ${quoteText(label)}${place}`);
      existing.add(label);
      added.push(quoteTable(type));
    }
  }
  return [...new Set(added)];
}

/** Distinct enum types of the shapes; where two versions of a type meet, the one with more labels. */
export function enumTypes(shapes: readonly TableShape[]): EnumType[] {
  const types = new Map<string, EnumType>();
  for (const { columns } of shapes) {
    for (const { enum: type } of columns) {
      const known = type && types.get(quoteTable(type));
      if (type && (!known || known.labels.length < type.labels.length)) types.set(quoteTable(type), type);
    }
  }
  return [...types.values()];
}

/** The table with its rows looked at: a label that neither the shape nor `extra` has ends the stream. */
export function watchLabels(table: MergeTable, extra: ReadonlyMap<string, ReadonlySet<string>>): MergeTable {
  const watched = table.shape.columns.flatMap((column, index) => watchedColumn(column, index, extra));
  if (watched.length === 0) return table;
  async function* looked<T>(
    batches: AsyncIterable<T[]>,
    row: (of: T) => { values: PartialRow; native?: NativeRow | undefined } | null,
  ): AsyncIterable<T[]> {
    const receivers: (LabelReceiver | null)[] = table.shape.columns.map(() => null);
    for (const column of watched) receivers[column.index] = new LabelReceiver(column);
    for await (const batch of batches) {
      for (const each of batch) {
        const of = row(each);
        if (of?.native) of.native.pass(receivers);
        else if (of) for (const { index } of watched) receivers[index]!.take(of.values[index]);
      }
      for (const receiver of receivers) receiver?.check();
      yield batch;
    }
  }
  return {
    ...table,
    states: () => looked(table.states(), (state) => (state.op === 'upsert' ? state : null)),
    counts: () => looked(table.counts(), (count) => count),
    events: () => looked(table.events(), (event) => event),
  };
}

interface WatchedColumn {
  index: number;
  type: EnumType;
  known: ReadonlySet<string>;
  array: boolean;
}

/** Looks at the labels of one column. */
class LabelReceiver implements CellReceiver {
  readonly #column: WatchedColumn;
  readonly #unknown = new Set<string>();
  /** Known ones in UTF-8, by their length. */
  readonly #bytes: Buffer[][] = [];

  constructor(column: WatchedColumn) {
    this.#column = column;
    for (const label of column.known) {
      const bytes = Buffer.from(label);
      this.#bytes[bytes.length] ??= [];
      this.#bytes[bytes.length]!.push(bytes);
    }
  }

  nothing(): void {}

  text(cell: string): void {
    const { known, array } = this.#column;
    for (const label of array ? items(cell) : [cell]) if (!known.has(label)) this.#unknown.add(label);
  }

  utf8(bytes: Buffer, start: number, end: number): void {
    for (const label of this.#bytes[end - start] ?? []) {
      let i = 0;
      while (i < label.length && label[i] === bytes[start + i]) i++;
      if (i === label.length) return;
    }
    this.text(bytes.toString('utf8', start, end));
  }

  take(cell: Cell | undefined): void {
    if (cell !== null && cell !== undefined) this.text(cell);
  }

  check(): void {
    if (this.#unknown.size > 0) throw new MissingLabels(this.#column.type, [...this.#unknown]);
  }
}

function watchedColumn(
  { type: text, enum: type }: ColumnShape,
  index: number,
  extra: ReadonlyMap<string, ReadonlySet<string>>,
): WatchedColumn[] {
  if (!type) return [];
  const known = new Set([...type.labels, ...(extra.get(quoteTable(type)) ?? [])]);
  return [{ index, type, known, array: text.endsWith('[]') }];
}

/** The elements of an array's text, of any dimensions (PostgreSQL manual, "Array Input and Output Syntax"). */
function items(text: NonNullable<Cell>): string[] {
  const found: string[] = [];
  const body = text.slice(text.indexOf('{'));
  for (const [item] of body.matchAll(/"(?:[^"\\]|\\.)*"|[^{},]+/g)) {
    if (item.startsWith('"')) found.push(item.slice(1, -1).replace(/\\(.)/g, '$1'));
    else if (item !== 'NULL') found.push(item);
  }
  return found;
}
