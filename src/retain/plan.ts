/** What would go, and what keeps the rest: asked without changing anything. */
import type { Client } from 'pg';
import { tableName } from '../connector/shape.ts';
import type { TidemarkError } from '../platform/errors.ts';
import type { ResolvedConfig, RetainConfig } from '../platform/resolved-config.ts';
import { archiveTable } from '../platform/retention-archive.ts';
import { SourceLedger } from '../publish/source-ledger.ts';
import { trackedTables } from '../replicate/catalogue.ts';
import { deliveryMarks, requireNamed } from './delivery-proof.ts';
import { type EvictableTable, evictableTable, requirePublished } from './evictable-table.ts';
import { referredBy } from './foreign-keys.ts';
import { readHolds } from './holds-in-force.ts';
import { dueCondition, tenantsWithoutDays, tenantText } from './mark-rows.ts';
import { type Policy, readOverrides, readPolicies } from './policies.ts';
import { requireWhole } from './published-progress.ts';
import type { RetentionOptions } from './retention.ts';
import { retentionError } from './session.ts';
import { requireSetUp } from './setup.ts';

export interface TablePlan {
  table: string;
  enabled: boolean;
  required: string;
  policyVersion: number;
  /** Rows that are old enough; null where that cannot be asked. */
  due: number | null;
  /** Of these: on hold, and referred to by other rows. */
  held: number;
  referred: number;
  /** Columns whose values go for good. */
  forfeited: string[];
  /** That could prove delivery, each with its high-water mark and how many rows are in its Quarantine (null: unknown). */
  destinations: {
    destination: string;
    tenant: string | null;
    mark: string | null;
    quarantined: number | null;
    incomplete: boolean;
  }[];
  overrides: string[];
  problem: { code: string; message: string; remedy: string } | null;
}

export interface RetentionPlan {
  tables: TablePlan[];
  /** Tenants whose days are 0 or less: nothing of theirs goes (TM504). */
  tenantsWithoutDays: number;
}

type PlanOptions = Omit<RetentionOptions, 'kafka' | 'log' | 'signal'>;

/** @throws TidemarkError TM501, TM505, TM202, TM409 */
export async function planRetention(client: Client, options: PlanOptions): Promise<RetentionPlan> {
  const { config } = options;
  try {
    await requireSetUp(client);
    const policies = await readPolicies(client);
    const tracked = await trackedTables(client, config.source);
    const tables: TablePlan[] = [];
    for (const policy of policies) {
      const plan = emptyPlan(policy);
      tables.push(plan);
      try {
        const table = await evictableTable(client, config, tracked, policy);
        await countDue(client, config.retain, table, plan);
        await addDestinations(table, plan, options);
        plan.overrides = (await readOverrides(client, table)).map(({ name }) => name);
        await requireProvable(client, table, options);
      } catch (caught) {
        const error = retentionError(caught);
        if (error.retry !== 'operator') throw error;
        plan.problem = problemOf(error);
      }
    }
    return { tables, tenantsWithoutDays: await tenantsWithoutDays(client, config.retain) };
  } catch (error) {
    throw retentionError(error);
  }
}

function emptyPlan(policy: Policy): TablePlan {
  return {
    table: tableName(policy),
    enabled: policy.enabled,
    required: policy.required === 'named' ? policy.destinations.join(', ') : policy.required,
    policyVersion: policy.version,
    due: null,
    held: 0,
    referred: 0,
    forfeited: [],
    destinations: [],
    overrides: [],
    problem: null,
  };
}

function problemOf({ code, message, remedy }: TidemarkError): TablePlan['problem'] {
  return { code, message, remedy };
}

async function countDue(
  client: Client,
  retain: RetainConfig,
  table: EvictableTable,
  plan: TablePlan,
): Promise<void> {
  const { join, where } = dueCondition(client, table, retain);
  const holds = await readHolds(client, table);
  const references = table.references.map((reference) => referredBy(client, reference));
  const key = table.key.map((name) => `format('%s', t.${client.escapeIdentifier(name)})`);
  const held = holds.byKey(table.tenant !== null);
  const { rows } = await client.query<{ due: number; held: number; referred: number }>(
    `select count(*)::float8 as due,
            count(*) filter (where $1 or ${tenantText(client, table)} = any ($2::text[]) or exists (
              select from unnest($3::jsonb[], $4::text[]) as h(key, tenant) where h.key = jsonb_build_array(${key.join(', ')})
                and (h.tenant is null or ${tenantText(client, table)} is not distinct from h.tenant)))::float8 as held,
            count(*) filter (where ${references.join(' or ') || 'false'})::float8 as referred
       from ${table.from} ${join} where ${where}`,
    [
      holds.all || (table.tenant === null && holds.nobodys),
      [...holds.tenants],
      held.map(([, text]) => text),
      held.map(([tenant]) => tenant),
    ],
  );
  Object.assign(plan, rows[0], { forfeited: table.forfeited });
}

async function addDestinations(table: EvictableTable, plan: TablePlan, options: PlanOptions): Promise<void> {
  const marks = await deliveryMarks(table, options);
  plan.destinations = marks.map(({ destination, tenant, mark, quarantined, incomplete }) => ({
    destination,
    tenant,
    mark,
    quarantined: quarantined?.size ?? null,
    incomplete,
  }));
  requireNamed(table, marks);
}

async function requireProvable(
  client: Client,
  table: EvictableTable,
  { config, pool }: { config: ResolvedConfig; pool: RetentionOptions['pool'] },
): Promise<void> {
  await requirePublished(client, config.source.publication, [archiveTable, table]);
  const row = await new SourceLedger(pool, config.source.id).read();
  if (row) await requireWhole(pool, config.source.id, row.epoch, table);
}
