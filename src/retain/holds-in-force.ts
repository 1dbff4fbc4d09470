/** Legal holds over a table, as they keep its rows: whoever placed them, and however what they name was spelled. */
import type { Client } from 'pg';
import type { TableId } from '../connector/shape.ts';
import { TidemarkError } from '../platform/errors.ts';
import { describeSourceTable, keysThere, printedTenants, type SourceTable } from './source-table.ts';

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

/** As they are now: may be called within a transaction. @param table with its tenant column, or null */
export async function readHolds(client: Client, table: TableId & { tenant: string | null }): Promise<Holds> {
  const { rows } = await client.query<HoldRow>(
    `select tenant, table_name is not null as named, row_keys from tidemark_retention.legal_holds
      where released_at is null and (expires_at is null or expires_at > now())
        and (table_name is null or (table_schema = $1 and table_name = $2))`,
    [table.schema, table.name],
  );
  const source = rows.length > 0 ? await sourceTable(client, table) : null;
  if (!source) return new Holds(rows);
  const spelled = await withSpelledKeys(client, source, rows);
  return new Holds(await withSpelledTenants(client, source, table.tenant, spelled));
}

/** Null: only its Tombstones are left. */
async function sourceTable(client: Client, table: TableId): Promise<SourceTable | null> {
  try {
    return await describeSourceTable(client, table);
  } catch (error) {
    if (error instanceof TidemarkError && error.code === 'TM101') return null;
    throw error;
  }
}

/**
 * Keys are compared as texts, and whoever placed a hold with SQL may have spelled a value otherwise than Postgres prints it: to each
 * key that of its row, or Tombstone, is added. Where one is no key of the table at all, its hold is on all that it could have meant.
 */
async function withSpelledKeys(
  client: Client,
  table: SourceTable,
  holds: readonly HoldRow[],
): Promise<HoldRow[]> {
  const keysOf = ({ row_keys }: HoldRow) => {
    const keys = row_keys?.map(normal);
    return keys?.every((key) => key !== null) ? keys : null;
  };
  const there = await answers(
    client,
    holds.flatMap((hold) => keysOf(hold) ?? []),
    (keys) => keysThere(client, table, keys),
  );
  return holds.map((hold) => {
    const keys = keysOf(hold);
    if (!keys) return hold;
    const isKey = keys.every((key) => there.has(key));
    return { ...hold, row_keys: isKey ? keys.flatMap((key) => [key, ...there.get(key)!]) : null };
  });
}

/** As the table's own rows have them, beside how they were spelled; what is no value of its column is another table's. */
async function withSpelledTenants(
  client: Client,
  table: SourceTable,
  tenant: string | null,
  holds: readonly HoldRow[],
): Promise<HoldRow[]> {
  const column = table.columns.find(({ name }) => name === tenant);
  if (!column) return [...holds];
  const printed = await answers(
    client,
    holds.flatMap((hold) => hold.tenant ?? []),
    (tenants) => printedTenants(client, column, tenants),
  );
  const others = holds.flatMap((hold) => {
    const own = hold.tenant === null ? null : printed.get(hold.tenant);
    return own && own !== hold.tenant ? [{ ...hold, tenant: own }] : [];
  });
  return [...holds, ...others];
}

/** Of all in one question, or of halves where one is no value of its column: that one has no answer. */
async function answers<T>(
  client: Client,
  given: readonly string[],
  ask: (given: readonly string[]) => Promise<Map<string, T>>,
): Promise<Map<string, T>> {
  if (given.length === 0) return new Map();
  const together = await attempt(client, () => ask(given));
  if (together || given.length === 1) return together ?? new Map();
  const middle = given.length >> 1;
  const first = await answers(client, given.slice(0, middle), ask);
  return new Map([...first, ...(await answers(client, given.slice(middle), ask))]);
}

/** @returns null where a text is no value of its column */
async function attempt<T>(client: Client, work: () => Promise<T>): Promise<T | null> {
  // Outside of a transaction there is none, and nothing that an error would end.
  const within = await client.query('savepoint spelling').then(
    () => true,
    () => false,
  );
  try {
    const result = await work();
    if (within) await client.query('release savepoint spelling');
    return result;
  } catch (error) {
    const code = String((error as { code?: unknown }).code);
    if (code !== 'TM101' && !code.startsWith('22')) throw error;
    if (within) await client.query('rollback to savepoint spelling');
    return null;
  }
}
