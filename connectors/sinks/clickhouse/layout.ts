/**
 * The table behind a view. Its columns have made-up names (`c1`, `c2`, …), of which each belongs to one column of the
 * source for good: a rename, a swap of names or a hostile name is the view's business alone.
 *
 * With a key it is a ReplacingMergeTree: of a key's rows the one with the highest Position counts. Without one it is a
 * SummingMergeTree of row images and how many copies there are more or fewer. In both `_kind` 1 is the mark, the row
 * that says what the table holds: it lies in the same part as the rows of its Window.
 */
import { hashCells } from '../../../src/connector/row-hash.ts';
import type { ColumnShape, TableShape } from '../../../src/connector/shape.ts';
import type { Cell, PartialRow, Row } from '../../../src/connector/sink.ts';
import { quoteName, quoteText } from './names.ts';
import { escapeField, type Field, items, nullField, quoteItem, unescapeField } from './tab-separated.ts';
import { type Storage, storageOf, textStorage } from './types.ts';

export interface StoredColumn {
  /** Its name in the table behind the view. */
  id: string;
  column: ColumnShape;
  storage: Storage;
  /** Never NULL there: part of what rows are sorted by. */
  required: boolean;
}

/** What rows are sorted by, in key order. */
interface SortColumn {
  name: string;
  storage: Storage;
}

export interface RowMarks {
  version: string;
  deleted?: boolean;
  retired?: boolean;
}

/** Rows that a reader's mark points at: a lookup of one key reads so many, in every part. */
const granuleRows = 256;

export class Layout {
  readonly shape: TableShape;
  readonly columns: readonly StoredColumn[];
  readonly sort: readonly SortColumn[];
  readonly keyed: boolean;
  /** All columns, in the order of inserted fields. */
  readonly names: readonly string[];
  /** Of the next new column. */
  readonly nextId: number;
  readonly #keyOf: Map<number, number>;

  /** Ids of text columns with few different values. */
  readonly few: readonly string[];

  /** @param ids of the shape's columns */
  constructor(shape: TableShape, ids: readonly string[], nextId: number, few: readonly string[]) {
    this.shape = shape;
    this.few = few;
    this.nextId = nextId;
    this.keyed = shape.keyColumns.length > 0;
    this.#keyOf = new Map(shape.keyColumns.map((column, k) => [column, k]));
    this.columns = shape.columns.map((column, i) => {
      const storage = storageOf(column, few.includes(ids[i]!));
      return { id: ids[i]!, column, storage, required: this.#keyOf.has(i) && !storage.lossy };
    });
    this.sort = this.keyed
      ? shape.keyColumns.map((index, k) => {
          const { id, storage, required } = this.columns[index]!;
          // A type that cannot hold every value sorts by Postgres' text.
          return required ? { name: id, storage } : { name: `k${k}`, storage: textStorage };
        })
      : [{ name: '_image', storage: { ...textStorage, type: 'UInt128', zero: '0' } }];
    this.names = [
      '_kind',
      ...this.columns.map(({ id }) => id),
      ...this.sort.map(({ name }) => name).filter((name) => !name.startsWith('c')),
      ...(this.keyed ? ['_version', '_deleted', '_retired'] : ['_copies']),
      '_exact',
      '_progress',
    ];
  }

  /** Definitions of all columns, in the order of `names`. */
  definitions(): string[] {
    return [
      '_kind UInt8',
      ...this.columns.map(
        ({ id, storage, required }) => `${id} ${required ? storage.type : storage.nullableType}`,
      ),
      ...this.sort
        .filter(({ name }) => !name.startsWith('c'))
        .map(({ name, storage }) => `${name} ${storage.type}`),
      ...(this.keyed ? ['_version UInt128', '_deleted UInt8', '_retired UInt8'] : ['_copies Int64']),
      '_exact Map(LowCardinality(String), Nullable(String))',
      '_progress String',
    ];
  }

  create(table: string): string {
    return `CREATE TABLE ${table} (\n  ${this.definitions().join(',\n  ')}\n) ${this.engine()}`;
  }

  engine(): string {
    const engine = this.keyed ? 'ReplacingMergeTree(_version, _deleted)' : 'SummingMergeTree(_copies)';
    return `ENGINE = ${engine} ORDER BY (${['_kind', ...this.sort.map(({ name }) => name)].join(', ')})
SETTINGS index_granularity = ${granuleRows}, index_granularity_bytes = 1048576, non_replicated_deduplication_window = 1000,
  fsync_after_insert = 1, fsync_part_directory = 1, min_compressed_bytes_to_fsync_after_merge = 1`;
  }

  /** The SELECT of the view: exactly the current rows. @param rows quoted */
  view(rows: string): string {
    const columns = this.columns.map(({ id, column }) => `t.${id} AS ${quoteName(column.name)}`);
    const lossy = this.columns.filter(({ storage }) => storage.lossy);
    if (lossy.length > 0 && !this.columns.some(({ column }) => column.name === '_exact')) {
      const ids = lossy.map(({ id }) => quoteText(id)).join(', ');
      const names = lossy.map(({ column }) => quoteText(column.name)).join(', ');
      // Texts of columns that are no more may still be there.
      const known = `mapFilter((id, text) -> has([${ids}], id), t._exact)`;
      columns.push(
        `mapApply((id, text) -> (transform(toString(id), [${ids}], [${names}], ''), text), ${known}) AS _exact`,
      );
    }
    const list = columns.join(',\n  ');
    if (this.keyed) return `SELECT\n  ${list}\nFROM ${rows} AS t FINAL WHERE t._kind = 0`;
    return `SELECT\n  ${list}\nFROM (SELECT * FROM ${rows} FINAL WHERE _kind = 0 AND _copies > 0) AS t ARRAY JOIN range(toUInt64(t._copies)) AS _tidemark_copy`;
  }

  /** The sort columns as one expression. */
  sortTuple(prefix = ''): string {
    return `(${this.sort.map(({ name }) => `${prefix}${name}`).join(', ')})`;
  }

  /** Indexes of columns that the state leaves as they are and does not know. */
  unchanged(values: PartialRow): number[] {
    const found: number[] = [];
    for (let i = 0; i < values.length; i++) if (values[i] === undefined && !this.#keyOf.has(i)) found.push(i);
    return found;
  }

  /** Fields of the sort columns. */
  keyFields(key: readonly Cell[]): Field[] {
    return this.sort.map(({ storage }, k) => storage.write(key[k]!)!);
  }

  /** A row of a table with a key, as a line; unknown values are left empty. */
  keyedLine(values: PartialRow, key: readonly Cell[], marks: RowMarks): string {
    let exact = '';
    let line = '0';
    for (let i = 0; i < this.columns.length; i++) {
      const stored = this.columns[i]!;
      const k = this.#keyOf.get(i);
      const cell = k === undefined ? values[i] : key[k];
      const field = fieldOf(stored, cell);
      if (field === null) exact += `${exact === '' ? '' : ','}${exactEntry(stored, cell!)}`;
      line += `\t${field ?? stored.storage.empty}`;
    }
    for (let k = 0; k < this.sort.length; k++) {
      const { name, storage } = this.sort[k]!;
      if (!name.startsWith('c')) line += `\t${storage.write(key[k]!)}`;
    }
    return `${line}\t${marks.version}\t${marks.deleted ? 1 : 0}\t${marks.retired ? 1 : 0}\t{${exact}}\t\n`;
  }

  /** An image of a table without a key, and how many copies of it there are more or fewer. */
  keylessLine(values: Row, copies: string): string {
    let exact = '';
    let line = '0';
    for (let i = 0; i < this.columns.length; i++) {
      const stored = this.columns[i]!;
      const field = fieldOf(stored, values[i]!);
      if (field === null) exact += `${exact === '' ? '' : ','}${exactEntry(stored, values[i]!)}`;
      line += `\t${field ?? stored.storage.empty}`;
    }
    return `${line}\t${hashCells(values)}\t${copies}\t{${exact}}\t\n`;
  }

  /**
   * The mark. @param version of a keyed table; of a keyless one the Window's number, which takes the place of a key
   * @param copies of a keyless one: −1 takes an earlier mark away
   */
  markLine(version: string, progress: string, copies = 1): string {
    const fields = [
      '1',
      ...this.columns.map(({ storage, required }) => (required ? storage.zero : storage.empty)),
    ];
    const hidden = this.sort.filter(({ name }) => !name.startsWith('c'));
    if (this.keyed) fields.push(...hidden.map(({ storage }) => storage.zero), version, '0', '0');
    else fields.push(version, String(copies));
    return `${[...fields, '{}', escapeField(progress)].join('\t')}\n`;
  }

  /** What to select for `row`: every column of `wanted`, then the texts that stand beside them. */
  selection(wanted: readonly StoredColumn[]): string[] {
    return [...wanted.map(({ id, storage }) => storage.select(id)), '_exact'];
  }
}

/** Null where the type does not hold the value. */
function fieldOf({ storage, required }: StoredColumn, cell: Cell | undefined): Field | null {
  if (cell === undefined) return storage.empty;
  if (cell !== null) return storage.write(cell);
  if (required) return storage.zero;
  return storage.empty === nullField ? nullField : null;
}

function exactEntry({ id }: StoredColumn, cell: Cell): string {
  return `'${id}':${cell === null ? 'NULL' : quoteItem(cell)}`;
}

/** The row that `Layout.selection` selected. */
export function rowOf(wanted: readonly StoredColumn[], fields: readonly Field[]): Row {
  const exact = exactOf(fields[wanted.length]!);
  return wanted.map(({ id, storage }, i) => {
    const beside = exact?.get(id);
    if (beside !== undefined) return beside;
    const field = fields[i]!;
    return field === nullField ? null : storage.read(field);
  });
}

function exactOf(field: Field): Map<string, string | null> | null {
  if (field === '{}') return null;
  const list = items(field);
  const found = new Map<string, string | null>();
  for (let i = 0; i < list.length; i += 2) found.set(list[i]!, list[i + 1]!);
  return found;
}

export const parseMark = (field: Field): unknown => JSON.parse(unescapeField(field)!);
