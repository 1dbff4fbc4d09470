/** Overrides as they are granted, revoked and listed: rows that may go without proof of delivery. */
import type { Client } from 'pg';
import { type TableId, tableName } from '../connector/shape.ts';
import { TidemarkError } from '../platform/errors.ts';
import type { RetainConfig } from '../platform/resolved-config.ts';
import { requireTenant } from './legal-holds.ts';
import { readPolicy } from './policies.ts';
import { describeSourceTable } from './source-table.ts';

/** The schema holds it too (migrations/retention). */
export const longestOverrideMs = 30 * 86_400_000;

export interface OverrideGrant {
  id: string;
  name: string;
  table: string;
  /** Null: every tenant's rows. */
  tenant: string | null;
  reason: string;
  grantedAt: Date;
  /** The role in the database, and the person as was said. */
  grantedBy: string;
  askedBy: string | null;
  expiresAt: Date;
  revokedAt: Date | null;
  revokedBy: string | null;
  revokeReason: string | null;
  inForce: boolean;
}

const columns = `o.id::text, o.name, o.table_schema, o.table_name, o.tenant, o.reason, o.granted_at as "grantedAt",
  o.granted_by as "grantedBy", o.asked_by as "askedBy", o.expires_at as "expiresAt", r.revoked_at as "revokedAt",
  r.revoked_by as "revokedBy", r.reason as "revokeReason", o.expires_at > now() and r.override_id is null as "inForce"`;
const from = `tidemark_retention.overrides o left join tidemark_retention.override_revocations r on r.override_id = o.id`;

type GrantRow = Omit<OverrideGrant, 'table'> & { table_schema: string; table_name: string };

function grantOf({ table_schema: schema, table_name: name, ...grant }: GrantRow): OverrideGrant {
  return { ...grant, table: tableName({ schema, name }) };
}

export interface OverrideWish {
  name: string;
  table: TableId;
  /** Null: every tenant's rows; said, never a default. */
  tenant: string | null;
  reason: string;
  by: string;
  until: Date;
}

/** @throws TidemarkError TM101 where it names what is not there, or lasts too long */
export async function grantOverride(
  client: Client,
  wish: OverrideWish,
  retain: RetainConfig,
): Promise<OverrideGrant> {
  const { name, table, tenant, reason, by, until } = wish;
  await describeSourceTable(client, table);
  if (!(await readPolicy(client, table)))
    throw new TidemarkError('TM101', `${tableName(table)} has no policy, so nothing of it goes anyway`, {
      remedy: 'Was another table meant? tidemark retain plan lists those with a policy.',
    });
  if (tenant !== null) await requireTenant(client, tenant, retain);
  const left = until.getTime() - Date.now();
  if (left <= 0 || left > longestOverrideMs)
    throw new TidemarkError('TM101', 'an override ends within 30 days from now', {
      remedy: 'Give --until a duration of at most 30d, or such a time.',
    });
  try {
    await client.query(
      `insert into tidemark_retention.overrides (name, table_schema, table_name, tenant, reason, asked_by, expires_at)
       values ($1, $2, $3, $4, $5, $6, $7)`,
      [name, table.schema, table.name, tenant, reason, by, until],
    );
  } catch (error) {
    if ((error as { code?: string }).code !== '23505') throw error;
    throw new TidemarkError('TM101', `an override was named ${name} before`, {
      remedy: 'Names are of one override for ever: Tombstones refer to it. Choose another one.',
    });
  }
  const { rows } = await client.query<GrantRow>(`select ${columns} from ${from} where o.name = $1`, [name]);
  return grantOf(rows[0]!);
}

/** @throws TidemarkError TM101 where there is none to revoke */
export async function revokeOverride(
  client: Client,
  name: string,
  { reason, by }: { reason: string; by: string },
): Promise<OverrideGrant> {
  const { rowCount } = await client.query(
    `insert into tidemark_retention.override_revocations (override_id, reason, asked_by)
     select o.id, $2, $3 from ${from} where o.name = $1 and r.override_id is null and o.expires_at > now()
     on conflict do nothing`,
    [name, reason, by],
  );
  if (rowCount !== 1)
    throw new TidemarkError('TM101', 'no override of that name is in force', {
      remedy: 'tidemark retain override list --all',
    });
  const { rows } = await client.query<GrantRow>(`select ${columns} from ${from} where o.name = $1`, [name]);
  return grantOf(rows[0]!);
}

/** The newest first. */
export async function listOverrides(client: Client, all: boolean): Promise<OverrideGrant[]> {
  const { rows } = await client.query<GrantRow>(
    `select ${columns} from ${from} where $1 or o.expires_at > now() and r.override_id is null order by o.granted_at desc, o.id`,
    [all],
  );
  return rows.map(grantOf);
}
