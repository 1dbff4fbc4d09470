/**
 * The date of a data file. Where a table's key has a column of time, a row's files lie under the date of its event, so
 * that all Changes of a key are in one partition however late they come; else, and for what concerns the whole table, under
 * the date of the commit. Nothing depends on it but where a reader looks: the latest state is found over all files.
 */
import type { ColumnShape, TableShape } from '../../src/connector/shape.ts';
import type { OptionField } from '../../src/connector/sink.ts';

/** `auto`: the first column of time in the key; `commit`: none; else the name of a column. */
export type DateChoice = string;

export function dateField(): OptionField {
  return {
    type: 'string',
    description:
      "Which date a row's files lie under. `auto`: that of the first date or timestamp column in the table's key; `commit`: that of the commit; or the name of such a column. Tables without it use the commit's.",
    default: 'auto',
  };
}

/** A date that no four-digit year can name: infinity, BC, years from 10000. Readers of Hive layouts take it for NULL. */
const outOfRange = '__HIVE_DEFAULT_PARTITION__';

const timed = /^(date|timestamp(\(\d\))? with(out)? time zone)$/;

/** Index of the column that dates the rows, or null where the commit does. */
export function dateColumn(shape: TableShape, choice: DateChoice): number | null {
  if (choice === 'commit') return null;
  const fits = ({ name, type, base, protection, form }: ColumnShape): boolean =>
    timed.test(base ?? type) && !protection && form !== 'text' && (choice === 'auto' || name === choice);
  return shape.keyColumns.find((index) => fits(shape.columns[index]!)) ?? null;
}

/** @param value Postgres' text of a date, timestamp or timestamptz (UTC) */
export function eventDate(value: string): string {
  const plain = value.charCodeAt(4) === 45 && value.charCodeAt(value.length - 1) !== 67;
  return plain ? value.slice(0, 10) : outOfRange;
}

/** Of what is dated by its commit. */
export class CommitDates {
  #day = -1n;
  #date = '';

  of(commitTimeUs: bigint): string {
    const day = commitTimeUs / 86_400_000_000n;
    if (day !== this.#day) {
      this.#day = day;
      this.#date = new Date(Number(day) * 86_400_000).toISOString().slice(0, 10);
    }
    return this.#date;
  }
}

export interface Partition {
  /** The tenant itself; null for NULL, undefined where there is none. */
  tenant: string | null | undefined;
  /** YYYY-MM-DD in UTC, or `__HIVE_DEFAULT_PARTITION__`. */
  date: string;
}

/** Identity of a partition: rows with the same one share files. */
export function partitionOf({ tenant, date }: Partition): string {
  return tenant === undefined ? `${date}-` : tenant === null ? `${date}0` : `${date}=${tenant}`;
}
