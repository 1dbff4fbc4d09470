/** The table of the demo whose rows leave the source once they are too old, and the policy that says so. */
import { parseTableName } from '../platform/table-name.ts';
import { withClient } from './with-client.ts';

/** Its organizations say how long its rows stay (`data_retention_days`). */
export const agingTable = 'app.rule_runs';

/** @param sourceUrl of the tables' owner: the retention service itself cannot write policies */
export async function allowToAge(sourceUrl: string): Promise<void> {
  const { schema, name } = parseTableName(agingTable)!;
  await withClient(sourceUrl, (owner) =>
    owner.query(
      `insert into tidemark_retention.policies (table_schema, table_name, enabled, age_column) values ($1, $2, true, 'started_at')`,
      [schema, name],
    ),
  );
}
