/** What the merge of one Window carries from table to table. */
import { hash } from 'node:crypto';
import { hashNative, RowHash } from '../../../src/connector/row-hash.ts';
import { type TableId, type TableShape, tableName } from '../../../src/connector/shape.ts';
import type { NativeRow, RowCount, RowState } from '../../../src/connector/sink.ts';
import { StatementBatch } from './batch.ts';
import type { Session } from './client.ts';
import type { NewKeys } from './new-keys.ts';
import { quoteTable } from './quote.ts';
import { CopyPipe } from './stage.ts';

/** What outlives a Window. */
export interface RunMemory {
  /** Tables known to hold rows, by quoted name: a table is asked about once. */
  filled: Set<string>;
  newKeys: NewKeys;
}

export class MergeRun {
  readonly session: Session;
  readonly batch: StatementBatch;
  readonly pipe: CopyPipe;
  readonly newKeys: NewKeys;
  readonly rows = { upserted: 0, deleted: 0, appended: 0 };
  /** Number of the table within the Window, for the names of temporary tables. */
  tableNumber = 0;
  readonly #hash = new RowHash();
  readonly #filled: Set<string>;

  constructor(session: Session, destination: string, { filled, newKeys }: RunMemory) {
    this.session = session;
    this.batch = new StatementBatch(session, destination);
    this.pipe = new CopyPipe(session);
    this.newKeys = newKeys;
    this.#filled = filled;
  }

  get bytes(): number {
    return this.batch.bytes + this.pipe.bytes;
  }

  /** Order-independent over all rows of the Window, hexadecimal. */
  get contentHash(): string {
    return this.#hash.hex;
  }

  /** @param row as it travels: the row, or the key where there is no more */
  count(op: RowState['op'], row: Uint8Array | string): void {
    if (op === 'upsert') this.rows.upserted++;
    else if (op === 'delete') this.rows.deleted++;
    if (typeof row === 'string') this.#hash.add([op, row]);
    else this.#hash.addHash(BigInt(`0x${hash('md5', row, 'hex')}`), 1);
  }

  /** A whole row that is upserted. */
  countNative(row: NativeRow): void {
    this.rows.upserted++;
    this.#hash.addHash(hashNative(row), 1);
  }

  countRows({ values, count }: RowCount): void {
    if (count > 0) this.rows.appended += count;
    else this.rows.deleted -= count;
    this.#hash.add(['count', String(count), ...values]);
  }

  countTruncate(table: TableId): void {
    this.#hash.add(['truncate', tableName(table)]);
  }

  /** Runs one statement of a table, after what is under way. */
  async execute(table: TableId, sql: string): Promise<void> {
    await this.pipe.drain();
    this.batch.add(table, sql);
    await this.batch.flush();
  }

  /** Whether the target holds no row, so that rows may go straight into it. */
  async isEmpty(shape: TableShape): Promise<boolean> {
    const name = quoteTable(shape);
    if (this.#filled.has(name)) return false;
    this.#filled.add(name);
    const [result] = await this.session.run(`SELECT EXISTS (SELECT FROM ${quoteTable(shape)})`);
    return result!.rows[0]![0] === 'f';
  }
}
