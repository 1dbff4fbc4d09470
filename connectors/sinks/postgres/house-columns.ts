/**
 * What a table of the replica may have beyond the source's columns: the mark of rows that the source let go of, made the
 * first time that it lets one go, and with `soft.deletes` the time of deletion. They are in the row, so that they follow it
 * through every change of its key and its columns, and a table without them pays nothing.
 */
import { TidemarkError } from '../../../src/connector/failure.ts';
import { type TableShape, tableName } from '../../../src/connector/shape.ts';
import { quoteName, quoteText } from './quote.ts';

export const retiredColumn = '_tidemark_retired';

/** Of one table, for the statements of one Window. */
export interface HouseColumns {
  /** It can mark rows as retired. */
  retired: boolean;
  /** Quoted name of the column with the time of deletion; null where deleted rows go. */
  deletedAt: string | null;
  /** What that column gets in this Window, as a literal. */
  now: string;
}

const retired = quoteName(retiredColumn);

/** Condition on rows of `alias` that the source has, or null where those are all. */
export function inSource(house: HouseColumns, alias = ''): string | null {
  const conditions = [
    ...(house.retired ? [`${alias}${retired} IS NOT TRUE`] : []),
    ...(house.deletedAt === null ? [] : [`${alias}${house.deletedAt} IS NULL`]),
  ];
  return conditions.length === 0 ? null : conditions.join(' AND ');
}

/** What a truncate of the source does to the replica's table: TRUNCATE, unless rows of it stay. */
export function emptyTable(target: string, house: HouseColumns): string {
  const rows = inSource(house);
  if (rows === null) return `TRUNCATE ${target}`;
  if (house.deletedAt !== null) return `UPDATE ${target} SET ${house.deletedAt} = ${house.now} WHERE ${rows}`;
  const body = `BEGIN IF EXISTS (SELECT FROM ${target} WHERE ${retired}) THEN DELETE FROM ${target} WHERE ${rows}; ELSE TRUNCATE ${target}; END IF; END`;
  return `DO ${quoteText(body)}`;
}

/** The head of a statement that lets rows of `target`, called t, go: followed by its source and its condition. */
export function letGo(target: string, house: HouseColumns): { verb: string; from: string } {
  if (house.deletedAt === null) return { verb: `DELETE FROM ${target} AS t`, from: 'USING' };
  const unmark = house.retired ? `, ${retired} = NULL` : '';
  return { verb: `UPDATE ${target} AS t SET ${house.deletedAt} = ${house.now}${unmark}`, from: 'FROM' };
}

/** @throws TidemarkError TM405 where the source has a column of that name */
export function refuseColumn(shape: TableShape, name: string, remedy: string): void {
  if (!shape.columns.some((column) => column.name === name)) return;
  throw new TidemarkError(
    'TM405',
    `${tableName(shape)} has a column ${JSON.stringify(name)}, which the destination keeps for itself`,
    { remedy },
  );
}

/** Microseconds since 1970 UTC as Postgres writes a timestamp with time zone. */
export function timestampText(us: bigint): string {
  const micros = ((us % 1_000_000n) + 1_000_000n) % 1_000_000n;
  const seconds = new Date(Number((us - micros) / 1000n)).toISOString().slice(0, 19).replace('T', ' ');
  return `${seconds}.${String(micros).padStart(6, '0')}+00`;
}

/** Raised out of the row streams: the table needs its mark first, and the merge starts over. */
export class MissingMark extends Error {
  readonly table: string;

  /** @param table quoted name */
  constructor(table: string) {
    super(`${table} has no mark of retired rows yet`);
    this.name = 'MissingMark';
    this.table = table;
  }
}
