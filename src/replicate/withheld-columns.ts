/** Which columns do not leave Postgres as they are, and where that is seen to: what `check` and `status` list. */
import { tableName } from '../connector/shape.ts';
import type { ColumnPolicy } from '../platform/column-policy.ts';
import type { SourceConfig } from '../platform/resolved-config.ts';
import { columnPolicy } from './catalogue.ts';
import type { PublicationPlan } from './publication.ts';

export interface WithheldColumn {
  /** `schema.table` */
  table: string;
  column: string;
  policy: Exclude<ColumnPolicy, 'keep'>;
  /** `publication`: Postgres does not even send it. */
  where: 'publication' | 'reader';
}

export function withheldColumns(source: SourceConfig, plans: readonly PublicationPlan[]): WithheldColumn[] {
  return plans.flatMap(({ tables }) =>
    tables.flatMap(({ table, columns }) =>
      table.columns.flatMap(({ name, personal, generated }): WithheldColumn[] => {
        const policy = columnPolicy(source, table, { name, personal });
        if (policy === 'keep' || generated) return [];
        const where = columns === null || columns.includes(name) ? 'reader' : 'publication';
        return [{ table: tableName(table), column: name, policy, where }];
      }),
    ),
  );
}

/** One line per table: `app.users: drop email (publication), hash ssn (reader)`. */
export function withheldText(columns: readonly WithheldColumn[]): string[] {
  const byTable = Map.groupBy(columns, ({ table }) => table);
  return [...byTable].map(([table, list]) => {
    const parts = list.map(({ column, policy, where }) => `${policy} ${column} (${where})`);
    return `${table}: ${parts.join(', ')}`;
  });
}
