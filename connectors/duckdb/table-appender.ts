/** Chunks of rows on their way into a table of DuckDB's. */
import {
  type DuckDBAppender,
  type DuckDBConnection,
  DuckDBDataChunk,
  type DuckDBType,
} from '@duckdb/node-api';

/** Chunks after which the appender's own buffer, which no limit counts, goes to the table. */
const flushChunks = 8;

export class TableAppender {
  /** To be filled before `append`, which empties it. */
  readonly chunk: DuckDBDataChunk;
  #appender: DuckDBAppender | null = null;
  #chunks = 0;

  constructor(types: readonly DuckDBType[]) {
    this.chunk = DuckDBDataChunk.create([...types]);
  }

  /** From now on rows go there: a table that has just these columns. */
  async into(connection: DuckDBConnection, table: string): Promise<void> {
    this.#appender = await connection.createAppender(table);
  }

  append(): void {
    this.#appender!.appendDataChunk(this.chunk);
    // Without a reset the strings of every earlier chunk stay allocated.
    this.chunk.reset();
    this.#chunks += 1;
    if (this.#chunks % flushChunks === 0) this.#appender!.flushSync();
  }

  /** All that was appended is in the table. */
  end(): void {
    this.#appender!.flushSync();
    this.#appender!.closeSync();
    this.#appender = null;
  }
}
