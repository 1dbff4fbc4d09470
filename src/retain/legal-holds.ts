/** Legal holds as they are placed, released and listed. What is held never goes: see evict-rows.ts. */
import type { Client } from 'pg';
import { type TableId, tableName } from '../connector/shape.ts';
import { TidemarkError } from '../platform/errors.ts';
import type { RetainConfig } from '../platform/resolved-config.ts';
import { quoted } from '../replicate/catalogue.ts';
import { describeSourceTable, knownKeys } from './source-table.ts';

export interface HoldScope {
  /** Null: every tenant's rows, of a table. */
  tenant: string | null;
  /** Null: every table, of a tenant. */
  table: TableId | null;
  /** As cold_storage_archive.row_key; null: all rows. */
  keys: string[] | null;
}

export interface LegalHold {
  id: string;
  tenant: string | null;
  table: string | null;
  keys: string[] | null;
  reason: string;
  placedAt: Date;
  /** The role in the database, and the person as was said. */
  placedBy: string;
  askedBy: string | null;
  expiresAt: Date | null;
  releasedAt: Date | null;
  releasedBy: string | null;
  releaseAskedBy: string | null;
  releaseReason: string | null;
  inForce: boolean;
}

const columns = `id::text, tenant, table_schema, table_name, row_keys as keys, reason, placed_at as "placedAt", placed_by as "placedBy",
  asked_by as "askedBy", expires_at as "expiresAt", released_at as "releasedAt", released_by as "releasedBy",
  release_asked_by as "releaseAskedBy", release_reason as "releaseReason",
  released_at is null and (expires_at is null or expires_at > now()) as "inForce"`;

type HoldRow = Omit<LegalHold, 'table'> & { table_schema: string | null; table_name: string | null };

function holdOf({ table_schema: schema, table_name: name, ...hold }: HoldRow): LegalHold {
  return { ...hold, table: schema !== null && name !== null ? tableName({ schema, name }) : null };
}

/**
 * Once this returns, nothing under the hold goes any more: it waits for the batch that is being evicted.
 * @throws TidemarkError TM101 where the hold would cover nothing that exists: a typing error protects no row
 */
export async function placeHold(
  client: Client,
  scope: HoldScope,
  { reason, by, until, retain }: { reason: string; by: string; until: Date | null; retain: RetainConfig },
): Promise<LegalHold> {
  if (scope.tenant !== null) await requireTenant(client, scope.tenant, retain);
  let { keys } = scope;
  if (scope.table) {
    const table = await describeSourceTable(client, scope.table);
    const found = keys && (await knownKeys(client, table, keys));
    if (found && found.unknown.length > 0)
      throw new TidemarkError(
        'TM101',
        `${found.unknown.length} of the ${keys!.length} keys are of no row and of no Tombstone of ${tableName(table)}: ${found.unknown.slice(0, 3).join(' ')}`,
        { remedy: 'A hold on a row that is not there holds nothing: correct the keys.' },
      );
    keys = found?.known ?? null;
  }
  const { rows } = await client.query<HoldRow>(
    `insert into tidemark_retention.legal_holds (tenant, table_schema, table_name, row_keys, reason, asked_by, expires_at)
     values ($1, $2, $3, $4, $5, $6, $7) returning ${columns}`,
    [scope.tenant, scope.table?.schema, scope.table?.name, keys, reason, by, until],
  );
  return holdOf(rows[0]!);
}

/** @throws TidemarkError TM101 where the configured table of tenants has no such tenant */
export async function requireTenant(
  client: Client,
  tenant: string,
  { tenants }: RetainConfig,
): Promise<void> {
  if (!tenants) return;
  const { rows } = await client.query<{ known: boolean }>(
    `select exists (select from ${quoted(tenants.table)} as o where format('%s', o.${client.escapeIdentifier(tenants.key)}) = $1) as known`,
    [tenant],
  );
  if (rows[0]!.known) return;
  throw new TidemarkError('TM101', `${tableName(tenants.table)} has no such tenant`, {
    remedy: `Give it as ${tenants.key} has it.`,
  });
}

/** @throws TidemarkError TM101 where there is none to release */
export async function releaseHold(
  client: Client,
  id: string,
  { reason, by }: { reason: string; by: string },
): Promise<LegalHold> {
  const { rows } = await client.query<HoldRow>(
    `update tidemark_retention.legal_holds set released_at = now(), released_by = session_user, release_reason = $2, release_asked_by = $3
      where id::text = $1 and released_at is null returning ${columns}`,
    [id, reason, by],
  );
  if (rows[0]) return holdOf(rows[0]);
  throw new TidemarkError('TM101', 'no legal hold of that id is in force', {
    remedy: 'tidemark retain hold list --all',
  });
}

/** The newest first. */
export async function listHolds(client: Client, all: boolean): Promise<LegalHold[]> {
  const { rows } = await client.query<HoldRow>(
    `select ${columns} from tidemark_retention.legal_holds
      where $1 or released_at is null and (expires_at is null or expires_at > now()) order by placed_at desc, id`,
    [all],
  );
  return rows.map(holdOf);
}
