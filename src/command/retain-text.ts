/** What `tidemark retain` prints for a person. */
import type { RetentionPlan, TablePlan } from '../retain/plan.ts';
import type { TableRound } from '../retain/retention-ledger.ts';
import type { RetentionStatus } from '../retain/retention-status.ts';

type Problem = { code: string; message: string; remedy: string } | null;

function problemLines(problem: Problem): string[] {
  return problem ? [`  ${problem.code}: ${problem.message}`, `    → ${problem.remedy}`] : [];
}

export function planText({ tables, tenantsWithoutDays }: RetentionPlan): string {
  const lines = tables.flatMap((table) => tablePlanLines(table));
  if (tables.length === 0) lines.push('no table has a policy: insert into tidemark_retention.policies');
  if (tenantsWithoutDays > 0)
    lines.push(
      `TM504: ${tenantsWithoutDays} tenants have retention days of 0 or less, nothing of theirs goes`,
      '    → Set the days to 1 or more; NULL keeps the rows for ever.',
    );
  return `${lines.join('\n')}\n`;
}

function tablePlanLines(plan: TablePlan): string[] {
  const { table, enabled, required, due, held, referred, forfeited, destinations, overrides, problem } = plan;
  const rows =
    due === null ? '' : `, ${due} rows old enough (${held} on hold, ${referred} referred to by others)`;
  return [
    `${table}: ${enabled ? 'enabled' : 'not enabled'}, required: ${required}${rows}`,
    ...destinations.map(
      ({ destination, tenant, mark, quarantined, incomplete }) =>
        `  ${destination}${tenant === null ? '' : ' (one tenant)'}: up to ${mark ?? 'nothing yet'}${quarantined === 0 ? '' : `, ${quarantined ?? 'some'} rows in Quarantine`}${incomplete ? ', changes were skipped' : ''}`,
    ),
    ...(forfeited.length > 0 ? [`  goes for good: ${forfeited.join(', ')}`] : []),
    ...(overrides.length > 0 ? [`  without proof, by override: ${overrides.join(', ')}`] : []),
    ...problemLines(problem),
  ];
}

export function roundText(tables: readonly TableRound[]): string {
  const lines = tables.flatMap(({ table, evicted, marked, staying, problem }) => [
    `${table}: ${evicted} rows evicted${marked > 0 ? `, ${marked} wait` : ''}${stayingText(staying)}`,
    ...problemLines(problem),
  ]);
  return `${lines.join('\n') || 'no table has an enabled policy'}\n`;
}

export function statusText({ working, tables, tombstones, holds, overrides }: RetentionStatus): string {
  const lines = [
    working ? 'a process evicts rows' : 'no process evicts rows',
    ...tables.flatMap(({ table, evicted, marked, staying, lookedAt, waitsFor, problem }) => [
      `${table}: ${evicted} rows evicted, ${marked} wait${waitsFor ? ` for ${waitsFor}` : ''}${stayingText(staying)}, looked at ${lookedAt.toISOString()}`,
      ...problemLines(problem),
    ]),
    ...tombstones.map(
      ({ table, rows, recalled, overridden }) =>
        `Tombstones of ${table}: ${rows}, ${recalled} recalled, ${overridden} by override`,
    ),
    `legal holds in force: ${holds}`,
    ...overrides.map(
      ({ name, table, expiresAt }) => `override ${name} of ${table} until ${expiresAt.toISOString()}`,
    ),
  ];
  return `${lines.join('\n')}\n`;
}

function stayingText(staying: Readonly<Record<string, number>>): string {
  const parts = Object.entries(staying).map(([reason, rows]) => `${rows} ${reason}`);
  return parts.length > 0 ? `; ${parts.join(', ')}` : '';
}
