/**
 * A table's rows as the destination holds them. COPY streams them with back-pressure, which bounds memory by the
 * batch and one row; a cursor's FETCH counts rows, and rows have up to 64 MiB. Cells are the output functions' text:
 * a cast to text prints boolean, inet and char(n) otherwise.
 */
import { to as copyTo } from 'pg-copy-streams';
import { TidemarkError } from '../../../src/connector/failure.ts';
import { type TableShape, tableName } from '../../../src/connector/shape.ts';
import type { Cell, Position, Row } from '../../../src/connector/sink.ts';
import type { Session } from './client.ts';
import { asSinkFailure, SessionError, sqlState } from './failures.ts';
import { retiredColumn } from './house-columns.ts';
import { readProgress, type UnitName } from './progress.ts';
import { quoteName, quoteTable, quoteText } from './quote.ts';

const batchRows = 2000;
const batchBytes = 4 << 20;

/**
 * @param at Position that the caller keeps the Unit at: a destination beyond it cannot show it any more
 * @param retired takes the rows that are marked as such; null: they are among the others
 * @throws TidemarkError TM408 where the destination is beyond `at`; TM401, TM402, TM405
 */
export async function* readRows(
  open: () => Promise<Session>,
  unit: UnitName,
  shape: TableShape,
  at: Position,
  retired: ((rows: Row[]) => void) | null,
): AsyncGenerator<Row[]> {
  let session: Session | null = null;
  try {
    session = await open();
    // A read-back of a large table may take longer than a merge's statement.
    await session.run(
      ...session.begin({ mode: 'ISOLATION LEVEL REPEATABLE READ READ ONLY', statementTimeoutMs: 0 }),
    );
    const [exists] = await session.run(`SELECT to_regclass('_tidemark.progress') IS NOT NULL`);
    const ours = exists!.rows[0]![0] === 't';
    const stored = ours ? await readProgress(session, unit) : null;
    if (stored && stored.position > at) {
      throw new TidemarkError(
        'TM408',
        `${unit.destination}: holds Position ${stored.position}, beyond the requested ${at}`,
      );
    }
    yield* copyOut(session, shape, {
      deletedAt: ours ? await deletionTime(session, shape) : null,
      retired: retired && (await hasMark(session, shape)) ? retired : null,
    });
  } catch (error) {
    // A table without a Change so far was not made yet: it has no rows.
    if (error instanceof SessionError && ['42P01', '3F000'].includes(sqlState(error.raw) ?? '')) return;
    throw asSinkFailure(error, unit.destination, [shape]);
  } finally {
    // Dropped rather than ended: the reader may leave in the middle of the COPY.
    session?.destroy();
  }
}

/** Quoted name of the column that tells deleted rows. Registers of older versions have nothing of it. */
async function deletionTime(session: Session, { schema, name }: TableShape): Promise<string | null> {
  const [found] = await session.run(
    `SELECT to_jsonb(t) ->> 'deleted_at_column' FROM _tidemark.tables AS t WHERE schema_name = ${quoteText(schema)} AND table_name = ${quoteText(name)}`,
  );
  const column = found!.rows[0]?.[0] ?? null;
  return column === null ? null : quoteName(column);
}

/** Whether the table can mark rows as retired. */
async function hasMark(session: Session, shape: TableShape): Promise<boolean> {
  const [found] = await session.run(
    `SELECT FROM pg_attribute WHERE attrelid = to_regclass(${quoteText(quoteTable(shape))}) AND attname = ${quoteText(retiredColumn)} AND NOT attisdropped`,
  );
  return found!.rows.length > 0;
}

/** Ends the line of a row that is marked; lines of other rows end in `\\N` or `f`. */
const marked = '\tt';

async function* copyOut(
  session: Session,
  shape: TableShape,
  { deletedAt, retired }: { deletedAt: string | null; retired: ((rows: Row[]) => void) | null },
): AsyncGenerator<Row[]> {
  const columns = shape.columns.map((column) => quoteName(column.name));
  if (retired) columns.push(quoteName(retiredColumn));
  const there = deletedAt === null ? '' : ` WHERE ${deletedAt} IS NULL`;
  const rowsSql = `SELECT ${columns.join(', ')} FROM ${quoteTable(shape)}${there}`;
  const stream = session.client.query(copyTo(`COPY (${rowsSql}) TO STDOUT`));
  let rest: Buffer[] = [];
  let rows: Row[] = [];
  let bytes = 0;
  const chunks = stream[Symbol.asyncIterator]();
  for (;;) {
    const { value, done } = await chunks.next().catch((error: unknown) => {
      throw new SessionError(error, 0);
    });
    if (done) break;
    const chunk = value as Buffer;
    let start = 0;
    for (let end = chunk.indexOf(10); end !== -1; end = chunk.indexOf(10, start)) {
      const tail = chunk.subarray(start, end);
      const line = rest.length === 0 ? tail : Buffer.concat([...rest, tail]);
      rest = [];
      start = end + 1;
      const text = line.toString('utf8');
      if (!retired) rows.push(decodeLine(text, shape));
      else {
        const row = decodeLine(text.slice(0, text.lastIndexOf('\t')), shape);
        if (text.endsWith(marked)) retired([row]);
        else rows.push(row);
      }
      bytes += line.length;
      if (rows.length >= batchRows || bytes >= batchBytes) {
        yield rows;
        rows = [];
        bytes = 0;
      }
    }
    if (start < chunk.length) rest.push(Buffer.from(chunk.subarray(start)));
  }
  if (rows.length > 0) yield rows;
}

const letters: Record<string, string> = { b: '\b', f: '\f', n: '\n', r: '\r', t: '\t', v: '\v' };

/** One line of COPY's text format (PostgreSQL manual, COPY, "Text Format"). @throws TidemarkError TM901 */
export function decodeLine(line: string, shape: TableShape): Row {
  const cells: Cell[] = line.split('\t').map((text) => {
    if (text === '\\N') return null;
    return text.includes('\\')
      ? text.replace(/\\(.)/g, (_, letter: string) => letters[letter] ?? letter)
      : text;
  });
  if (cells.length !== shape.columns.length) {
    throw new TidemarkError('TM901', `${tableName(shape)}: a row came back with ${cells.length} columns`);
  }
  return cells;
}
