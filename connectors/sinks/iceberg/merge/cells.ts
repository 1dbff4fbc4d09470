/** Rows of typed columns as cells: Postgres' own text. */
import type { DuckDBConnection } from '@duckdb/node-api';
import type { Cell, Row } from '../../../../src/connector/sink.ts';
import { printToText } from '../../../duckdb/cast-text.ts';
import { postgresFloat } from '../../../object-log/postgres-float.ts';
import { columnName } from '../plan/read-columns.ts';
import type { LaidColumn, Layout } from './layout.ts';

/** SQL of a column's value among the exact ones; null where it has none. */
export function exactOf(table: string, layout: Layout, { fieldId }: LaidColumn): string {
  return `json_extract_string(${table}.${columnName(layout.house.exact)}, '$."${fieldId}"')`;
}

export interface ReadRow {
  cells: Row;
  position: string | null;
  retired: boolean;
}

/** @param from a FROM item with the columns of the layout under their staged names */
export async function* readCells(
  connection: DuckDBConnection,
  from: string,
  layout: Layout,
): AsyncGenerator<ReadRow[]> {
  const { columns, lossy, house } = layout;
  const selected = [
    `r.${columnName(house.position)}`,
    `r.${columnName(house.retired)}`,
    ...columns.map(({ fieldId, storage }) => printToText(`r.${columnName(fieldId)}`, storage)),
    ...lossy.map((each) => exactOf('r', layout, each)),
  ];
  const places = lossy.map((each) => columns.indexOf(each));
  const result = await connection.stream(`SELECT ${selected.join(', ')} FROM ${from} AS r`);
  for (;;) {
    const chunk = await result.fetchChunk();
    if (chunk === null || chunk.rowCount === 0) return;
    yield chunk.getRows().map((row): ReadRow => {
      const cells = row.slice(2, 2 + columns.length).map((value, i): Cell => {
        if (typeof value !== 'number') return value as Cell;
        return postgresFloat(value, columns[i]!.storage.kind === 'real' ? 'real' : 'double');
      });
      for (const [i, place] of places.entries()) {
        const exact = row[2 + columns.length + i] as Cell;
        if (exact !== null) cells[place] = exact;
      }
      return { cells, position: row[0] as string | null, retired: row[1] === true };
    });
  }
}
