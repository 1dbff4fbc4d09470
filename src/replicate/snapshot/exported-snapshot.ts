/**
 * A new slot together with the snapshot of its consistent point (PostgreSQL manual, "Exported Snapshots" under Logical
 * Decoding): what the snapshot sees will not be streamed, and the rest will. A table without a key can be read this way
 * alone: nothing of it is both read and streamed.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import pg, { type Client } from 'pg';
import { parseLsn } from '../../connector/position.ts';
import { tableName } from '../../connector/shape.ts';
import { TidemarkError } from '../../platform/errors.ts';
import { clientConfig } from '../../platform/postgres-endpoint.ts';
import type { SourceConfig } from '../../platform/resolved-config.ts';
import type { CatalogueTable } from '../catalogue.ts';
import { connectSource, slotRefused, sourceError } from '../source.ts';
import { scanSession } from './read-chunk.ts';
import { scanReference } from './table-scan.ts';

export interface ExportedSnapshot {
  /** In a read-only transaction on the snapshot. */
  client: Client;
  /** The slot's consistent point: commits from here on are streamed. */
  lsn: bigint;
  close(): Promise<void>;
  /** At once, also in the middle of a COPY. */
  abandon(): void;
}

/** @throws TidemarkError TM202 when slots are used up or the role may not; TM201 when a table was just rewritten */
export async function createSlotWithSnapshot(
  source: SourceConfig,
  version: number,
  tables: readonly CatalogueTable[],
): Promise<ExportedSnapshot> {
  const { slot, slotFailover } = source;
  // Postgres 17: kept on standbys that synchronize slots, so that it is there after a promotion.
  const how = slotFailover && version >= 170000 ? `(SNAPSHOT 'export', FAILOVER true)` : 'EXPORT_SNAPSHOT';
  return exportSnapshot(source, { slot, definition: `LOGICAL pgoutput ${how}` }, tables, () => {});
}

/**
 * With a slot that is gone when this returns.
 * @param signal ends the wait for transactions that were open
 * @throws TidemarkError as createSlotWithSnapshot
 */
export async function temporarySnapshot(
  source: SourceConfig,
  tables: readonly CatalogueTable[],
  signal: AbortSignal,
): Promise<ExportedSnapshot> {
  const slot = `${source.slot.slice(0, 54)}_snapshot`;
  const admin = await connectSource(source, 'tidemark/snapshot');
  let giveUp: () => void = () => {};
  try {
    await endLeftover(admin, slot);
    signal.throwIfAborted();
    return await exportSnapshot(
      source,
      { slot, definition: 'TEMPORARY LOGICAL pgoutput EXPORT_SNAPSHOT' },
      tables,
      (backend) => {
        // Waiting for a transaction, it would not notice that its client is gone.
        giveUp = () => void admin.query('select pg_terminate_backend($1)', [backend]).catch(() => {});
        if (signal.aborted) giveUp();
        else signal.addEventListener('abort', giveUp, { once: true });
      },
    );
  } finally {
    signal.removeEventListener('abort', giveUp);
    await admin.end().catch(() => {});
  }
}

const leftoverMs = 5000;

/** Of a reader that was killed while it waited. */
async function endLeftover(admin: Client, slot: string): Promise<void> {
  const giveUpAt = Date.now() + leftoverMs;
  for (;;) {
    const { rowCount } = await admin.query(
      `select pg_terminate_backend(active_pid) from pg_replication_slots
        where slot_name = $1 and temporary and active_pid is not null`,
      [slot],
    );
    if (rowCount === 0 || Date.now() > giveUpAt) return;
    await sleep(50);
  }
}

/** @param begun with the server's process, before it waits for open transactions */
async function exportSnapshot(
  source: SourceConfig,
  { slot, definition }: { slot: string; definition: string },
  tables: readonly CatalogueTable[],
  begun: (backend: number) => void,
): Promise<ExportedSnapshot> {
  const exporter = new pg.Client({
    ...clientConfig(source.endpoint, { applicationName: 'tidemark/slot' }),
    connectionTimeoutMillis: 10000,
    ...({ replication: 'database' } as object),
  });
  exporter.on('error', () => {});
  let client: Client | null = null;
  try {
    await exporter.connect();
    const { rows: self } = await exporter.query<{ pid: number }>('select pg_backend_pid() as pid');
    begun(self[0]!.pid);
    const { rows } = await exporter
      .query(`CREATE_REPLICATION_SLOT ${pg.escapeIdentifier(slot)} ${definition}`)
      .catch((error: unknown) => {
        throw passes(error) ? sourceError(error) : slotRefused(error, slot);
      });
    client = await connectSource(source, 'tidemark/snapshot');
    await client.query(scanSession);
    // There is no key, and so no index whose order is wanted.
    await client.query('set enable_seqscan = on');
    await client.query('begin isolation level repeatable read read only');
    await client.query(`set transaction snapshot ${pg.escapeLiteral(rows[0].snapshot_name)}`);
    await lockTables(client, tables);
    const opened = client;
    return {
      client,
      lsn: parseLsn(rows[0].consistent_point),
      close: () => opened.end().catch(() => {}),
      abandon: () => opened.connection?.stream?.destroy(),
    };
  } catch (error) {
    await client?.end().catch(() => {});
    throw sourceError(error);
  } finally {
    // The snapshot was taken over, or is of no use.
    await exporter.end().catch(() => {});
  }
}

/** The server or the connection went away (08, 57), or an ended process has the slot a moment longer (42710, 55006). */
function passes(error: unknown): boolean {
  const { code } = error as { code?: string };
  return code === undefined || /^(08|57|42710$|55006$)/.test(code);
}

/**
 * A rewrite leaves an empty file to every older snapshot. What happened between the snapshot and the lock shows in the
 * files' numbers: pg_class is read as of the snapshot, pg_relation_filenode as of now.
 */
async function lockTables(client: Client, tables: readonly CatalogueTable[]): Promise<void> {
  for (const table of tables) await client.query(`select from ${scanReference({ table })} limit 0`);
  const { rows } = await client.query<{ root: string }>(
    `with recursive parts (oid, root) as (
       select oid, oid from unnest($1::oid[]) as given (oid)
       union all
       select i.inhrelid, parts.root from pg_inherits i join parts on i.inhparent = parts.oid
         join pg_class c on c.oid = i.inhrelid and c.relispartition)
     select parts.root::text as root from parts join pg_class c using (oid)
      where c.relkind = 'r' and c.relfilenode is distinct from pg_relation_filenode(c.oid) limit 1`,
    [tables.map(({ oid }) => oid)],
  );
  const rewritten = tables.find(({ oid }) => String(oid) === rows[0]?.root);
  if (!rewritten) return;
  throw new TidemarkError(
    'TM201',
    `${tableName(rewritten)} was truncated or rewritten while the slot was created: it is created again`,
  );
}
