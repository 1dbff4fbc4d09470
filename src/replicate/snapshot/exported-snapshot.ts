/**
 * A new slot together with the snapshot of its consistent point (PostgreSQL manual, "Exported Snapshots" under Logical
 * Decoding): what the snapshot sees will not be streamed, and the rest will. A table without a key can be read this way
 * alone: nothing of it is both read and streamed.
 */
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
  const exporter = new pg.Client({
    ...clientConfig(source.endpoint, { applicationName: 'tidemark/slot' }),
    connectionTimeoutMillis: 10000,
    ...({ replication: 'database' } as object),
  });
  exporter.on('error', () => {});
  let client: Client | null = null;
  try {
    await exporter.connect();
    const { rows } = await exporter
      .query(`CREATE_REPLICATION_SLOT ${pg.escapeIdentifier(slot)} LOGICAL pgoutput ${how}`)
      .catch((error: unknown) => {
        throw slotRefused(error, slot);
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
    };
  } catch (error) {
    await client?.end().catch(() => {});
    throw sourceError(error);
  } finally {
    // The snapshot was taken over, or is of no use.
    await exporter.end().catch(() => {});
  }
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
