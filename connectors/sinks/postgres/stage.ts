/** Rows on their way to the server: lines of COPY's text format, or VALUES lists, and where they are staged. */
import type { ColumnShape, TableShape } from '../../../src/connector/shape.ts';
import type { Cell } from '../../../src/connector/sink.ts';
import type { Session } from './client.ts';
import { quoteCell, typeText } from './quote.ts';

/**
 * What a table may have in a Window to go as VALUES; more is staged by COPY. A Window of rows of 250 characters, a
 * third of them partial, on loopback: 100 rows 3 ms against 9, 800 rows 15 against 20, 1600 rows 33 against 30.
 */
export const smallRows = 1000;
export const smallCharacters = 256 * 1024;

const special = /[\\\t\n\r]/;
const escapes: Record<string, string> = { '\\': '\\\\', '\t': '\\t', '\n': '\\n', '\r': '\\r' };

/**
 * One cell in COPY's text format (PostgreSQL manual, COPY, "Text Format"). A carriage return needs escaping too:
 * the server takes the first line's ending for the file's and refuses other bare ones.
 */
export function copyCell(cell: Cell): string {
  if (cell === null) return '\\N';
  return special.test(cell) ? cell.replace(/[\\\t\n\r]/g, (character) => escapes[character]!) : cell;
}

export function copyLine(cells: readonly Cell[]): string {
  let line = '';
  for (let i = 0; i < cells.length; i++) line += (i === 0 ? '' : '\t') + copyCell(cells[i]!);
  return `${line}\n`;
}

/**
 * What is sent one after the other on one connection, one of it in flight while the next is encoded. An error surfaces at
 * the next send or at drain.
 */
export class CopyPipe {
  readonly #session: Session;
  #inFlight: Promise<void> = Promise.resolve();
  bytes = 0;

  constructor(session: Session) {
    this.#session = session;
  }

  /** @param send puts so many bytes of rows into the session, when its turn comes */
  async send(bytes: number, send: (session: Session) => Promise<void>): Promise<void> {
    await this.#inFlight;
    this.bytes += bytes;
    this.#inFlight = send(this.#session);
    this.#inFlight.catch(() => undefined);
  }

  /** Waits until the connection is free. @throws SessionError */
  async drain(): Promise<void> {
    const last = this.#inFlight;
    this.#inFlight = Promise.resolve();
    await last;
  }
}

export interface StageColumn {
  name: string;
  type: string;
}

/** Columns of a staged relation for those of the table: numbered, so that no name can clash. */
export function stageColumns(
  shape: TableShape,
  prefix: string,
  columns: readonly ColumnShape[],
): StageColumn[] {
  return columns.map((column, i) => ({ name: `${prefix}${i}`, type: typeText(shape, column) }));
}

/**
 * A temporary table that goes with the transaction. Not kept for the session: ON COMMIT DELETE ROWS would empty every
 * one of them at every commit, and small Windows stage nothing.
 */
export function createStage(name: string, columns: readonly StageColumn[]): string {
  const list = columns.map((column) => `${column.name} ${column.type}`).join(', ');
  return `CREATE TEMPORARY TABLE ${name} (${list}) ON COMMIT DROP`;
}

/** The same rows without a table: `(VALUES …) AS alias (columns)`, the first row typed for all. */
export function valuesRelation(
  alias: string,
  columns: readonly StageColumn[],
  rows: readonly Cell[][],
): string {
  const lines = rows.map((row, r) => {
    const cells = row.map((cell, i) =>
      r === 0 ? `CAST(${quoteCell(cell)} AS ${columns[i]!.type})` : quoteCell(cell),
    );
    return `(${cells.join(',')})`;
  });
  return `(VALUES ${lines.join(',\n')}) AS ${alias} (${columns.map((column) => column.name).join(', ')})`;
}
