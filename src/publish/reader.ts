/**
 * The reader: from an open slot to Kafka. Start-up order is what makes it safe (docs/architecture.md, replicate):
 * check the source, fence the old reader, read Progress to its end, then START_REPLICATION. Whatever fails later, in
 * a way that may pass, ends in the same start-up again.
 */
import { randomUUID } from 'node:crypto';
import { setTimeout as sleep } from 'node:timers/promises';
import type { Admin } from 'kafkajs';
import type pg from 'pg';
import { beforeEverything, formatLsn } from '../connector/position.ts';
import { migrateControl, openControl } from '../platform/control.ts';
import { asTidemarkError, type TidemarkError } from '../platform/errors.ts';
import { createKafka, kafkaError } from '../platform/kafka.ts';
import { errorFields, type Logger } from '../platform/log.ts';
import { clientConfig } from '../platform/postgres-endpoint.ts';
import { RegistryClient } from '../platform/registry.ts';
import type { ResolvedConfig } from '../platform/resolved-config.ts';
import { ruleFor, trackedTables } from '../replicate/catalogue.ts';
import { ensurePublications, planPublications } from '../replicate/publication.ts';
import { ReplicationStream } from '../replicate/replication-stream.ts';
import {
  connectSource,
  createSlot,
  identifySource,
  readSlot,
  type SourceIdentity,
} from '../replicate/source.ts';
import { KafkajsProducer } from './kafkajs-producer.ts';
import { readParked } from './parked-log.ts';
import { encodeProgress, type Progress, progressSchema } from './progress.ts';
import { readLastProgress } from './progress-log.ts';
import { PublicationWatch } from './publication-watch.ts';
import { Publisher, type PublisherStats } from './publisher.ts';
import { RecordBatchProducer } from './record-batch-producer.ts';
import { topicNames } from './record-format.ts';
import { compareEnds, decideResume, originProgress } from './resume-point.ts';
import { SourceLedger } from './source-ledger.ts';
import { prepareTable } from './table-preparation.ts';
import { TableVersions } from './table-versions.ts';
import { ensureTopics } from './topics.ts';
import type { TransactionalProducer } from './transactional-producer.ts';

export interface ReaderOptions {
  config: ResolvedConfig;
  log: Logger;
  /** Called after every committed batch and heartbeat. */
  onProgress?(progress: Progress, stats: PublisherStats): void;
}

export interface Reader {
  /** Settles when the reader has ended: resolves after stop(), rejects with what needs an operator. */
  finished: Promise<void>;
  stop(): Promise<void>;
}

/** Tidemark's version, as it stands in Debezium's source block. */
const version = '0.1.0';

/** The old reader, once fenced, gives the slot back within this time; a new one takes it within this time. */
const takeoverMs = 4000;

export function startReader(options: ReaderOptions): Reader {
  const stopping = new AbortController();
  const finished = superviseReader(options, stopping.signal);
  finished.catch(() => {});
  return {
    finished,
    async stop() {
      stopping.abort();
      await finished.catch(() => {});
    },
  };
}

async function superviseReader(options: ReaderOptions, signal: AbortSignal): Promise<void> {
  const { config, log } = options;
  const pool = openControl(config.control, log, 2);
  const registry = new RegistryClient(config.registry, log);
  const ledger = new SourceLedger(pool, config.source.id);
  let migrated = false;
  let delayMs = 250;
  try {
    while (!signal.aborted) {
      const startedAt = Date.now();
      try {
        if (!migrated) await migrateControl(pool);
        migrated = true;
        await readUntilFailure(options, { registry, ledger, signal });
      } catch (caught) {
        const error = asTidemarkError(caught);
        if (signal.aborted) return;
        await ledger.report(error).catch(() => {});
        if (error.code === 'TM302') await otherReaderOrGoOn(config, signal, error);
        else if (error.retry !== 'transient') throw error;
        if (Date.now() - startedAt > 10000) delayMs = 250;
        log.warn('the reader starts over from Progress', { ...errorFields(error), delayMs });
        await sleep(delayMs, undefined, { signal }).catch(() => {});
        delayMs = Math.min(delayMs * 2, 5000);
      }
    }
  } finally {
    registry.close();
    await pool.end().catch(() => {});
  }
}

/** Fenced by another reader, or by the coordinator after a timeout: if somebody else has the slot, stop. */
async function otherReaderOrGoOn(
  config: ResolvedConfig,
  signal: AbortSignal,
  fenced: TidemarkError,
): Promise<void> {
  await sleep(takeoverMs, undefined, { signal }).catch(() => {});
  const client = await connectSource(config.source, 'tidemark/takeover').catch(() => null);
  if (!client) return;
  try {
    const slot = await readSlot(client, config.source.slot);
    if (slot?.active) throw fenced;
  } finally {
    await client.end().catch(() => {});
  }
}

interface ReaderParts {
  registry: RegistryClient;
  ledger: SourceLedger;
  signal: AbortSignal;
}

/** One life of the reader; returns when asked to stop, throws when something failed. */
async function readUntilFailure(
  options: ReaderOptions,
  { registry, ledger, signal }: ReaderParts,
): Promise<void> {
  const { config, log } = options;
  const { source, kafka: kafkaConfig } = config;
  const topics = topicNames(kafkaConfig.topicPrefix);
  const writer = randomUUID();

  const identity = await identifySource(source);
  const client = await connectSource(source, 'tidemark/catalogue');
  const kafka = createKafka(kafkaConfig, log);
  const admin = kafka.admin();
  const transactionalId = `tidemark.${source.id}`;
  const producer: TransactionalProducer =
    kafkaConfig.producer === 'kafkajs'
      ? new KafkajsProducer(kafka, kafkaConfig, transactionalId)
      : new RecordBatchProducer(kafkaConfig, transactionalId);
  let stream: ReplicationStream | null = null;
  let publisher: Publisher | null = null;
  let publications: PublicationWatch | null = null;
  let heartbeat: NodeJS.Timeout | undefined;
  let looking: NodeJS.Timeout | undefined;
  try {
    const tables = await trackedTables(client, source);
    for (const what of await ensurePublications(
      client,
      planPublications(source, tables, identity.version),
      identity.version,
    )) {
      log.info(`publications brought in line: ${what}`);
    }
    await connectAdmin(admin);
    const created = await ensureTopics(admin, kafkaConfig, tables);
    if (created.length > 0) log.info('topics created', { topics: created });
    // To its library, a registry that does not answer has refused (status 400, TM305): ask first.
    await registry.ping();
    const progressSchemaId = await registry.register(`${topics.progress}-value`, progressSchema);

    await producer.fence();
    await writeFence(producer, topics.progress, progressSchemaId, source.id, writer);
    const last = await readLastProgress(kafka, topics.progress, `tidemark.${source.id}.progress`, writer);
    const resume = await resumeFrom(last);
    log.info('reading the slot', {
      slot: source.slot,
      from: formatLsn(resume.ackLsn),
      position: resume.position,
    });

    const knownTopics = new Set(Object.keys(resume.endOffsets));
    const encoderIdentity = { serverName: kafkaConfig.topicPrefix, database: identity.database, version };
    const versions = new TableVersions({
      registry,
      compatibility: config.registry.compatibility ?? 'BACKWARD',
      onIncompatibleChange: (table) => ruleFor(source.tables, table)?.onIncompatibleChange ?? 'park',
      log,
    });
    const sourceControl = {
      pause: () => stream?.pause(),
      resume: () => stream?.resume(),
      confirm: (lsn: bigint) => stream?.confirm(lsn),
    };
    publisher = new Publisher({
      kafka: kafkaConfig,
      topics,
      producer,
      progressSchemaId,
      resume,
      writer,
      source: sourceControl,
      prepareTable: (relation, notes) =>
        prepareTable(
          { config, client, admin, versions, identity: encoderIdentity, knownTopics, log },
          relation,
          notes,
        ),
      readParked: (table, from, endMark) =>
        readParked({
          kafka,
          topic: topics.parked,
          groupPrefix: `tidemark.${source.id}`,
          table,
          from,
          endMark,
        }),
      log,
      nowMs: Date.now,
      ...(options.onProgress ? { onProgress: options.onProgress } : {}),
    });
    const receiver = publisher;
    stream = new ReplicationStream({
      connection: clientConfig(source.endpoint, { applicationName: `tidemark/${source.id}` }),
      slot: source.slot,
      publications: planPublications(source, tables, identity.version).map((plan) => plan.name),
      startLsn: resume.ackLsn,
      statusIntervalMs: source.statusIntervalMs,
      onMessage: (bytes) => receiver.receive(bytes),
      onKeepalive: (lsn, timeUs) => receiver.keepalive(lsn, timeUs),
    });
    await stream.open();
    await ledger.report(null);
    const opened = stream;
    heartbeat = setInterval(() => {
      receiver.heartbeat();
      opened.ping();
    }, source.heartbeatIntervalMs);
    const watch = new PublicationWatch({ config, admin, version: identity.version, log, tables });
    publications = watch;
    looking = setInterval(() => watch.look(), source.publicationIntervalMs ?? 10_000);
    await Promise.race([stream.ended, publisher.failed, watch.failed, aborted(signal)]);
  } finally {
    clearInterval(heartbeat);
    clearInterval(looking);
    // First stop reading, then let what is in flight end: the slot is confirmed no further than Kafka committed.
    await publisher?.close();
    await stream?.close();
    // Not earlier: it may wait for a lock at the source, and a successor waits for the slot.
    await publications?.close();
    await producer.close();
    await admin.disconnect().catch(() => {});
    await client.end().catch(() => {});
  }

  async function resumeFrom(last: Progress | null): Promise<Progress> {
    const row = await ledger.read();
    const slot = await readSlot(client, source.slot);
    const point = decideResume({ sourceId: source.id, identity, slot, row, progress: last });
    if (point.kind === 'resume') {
      compareEnds(point.progress, await topicEnds(admin, Object.keys(point.progress.endOffsets)));
      return point.progress;
    }
    return startEpoch(client, { admin, producer, ledger, config, identity, writer, topics, ...point });
  }

  async function startEpoch(
    sourceClient: pg.Client,
    start: {
      admin: Admin;
      producer: TransactionalProducer;
      ledger: SourceLedger;
      config: ResolvedConfig;
      identity: SourceIdentity;
      writer: string;
      topics: { progress: string };
      epoch: number;
      slot: { confirmedLsn: bigint } | null;
    },
  ): Promise<Progress> {
    await start.ledger.beginEpoch(start.epoch, source.slot, start.identity);
    const lsn = start.slot?.confirmedLsn ?? (await createSlot(sourceClient, source.slot));
    log.info(start.slot ? 'an epoch starts at the existing slot' : 'slot created', {
      slot: source.slot,
      at: formatLsn(lsn),
      epoch: start.epoch,
    });
    const names = (await trackedTables(sourceClient, source)).map((table) =>
      topicNames(kafkaConfig.topicPrefix).table(table),
    );
    const ends = await topicEnds(start.admin, names);
    const facts = { sourceId: source.id, identity: start.identity };
    const endOffsets = Object.fromEntries([...ends].map(([topic, offsets]) => [topic, [...offsets]]));
    const origin = originProgress(facts, start.epoch, lsn, endOffsets, start.writer, Date.now());
    const progressSchemaId = await registry.register(`${start.topics.progress}-value`, progressSchema);
    await start.producer.send([
      {
        topic: start.topics.progress,
        messages: [{ partition: 0, key: source.id, value: encodeProgress(origin, progressSchemaId) }],
      },
    ]);
    await start.producer.commit();
    await start.ledger.beginStreaming();
    return origin;
  }
}

async function connectAdmin(admin: Admin): Promise<void> {
  try {
    await admin.connect();
  } catch (error) {
    throw kafkaError(error, 'connect to Kafka');
  }
}

/** The record that marks the end of what any earlier reader wrote. */
async function writeFence(
  producer: TransactionalProducer,
  topic: string,
  schemaId: number,
  sourceId: string,
  writer: string,
): Promise<void> {
  const fence: Progress = {
    kind: 'fence',
    sourceId,
    position: beforeEverything,
    boundary: false,
    ackLsn: 0n,
    commitTimeUs: 0n,
    writtenAtUs: BigInt(Date.now()) * 1000n,
    systemIdentifier: '',
    timeline: 0,
    writer,
    endOffsets: {},
    parked: {},
  };
  await producer.send([
    { topic, messages: [{ partition: 0, key: sourceId, value: encodeProgress(fence, schemaId) }] },
  ]);
  await producer.commit();
}

async function topicEnds(admin: Admin, topics: readonly string[]): Promise<Map<string, bigint[]>> {
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

function aborted(signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    if (signal.aborted) resolve();
    else signal.addEventListener('abort', () => resolve(), { once: true });
  });
}
