/** What the privacy policies of source.tables need of the rest of the configuration. */
import { isProtecting } from '../column-policy.ts';
import type { TableRule } from '../resolved-config.ts';
import type { Report } from './problems.ts';

export interface PrivacyContext {
  tables: readonly TableRule[];
  tenantColumn: string | null;
  hashKey: string | null;
  /** The key has a value that is wrong, which was reported already. */
  hashKeyFailed: boolean;
  line: number | null;
}

/** Reports a hash without a key, and a tenant column that would not leave Postgres as it is. */
export function checkPrivacyRules(context: PrivacyContext, report: Report): void {
  const { tables, hashKey, line } = context;
  for (const { pattern, columns, tenantColumn } of tables) {
    const tenant = tenantColumn === undefined ? context.tenantColumn : tenantColumn;
    const policy = tenant === null ? undefined : columns[tenant];
    if (policy !== undefined && isProtecting(policy)) {
      report(
        'source.tables',
        `${pattern}: ${tenant} is the tenant column; destinations are bound to a tenant by its value, so it is kept or dropped`,
        line,
      );
    }
  }
  const hashed = tables.some(({ columns }) => Object.values(columns).includes('hash'));
  if (hashed && hashKey === null && !context.hashKeyFailed) {
    report('privacy.hash.key', 'is missing: source.tables has columns with the policy hash', line);
  }
}
