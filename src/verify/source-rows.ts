/**
 * A source table's rows in the snapshot, as COPY's text: the output functions' own, where a cast to text would print
 * boolean, inet and char(n) otherwise. COPY streams with back-pressure, so memory stays at a socket's chunk and one row.
 */
import pg, { type Client } from 'pg';
import { to as copyTo } from 'pg-copy-streams';
import type { TableShape } from '../connector/shape.ts';
import { tableName } from '../connector/shape.ts';
import type { Cell, Row } from '../connector/sink.ts';
import { describeCause, TidemarkError } from '../platform/errors.ts';
import type { CatalogueTable } from '../replicate/catalogue.ts';
import { sourceError } from '../replicate/source.ts';
import { valueStatements } from '../replicate/value-session.ts';

/** Settings under which a value's text is the one that sinks read back (connector/sink.ts, Cell). */
export const sourceSession = [
  ...valueStatements,
  // A policy would hide rows that replication carries; an error is better.
  'set row_security = off',
  'set statement_timeout = 0',
  // The transaction is idle while the destination catches up.
  'set idle_in_transaction_session_timeout = 0',
].join('; ');

/** `only`: an inheritance child is a table of its own in the stream; partitions are not. */
export function tableReference(table: CatalogueTable): string {
  const name = `${pg.escapeIdentifier(table.schema)}.${pg.escapeIdentifier(table.name)}`;
  return table.kind === 'partitioned' ? name : `only ${name}`;
}

/** Rows follow the shape's columns. @throws TidemarkError TM201, TM202 with the grant that is missing */
export async function* sourceRows(
  client: Client,
  table: CatalogueTable,
  shape: TableShape,
): AsyncGenerator<Row[]> {
  const columns = shape.columns.map(({ name }) => pg.escapeIdentifier(name)).join(', ');
  const statement = `copy (select ${columns} from ${tableReference(table)}) to stdout`;
  try {
    const lines = new CopyLines(shape.columns.length);
    for await (const chunk of client.query(copyTo(statement))) {
      const rows = lines.take(chunk as Buffer);
      if (rows.length > 0) yield rows;
    }
  } catch (error) {
    throw readFailure(error, table);
  }
}

/** @throws TidemarkError TM201, TM202 */
export async function countSourceRows(client: Client, table: CatalogueTable): Promise<number> {
  try {
    const { rows } = await client.query(`select count(*)::text as rows from ${tableReference(table)}`);
    return Number(rows[0].rows);
  } catch (error) {
    throw readFailure(error, table);
  }
}

export function readFailure(error: unknown, table: CatalogueTable): TidemarkError {
  if ((error as { code?: string }).code !== '42501') return sourceError(error);
  return new TidemarkError('TM202', `${tableName(table)} cannot be read: ${describeCause(error)}`, {
    cause: error,
    remedy: `grant select on ${tableReference(table).replace(/^only /, '')} to the role of source.url; where the table has row security, give the role bypassrls as well.`,
  });
}

const letters: Record<string, string> = { b: '\b', f: '\f', n: '\n', r: '\r', t: '\t', v: '\v' };

/** COPY's text format (PostgreSQL manual, COPY, "Text Format") from chunks that end anywhere. */
export class CopyLines {
  readonly #columns: number;
  #rest: Buffer[] = [];

  constructor(columns: number) {
    this.#columns = columns;
  }

  /** The rows that this chunk completes. @throws TidemarkError TM901 */
  take(chunk: Buffer): Row[] {
    // A line feed in a value is escaped, so a raw one always ends a row.
    const end = chunk.lastIndexOf(10);
    if (end === -1) {
      this.#rest.push(chunk);
      return [];
    }
    const head = chunk.subarray(0, end);
    // One conversion for the whole chunk: several times faster than one per row.
    const text = (this.#rest.length === 0 ? head : Buffer.concat([...this.#rest, head])).toString('utf8');
    this.#rest = end + 1 < chunk.length ? [chunk.subarray(end + 1)] : [];
    return text.split('\n').map((line) => this.#decode(line));
  }

  #decode(line: string): Row {
    if (this.#columns === 0) return [];
    const cells: Cell[] = line.split('\t');
    if (cells.length !== this.#columns)
      throw new TidemarkError('TM901', `the source sent a row with ${cells.length} columns`);
    if (!line.includes('\\')) return cells;
    for (let i = 0; i < cells.length; i++) {
      const cell = cells[i]!;
      if (cell === '\\N') cells[i] = null;
      else if (cell.includes('\\'))
        cells[i] = cell.replace(/\\(.)/g, (_, letter: string) => letters[letter] ?? letter);
    }
    return cells;
  }
}
