/** Rows sorted by group, so that each group is a range of row ids, and COPY of one reads no other rows. */
import { randomUUID } from 'node:crypto';
import type { DuckDBConnection, DuckDBValue } from '@duckdb/node-api';
import { quoteName } from '../../../object-log/sql-text.ts';

export interface RowRange {
  /** Of the columns that it is grouped by. */
  values: DuckDBValue[];
  /** SQL of the group's rows without those columns, in order. */
  query: string;
}

/**
 * @param rows SQL that selects the rows with the columns of `groupBy`
 * @param groupBy quoted names
 * @param orderBy quoted names: the order within a group
 */
export async function eachRange(
  connection: DuckDBConnection,
  rows: string,
  groupBy: readonly string[],
  orderBy: readonly string[],
  take: (range: RowRange) => Promise<void>,
): Promise<void> {
  const staged = quoteName(`grouped ${randomUUID()}`);
  const order = [...groupBy, ...orderBy].join(', ');
  await connection.run(`CREATE TEMP TABLE ${staged} AS SELECT * FROM (${rows}) ORDER BY ${order}`);
  try {
    const columns = groupBy.join(', ');
    const found = await connection.runAndReadAll(
      `SELECT ${columns}, min(rowid), max(rowid) FROM ${staged} GROUP BY ALL ORDER BY min(rowid)`,
    );
    for (const row of found.getRows()) {
      const [first, last] = row.slice(-2);
      await take({
        values: row.slice(0, -2),
        query: `SELECT * EXCLUDE (${columns}) FROM ${staged} WHERE rowid BETWEEN ${first} AND ${last}`,
      });
    }
  } finally {
    await connection.run(`DROP TABLE ${staged}`);
  }
}
