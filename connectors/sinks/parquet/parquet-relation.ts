/** How DuckDB reads the data files. */
import { metadataColumns } from '../../object-log/fields.ts';
import type { ReadFiles } from '../../object-log/format.ts';
import { quoteName } from '../../object-log/sql-text.ts';

export function parquetRelation({ paths, held, uniform }: ReadFiles): string {
  // The second half adds no rows: it gives columns that no file has yet, with their types.
  const empty = [
    ...metadataColumns.map(([name, type]) => `NULL::${type} AS ${quoteName(name)}`),
    ...held.map(({ field, storage }) => `NULL::${storage.duckdbType} AS ${quoteName(field)}`),
  ];
  return `  FROM read_parquet(${paths}, union_by_name => ${!uniform}, hive_partitioning => false)
  UNION ALL BY NAME
  SELECT ${empty.join(', ')} WHERE false`;
}
