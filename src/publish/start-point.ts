/**
 * Where a life of the reader starts: at the last Progress, or with a new epoch. What decides is in resume-point.ts; here
 * it is done, at the source, in Kafka and in the ledger, in an order that a crash anywhere leaves repeatable.
 */

import type { Admin } from 'kafkajs';
import type pg from 'pg';
import { formatLsn, parsePosition } from '../connector/position.ts';
import { failpoint } from '../platform/failpoint.ts';
import { kafkaError } from '../platform/kafka.ts';
import type { Logger } from '../platform/log.ts';
import type { ResolvedConfig } from '../platform/resolved-config.ts';
import { parseTableName } from '../platform/table-name.ts';
import { type CatalogueTable, trackedTables } from '../replicate/catalogue.ts';
import { createSlotWithSnapshot } from '../replicate/snapshot/exported-snapshot.ts';
import {
  createSlot,
  flushedLsn,
  readSlot,
  type SlotState,
  type SourceIdentity,
} from '../replicate/source.ts';
import { type Progress, progressRecord } from './progress.ts';
import { splitTopic, type TopicNames } from './record-format.ts';
import { compareEnds, decideResume, originProgress } from './resume-point.ts';
import { hasKey, snapshotMode } from './snapshot/initial-snapshots.ts';
import { originLsn, publishKeyless } from './snapshot/keyless-origin.ts';
import type { SnapshotRequests } from './snapshot/snapshot-requests.ts';
import type { SourceLedger } from './source-ledger.ts';
import type { TablePreparer } from './table-preparer.ts';
import type { TransactionSettler } from './transaction-settler.ts';
import type { TransactionalProducer } from './transactional-producer.ts';

export interface StartParts {
  config: ResolvedConfig;
  identity: SourceIdentity;
  /** A plain connection to the source. */
  client: pg.Client;
  admin: Admin;
  /** Fenced already. */
  producer: TransactionalProducer;
  progressSchemaId: number;
  ledger: SourceLedger;
  requests: SnapshotRequests;
  preparer: TablePreparer;
  topics: TopicNames;
  settler: TransactionSettler;
  /** Random id of this life. */
  writer: string;
  log: Logger;
  signal: AbortSignal;
}

/**
 * @param last the last Progress of any reader before
 * @returns what is in Kafka: everything up to here
 * @throws TidemarkError as decideResume and compareEnds
 */
export async function startPoint(parts: StartParts, last: Progress | null): Promise<Progress> {
  const { config, identity, client, admin, ledger } = parts;
  const { source } = config;
  const row = await ledger.read();
  const slot = await readSlot(client, source.slot);
  const walLsn = await flushedLsn(client);
  const point = decideResume({ sourceId: source.id, identity, slot, row, progress: last, walLsn });
  await settleTables(parts, last);
  if (point.kind !== 'origin') {
    const { progress } = point;
    compareEnds(progress, await topicEnds(admin, Object.keys(progress.endOffsets)));
    if (point.kind === 'failover') await openEpoch(parts, progress);
    const { epoch } = parsePosition(progress.position);
    if (row?.state !== 'streaming' || row.epoch !== epoch || row.timeline !== identity.timeline) {
      await ledger.followProgress(epoch, source.slot, identity);
    }
    return progress;
  }
  // A slot of an attempt that came to nothing is made anew: its snapshot went with that attempt.
  const madeSlot =
    !slot ||
    (row?.state === 'creating' && row.epoch === point.epoch && row.slot === slot.name && row.madeSlot);
  return startEpoch(parts, point, madeSlot);
}

/** What is not decided there is against Progress: from here on, every partition ends where consumers see it end. */
async function settleTables(parts: StartParts, last: Progress | null): Promise<void> {
  const { client, config, producer, settler, topics } = parts;
  const tables = await ourTopics(parts, await trackedTables(client, config.source));
  if (await settler.settleTables(last, [...tables, topics.parked])) await producer.fence();
}

/** The next epoch's first Progress says what the old epoch's last one did. */
async function openEpoch(parts: StartParts, progress: Progress): Promise<void> {
  const { identity, requests, writer, log } = parts;
  const { epoch } = parsePosition(progress.position);
  // What was read of the tables before goes on being right.
  await requests.carryOver(epoch);
  log.warn('a standby took over; an epoch starts where the old timeline ended', {
    timeline: identity.timeline,
    position: progress.position,
  });
  await writeProgress(parts, [{ ...progress, writer, writtenAtUs: BigInt(Date.now()) * 1000n }]);
}

async function startEpoch(
  parts: StartParts,
  { epoch, slot }: { epoch: number; slot: SlotState | null },
  madeSlot: boolean,
): Promise<Progress> {
  const { config, identity, client, ledger, writer, log } = parts;
  const { source } = config;
  await ledger.beginEpoch(epoch, source.slot, identity, madeSlot);
  // Of a standby nothing is read beside the stream (TM222), not even what could be.
  const keyless =
    madeSlot && !identity.standby
      ? (await trackedTables(client, source)).filter(
          (table) => !hasKey(table) && snapshotMode(source, table) === 'initial',
        )
      : [];
  if (keyless.length > 0) return startWithKeyless(parts, { epoch, slot }, keyless);
  const lsn = slot?.confirmedLsn ?? (await createSlot(client, source, identity));
  log.info(slot ? 'an epoch starts at the existing slot' : 'slot created', {
    slot: source.slot,
    at: formatLsn(lsn),
    epoch,
  });
  const ends = await originEnds(parts, await trackedTables(client, source));
  const facts = { sourceId: source.id, identity };
  const endOffsets = Object.fromEntries([...ends].map(([topic, offsets]) => [topic, [...offsets]]));
  const origin = originProgress(facts, epoch, lsn, endOffsets, writer, Date.now());
  await writeProgress(parts, [origin]);
  await ledger.beginStreaming();
  return origin;
}

/** Tables without a key are read as the slot's consistent point has them, before anything is streamed. */
async function startWithKeyless(
  parts: StartParts,
  { epoch, slot }: { epoch: number; slot: SlotState | null },
  keyless: readonly CatalogueTable[],
): Promise<Progress> {
  const { config, identity, client, producer, ledger, requests, preparer, topics, writer } = parts;
  const { log, signal } = parts;
  const { source, kafka } = config;
  if (slot) await client.query('select pg_drop_replication_slot($1)', [source.slot]);
  const exported = await createSlotWithSnapshot(source, identity.version, keyless);
  try {
    log.info('slot created', { slot: source.slot, at: formatLsn(exported.lsn), epoch });
    const tables = await trackedTables(client, source);
    const ends = await originEnds(parts, tables);
    const origin = originProgress(
      { sourceId: source.id, identity },
      epoch,
      exported.lsn,
      Object.fromEntries([...ends].map(([topic, offsets]) => [topic, [...offsets]])),
      writer,
      Date.now(),
      originLsn(exported.lsn),
    );
    const progress = await publishKeyless(
      {
        source,
        kafka,
        producer,
        requests,
        topicOf: (table) => topics.table(parseTableName(table)!),
        prepare: async (relation) => (await preparer.prepareScan(new Set(ends.keys()), relation)).encoder,
        log,
        signal,
      },
      origin,
      { client: exported.client, lsn: exported.lsn, epoch },
      keyless,
    );
    await failpoint('before-origin');
    await writeProgress(parts, [origin, progress]);
    await ledger.beginStreaming();
    return progress;
  } finally {
    await exported.close();
  }
}

/** Also of what an earlier epoch left in topics for one destination: nobody is to read that any more. */
async function originEnds(
  parts: StartParts,
  tables: readonly CatalogueTable[],
): Promise<Map<string, bigint[]>> {
  return topicEnds(parts.admin, await ourTopics(parts, tables));
}

/** The tables' topics, and those of them for one destination. */
async function ourTopics(
  { admin, topics }: StartParts,
  tables: readonly CatalogueTable[],
): Promise<string[]> {
  const names = new Set(tables.map((table) => topics.table(table)));
  const all = await admin.listTopics();
  const side = all.filter((topic) => names.has(splitTopic(topic, names).table) && !names.has(topic));
  return [...names, ...side];
}

/** In one Kafka transaction, with what was sent before. */
async function writeProgress(
  { producer, progressSchemaId, topics }: StartParts,
  records: readonly Progress[],
): Promise<void> {
  await producer.send(records.map((record) => progressRecord(topics.progress, record, progressSchemaId)));
  await producer.commit();
}

export async function topicEnds(admin: Admin, topics: readonly string[]): Promise<Map<string, bigint[]>> {
  const ends = new Map<string, bigint[]>();
  for (const topic of topics) {
    const offsets: bigint[] = [];
    try {
      for (const { partition, high } of await admin.fetchTopicOffsets(topic))
        offsets[partition] = BigInt(high);
    } catch (error) {
      if ((error as { type?: string }).type !== 'UNKNOWN_TOPIC_OR_PARTITION')
        throw kafkaError(error, `read the ends of ${topic}`);
    }
    ends.set(topic, offsets);
  }
  return ends;
}
