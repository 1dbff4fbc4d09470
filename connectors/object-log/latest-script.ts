/** The script beside the data, complete: DuckDB runs it as written and it ends with the rows. */
import type { LogFormat } from './format.ts';
import { heldFields, latestViewStatements, type ViewTable } from './latest-view.ts';
import { quoteText } from './sql-text.ts';

export interface ScriptTable extends ViewTable {
  /** Whether all files have the same columns and types (Manifest.uniform). */
  uniform: boolean;
}

/**
 * Statements that fill `tidemark_files` (and `tidemark_line`, the longest line in them). The generation is looked up
 * before the manifests are listed: it may list no Window that these do not.
 */
const filesStatements = `SET VARIABLE tidemark_generation = (
  SELECT max(file) FROM glob(getvariable('tidemark_base') || '_generations/*.json')
);
SET VARIABLE tidemark_through = (
  SELECT coalesce(max(through), 0)
  FROM read_json(coalesce(getvariable('tidemark_generation'), getvariable('tidemark_base') || '_manifests/*.json'),
    maximum_object_size => 268435456, columns => {'through': 'BIGINT'})
);
SET VARIABLE tidemark_lists = (
  SELECT list(file)
  FROM (
    SELECT getvariable('tidemark_generation') AS file
    UNION ALL
    SELECT file FROM glob(getvariable('tidemark_base') || '_manifests/*.json')
    WHERE right(file, 21) > lpad(CAST(getvariable('tidemark_through') AS VARCHAR), 16, '0') || '.json'
  )
  WHERE file IS NOT NULL
);
SET VARIABLE tidemark_listed = (
  SELECT list(file)
  FROM (
    SELECT unnest(files) AS file, "from" AS window_from
    FROM read_json(getvariable('tidemark_lists'), maximum_object_size => 268435456,
      columns => {'from': 'VARCHAR', 'files': 'STRUCT(path VARCHAR, "from" VARCHAR, "longestLine" BIGINT)[]'})
  )
  WHERE coalesce(coalesce(file."from", window_from) < CAST(getvariable('tidemark_at') AS VARCHAR), true)
);
SET VARIABLE tidemark_files = (
  SELECT list(getvariable('tidemark_base') || file.path) FROM (SELECT unnest(getvariable('tidemark_listed')) AS file)
);
SET VARIABLE tidemark_line = (
  SELECT coalesce(max(file."longestLine"), 0) FROM (SELECT unnest(getvariable('tidemark_listed')) AS file)
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
-- Only files that the newest generation names, and the manifests behind it; an interrupted attempt may have left others.
${filesStatements}
${latestViewStatements(table, 'native', relation).join('\n')}
FROM tidemark_latest;
`;
}
