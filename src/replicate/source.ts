/** The source as it is: identity, the end of its WAL, and the slot. */
import pg from 'pg';
import { parseLsn } from '../connector/position.ts';
import { describeCause, TidemarkError } from '../platform/errors.ts';
import { clientConfig } from '../platform/postgres-endpoint.ts';
import type { SourceConfig } from '../platform/resolved-config.ts';
import { CopyClient } from './snapshot/copy-client.ts';

export interface SourceIdentity {
  systemIdentifier: string;
  timeline: number;
  database: string;
  /** server_version_num. */
  version: number;
  /** Timelines before this one, and where each ended on the way here. */
  ancestors: { timeline: number; endLsn: bigint }[];
  /** It takes no writes; absent: no. */
  standby?: boolean;
}

export interface SlotState {
  name: string;
  active: boolean;
  activePid: number | null;
  confirmedLsn: bigint;
  restartLsn: bigint | null;
  /** WAL that the slot keeps, bytes. */
  retainedBytes: bigint;
  /** reserved, extended, unreserved or lost. */
  walStatus: string;
  plugin: string;
  /** Why its WAL is gone; from Postgres 17 on. */
  invalidation: string | null;
  /** Kept on standbys too; from Postgres 17 on. */
  failover: boolean;
  /** This is the copy that a standby keeps of its primary's slot; from Postgres 17 on. */
  synced: boolean;
}

/**
 * @param queryTimeoutMs for connections that live long and ask little: a wire that fell silent is noticed by it alone
 * @throws TidemarkError TM201 or TM202
 */
export async function connectSource(
  source: SourceConfig,
  applicationName: string,
  queryTimeoutMs?: number,
): Promise<pg.Client> {
  const timeout = queryTimeoutMs === undefined ? {} : { query_timeout: queryTimeoutMs };
  return connected(new pg.Client({ ...sourceClient(source, applicationName), ...timeout }));
}

/** For reading much by COPY. @throws TidemarkError TM201 or TM202 */
export function connectToCopy(source: SourceConfig, applicationName: string): Promise<CopyClient> {
  return connected(new CopyClient(sourceClient(source, applicationName)));
}

function sourceClient(source: SourceConfig, applicationName: string): pg.ClientConfig {
  return { ...clientConfig(source.endpoint, { applicationName }), connectionTimeoutMillis: 10000 };
}

async function connected<Client extends pg.Client>(client: Client): Promise<Client> {
  client.on('error', () => {});
  try {
    await client.connect();
    return client;
  } catch (error) {
    throw sourceError(error);
  }
}

/** Ends the connection within this time, also where nobody answers any more. */
const endMs = 1000;

export async function endConnection(client: pg.Client): Promise<void> {
  const silent = setTimeout(() => cutConnection(client), endMs);
  await client.end().catch(() => {});
  clearTimeout(silent);
}

/** At once: whatever is being asked fails. */
export function cutConnection(client: pg.Client | null): void {
  client?.connection?.stream?.destroy();
}

export function sourceError(error: unknown): TidemarkError {
  if (error instanceof TidemarkError) return error;
  const code = (error as { code?: string }).code;
  if (code !== undefined && /^(28|42501|3D)/.test(code)) {
    return new TidemarkError('TM202', `the source refuses this role: ${describeCause(error)}`, {
      cause: error,
      remedy: 'Check user, password and database in source.*, and that the role may log in.',
    });
  }
  return new TidemarkError('TM201', `the source does not answer: ${describeCause(error)}`, { cause: error });
}

/**
 * IDENTIFY_SYSTEM and the timeline's history, on a replication connection of its own.
 * @throws TidemarkError TM201, TM202
 */
export async function identifySource(source: SourceConfig): Promise<SourceIdentity> {
  const client = new pg.Client({
    ...clientConfig(source.endpoint, { applicationName: 'tidemark/identify' }),
    connectionTimeoutMillis: 10000,
    ...({ replication: 'database' } as object),
  });
  client.on('error', () => {});
  try {
    await client.connect();
    const { rows } = await client.query('IDENTIFY_SYSTEM');
    const { rows: settings } = await client.query('show server_version_num');
    const recovery = await client.query('select pg_is_in_recovery() as standby');
    return {
      systemIdentifier: String(rows[0].systemid),
      timeline: Number(rows[0].timeline),
      database: rows[0].dbname,
      version: Number(settings[0].server_version_num),
      ancestors: await timelineHistory(client, Number(rows[0].timeline)),
      standby: recovery.rows[0].standby,
    };
  } catch (error) {
    if (error instanceof TidemarkError) throw error;
    if (
      (error as { code?: string }).code === '42501' ||
      /replication/i.test((error as Error).message ?? '')
    ) {
      throw new TidemarkError('TM202', 'this role may not start replication', {
        cause: error,
        remedy: `alter role ${pg.escapeIdentifier(source.endpoint.user)} replication;`,
      });
    }
    throw sourceError(error);
  } finally {
    await client.end().catch(() => {});
  }
}

/**
 * A standby is read where it has a slot of its own, or nothing was streamed of this source yet. Else it is about to be
 * promoted: what it has is its primary's slot, or will have.
 * @throws TidemarkError TM201
 */
export function requireReadable(
  { standby, version }: SourceIdentity,
  slot: SlotState | null,
  streamed: boolean,
): void {
  if (!standby) return;
  const own = slot ? !slot.synced : !streamed;
  if (own && version >= 160000) return;
  throw new TidemarkError('TM201', 'the source is a standby', {
    remedy:
      version >= 160000
        ? 'The reader waits for its promotion; or point source.url at the primary.'
        : 'The reader waits for its promotion; or point source.url at the primary. Standbys have slots of their own from Postgres 16 on.',
  });
}

/**
 * What the work asks is of one moment: a migration that commits meanwhile is seen whole or not at all.
 * @throws TidemarkError TM201, TM202
 */
export async function atOneMoment<T>(client: pg.ClientBase, work: () => Promise<T>): Promise<T> {
  await askSource(client, 'begin isolation level repeatable read, read only');
  try {
    return await work();
  } finally {
    await client.query('commit').catch(() => {});
  }
}

/** A query whose failure is the source's: it may go away at any moment. @throws TidemarkError TM201, TM202 */
export async function askSource(
  client: pg.ClientBase,
  sql: string,
  values: unknown[] = [],
): Promise<pg.QueryResult> {
  try {
    return await client.query(sql, values);
  } catch (error) {
    throw sourceError(error);
  }
}

/** End of the WAL that is on its disk, or that a standby has replayed. */
export async function flushedLsn(client: pg.ClientBase): Promise<bigint> {
  const { rows } = await askSource(
    client,
    `select case when pg_is_in_recovery() then pg_last_wal_replay_lsn() else pg_current_wal_flush_lsn() end as lsn`,
  );
  return parseLsn(rows[0].lsn);
}

/** The history file: one line per ancestor, `timeline, TAB, end, TAB, reason`. The first timeline has none. */
async function timelineHistory(client: pg.Client, timeline: number): Promise<SourceIdentity['ancestors']> {
  if (timeline === 1) return [];
  const { rows } = await client.query(`TIMELINE_HISTORY ${timeline}`);
  return String(rows[0].content)
    .split('\n')
    .flatMap((line) => {
      const match = /^\s*(\d+)\s+([0-9A-F]+\/[0-9A-F]+)/i.exec(line);
      return match ? [{ timeline: Number(match[1]), endLsn: parseLsn(match[2]!) }] : [];
    });
}

export async function readSlot(client: pg.ClientBase, name: string): Promise<SlotState | null> {
  const { rows } = await askSource(
    client,
    `select slot_name, active, active_pid, confirmed_flush_lsn, restart_lsn, wal_status, plugin,
            to_jsonb(s) ->> 'invalidation_reason' as invalidation, coalesce((to_jsonb(s) ->> 'failover')::boolean, false) as failover,
            coalesce((to_jsonb(s) ->> 'synced')::boolean, false) as synced,
            coalesce(pg_wal_lsn_diff(case when pg_is_in_recovery() then pg_last_wal_replay_lsn() else pg_current_wal_lsn() end, restart_lsn), 0)::bigint as retained
       from pg_replication_slots s where slot_name = $1`,
    [name],
  );
  const row = rows[0];
  if (!row) return null;
  return {
    name: row.slot_name,
    active: row.active,
    activePid: row.active_pid,
    confirmedLsn: row.confirmed_flush_lsn ? parseLsn(row.confirmed_flush_lsn) : 0n,
    restartLsn: row.restart_lsn ? parseLsn(row.restart_lsn) : null,
    retainedBytes: BigInt(row.retained),
    walStatus: row.wal_status ?? 'lost',
    plugin: row.plugin,
    invalidation: row.invalidation,
    failover: row.failover,
    synced: row.synced,
  };
}

/** @returns the slot's consistent point. @throws TidemarkError TM202 when slots are used up or the role may not */
export async function createSlot(
  client: pg.ClientBase,
  { slot: name, slotFailover }: Pick<SourceConfig, 'slot' | 'slotFailover'>,
  { version, standby }: Pick<SourceIdentity, 'version' | 'standby'>,
): Promise<bigint> {
  try {
    // Postgres 17: kept on standbys that synchronize slots, so that it is there after a promotion.
    const failover = slotFailover && version >= 170000 && !standby ? ', failover => true' : '';
    const { rows } = await client.query(
      `select lsn from pg_create_logical_replication_slot($1, 'pgoutput'${failover})`,
      [name],
    );
    return parseLsn(rows[0].lsn);
  } catch (error) {
    throw slotRefused(error, name);
  }
}

export function slotRefused(error: unknown, name: string): TidemarkError {
  return new TidemarkError('TM202', `the slot ${name} cannot be created: ${describeCause(error)}`, {
    cause: error,
    remedy:
      (error as { code?: string }).code === '53400'
        ? 'Raise max_replication_slots and restart Postgres, or drop a slot that nobody uses.'
        : 'Give the role REPLICATION and set wal_level = logical.',
  });
}
