/**
 * Rows that a snapshot of the whole table did not see, found without a Position per row: the tables have the source's
 * columns and nothing else. Postgres keeps with every row version the transaction that wrote it (xmin). The first merge
 * of a Window that ends after the snapshot's start notes its own transaction; when the snapshot ends, rows that no
 * merge since then has written are older than that transaction.
 *
 * The note proves itself: its own xmin is the transaction that it names, unless somebody restored or copied it, and
 * then the rows' say nothing either. Whatever is not sure leaves rows where they are.
 */
import { type TableId, type TableShape, tableName } from '../../../src/connector/shape.ts';
import type { Sweep, TableSnapshot } from '../../../src/connector/sink.ts';
import type { Session } from './client.ts';
import { asSinkFailure } from './failures.ts';
import { type HouseColumns, inSource, letGo, retiredColumn } from './house-columns.ts';
import { lockDefinitions } from './progress.ts';
import { quoteTable, quoteText } from './quote.ts';

interface Owner {
  sourceId: string;
  destination: string;
  log(level: 'info' | 'warn', message: string, fields: Record<string, unknown>): void;
}

const definition = `CREATE TABLE IF NOT EXISTS _tidemark.snapshots (
  source_id   text NOT NULL,
  destination text NOT NULL,
  schema_name text NOT NULL,
  table_name  text NOT NULL,
  snapshot_id text NOT NULL,
  began       xid8 NOT NULL,
  PRIMARY KEY (source_id, destination, schema_name, table_name, snapshot_id)
)`;

/** age() counts in 32 bits: half of them is as far as it can tell before from after. */
const farthest = 2 ** 31 - 1;

/** Makes the notes' table where it is missing: destinations of older versions have none. */
export async function ensureNotes(session: Session): Promise<void> {
  const [found] = await session.run(`SELECT to_regclass('_tidemark.snapshots') IS NOT NULL`);
  if (found!.rows[0]![0] !== 't') await session.run(lockDefinitions, definition);
}

function whereTable({ sourceId, destination }: Owner, { schema, name }: TableId): string {
  return `source_id = ${quoteText(sourceId)} AND destination = ${quoteText(destination)} AND schema_name = ${quoteText(schema)} AND table_name = ${quoteText(name)}`;
}

/** Before the first row of the Window is written to the table: what is written from here on is not older. */
export async function noteSnapshots(
  session: Session,
  owner: Owner,
  table: TableId,
  snapshots: readonly TableSnapshot[],
): Promise<void> {
  const names = [owner.sourceId, owner.destination, table.schema, table.name].map(quoteText).join(', ');
  const ids = snapshots.map(({ id }) => quoteText(id));
  await session.run(
    `DELETE FROM _tidemark.snapshots WHERE ${whereTable(owner, table)} AND snapshot_id NOT IN (${ids.join(', ')})`,
    `INSERT INTO _tidemark.snapshots VALUES ${ids.map((id) => `(${names}, ${id}, pg_current_xact_id())`).join(', ')} ON CONFLICT DO NOTHING`,
  );
}

/** @returns rows removed. @throws TidemarkError */
export async function sweepTable(
  session: Session,
  owner: Owner,
  sweep: Sweep,
  house: Pick<HouseColumns, 'deletedAt' | 'now'>,
): Promise<number> {
  const { shape, id } = sweep;
  try {
    const removed = await removeUnseen(session, owner, sweep, house);
    await session.run(
      `DELETE FROM _tidemark.snapshots WHERE ${whereTable(owner, shape)} AND snapshot_id = ${quoteText(id)}`,
    );
    if (removed > 0) {
      const fields = { table: tableName(shape), rows: removed };
      owner.log('info', 'removed rows that are not in the source, as a snapshot has shown', fields);
    }
    return removed;
  } catch (error) {
    throw asSinkFailure(error, owner.destination, [shape]);
  }
}

async function removeUnseen(
  session: Session,
  owner: Owner,
  { shape, id, rows }: Sweep,
  { deletedAt, now }: Pick<HouseColumns, 'deletedAt' | 'now'>,
): Promise<number> {
  const target = quoteTable(shape);
  const [found] = await session.run(
    `SELECT to_regclass(${quoteText(target)}) IS NOT NULL AND EXISTS (SELECT FROM _tidemark.tables WHERE ${whereTable(owner, shape)}),
  (SELECT (pg_current_xact_id()::text::numeric - began::text::numeric)::text FROM _tidemark.snapshots
    WHERE ${whereTable(owner, shape)} AND snapshot_id = ${quoteText(id)}
      AND xmin::text::numeric = began::text::numeric % 4294967296),
  EXISTS (SELECT FROM pg_trigger WHERE tgrelid = to_regclass(${quoteText(target)}) AND NOT tgisinternal AND tgenabled <> 'D' AND tgtype & 2 = 2),
  EXISTS (SELECT FROM pg_attribute WHERE attrelid = to_regclass(${quoteText(target)}) AND attname = ${quoteText(retiredColumn)})`,
  );
  const [held, distance, triggers, marked] = found!.rows[0]!;
  // Never merged, or not ours: then there is no row of ours either.
  if (held !== 't') return 0;
  // Nothing was written since the snapshot began, which brought nothing: whatever is there is not in the source.
  const since = distance ?? (rows === 0 ? '0' : null);
  if (since === null || Number(since) > farthest) {
    return leave(owner, shape, 'it is not known which rows are older than the snapshot');
  }
  // It may keep a row from being written, and so looking older than it is.
  if (triggers === 't') return leave(owner, shape, 'a BEFORE trigger may have kept rows as they were');
  const house = { retired: marked === 't', deletedAt, now };
  const conditions = [`age(t.xmin) > ${since}`, inSource(house, 't.')].filter((each) => each !== null);
  const { verb } = letGo(target, house);
  const [deleted] = await session.run(`${verb} WHERE ${conditions.join(' AND ')}`);
  return deleted!.count;
}

function leave(owner: Owner, shape: TableShape, why: string): number {
  const table = tableName(shape);
  owner.log('warn', 'rows that are not in the source may have stayed: start another snapshot, then verify', {
    table,
    why,
  });
  return 0;
}
