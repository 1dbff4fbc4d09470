/** A script beside an append-only table: DuckDB runs it as written, and it ends with the rows as they are. */
import type { SinkContext } from '../../../../src/connector/sink.ts';
import { storedColumns } from '../../../object-log/fields.ts';
import { latestViewStatements } from '../../../object-log/latest-view.ts';
import { quoteName } from '../../../object-log/sql-text.ts';
import { storageOf } from '../../../object-log/storage.ts';
import { type TableIdentifier, tableText } from '../catalog/catalog.ts';
import type { OpenTable } from '../lake.ts';
import type { ChangeLayout } from './change-layout.ts';

/** Not in the folders that are searched for orphans. */
export function scriptLocation({ metadata }: OpenTable): string {
  return `${metadata.location.replace(/\/$/, '')}/tidemark/latest.sql`;
}

/**
 * Written where the table's is another, as far as this process knows.
 * @param scripts what it wrote, by the table's uuid
 */
export async function writeScript(
  table: OpenTable,
  layout: ChangeLayout,
  scripts: Map<string, string>,
  log: SinkContext['log'],
): Promise<void> {
  const uuid = table.metadata['table-uuid'];
  const text = latestScript(table.identifier, layout);
  if (scripts.get(uuid) === text) return;
  try {
    await table.store.put(scriptLocation(table), Buffer.from(text));
    scripts.set(uuid, text);
  } catch {
    // A convenience for readers.
    log('warn', 'could not write latest.sql', { table: table.identifier.name });
  }
}

export function latestScript(identifier: TableIdentifier, layout: ChangeLayout): string {
  const { shape, fields, reshaped } = layout;
  const columns = storedColumns(shape, fields, storageOf);
  const table = { columns, keyColumns: shape.keyColumns, reshaped };
  const name = [identifier.namespace.join('.'), identifier.name].map(quoteName).join('.');
  return `-- Latest state of ${tableText(identifier).replace(/[\r\n]/g, ' ')}, written by Tidemark. Run it in DuckDB, with the catalog attached as "lake".
-- Afterwards tidemark_latest and tidemark_changes are views of this session.
SET TimeZone = 'UTC';
-- NULL for now, or a Position (42 characters) to see the table as it was then.
SET VARIABLE tidemark_at = NULL;
CREATE OR REPLACE TEMP VIEW tidemark_source AS FROM lake.${name};
${latestViewStatements(table, 'native', '  FROM tidemark_source').join('\n')}
FROM tidemark_latest;
`;
}
