/** What the source database says of who may go: policies and overrides (migrations/retention); legal holds are in holds-in-force.ts. */
import type { Client } from 'pg';
import { type TableId, tableName } from '../connector/shape.ts';

export interface Policy extends TableId {
  enabled: boolean;
  ageColumn: string;
  required: 'any' | 'all' | 'named';
  destinations: string[];
  readBack: 'none' | 'sample' | 'full';
  /** Of a table without tenants; null: never. */
  retentionDays: number | null;
  batchRows: number;
  rowsPerSecond: number;
  /** It is a time of day at which rows may go. */
  open: boolean;
  forfeitColumns: string[];
  /** Empty partitions of a time that is over are dropped. */
  dropPartitions: boolean;
  version: number;
}

const policyColumns = `table_schema as schema, table_name as name, enabled, age_column as "ageColumn", required, destinations, read_back as "readBack",
  retention_days as "retentionDays", batch_rows as "batchRows", rows_per_second as "rowsPerSecond",
  allowed_from is null or case when allowed_from < allowed_until
    then (now() at time zone 'UTC')::time >= allowed_from and (now() at time zone 'UTC')::time < allowed_until
    else (now() at time zone 'UTC')::time >= allowed_from or (now() at time zone 'UTC')::time < allowed_until end as open,
  forfeit_columns as "forfeitColumns", drop_partitions as "dropPartitions", version`;

/** By name. */
export async function readPolicies(client: Client): Promise<Policy[]> {
  const { rows } = await client.query<Policy>(
    `select ${policyColumns} from tidemark_retention.policies order by table_schema, table_name`,
  );
  return rows;
}

export async function readPolicy(client: Client, { schema, name }: TableId): Promise<Policy | null> {
  const { rows } = await client.query<Policy>(
    `select ${policyColumns} from tidemark_retention.policies where table_schema = $1 and table_name = $2`,
    [schema, name],
  );
  return rows[0] ?? null;
}

export interface Override {
  id: string;
  name: string;
  /** Null: every tenant's rows. */
  tenant: string | null;
}

/** Those that are in force over a table. */
export async function readOverrides(client: Client, table: TableId): Promise<Override[]> {
  const { rows } = await client.query<Override>(
    `select o.id::text, o.name, o.tenant from tidemark_retention.overrides o
      where o.table_schema = $1 and o.table_name = $2 and o.expires_at > now()
        and not exists (select from tidemark_retention.override_revocations r where r.override_id = o.id)
      order by o.granted_at, o.id`,
    [table.schema, table.name],
  );
  return rows;
}

export function overrideFor(overrides: readonly Override[], tenant: string | null): Override | null {
  return overrides.find((each) => each.tenant === null || each.tenant === tenant) ?? null;
}

export function policyName(policy: TableId): string {
  return tableName(policy);
}
