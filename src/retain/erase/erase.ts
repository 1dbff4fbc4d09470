/**
 * Erasure: rows of a tenant, or by key, wherever they are. Hot rows are deleted in the source; evicted ones by way of
 * their Tombstones, which lose their salts. Run again, it goes on with what is left, and says what was reached by then.
 */
import type { Client } from 'pg';
import { TidemarkError } from '../../platform/errors.ts';
import { tableName } from '../../platform/table-name.ts';
import { SourceLedger } from '../../publish/source-ledger.ts';
import { requireSource } from '../require-source.ts';
import type { RetentionOptions } from '../retention.ts';
import { retentionError } from '../session.ts';
import { type BatchOptions, eraseBatch, heldError } from './erase-batch.ts';
import { type DestinationReach, reachOf, type TopicReach, topicsOf } from './reach.ts';
import {
  countScope,
  type ErasableTable,
  type EraseScope,
  erasableTables,
  printedScope,
  type TableCount,
  untrackedTombstones,
} from './scope.ts';

export interface ErasurePlan {
  /** As Tombstones have it. */
  scope: EraseScope;
  tables: ErasableTable[];
  counts: TableCount[];
  /** Tables without a tenant column: whatever they have of the tenant stays. */
  without: string[];
  /** Evicted rows of tables that are not tracked any more: they stay. */
  untracked: { table: string; tombstones: number }[];
}

/** What would be erased. @throws TidemarkError TM101, TM505 */
export async function planErasure(
  client: Client,
  wished: EraseScope,
  { config }: Pick<RetentionOptions, 'config'>,
): Promise<ErasurePlan> {
  try {
    const { tables, without } = await erasableTables(client, config, wished);
    const scope = await printedScope(client, tables, wished);
    const counts: TableCount[] = [];
    for (const each of tables) counts.push(await countScope(client, each, scope));
    return { scope, tables, counts, without, untracked: await untrackedTombstones(client, tables, scope) };
  } catch (error) {
    throw retentionError(error);
  }
}

export interface ErasedTable {
  table: string;
  /** Rows that were deleted in the source, and Tombstones that were erased. */
  hot: number;
  tombstones: number;
  /** Rows that stay, because rows that are not to be erased refer to them. */
  referred: number;
  /** Its deletes are in the stream. */
  streamed: boolean;
}

export interface ErasureReport {
  erasure: string;
  tenant: string | null;
  tables: ErasedTable[];
  without: string[];
  untracked: ErasurePlan['untracked'];
  destinations: DestinationReach[];
  topics: TopicReach[];
  /** Stopped before it was through. */
  interrupted: boolean;
}

export interface ErasureWish {
  scope: EraseScope;
  reason: string;
  by: string;
  /** How long destinations are waited for. */
  timeoutMs: number;
}

/** @throws TidemarkError TM511 under a legal hold, TM503, TM505, TM507, TM301, TM409 */
export async function erase(
  client: Client,
  { scope: wished, reason, by, timeoutMs }: ErasureWish,
  options: RetentionOptions,
  progress: (table: string, hot: number, tombstones: number) => void = () => {},
): Promise<ErasureReport> {
  const ledger = await new SourceLedger(options.pool, options.config.source.id).read();
  if (ledger) await requireSource(client, ledger);
  const { scope, tables, counts, without, untracked } = await planErasure(client, wished, options);
  const held = counts.find((each) => each.held > 0);
  if (held) throw heldError(held.table);
  try {
    await requireErasuresStreamed(client, options.config.source.publication);
    const erasureId = await recordErasure(client, scope, reason, by);
    const batch = { client, publication: options.config.source.publication, erasureId };
    const erased: ErasedTable[] = [];
    for (const each of tables) erased.push(await eraseTable(each, scope, batch, options.signal, progress));
    // Children that came meanwhile kept their parents.
    for (const [i, each] of tables.entries()) {
      const { hot } = await countScope(client, each, scope);
      erased[i]!.referred = hot;
    }
    const report: ErasureReport = {
      erasure: erasureId,
      tenant: scope.tenant,
      tables: erased,
      without,
      untracked,
      destinations: await reachOf(client, tables, scope.tenant, timeoutMs, options),
      topics: topicsOf(tables, options),
      interrupted: options.signal.aborted,
    };
    await client.query('update tidemark_retention.erasures set ended_at = now(), report = $2 where id = $1', [
      erasureId,
      JSON.stringify(report),
    ]);
    return report;
  } catch (error) {
    throw retentionError(error);
  }
}

async function eraseTable(
  each: ErasableTable,
  scope: EraseScope,
  options: BatchOptions,
  signal: AbortSignal,
  progress: (table: string, hot: number, tombstones: number) => void,
): Promise<ErasedTable> {
  const done: ErasedTable = { table: each.name, hot: 0, tombstones: 0, referred: 0, streamed: each.streamed };
  // Until nothing is found: a row that comes again under an evicted key, while its Tombstone is erased, goes with the next.
  while (!signal.aborted) {
    const { hot, tombstones } = await eraseBatch(each, scope, options);
    if (hot + tombstones === 0) break;
    done.hot += hot;
    done.tombstones += tombstones;
    progress(each.name, done.hot, done.tombstones);
  }
  return done;
}

/** A publication that lists columns may lack the one by which the reader knows of an erasure. */
async function requireErasuresStreamed(client: Client, publication: string): Promise<void> {
  const { rows } = await client.query<{ streamed: boolean }>(
    `select coalesce(to_jsonb(p) -> 'attnames' ? 'erased_at', true) as streamed from pg_publication_tables p
      where p.pubname = $1 and p.schemaname = 'tidemark_retention' and p.tablename = 'cold_storage_archive'`,
    [publication],
  );
  if (rows[0]?.streamed) return;
  throw new TidemarkError(
    'TM503',
    `nothing is erased: publication ${publication} does not carry the erasures of Tombstones`,
    {
      remedy:
        'Its reader brings the publication in line: start `tidemark run --roles replicate` of this version anew.',
    },
  );
}

async function recordErasure(
  client: Client,
  { tenant, tables, keys }: EraseScope,
  reason: string,
  by: string,
): Promise<string> {
  const only = tables.length === 1 ? tables[0]! : null;
  const { rows } = await client.query<{ id: string }>(
    `insert into tidemark_retention.erasures (tenant, table_schema, table_name, keys, reason, asked_by)
     values ($1, $2, $3, $4, $5, $6) returning id::text`,
    [tenant, only?.schema, only?.name, keys?.length ?? null, reason, by],
  );
  return rows[0]!.id;
}

export function scopeName({ tenant, tables }: EraseScope): string {
  return tenant ?? tables.map(tableName).join(', ');
}
