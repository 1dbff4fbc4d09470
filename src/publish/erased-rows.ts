/**
 * Evicted rows that are erased, from their Tombstone's Change to their delete in the table's topic. The source streams
 * nothing of the table then, so it may never have described it: the shape that was registered last is the one that
 * consumers have.
 */
import { type TableId, tableName } from '../connector/shape.ts';
import { Tuple, valueKind } from '../replicate/pgoutput.ts';
import type { TableEncoder } from './table-encoder.ts';
import type { ErasedRow } from './tombstones.ts';

/** An encoder, and the names of its tuples' values. */
interface TupleEncoder {
  encoder: TableEncoder;
  columns: string[];
}

export class ErasedRows {
  readonly #streamed: (table: TableId) => TupleEncoder | null;
  /** By table, as registered; null: it never was. */
  readonly #registered = new Map<string, TableEncoder | null>();
  #pending: ErasedRow[] = [];

  constructor(streamed: (table: TableId) => TupleEncoder | null) {
    this.#streamed = streamed;
  }

  expect(row: ErasedRow): void {
    this.#pending.push(row);
  }

  /** Those whose deletes come next. */
  take(): readonly ErasedRow[] {
    if (this.#pending.length === 0) return this.#pending;
    const taken = this.#pending;
    this.#pending = [];
    return taken;
  }

  prepared(table: TableId, encoder: TableEncoder | null): void {
    this.#registered.set(tableName(table), encoder);
  }

  /** The stream describes it: what was registered before that is not the last any more. */
  forget(table: TableId): void {
    this.#registered.delete(tableName(table));
  }

  /** @returns undefined where it has to be prepared; null where it cannot be */
  encoderOf(table: TableId): TableEncoder | null | undefined {
    return this.#streamed(table)?.encoder ?? this.#registered.get(tableName(table));
  }

  /** The row as far as its Tombstone knows it: key and tenant. */
  tupleOf(encoder: TableEncoder, { table, key, tenant }: ErasedRow): Tuple {
    const { shape } = encoder;
    const streamed = this.#streamed(table);
    const names = streamed?.encoder === encoder ? streamed.columns : shape.columns.map(({ name }) => name);
    const values = new Map<string, string>();
    if (shape.tenantColumn !== null && tenant !== null)
      values.set(shape.columns[shape.tenantColumn]!.name, tenant);
    const texts = JSON.parse(key) as string[];
    for (const [i, column] of shape.keyColumns.entries())
      if (typeof texts[i] === 'string') values.set(shape.columns[column]!.name, texts[i]);
    return textTuple(names.map((name) => values.get(name) ?? null));
  }
}

/** As the stream would carry it in its text form. */
function textTuple(values: readonly (string | null)[]): Tuple {
  const parts: Buffer[] = [Buffer.alloc(2)];
  parts[0]!.writeUInt16BE(values.length);
  for (const value of values) {
    if (value === null) {
      parts.push(Buffer.of(valueKind.null));
      continue;
    }
    const bytes = Buffer.from(value, 'utf8');
    const head = Buffer.alloc(5);
    head[0] = valueKind.text;
    head.writeInt32BE(bytes.length, 1);
    parts.push(head, bytes);
  }
  const tuple = new Tuple();
  tuple.read(Buffer.concat(parts), 0);
  return tuple;
}
