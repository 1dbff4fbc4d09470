/**
 * A Unit's part of the window store: Changes in segments, one DuckDB table each. A segment is dropped whole when the
 * mark has passed all of it, which frees its memory and disk at once; rows at or below the mark inside a younger
 * segment are skipped by Position when reading.
 */
import {
  BLOB,
  BOOLEAN,
  type DuckDBAppender,
  DuckDBBlobValue,
  type DuckDBConnection,
  DuckDBDataChunk,
  type DuckDBValue,
  INTEGER,
  VARCHAR,
} from '@duckdb/node-api';
import { beforeEverything, type Position } from '../connector/position.ts';
import { storeError } from './window-store.ts';

/** A record of a change topic that is not a null record. */
export interface StoredChange {
  /** Index of the topic, as the Unit numbers its topics. */
  topic: number;
  position: Position;
  /** Id of the value's schema in the registry. */
  schemaId: number;
  truncate: boolean;
  /** Record key without its registry header; null for keyless tables and truncates. */
  key: Buffer | null;
  /** The whole record value. */
  value: Buffer;
  /** The key the row had before, without registry header: set on the create half of a key change. */
  oldKey: Buffer | null;
  /** Position of the delete half, where oldKey is set. */
  oldKeyEnd: Position | null;
  /** Headers as they came. */
  unchanged: string | null;
  exact: string | null;
}

/** A range of Positions: exclusive, inclusive. */
export interface Range {
  from: Position;
  to: Position;
}

/** What a Window holds of one topic. */
export interface TopicContent {
  topic: number;
  changes: number;
  /** Position of the last truncate, or null. */
  truncatedAt: Position | null;
  /** Schema of the last Change. */
  schemaId: number;
  /** Some create half of a key change leaves columns unchanged: old keys must be looked up. */
  borrows: boolean;
}

interface Segment {
  table: string;
  bytes: number;
  rows: number;
  last: Position;
  first: Position;
}

interface StoreAccess {
  connect(): Promise<DuckDBConnection>;
  /** @throws TidemarkError TM406 */
  checkRoom(bytes: number): void;
}

/** Bytes of a row beside key, value and headers: Position, ids, DuckDB's own. */
const rowOverheadBytes = 96;
const segmentBytes = 32 << 20;
const chunkRows = 2048;
const columnTypes = [INTEGER, VARCHAR, INTEGER, BOOLEAN, BLOB, BLOB, BLOB, VARCHAR, VARCHAR, VARCHAR];

export class UnitStore {
  readonly #name: string;
  readonly #access: StoreAccess;
  #segments: Segment[] = [];
  #writer: DuckDBConnection | null = null;
  #appender: DuckDBAppender | null = null;
  #serial = 0;
  #last: Promise<unknown> = Promise.resolve();
  /** One chunk for all appends: each would keep a mebibyte outside the heap until a collection comes by. */
  readonly #chunk = DuckDBDataChunk.create(columnTypes, chunkRows);

  constructor(name: string, access: StoreAccess) {
    this.#name = name;
    this.#access = access;
  }

  get bytes(): number {
    return this.#segments.reduce((sum, { bytes }) => sum + bytes, 0);
  }

  get rows(): number {
    return this.#segments.reduce((sum, { rows }) => sum + rows, 0);
  }

  /** All rows or none. @throws TidemarkError TM406 when the store or its disk is full */
  async append(changes: readonly StoredChange[]): Promise<void> {
    if (changes.length === 0) return;
    let bytes = 0;
    let first = changes[0]!.position;
    let last = first;
    for (const change of changes) {
      bytes += sizeOf(change);
      if (change.position < first) first = change.position;
      if (change.position > last) last = change.position;
    }
    await this.#alone(() => this.#append(changes, bytes, first, last));
  }

  async #append(
    changes: readonly StoredChange[],
    bytes: number,
    first: Position,
    last: Position,
  ): Promise<void> {
    this.#access.checkRoom(bytes);
    try {
      const segment = await this.#openSegment();
      // The appender flushes by itself at some 200,000 rows; more than that needs a transaction to be all or none.
      const large = changes.length > 100_000;
      if (large) await this.#writer!.run('begin transaction');
      for (let start = 0; start < changes.length; start += chunkRows) this.#appendChunk(changes, start);
      this.#appender!.flushSync();
      if (large) await this.#writer!.run('commit');
      segment.bytes += bytes;
      segment.rows += changes.length;
      if (segment.rows === changes.length || first < segment.first) segment.first = first;
      if (last > segment.last) segment.last = last;
    } catch (error) {
      this.#abandonAppender();
      await this.#writer?.run('rollback').catch(() => {});
      throw storeError(error);
    }
  }

  /** Counts per topic; empty when the range holds nothing. */
  async content(range: Range): Promise<TopicContent[]> {
    const source = this.#source(range);
    if (!source) return [];
    const rows = await this.#all(`
      select topic, count(*)::integer, max(position) filter (where truncate), arg_max(schema_id, position),
        coalesce(bool_or(old_key is not null and unchanged is not null), false)
      from (${source}) group by topic order by topic`);
    return rows.map(([topic, changes, truncatedAt, schemaId, borrows]) => ({
      topic: topic as number,
      changes: changes as number,
      truncatedAt: truncatedAt as Position | null,
      schemaId: schemaId as number,
      borrows: borrows as boolean,
    }));
  }

  /**
   * Rows of one topic in chunks of at most 2,048, ordered by key and Position or by Position alone. Truncates stand
   * once per partition; ordered by key they are left out.
   */
  async *read(range: Range, topic: number, order: 'key' | 'position'): AsyncIterable<StoredChange[]> {
    const source = this.#source(range);
    if (!source) return;
    const filter = order === 'key' ? 'and not truncate' : '';
    yield* this.#stream(
      `select ${columns} from (${source}) where topic = ${topic} ${filter}
       order by ${order === 'key' ? 'key, position' : 'position'}`,
    );
  }

  /** A FROM item with one topic's rows (no truncates), for queries of other modules; null when there are none. */
  rowsSql(range: Range, topic: number): string | null {
    const source = this.#source(range);
    return source && `(select * from (${source}) where topic = ${topic} and not truncate)`;
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
      this.#abandonAppender();
      const gone = this.#segments;
      this.#segments = [];
      for (const { table } of gone) await this.#run(`drop table ${table}`);
      this.#writer?.closeSync();
      this.#writer = null;
    });
  }

  /** Appends and drops share a connection, and so a transaction: one at a time. */
  #alone<T>(work: () => Promise<T>): Promise<T> {
    const done = this.#last.then(work, work);
    this.#last = done.catch(() => {});
    return done;
  }

  async #release(mark: Position): Promise<void> {
    const gone = this.#segments.filter(({ last }) => last <= mark);
    if (gone.length === 0) return;
    if (gone.includes(this.#segments.at(-1)!)) this.#abandonAppender();
    this.#segments = this.#segments.filter((segment) => !gone.includes(segment));
    for (const { table } of gone) await this.#run(`drop table ${table}`);
  }

  async #openSegment(): Promise<Segment> {
    const current = this.#segments.at(-1);
    if (current && this.#appender && current.bytes < segmentBytes) return current;
    this.#abandonAppender();
    const table = `${this.#name}_${this.#serial++}`;
    this.#writer ??= await this.#access.connect();
    await this.#writer.run(
      `create table ${table} (topic integer, position varchar, schema_id integer, truncate boolean, key blob,
         value blob, old_key blob, old_key_end varchar, unchanged varchar, exact varchar)`,
    );
    const segment = { table, bytes: 0, rows: 0, first: beforeEverything, last: beforeEverything };
    this.#segments.push(segment);
    this.#appender = await this.#writer.createAppender(table);
    return segment;
  }

  #appendChunk(changes: readonly StoredChange[], start: number): void {
    const rows = Math.min(chunkRows, changes.length - start);
    const values: DuckDBValue[][] = columnTypes.map(() => new Array(rows));
    for (let i = 0; i < rows; i++) {
      const change = changes[start + i]!;
      values[0]![i] = change.topic;
      values[1]![i] = change.position;
      values[2]![i] = change.schemaId;
      values[3]![i] = change.truncate;
      values[4]![i] = change.key && new DuckDBBlobValue(change.key);
      values[5]![i] = new DuckDBBlobValue(change.value);
      values[6]![i] = change.oldKey && new DuckDBBlobValue(change.oldKey);
      values[7]![i] = change.oldKeyEnd;
      values[8]![i] = change.unchanged;
      values[9]![i] = change.exact;
    }
    this.#chunk.reset();
    this.#chunk.rowCount = rows;
    this.#chunk.setColumns(values);
    this.#appender!.appendDataChunk(this.#chunk);
    this.#chunk.reset();
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

  #source({ from, to }: Range): string | null {
    const tables = this.#segments.filter(({ first, last }) => last > from && first <= to);
    if (tables.length === 0) return null;
    // Positions are of fixed form (hexadecimal digits and slashes), so they can stand in the text.
    return tables
      .map(({ table }) => `select * from ${table} where position > '${from}' and position <= '${to}'`)
      .join(' union all ');
  }

  async #all(sql: string): Promise<DuckDBValue[][]> {
    const connection = await this.#access.connect();
    try {
      return await (await connection.run(sql)).getRows();
    } catch (error) {
      throw storeError(error);
    } finally {
      connection.closeSync();
    }
  }

  async #run(sql: string): Promise<void> {
    try {
      await this.#writer?.run(sql);
    } catch (error) {
      throw storeError(error);
    }
  }

  async *#stream(sql: string): AsyncIterable<StoredChange[]> {
    const connection = await this.#access.connect();
    try {
      yield* streamRows(connection, sql, readChange);
    } finally {
      connection.closeSync();
    }
  }
}

/** Streams a query's rows in chunks of at most 2,048. @throws TidemarkError TM406 */
export async function* streamRows<T>(
  connection: DuckDBConnection,
  sql: string,
  read: (columns: DuckDBValue[][], row: number) => T,
): AsyncIterable<T[]> {
  try {
    const result = await connection.stream(sql);
    for (;;) {
      const chunk = await result.fetchChunk();
      if (!chunk || chunk.rowCount === 0) return;
      const values = chunk.getColumns();
      const rows: T[] = new Array(chunk.rowCount);
      for (let i = 0; i < rows.length; i++) rows[i] = read(values, i);
      // Its strings live outside the heap, where no collection sees how large they are.
      chunk.reset();
      yield rows;
    }
  } catch (error) {
    throw storeError(error);
  }
}

const columns = 'topic, position, schema_id, truncate, key, value, old_key, old_key_end, unchanged, exact';

/** A row of a query that selects these columns first, in this order. */
export function readChange(values: DuckDBValue[][], row: number): StoredChange {
  return {
    topic: values[0]![row] as number,
    position: values[1]![row] as Position,
    schemaId: values[2]![row] as number,
    truncate: values[3]![row] as boolean,
    key: blob(values[4]![row]!),
    value: blob(values[5]![row]!)!,
    oldKey: blob(values[6]![row]!),
    oldKeyEnd: values[7]![row] as Position | null,
    unchanged: values[8]![row] as string | null,
    exact: values[9]![row] as string | null,
  };
}

/** A BLOB cell's bytes. */
export function blob(value: DuckDBValue): Buffer | null {
  if (value === null) return null;
  const { bytes } = value as DuckDBBlobValue;
  return Buffer.isBuffer(bytes) ? bytes : Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}

function sizeOf({ key, value, oldKey, unchanged, exact }: StoredChange): number {
  return (
    rowOverheadBytes +
    value.length +
    (key?.length ?? 0) +
    (oldKey?.length ?? 0) +
    (unchanged?.length ?? 0) +
    (exact?.length ?? 0)
  );
}
