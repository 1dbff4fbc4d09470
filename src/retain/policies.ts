/** What the source database says of who may go: policies, legal holds and overrides (migrations/retention). */
import type { Client } from 'pg';
import { type TableId, tableName } from '../connector/shape.ts';
import { TidemarkError } from '../platform/errors.ts';
import { describeSourceTable, knownKeys, type SourceTable } from './source-table.ts';

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

interface HoldRow {
  tenant: string | null;
  /** It names the table. */
  named: boolean;
  row_keys: string[] | null;
}

/** Legal holds over a table. */
export class Holds {
  /** Everything is held. */
  readonly all: boolean;
  /** Tenants of which everything is held. */
  readonly tenants: ReadonlySet<string>;
  /** Rows of which nobody can tell the tenant: some tenant's rows of just this table are held. */
  readonly nobodys: boolean;
  /** Rows by key, of one tenant or (null) of any. */
  readonly #rows: readonly { tenant: string | null; keys: ReadonlySet<string> }[];

  constructor(rows: readonly HoldRow[]) {
    const whole = rows.filter(({ row_keys }) => row_keys === null || !row_keys.every((key) => normal(key)));
    this.all = whole.some(({ tenant }) => tenant === null);
    this.tenants = new Set(whole.flatMap(({ tenant }) => tenant ?? []));
    this.nobodys = whole.some(({ named }) => named);
    this.#rows = rows.flatMap(({ tenant, row_keys }) =>
      row_keys ? [{ tenant, keys: new Set(row_keys.flatMap((key) => normal(key) ?? [])) }] : [],
    );
  }

  /** Keys that are held by themselves, of rows that may be this tenant's; null: of any. */
  keysOf(tenant: string | null): string[] {
    const rows = this.#rows.filter(
      (each) => tenant === null || each.tenant === null || each.tenant === tenant,
    );
    return [...new Set(rows.flatMap(({ keys }) => [...keys]))];
  }

  /** Keys that are held by themselves, each with whose rows it is of; null: anybody's. @param tenants rows have some */
  byKey(tenants: boolean): [tenant: string | null, key: string][] {
    return this.#rows.flatMap(({ tenant, keys }) =>
      [...keys].map((key): [string | null, string] => [tenants ? tenant : null, key]),
    );
  }

  covers({ tenant, key }: { tenant: string | null; key: string }): boolean {
    if (this.all || (tenant === null ? this.nobodys : this.tenants.has(tenant))) return true;
    return this.#rows.some(
      ({ tenant: only, keys }) => (only === null || tenant === null || only === tenant) && keys.has(key),
    );
  }
}

/** As we write keys; null where it is none: whoever wrote it meant some row, so all of them are held. */
function normal(key: string): string | null {
  try {
    const cells: unknown = JSON.parse(key);
    // A number beyond these has lost its last digits by now.
    const exact = (cell: unknown) => typeof cell !== 'number' || Number.isSafeInteger(cell);
    if (Array.isArray(cells) && cells.every(exact)) return JSON.stringify(cells.map(String));
  } catch {
    // Said above.
  }
  return null;
}

/** As they are now: may be called within a transaction. */
export async function readHolds(client: Client, table: TableId): Promise<Holds> {
  const { rows } = await client.query<HoldRow>(
    `select tenant, table_name is not null as named, row_keys from tidemark_retention.legal_holds
      where released_at is null and (expires_at is null or expires_at > now())
        and (table_name is null or (table_schema = $1 and table_name = $2))`,
    [table.schema, table.name],
  );
  if (rows.some(({ row_keys }) => row_keys?.length)) await spellKeys(client, table, rows);
  return new Holds(rows);
}

/**
 * Keys are compared as texts, and whoever placed a hold with SQL may have spelled a value otherwise than Postgres prints it: to each
 * key that of its row, or Tombstone, is added. Where one is no key of the table at all, its hold is on all that it could have meant.
 */
async function spellKeys(client: Client, table: TableId, holds: HoldRow[]): Promise<void> {
  const source = await describeSourceTable(client, table).catch((error: unknown) => {
    // Only its Tombstones are left.
    if (error instanceof TidemarkError && error.code === 'TM101') return null;
    throw error;
  });
  if (!source) return;
  for (const hold of holds) {
    const keys = hold.row_keys?.map(normal);
    if (keys?.every((key) => key !== null)) hold.row_keys = await spelledKeys(client, source, keys);
  }
}

/** @returns null where one of them is no key of the table */
async function spelledKeys(
  client: Client,
  table: SourceTable,
  keys: readonly string[],
): Promise<string[] | null> {
  // Outside of a transaction there is none, and nothing that an error would end.
  const within = await client.query('savepoint spelled_keys').then(
    () => true,
    () => false,
  );
  try {
    const { known } = await knownKeys(client, table, keys);
    if (within) await client.query('release savepoint spelled_keys');
    return [...new Set([...keys, ...known])];
  } catch (error) {
    if (!(error instanceof TidemarkError && error.code === 'TM101')) throw error;
    if (within) await client.query('rollback to savepoint spelled_keys');
    return null;
  }
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
