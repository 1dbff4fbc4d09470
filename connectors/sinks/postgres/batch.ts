/** Statements of one merge that go out together: a small Window is a handful of round trips. */
import { TidemarkError } from '../../../src/connector/failure.ts';
import { type TableId, tableName } from '../../../src/connector/shape.ts';
import type { Session, StatementResult } from './client.ts';
import { asRowFailure, asSinkFailure, SessionError } from './failures.ts';

interface Pending {
  table: TableId;
  sql: string;
  /** Throws where the result shows that the destination is not in the state the Window was cut for. */
  verify: ((result: StatementResult) => void) | undefined;
}

/** Characters of SQL after which a batch is sent; the server parses a batch whole. */
const batchCharacters = 1 << 20;

export class StatementBatch {
  readonly #session: Session;
  readonly #destination: string;
  #pending: Pending[] = [];
  #characters = 0;
  /** Bytes sent so far. */
  bytes = 0;

  constructor(session: Session, destination: string) {
    this.#session = session;
    this.#destination = destination;
  }

  add(table: TableId, sql: string, verify?: (result: StatementResult) => void): void {
    this.#pending.push({ table, sql, verify });
    this.#characters += sql.length;
  }

  get full(): boolean {
    return this.#characters >= batchCharacters;
  }

  /** @throws TidemarkError naming the table whose statement failed */
  async flush(): Promise<void> {
    const pending = this.#pending;
    if (pending.length === 0) return;
    this.#pending = [];
    this.#characters = 0;
    let results: StatementResult[];
    try {
      results = await this.#session.run(...pending.map(({ sql }) => sql));
    } catch (error) {
      const failed = error instanceof SessionError ? pending[error.completed] : undefined;
      throw failed
        ? asRowFailure(error, this.#destination, failed.table)
        : asSinkFailure(error, this.#destination);
    }
    for (const [i, { sql, verify }] of pending.entries()) {
      this.bytes += Buffer.byteLength(sql);
      verify?.(results[i]!);
    }
  }
}

/** TM407: the destination lacks `missing` rows that this Window builds on. Names no key and no value. */
export function lostRows(table: TableId, missing: number, what: string): TidemarkError {
  return new TidemarkError('TM407', `${tableName(table)}: ${missing} ${what}`);
}
