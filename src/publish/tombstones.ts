/**
 * Which deletes of a Transaction are evictions, and which inserts are recalls: those whose Tombstone came before, in the
 * same Transaction, in the archive table of migrations/retention, to which the retention role alone may write. Whatever
 * else a Transaction deletes, a cascade from an evicted row among it, is a delete. And which evicted rows are erased: the
 * source has nothing to delete any more, so the Tombstone's erasure stands for their delete.
 */
import { type TableId, tableName } from '../connector/shape.ts';
import { TidemarkError } from '../platform/errors.ts';
import { archiveTable } from '../platform/retention-archive.ts';
import { type Relation, type Tuple, valueKind } from '../replicate/pgoutput.ts';

/** What of the archive's columns is needed; `row_key` is a JSON array of the texts of the key's columns. */
const columns = ['table_schema', 'table_name', 'row_key', 'recalled_at', 'tenant'] as const;
/** Not there before migrations/retention/0003. */
const erasedColumn = 'erased_at';
/** Where a Relation has them; -1: nowhere. */
type Places = Record<(typeof columns)[number] | typeof erasedColumn, number>;

/** An evicted row that is to be deleted wherever it is. */
export interface ErasedRow {
  table: TableId;
  /** JSON array of the texts of the key's columns. */
  key: string;
  tenant: string | null;
}

export class Tombstones {
  /** Relation of the archive to the places of its columns: a partition is published as the archive itself. */
  readonly #archives = new Map<number, Places>();
  /** Rows whose Tombstone this Transaction has, and whose delete or insert it has not yet. */
  readonly #evicted = new Set<string>();
  readonly #recalled = new Set<string>();
  /** Tables of which other rows were deleted meanwhile. */
  readonly #strayed = new Set<string>();

  /** The stream describes a table. @throws TidemarkError TM206 where the archive is not as migrations/retention has it */
  describe({ oid, schema, name, columns: found }: Relation): void {
    this.#archives.delete(oid);
    if (schema !== archiveTable.schema || name !== archiveTable.name) return;
    const places = columns.map((wanted) => {
      const at = found.findIndex((column) => column.name === wanted);
      if (at >= 0) return [wanted, at] as const;
      throw new TidemarkError('TM206', `${schema}.${name} is published without its column ${wanted}`, {
        remedy:
          'Its Tombstones say which deletes are evictions: publish it whole, as `tidemark check` has it, and keep every column but salt.',
      });
    });
    const erased = found.findIndex((column) => column.name === erasedColumn);
    this.#archives.set(oid, Object.fromEntries([...places, [erasedColumn, erased]]) as Places);
  }

  begin(): void {
    this.#evicted.clear();
    this.#recalled.clear();
    this.#strayed.clear();
  }

  /** Rows whose Tombstone came without their delete. */
  get unmet(): number {
    return this.#evicted.size;
  }

  /**
   * A table of which the Transaction deleted rows, while Tombstones waited that never met theirs: those rows may be what
   * the Tombstones are about, told by another text. Null: there is none.
   */
  get doubtful(): string | null {
    for (const table of this.#strayed) {
      const head = rowName(table, '');
      for (const row of this.#evicted) if (row.startsWith(head)) return table;
    }
    return null;
  }

  /** @returns the table that a row of the archive is about, where it is a new Tombstone */
  inserted(oid: number, row: Tuple): TableId | null {
    const places = this.#archives.get(oid);
    if (!places || row.kinds[places.recalled_at] !== valueKind.null) return null;
    const table = tableOf(places, row);
    this.#evicted.add(rowName(tableName(table), text(row, places.row_key)));
    return table;
  }

  /**
   * A Tombstone that says for the first time that its row comes back, or is erased: after that it never changes.
   * @returns the row that is erased, where the Tombstone was all that the source had of it
   */
  updated(oid: number, row: Tuple): ErasedRow | null {
    const places = this.#archives.get(oid);
    if (!places) return null;
    const key = () => text(row, places.row_key);
    if (row.kinds[places.recalled_at] !== valueKind.null) {
      // An erased salt changes the Tombstone of a row that came back long ago as well: then nothing is inserted.
      this.#recalled.add(rowName(tableName(tableOf(places, row)), key()));
      return null;
    }
    if (places.erased_at < 0 || row.kinds[places.erased_at] === valueKind.null) return null;
    const tenant = isValue(row.kinds[places.tenant]) ? text(row, places.tenant) : null;
    return { table: tableOf(places, row), key: key(), tenant };
  }

  /** Whether anything is to be asked for. */
  get any(): boolean {
    return this.#evicted.size > 0 || this.#recalled.size > 0;
  }

  /** Whether the row's Tombstone came. @param key texts of the key's columns, in the order of the record key */
  evicts(table: TableId, key: readonly string[]): boolean {
    const name = tableName(table);
    if (this.#evicted.has(rowName(name, JSON.stringify(key)))) return true;
    if (this.#evicted.size > 0) this.#strayed.add(name);
    return false;
  }

  /** The row's delete is encoded: a Tombstone counts once. */
  met(table: TableId, key: readonly string[]): void {
    this.#evicted.delete(rowName(tableName(table), JSON.stringify(key)));
  }

  /** As evicts and met, of a row that is inserted. */
  recalls(table: TableId, key: readonly string[]): boolean {
    return this.#recalled.delete(rowName(tableName(table), JSON.stringify(key)));
  }

  /** Takes out what waits for deletes of a table that is parked. @returns notes that tell a replay of it */
  takeNotes(name: string): Buffer[] {
    const head = rowName(name, '');
    const rows = [...this.#evicted].filter((row) => row.startsWith(head));
    for (const row of rows) this.#evicted.delete(row);
    return rows.map((row) => logicalMessage(notePrefix, row));
  }

  /** Tells a replay of a table that is parked. */
  erasureNote({ key, tenant }: ErasedRow): Buffer {
    return logicalMessage(erasureNotePrefix, JSON.stringify([key, tenant]));
  }

  /** A message comes back from the parked topic. @returns the row that was erased while its table was parked */
  erasedMeanwhile(prefix: string, content: Buffer, table: TableId): ErasedRow | null {
    if (prefix !== erasureNotePrefix) return null;
    const [key, tenant] = JSON.parse(content.toString('utf8')) as [string, string | null];
    return { table, key, tenant };
  }

  /** A message comes back from the parked topic. @returns whether it is one of our notes */
  replayed(prefix: string, content: Buffer): boolean {
    if (prefix !== notePrefix) return false;
    this.#evicted.add(content.toString('utf8'));
    return true;
  }
}

/** Only in the parked topic: in the stream anybody could write it. */
const notePrefix = 'tidemark.tombstone';
const erasureNotePrefix = 'tidemark.erasure';

/** pgoutput's M (flags, LSN, prefix, length, content), transactional. */
function logicalMessage(prefix: string, content: string): Buffer {
  const head = Buffer.alloc(10);
  head[0] = 0x4d;
  head[1] = 1;
  const length = Buffer.alloc(4);
  length.writeUInt32BE(Buffer.byteLength(content));
  return Buffer.concat([head, Buffer.from(`${prefix}\0`), length, Buffer.from(content)]);
}

function tableOf(places: Places, row: Tuple): TableId {
  return { schema: text(row, places.table_schema), name: text(row, places.table_name) };
}

/** Text is the same bytes in the stream's binary form and in its text form. */
function text({ kinds, bytes, starts, ends }: Tuple, at: number): string {
  if (!isValue(kinds[at]))
    throw new TidemarkError('TM206', 'a Tombstone came without the row that it is about');
  return bytes.toString('utf8', starts[at]!, ends[at]!);
}

function isValue(kind: number | undefined): boolean {
  return kind === valueKind.text || kind === valueKind.binary;
}

function rowName(table: string, key: string): string {
  return `${table}\0${key}`;
}
