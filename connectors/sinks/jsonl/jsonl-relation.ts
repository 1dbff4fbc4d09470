/** How DuckDB reads the lines: as the columns that object-log's views expect. */
import type { ReadFiles } from '../../object-log/format.ts';
import { quoteName, quoteText } from '../../object-log/sql-text.ts';
import type { Compression } from './options.ts';

/** DuckDB takes twice this for its buffer; lines are rarely as long. */
const smallestObject = 1024 * 1024;

export function jsonlRelation({ paths, held, longestLine }: ReadFiles, compression: Compression): string {
  const fields = [...new Set(held.map(({ field }) => field))];
  const struct = `STRUCT(${fields.map((field) => `${quoteName(field)} VARCHAR`).join(', ')})`;
  return `  SELECT op AS "_op", position AS "_position", CAST(commit_time AS TIMESTAMPTZ) AS "_commit_time",
    unchanged AS "_unchanged",
    CASE WHEN old_key IS NOT NULL THEN map_values(old_key) END AS "_previous_key",
    CASE WHEN since IS NULL THEN CAST(before AS VARCHAR) ELSE CAST(json_object('since', since) AS VARCHAR) END AS "_before",
    NULL::VARCHAR AS "_exact",
    image AS "_image", before_image AS "_before_image"${fields.map((field) => `,\n    "row".${quoteName(field)} AS ${quoteName(field)}`).join('')}
  FROM read_json(${paths}, format => 'newline_delimited', compression => '${compression}', hive_partitioning => false,
    maximum_object_size => greatest(${smallestObject}, ${longestLine}),
    columns => {'op': 'VARCHAR', 'position': 'VARCHAR', 'commit_time': 'VARCHAR', 'unchanged': 'VARCHAR[]',
      'old_key': 'MAP(VARCHAR, VARCHAR)', 'before': 'JSON', 'image': 'VARCHAR', 'before_image': 'VARCHAR', 'since': 'VARCHAR', 'row': ${quoteText(struct)}})`;
}
