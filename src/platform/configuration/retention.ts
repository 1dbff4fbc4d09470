/** Section `retain`, and what it adds to source.tables. */
import { TidemarkError } from '../errors.ts';
import { endpointFromUrl } from '../postgres-endpoint.ts';
import type { ColumnPolicy, PostgresEndpoint, RetainConfig, TableRule } from '../resolved-config.ts';
import { archiveTable, saltColumn } from '../retention-archive.ts';
import { parseTableName, tableName } from '../table-name.ts';
import type { SectionContext } from './endpoints.ts';
import { withoutPrefix } from './field.ts';

/** Reports; null where nothing is to be evicted. */
export async function retainConfig(
  context: SectionContext,
  source: PostgresEndpoint,
): Promise<RetainConfig | null> {
  const values = withoutPrefix('retain', context.values);
  if (values.enabled !== true) return null;
  const endpoint = (await endpointOf('retain.url', values.url, context)) ?? source;
  const tenants = parseTableName(values['tenants.table'] ?? '');
  if (values['tenants.table'] !== null && !tenants)
    context.report(
      'retain.tenants.table',
      'must name one table: `schema.table`',
      place('retain.tenants.table', context),
    );
  const setupEndpoint = (await endpointOf('retain.setup.url', values['setup.url'], context)) ?? endpoint;
  return {
    endpoint,
    setupEndpoint,
    officerEndpoint:
      (await endpointOf('retain.officer.url', values['officer.url'], context)) ?? setupEndpoint,
    intervalMs: values.interval,
    markRows: values['mark.rows'],
    unmatchedDeletes: values['unmatched.deletes'],
    evidenceKey: values['evidence.key'],
    tenants: tenants && { table: tenants, key: values['tenants.key'], days: values['tenants.days'] },
  };
}

async function endpointOf(
  key: string,
  url: string | null,
  context: SectionContext,
): Promise<PostgresEndpoint | null> {
  if (url === null || context.failed.has(key)) return null;
  try {
    return await endpointFromUrl(url, context.directory);
  } catch (error) {
    if (!(error instanceof TidemarkError)) throw error;
    context.report(key, error.message, place(key, context));
    return null;
  }
}

function place(key: string, { given }: SectionContext): number | null {
  return given.get(key) ?? null;
}

/** The table of Tombstones is streamed, whole but for the salts. */
export function withArchive(rules: readonly TableRule[]): TableRule[] {
  const pattern = tableName(archiveTable);
  const own = rules.find((rule) => rule.pattern === pattern);
  const kept = ['table_schema', 'table_name', 'row_key', 'recalled_at', 'erased_at', 'tenant'];
  const columns: Record<string, ColumnPolicy> = Object.fromEntries(kept.map((name) => [name, 'keep']));
  const archive: TableRule = {
    snapshotMode: 'initial',
    ...own,
    pattern,
    tenantColumn: null,
    columns: { ...own?.columns, ...columns, [saltColumn]: 'drop' },
  };
  return [...rules.filter((rule) => rule !== own), archive];
}
