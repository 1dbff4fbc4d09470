/** The top-level columns of a Parquet file, by its footer. */
import type { DuckDBConnection } from '@duckdb/node-api';
import { quoteText } from '../../../object-log/sql-text.ts';

export interface ParquetColumn {
  name: string;
  /** Null in files of writers that know no Iceberg. */
  id: number | null;
}

export async function parquetColumns(connection: DuckDBConnection, path: string): Promise<ParquetColumn[]> {
  const result = await connection.runAndReadAll(
    `SELECT name, field_id, coalesce(num_children, 0) FROM parquet_schema(${quoteText(path)}) ORDER BY column_id`,
  );
  // The tree's nodes in order, each before its children; the first is the root.
  const nodes = result.getRows().slice(1);
  const columns: ParquetColumn[] = [];
  for (let at = 0; at < nodes.length; ) {
    const [name, id] = nodes[at]!;
    columns.push({ name: String(name), id: id === null ? null : Number(id) });
    for (let open = 1; open > 0; at += 1) open += Number(nodes[at]![2]) - 1;
  }
  return columns;
}
