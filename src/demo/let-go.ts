/**
 * Cold storage in the demo: a row grows too old before the viewer's eyes, is let go once destinations are proven to have
 * it, still answers there, and comes back.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import type { Client } from 'pg';
import type { Position } from '../connector/position.ts';
import type { SinkKind } from '../connector/sink.ts';
import { TidemarkError } from '../platform/errors.ts';
import type { Logger } from '../platform/log.ts';
import type { ResolvedConfig } from '../platform/resolved-config.ts';
import { parseTableName } from '../platform/table-name.ts';
import { topicNames } from '../publish/record-format.ts';
import { readHeldRows } from '../retain/read-holder.ts';
import { recallRows } from '../retain/recall-rows.ts';
import { Retention, type RetentionOptions } from '../retain/retention.ts';
import { openRetention } from '../retain/service.ts';
import { connectRetention } from '../retain/session.ts';
import { describeSourceTable } from '../retain/source-table.ts';
import { agingTable, allowToAge } from './aging.ts';
import type { DemoPipeline } from './pipeline.ts';
import { grouped, shortPosition } from './text.ts';
import { withClient } from './with-client.ts';

const keyColumns = ['organization_id', 'id'];

export interface LetGo {
  table: string;
  /** Of the row that was followed, as its Tombstone has it. */
  key: string;
  /** Rows that left the table, that one among them. */
  evicted: number;
  tombstone: { id: string; contentHash: string; position: Position; deliveredTo: string[] };
  /** Destinations that answered for it while the source had no such row. */
  answeredBy: string[];
  recalledFrom: string;
  /** From the insert to the recall. */
  seconds: number;
}

export interface LetGoOptions {
  pipeline: DemoPipeline;
  config: ResolvedConfig;
  sinkKinds: ReadonlyMap<string, SinkKind>;
  log: Logger;
  /** As the application's own role. */
  sourceUrl: string;
  signal: AbortSignal;
  say(line: string): void;
}

/** The row is too old so much later. */
const agesIn = '3 seconds';
const limitMs = 120_000;
const roundMs = 300;

/** @throws TidemarkError TM408 where the row does not go in time; what retention, recall and the pipeline throw */
export async function letRowGo(options: LetGoOptions): Promise<LetGo> {
  const { config, sinkKinds, log, sourceUrl, signal, say } = options;
  const startedAt = performance.now();
  const key = await withClient(sourceUrl, insertAlmostOld);
  say(`a row of ${agingTable} will be too old in ${agesIn}; the policy wants it in every destination first`);
  await allowToAge(sourceUrl);
  const retain = config.retain!;
  const opened = openRetention({ config: { ...config, retain }, sinkKinds, log }, signal);
  const client = await connectRetention(retain.endpoint, config.source.id);
  try {
    const { evicted, tombstone, holders } = await untilEvicted(options, opened.options, client, key);
    say(
      `it is gone from the source, with ${grouped(evicted - 1)} older ones; its Tombstone has the receipts of ${tombstone.deliveredTo.join(' and ')} up to ${shortPosition(tombstone.position)}`,
    );
    const answeredBy = await whoAnswers(opened.options, holders, key);
    say(`it still answers in ${answeredBy.join(' and ')}`);
    const destination = await recall(opened.options, client, key);
    say(`it is recalled from ${destination}: what came back has the hash of the Tombstone`);
    const seconds = Math.round((performance.now() - startedAt) / 100) / 10;
    return { table: agingTable, key, evicted, tombstone, answeredBy, recalledFrom: destination, seconds };
  } finally {
    await client.end().catch(() => {});
    await opened.close();
  }
}

/** @returns its key, as row_key of a Tombstone has it */
async function insertAlmostOld(owner: Client): Promise<string> {
  const { rows } = await owner.query<{ organization_id: string; id: string }>(
    `insert into ${agingTable} (organization_id, rule_id, rule_version, status, started_at, finished_at)
     select id, 'cold.storage', 1, 'succeeded',
            now() - make_interval(days => data_retention_days) + interval '${agesIn}', now()
       from app.organizations order by data_retention_days, id limit 1
     returning organization_id::text, id::text`,
  );
  return JSON.stringify([rows[0]!.organization_id, rows[0]!.id]);
}

async function untilEvicted(
  { pipeline }: LetGoOptions,
  options: RetentionOptions,
  client: Client,
  key: string,
): Promise<Pick<LetGo, 'evicted' | 'tombstone'> & { holders: Holder[] }> {
  const retention = new Retention(options);
  const giveUpAt = Date.now() + limitMs;
  let evicted = 0;
  try {
    for (;;) {
      options.signal.throwIfAborted();
      const rounds = await Promise.race([retention.round(), pipeline.failed]);
      for (const { problem, ...round } of rounds) {
        if (problem) throw new TidemarkError('TM408', `${round.table}: ${problem.message}`, problem);
        evicted += round.evicted;
      }
      const found = await findTombstone(client, key);
      if (found) {
        const { holders, ...tombstone } = found;
        const deliveredTo = [...new Set(holders.map(({ destination }) => destination))].sort();
        return { evicted, holders, tombstone: { ...tombstone, deliveredTo } };
      }
      if (Date.now() > giveUpAt) {
        const staying = JSON.stringify(rounds[0]?.staying ?? {});
        throw new TidemarkError('TM408', `waited ${limitMs / 1000} s in vain for a row to go: ${staying}`);
      }
      await sleep(roundMs);
    }
  } finally {
    await retention.close();
  }
}

interface Holder {
  destination: string;
  unit: string;
}

async function findTombstone(
  client: Client,
  key: string,
): Promise<(Omit<LetGo['tombstone'], 'deliveredTo'> & { holders: Holder[] }) | null> {
  const { schema, name } = parseTableName(agingTable)!;
  const { rows } = await client.query(
    `select id::text, encode(content_hash, 'hex') as "contentHash", position, delivered_to as holders
       from tidemark_retention.cold_storage_archive where table_schema = $1 and table_name = $2 and row_key = $3`,
    [schema, name, key],
  );
  return rows[0] ?? null;
}

async function whoAnswers(
  options: RetentionOptions,
  holders: readonly Holder[],
  key: string,
): Promise<string[]> {
  const id = parseTableName(agingTable)!;
  const table = { ...id, topic: topicNames(options.config.kafka.topicPrefix).table(id), key: keyColumns };
  const answered = new Set<string>();
  for (const holder of holders)
    await readHeldRows(options, holder, table, new Set([key]), () => answered.add(holder.destination));
  return [...answered].sort();
}

/** @returns the destination that it came from */
async function recall(options: RetentionOptions, client: Client, key: string): Promise<string> {
  const table = await describeSourceTable(client, parseTableName(agingTable)!);
  const wish = {
    selection: { table, keys: [key], where: null },
    reason: 'the demo shows it',
    destination: null,
  };
  const { recalled, from, refusals } = await recallRows(client, wish, options);
  const [destination] = Object.keys(from);
  if (recalled === 1 && destination !== undefined) return destination;
  throw new TidemarkError('TM508', `the row of ${agingTable} is not recalled: ${refusals[0]?.reason}`);
}
