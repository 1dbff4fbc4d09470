/**
 * The source as of one Position, while writes go on. A temporary logical slot's exported snapshot sees exactly the
 * transactions whose commit record lies before the slot's consistent point (PostgreSQL manual, "Exported Snapshots"
 * under Logical Decoding), which is what a Position with ordinal 0 says of a destination.
 */
import { randomBytes } from 'node:crypto';
import { setTimeout as sleep } from 'node:timers/promises';
import pg, { type Client } from 'pg';
import { parseLsn } from '../connector/position.ts';
import { tableName } from '../connector/shape.ts';
import { describeCause, TidemarkError } from '../platform/errors.ts';
import { clientConfig } from '../platform/postgres-endpoint.ts';
import type { SourceConfig } from '../platform/resolved-config.ts';
import { abortable, within } from '../platform/wait.ts';
import type { SourceRow } from '../publish/source-ledger.ts';
import { type CatalogueTable, trackedTables } from '../replicate/catalogue.ts';
import { connectSource, sourceError } from '../replicate/source.ts';
import type { VerifyEvent } from './report.ts';
import { readFailure, sourceSession, tableReference } from './source-rows.ts';

export interface SourceSnapshot {
  /** In a read-only transaction on the snapshot; with the session settings of source-rows.ts. */
  client: Client;
  /** Commits whose record starts below this are visible, and no others. */
  lsn: bigint;
  /** The chosen tables as the catalogue has them at that point. */
  tables: CatalogueTable[];
  close(): Promise<void>;
}

export interface SnapshotOptions {
  source: SourceConfig;
  /** What the reader knows of the source. */
  known: SourceRow;
  chosen(table: CatalogueTable): boolean;
  /** For transactions that run, and for locks. */
  timeoutMs: number;
  /** How often waiting is reported. */
  pollMs: number;
  signal: AbortSignal;
  onProgress(event: VerifyEvent): void;
}

/** Truncates and rewrites are rare; one that always hits the moment is worth stopping for. */
const attempts = 3;

/**
 * @throws TidemarkError TM201, TM202; TM205 when this is not the server that the reader reads; TM408 when transactions
 *   or locks do not end in time, or tables keep being rewritten
 */
export async function openSourceSnapshot(options: SnapshotOptions): Promise<SourceSnapshot> {
  for (let attempt = 1; ; attempt++) {
    const snapshot = await attemptSnapshot(options);
    if (!('rewritten' in snapshot)) return snapshot;
    if (attempt === attempts) {
      throw new TidemarkError(
        'TM408',
        `${snapshot.rewritten} was truncated or rewritten just now, so its rows of a moment ago cannot be read`,
        { remedy: 'Try again when it is not being truncated or altered.' },
      );
    }
  }
}

async function attemptSnapshot(options: SnapshotOptions): Promise<SourceSnapshot | { rewritten: string }> {
  const { source, signal } = options;
  const client = await abortable(connectSource(source, 'tidemark/verify'), signal);
  let kept = false;
  try {
    await client.query(`${sourceSession}; set lock_timeout = ${Math.max(1, Math.floor(options.timeoutMs))}`);
    const exporter = await connectReplication(source);
    let lsn: bigint;
    try {
      await checkIdentity(exporter, options.known);
      const exported = await exportSnapshot(exporter, client, options);
      lsn = exported.lsn;
      await client.query('begin isolation level repeatable read read only');
      await client.query(`set transaction snapshot ${pg.escapeLiteral(exported.name)}`);
    } finally {
      // Ends the temporary slot too. Not awaited politely: it may still be waiting for a transaction.
      endConnection(exporter);
    }
    const tables = (await trackedTables(client, source)).filter(options.chosen);
    const rewritten = await lockTables(client, tables);
    if (rewritten !== null) return { rewritten };
    kept = true;
    return { client, lsn, tables, close: async () => endConnection(client) };
  } catch (error) {
    if (signal.aborted) throw signal.reason;
    throw sourceError(error);
  } finally {
    if (!kept) endConnection(client);
  }
}

function endConnection(client: Client): void {
  client.connection?.stream?.destroy();
}

async function connectReplication(source: SourceConfig): Promise<Client> {
  const client = new pg.Client({
    ...clientConfig(source.endpoint, { applicationName: 'tidemark/verify' }),
    ...({ replication: 'database' } as object),
  });
  client.on('error', () => {});
  try {
    await client.connect();
    return client;
  } catch (error) {
    const { code } = error as { code?: string };
    if (code === '42501' || code === '53300') {
      throw new TidemarkError(
        'TM202',
        `the source refuses a replication connection: ${describeCause(error)}`,
        {
          cause: error,
          remedy: `alter role ${pg.escapeIdentifier(source.endpoint.user)} replication; -- and leave one of max_wal_senders free`,
        },
      );
    }
    throw sourceError(error);
  }
}

/** A Position says nothing about another cluster, or another timeline of this one. */
async function checkIdentity(exporter: Client, known: SourceRow): Promise<void> {
  const { rows } = await exporter.query('IDENTIFY_SYSTEM');
  const found = { system: String(rows[0].systemid), timeline: Number(rows[0].timeline) };
  if (found.system === known.systemIdentifier && found.timeline === known.timeline) return;
  throw new TidemarkError(
    'TM205',
    `the source is system ${found.system} timeline ${found.timeline}; its reader knows system ${known.systemIdentifier} timeline ${known.timeline}`,
  );
}

async function exportSnapshot(
  exporter: Client,
  observer: Client,
  { timeoutMs, pollMs, signal, onProgress }: SnapshotOptions,
): Promise<{ lsn: bigint; name: string }> {
  const slot = `tidemark_verify_${randomBytes(6).toString('hex')}`;
  const pid = (exporter as unknown as { processID: number }).processID;
  const startedAt = performance.now();
  const created = exporter
    .query(`CREATE_REPLICATION_SLOT "${slot}" TEMPORARY LOGICAL pgoutput EXPORT_SNAPSHOT`)
    .catch((error: unknown) => {
      const { code } = error as { code?: string };
      throw new TidemarkError('TM202', `no snapshot can be exported: ${describeCause(error)}`, {
        cause: error,
        remedy:
          code === '53400'
            ? 'verify needs one replication slot for a moment: raise max_replication_slots and restart Postgres.'
            : 'Set wal_level = logical, and give the role REPLICATION.',
      });
    });
  const done = new AbortController();
  const reporting = reportBlockers();
  try {
    const { rows } = await within(created, { limitMs: timeoutMs, signal, late });
    return { lsn: parseLsn(rows[0].consistent_point), name: String(rows[0].snapshot_name) };
  } catch (error) {
    // A server process that waits for a lock does not notice that its client left.
    await observer.query('select pg_terminate_backend($1)', [pid]).catch(() => {});
    throw error;
  } finally {
    done.abort();
    await reporting;
  }

  async function blockers() {
    const { rows } = await observer.query(
      `select b.pid, (extract(epoch from now() - coalesce(a.xact_start, p.prepared)) * 1000)::float8 as age
         from unnest(pg_blocking_pids($1)) b (pid) left join pg_stat_activity a using (pid)
         left join lateral (select min(prepared) as prepared from pg_prepared_xacts) p on b.pid = 0`,
      [pid],
    );
    const ages = rows.flatMap(({ age }) => (age === null ? [] : [Number(age)]));
    return {
      transactions: rows.length,
      oldestMs: ages.length === 0 ? null : Math.max(...ages),
      pids: rows.map((row) => Number(row.pid)),
    };
  }

  async function reportBlockers(): Promise<void> {
    for (;;) {
      await sleep(pollMs, undefined, { signal: done.signal }).catch(() => {});
      if (done.signal.aborted) return;
      const found = await blockers().catch(() => null);
      if (!found || done.signal.aborted) return;
      onProgress({ phase: 'snapshot', waitedMs: performance.now() - startedAt, ...found });
    }
  }

  async function late(): Promise<TidemarkError> {
    const found = await blockers().catch(() => null);
    const who = found?.pids.map((id) => (id === 0 ? 'a prepared transaction' : `pid ${id}`)).join(', ');
    return new TidemarkError(
      'TM408',
      `transactions that began before this verify have not ended within ${Math.round(timeoutMs / 1000)} s${who ? ` (${who})` : ''}`,
      {
        remedy: 'End them (pg_terminate_backend, or rollback prepared), or allow more with --timeout.',
      },
    );
  }
}

/**
 * Keeps the tables from being truncated or altered while they are read. Either leaves an empty or rewritten file to
 * every older snapshot, so what happened between the snapshot and the lock shows in the files' numbers: pg_class is
 * read as of the snapshot, pg_relation_filenode as of now.
 * @returns the table that was rewritten, or null
 */
async function lockTables(client: Client, tables: readonly CatalogueTable[]): Promise<string | null> {
  for (const table of tables) {
    try {
      // As LOCK TABLE … IN ACCESS SHARE MODE would, but a grant on single columns is enough.
      await client.query(`select from ${tableReference(table)} limit 0`);
    } catch (error) {
      const { code } = error as { code?: string };
      if (code === '42P01') return tableName(table);
      if (code === '55P03') {
        throw new TidemarkError('TM408', `${tableName(table)} is locked by somebody else`, {
          cause: error,
          remedy:
            'Wait until the ALTER, TRUNCATE or VACUUM FULL on it is done, or allow more with --timeout.',
        });
      }
      throw readFailure(error, table);
    }
  }
  const { rows } = await client.query(
    `with recursive parts (oid, root) as (
       select oid, oid from unnest($1::oid[]) as given (oid)
       union all
       select i.inhrelid, parts.root from pg_inherits i join parts on i.inhparent = parts.oid
         join pg_class c on c.oid = i.inhrelid and c.relispartition)
     select parts.root from parts join pg_class c using (oid)
      where c.relkind = 'r' and c.relfilenode is distinct from pg_relation_filenode(c.oid) limit 1`,
    [tables.map(({ oid }) => oid)],
  );
  const root = rows[0]?.root;
  const found = tables.find(({ oid }) => Number(oid) === Number(root));
  return found ? tableName(found) : null;
}
