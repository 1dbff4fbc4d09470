/**
 * Rows of a Unit that were spilled: what has to be sorted and joined in a DuckDB table, the values in files. Rows at or
 * below the mark are skipped by Position when reading; the table is written anew when most of it is behind.
 */
import {
  type DuckDBAppender,
  DuckDBBlobValue,
  type DuckDBConnection,
  DuckDBDataChunk,
  type DuckDBValue,
} from '@duckdb/node-api';
import type { Position } from '../connector/position.ts';
import { bodyOf, packedHeaders } from './change-body.ts';
import { blob, changeColumns, columnTypes, streamRows, tableColumns } from './spilled-columns.ts';
import type {
  ChangeBody,
  IncomingChange,
  Range,
  StoredChange,
  TopicContent,
  WithheldKey,
} from './stored-change.ts';
import type { StoreAccess } from './unit-store.ts';
import { type Place, ValueFiles } from './value-files.ts';
import { storeError } from './window-store.ts';

/** DuckDB's part of a row, beside the keys. */
const rowOverheadBytes = 120;
const chunkRows = 2048;
/** Rows with the number of their part: one more at every change of the topic's schema, in Position order. */
function schemaParts(source: string): string {
  return `(select *, sum(step) over (partition by topic order by position range unbounded preceding) as part
    from (select topic, position, schema_id, truncate, old_key, partial, case when schema_id <> lag(schema_id) over (partition by topic order by position) then 1 else 0 end as step
      from ${source}))`;
}

/** A table is written anew when at least this many rows, and more than half of it, are behind the mark. */
const rewriteRows = 50_000;

export class SpilledRows {
  readonly #name: string;
  readonly #access: StoreAccess;
  readonly #files: ValueFiles;
  #writer: DuckDBConnection | null = null;
  #appender: DuckDBAppender | null = null;
  #table: string | null = null;
  #serial = 0;
  /** Appends still in the table, oldest first: greatest Position and rows. */
  #appends: { last: Position; rows: number }[] = [];
  #keyBytes = 0;
  /** Rows in the table, those behind the mark included. */
  #rows = 0;
  /** Keys that are left out of what is read, see `withhold`. */
  #withheld: string | null = null;
  #last: Promise<unknown> = Promise.resolve();
  /** One chunk for all appends: each would keep a mebibyte outside the heap until a collection comes by. */
  #chunk: DuckDBDataChunk | null = null;

  constructor(name: string, access: StoreAccess) {
    this.#name = name;
    this.#access = access;
    this.#files = new ValueFiles(access.directory, name);
  }

  /** Of values, keys and rows. */
  get bytes(): number {
    return this.#files.bytes + this.#keyBytes + this.#rows * rowOverheadBytes;
  }

  get empty(): boolean {
    return this.#table === null;
  }

  /** All Changes or none. @throws TidemarkError TM406 when the store or its disk is full */
  append(changes: readonly IncomingChange[]): Promise<void> {
    return this.#alone(() => this.#append(changes));
  }

  async #append(changes: readonly IncomingChange[]): Promise<void> {
    const bodies: Buffer[] = [];
    const headerBytes: number[] = [];
    let keyBytes = 0;
    let bytes = 0;
    let last = changes[0]!.position;
    for (const change of changes) {
      const { key, oldKey, value, position } = change;
      bodies.push(value);
      const headers = packedHeaders(change);
      if (headers) bodies.push(headers);
      headerBytes.push(headers?.length ?? 0);
      keyBytes += (key?.length ?? 0) + (oldKey?.length ?? 0);
      bytes += value.length + (headers?.length ?? 0);
      if (position > last) last = position;
    }
    this.#access.checkRoom(bytes + keyBytes + changes.length * rowOverheadBytes);
    try {
      const place = await this.#files.append(bodies, last);
      await this.#openTable();
      // The appender flushes by itself at some 200,000 rows; more than that needs a transaction to be all or none.
      const large = changes.length > 100_000;
      if (large) await this.#writer!.run('begin transaction');
      for (let start = 0; start < changes.length; start += chunkRows)
        this.#appendChunk(changes, headerBytes, place, start);
      this.#appender!.flushSync();
      if (large) await this.#writer!.run('commit');
    } catch (error) {
      this.#abandonAppender();
      await this.#writer?.run('rollback').catch(() => {});
      throw storeError(error);
    }
    this.#rows += changes.length;
    this.#keyBytes += keyBytes;
    this.#appends.push({ last, rows: changes.length });
  }

  /**
   * Per topic, in order, the parts of the range in which its schema is one and the same; empty when the range holds
   * nothing. A change of shape takes effect for all rows at once, so what comes before and after it is merged apart.
   */
  async content(range: Range): Promise<TopicContent[]> {
    const source = this.#source(range);
    if (!source) return [];
    const connection = await this.#access.connect();
    try {
      const counted = async (rows: string) =>
        (
          await connection.run(`
        select topic, count(*)::integer, max(position) filter (where truncate), any_value(schema_id),
          coalesce(bool_or(old_key is not null and partial), false), max(position), min(schema_id) <> max(schema_id)
        from ${rows} group by topic, part order by topic, part`)
        ).getRows();
      let parts = await counted(`(select *, 0 as part from ${source})`);
      if (parts.some((part) => part[6])) parts = await counted(schemaParts(source));
      const contents: TopicContent[] = [];
      for (const [topic, changes, truncatedAt, schemaId, borrows, last] of parts) {
        const before = contents.at(-1);
        const follows = before?.topic === topic;
        // Up to the last Change of each part; the last part goes to the end.
        if (!follows && before) before.range.to = range.to;
        contents.push({
          topic: topic as number,
          range: { from: follows ? before!.range.to : range.from, to: last as Position },
          changes: changes as number,
          truncatedAt: truncatedAt as Position | null,
          schemaId: schemaId as number,
          borrows: borrows as boolean,
        });
      }
      if (contents.length > 0) contents.at(-1)!.range.to = range.to;
      return contents;
    } catch (error) {
      throw storeError(error);
    } finally {
      connection.closeSync();
    }
  }

  /**
   * Changes of one topic in chunks of at most 2,048, ordered by Position, or with those of one key together, in order of
   * Position. Truncates stand once per partition; where keys stand together they are left out. Where key changes
   * borrow values, keys are in order.
   */
  async *read(range: Range, topic: number, order: 'key' | 'position'): AsyncIterable<StoredChange[]> {
    const source = this.#source(range);
    if (!source) return;
    const connection = await this.#access.connect();
    try {
      yield* streamRows(
        connection,
        `select ${changeColumns} from ${source} where topic = ${topic} ${order === 'key' ? 'and not truncate' : ''}
         order by ${order === 'key' ? 'key, position' : 'position'}`,
        (values, row) => this.storedChange(values, row),
      );
    } finally {
      connection.closeSync();
    }
  }

  /** A FROM item with one topic's rows (no truncates), for queries of other modules; null when there are none. */
  rowsSql(range: Range, topic: number): string | null {
    const source = this.#source(range);
    return source && `(select * from ${source} where topic = ${topic} and not truncate)`;
  }

  /** A FROM item with all rows, withheld ones and truncates too; null when there are none. */
  allRowsSql({ from, to }: Range): string | null {
    return this.#table && `(select * from ${this.#table} where position > '${from}' and position <= '${to}')`;
  }

  /** From now on Changes of these keys within their Positions are left out of whatever else is read. */
  async withhold(keys: readonly WithheldKey[]): Promise<void> {
    if (keys.length === 0 && this.#withheld === null) return;
    await this.#alone(async () => {
      try {
        this.#writer ??= await this.#access.connect();
        if (this.#withheld) await this.#writer.run(`drop table ${this.#withheld}`);
        this.#withheld = null;
        if (keys.length === 0) return;
        const table = `${this.#name}_withheld_${this.#serial++}`;
        await this.#writer.run(
          `create table ${table} (topic integer, key blob, from_position varchar, until_position varchar)`,
        );
        const appender = await this.#writer.createAppender(table);
        for (const { topic, key, from, until } of keys) {
          appender.appendInteger(topic);
          appender.appendBlob(key);
          appender.appendVarchar(from ?? '');
          if (until === null) appender.appendNull();
          else appender.appendVarchar(until);
          appender.endRow();
        }
        appender.closeSync();
        this.#withheld = table;
      } catch (error) {
        throw storeError(error);
      }
    });
  }

  /** A row of a query whose first columns are `changeColumnsOf`. */
  storedChange(values: DuckDBValue[][], row: number): StoredChange {
    const place = { file: values[7]![row] as number, offset: Number(values[8]![row]) };
    const valueBytes = values[9]![row] as number;
    const headerBytes = values[10]![row] as number;
    const key = blob(values[5]![row]!);
    return {
      topic: values[0]![row] as number,
      position: values[1]![row] as Position,
      schemaId: values[2]![row] as number,
      truncate: values[3]![row] as boolean,
      eviction: values[11]![row] as boolean,
      partial: values[4]![row] as boolean,
      keyless: key === null,
      key,
      oldKey: blob(values[6]![row]!),
      bytes: valueBytes + headerBytes,
      load: () => this.#load(place, valueBytes, headerBytes),
      view: () => {
        if (headerBytes > 0) return null;
        const { value } = this.#load(place, valueBytes, 0);
        return { bytes: value, start: 0, end: value.length };
      },
      hasKeyOf: (other) => key!.equals(other.key!),
    };
  }

  /** A connection of the caller's own, for temporary tables; the caller closes it. */
  connect(): Promise<DuckDBConnection> {
    return this.#access.connect();
  }

  /** Frees what lies at or below `mark`. */
  release(mark: Position): Promise<void> {
    return this.#alone(() => this.#release(mark));
  }

  /** Frees everything; the Unit can be used again. */
  clear(): Promise<void> {
    return this.#alone(async () => {
      await this.#dropTable();
      if (this.#withheld) await this.#writer?.run(`drop table ${this.#withheld}`);
      this.#withheld = null;
      this.#writer?.closeSync();
      this.#writer = null;
    });
  }

  async #release(mark: Position): Promise<void> {
    if (!this.#table) return;
    try {
      const kept = this.#appends.filter(({ last }) => last > mark);
      if (kept.length === 0) return await this.#dropTable();
      this.#files.release(mark);
      const keptRows = kept.reduce((sum, { rows }) => sum + rows, 0);
      const gone = this.#rows - keptRows;
      if (gone < rewriteRows || gone < keptRows) return;
      this.#abandonAppender();
      const next = `${this.#name}_${this.#serial++}`;
      await this.#writer!.run(
        `create table ${next} as select * from ${this.#table} where position > '${mark}'`,
      );
      await this.#writer!.run(`drop table ${this.#table}`);
      this.#table = next;
      this.#keyBytes = Math.ceil((this.#keyBytes * keptRows) / this.#rows);
      this.#rows = keptRows;
      this.#appends = kept;
    } catch (error) {
      throw storeError(error);
    }
  }

  async #dropTable(): Promise<void> {
    this.#abandonAppender();
    const table = this.#table;
    this.#table = null;
    this.#appends = [];
    this.#rows = 0;
    this.#keyBytes = 0;
    this.#files.clear();
    if (table) await this.#writer?.run(`drop table ${table}`);
  }

  #load(place: Place, valueBytes: number, headerBytes: number): ChangeBody {
    let bytes: Buffer;
    try {
      bytes = this.#files.read(place, valueBytes + headerBytes);
    } catch (error) {
      throw storeError(error);
    }
    return bodyOf(bytes.subarray(0, valueBytes), bytes.subarray(valueBytes));
  }

  /** Appends and drops share a connection, and so a transaction: one at a time. */
  #alone<T>(work: () => Promise<T>): Promise<T> {
    const done = this.#last.then(work, work);
    this.#last = done.catch(() => {});
    return done;
  }

  async #openTable(): Promise<void> {
    if (this.#appender) return;
    this.#writer ??= await this.#access.connect();
    if (!this.#table) {
      const table = `${this.#name}_${this.#serial++}`;
      await this.#writer.run(`create table ${table} (${tableColumns})`);
      this.#table = table;
    }
    this.#appender = await this.#writer.createAppender(this.#table);
  }

  #appendChunk(
    changes: readonly IncomingChange[],
    headerBytes: readonly number[],
    place: Place,
    start: number,
  ): void {
    const rows = Math.min(chunkRows, changes.length - start);
    const values: DuckDBValue[][] = columnTypes.map(() => new Array(rows));
    for (let i = 0; i < rows; i++) {
      const change = changes[start + i]!;
      const headers = headerBytes[start + i]!;
      values[0]![i] = change.topic;
      values[1]![i] = change.position;
      values[2]![i] = change.schemaId;
      values[3]![i] = change.truncate;
      values[4]![i] = change.unchanged !== null;
      values[5]![i] = change.key && new DuckDBBlobValue(change.key);
      values[6]![i] = change.oldKey && new DuckDBBlobValue(change.oldKey);
      values[7]![i] = place.file;
      values[8]![i] = BigInt(place.offset);
      values[9]![i] = change.value.length;
      values[10]![i] = headers;
      values[11]![i] = change.eviction === true;
      values[12]![i] = change.oldKeyEnd;
      place.offset += change.value.length + headers;
    }
    this.#chunk ??= DuckDBDataChunk.create(columnTypes, chunkRows);
    const chunk = this.#chunk;
    chunk.reset();
    chunk.rowCount = rows;
    chunk.setColumns(values);
    this.#appender!.appendDataChunk(chunk);
    chunk.reset();
  }

  #abandonAppender(): void {
    const appender = this.#appender;
    this.#appender = null;
    if (!appender) return;
    try {
      appender.clear();
      appender.closeSync();
    } catch {
      // After a failed flush closing fails again; the appender is gone either way.
    }
  }

  /** Positions are of fixed form (hexadecimal digits and slashes), so they can stand in the text. */
  #source(range: Range): string | null {
    const rows = this.allRowsSql(range);
    if (!rows || !this.#withheld) return rows;
    return `(select * from ${rows} r where not exists (select 1 from ${this.#withheld} w where w.topic = r.topic
      and w.key = r.key and r.position >= w.from_position and (w.until_position is null or r.position < w.until_position)))`;
  }
}
