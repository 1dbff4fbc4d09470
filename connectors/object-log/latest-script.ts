/** The script beside the data, complete: DuckDB runs it as written and it ends with the rows. */
import type { LogFormat } from './format.ts';
import { heldFields, latestViewStatements, type ViewTable } from './latest-view.ts';
import { quoteText } from './sql-text.ts';

export interface ScriptTable extends ViewTable {
  /** Whether all files have the same columns and types (Manifest.uniform). */
  uniform: boolean;
}

/** Statement that fills `tidemark_files` from the manifests below `tidemark_base`. */
const filesStatement = `SET VARIABLE tidemark_files = (
  SELECT list(getvariable('tidemark_base') || file.path)
  FROM (
    SELECT unnest(files) AS file
    FROM read_json(getvariable('tidemark_base') || '_manifests/*.json', maximum_object_size => 268435456,
      columns => {'from': 'VARCHAR', 'files': 'STRUCT(path VARCHAR)[]'})
    WHERE coalesce("from" < CAST(getvariable('tidemark_at') AS VARCHAR), true)
  )
);`;

/** @param base URL or absolute path of the table's folder, with a trailing slash. */
export function latestSqlScript(base: string, unit: string, table: ScriptTable, format: LogFormat): string {
  const { columns, uniform } = table;
  const relation = format.relation({
    paths: "getvariable('tidemark_files')",
    columns,
    held: heldFields(columns),
    uniform,
    longestLine: "getvariable('tidemark_line')",
  });
  return `-- Latest state of ${unit.replace(/[\r\n]/g, ' ')}, written by Tidemark. Run it in DuckDB; for s3:// load httpfs and create
-- a secret first. Afterwards tidemark_latest and tidemark_changes are views of this session.
SET TimeZone = 'UTC';
-- Correct this if the folder was moved or copied.
SET VARIABLE tidemark_base = ${quoteText(base)};
-- NULL for now, or a Position (42 characters) to see the table as it was then.
SET VARIABLE tidemark_at = NULL;
-- Only files that a manifest names count; an interrupted attempt may have left others.
${filesStatement}
${latestViewStatements(table, 'native', relation).join('\n')}
FROM tidemark_latest;
`;
}
