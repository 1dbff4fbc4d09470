/**
 * One life of the reader: from an open slot to Kafka. Start-up order is what makes it safe (docs/architecture.md,
 * replicate): check the source, fence the old reader, read Progress to its end, then START_REPLICATION.
 */

import { randomUUID } from 'node:crypto';
import type { Admin } from 'kafkajs';
import { beforeEverything, formatLsn, parsePosition } from '../connector/position.ts';
import { tableName } from '../connector/shape.ts';
import { createKafka, kafkaError } from '../platform/kafka.ts';
import type { Logger } from '../platform/log.ts';
import { clientConfig } from '../platform/postgres-endpoint.ts';
import type { RegistryClient } from '../platform/registry.ts';
import type { ResolvedConfig } from '../platform/resolved-config.ts';
import { parseTableName } from '../platform/table-name.ts';
import { type CatalogueTable, ruleFor, trackedTables } from '../replicate/catalogue.ts';
import { ensurePublications } from '../replicate/publication.ts';
import { publishedTables } from '../replicate/publication-gap.ts';
import { ReplicationStream } from '../replicate/replication-stream.ts';
import {
  connectSource,
  cutConnection,
  endConnection,
  identifySource,
  readSlot,
  requireReadable,
  type SlotState,
} from '../replicate/source.ts';
import { KafkajsProducer } from './kafkajs-producer.ts';
import { lateColumns } from './late-columns.ts';
import { MissedRows } from './missed-rows.ts';
import { readParked } from './parked-log.ts';
import { PartitionWatch } from './partition-watch.ts';
import { type Progress, progressRecord, progressSchema } from './progress.ts';
import { readLastProgress } from './progress-log.ts';
import { planWhole } from './publication-memory.ts';
import { PublicationWatch } from './publication-watch.ts';
import { type PreparedTable, Publisher, type PublisherStats } from './publisher.ts';
import { RecordBatchProducer } from './record-batch-producer.ts';
import { topicNames } from './record-format.ts';
import { SeenProducer } from './seen-producer.ts';
import { snapshotMode } from './snapshot/initial-snapshots.ts';
import type { SnapshotRequests } from './snapshot/snapshot-requests.ts';
import { SnapshotRunner } from './snapshot/snapshot-runner.ts';
import { TableSnapshots } from './snapshot/table-snapshots.ts';
import { WholeTables } from './snapshot/whole-tables.ts';
import type { SourceLedger } from './source-ledger.ts';
import { startPoint, topicEnds } from './start-point.ts';
import { TablePreparer } from './table-preparer.ts';
import { TableVersions } from './table-versions.ts';
import { ensureEvictionsTopic, ensureSideTopic, ensureTopics } from './topics.ts';
import { TransactionSettler } from './transaction-settler.ts';
import type { TransactionalProducer } from './transactional-producer.ts';
import { textColumns } from './value-form.ts';

export interface ReaderOptions {
  config: ResolvedConfig;
  log: Logger;
  /** Called after every committed batch and heartbeat. */
  onProgress?(progress: Progress, stats: PublisherStats): void;
  /** Called on every heartbeat with the slot as the source has it. */
  onSlot?(slot: SlotState): void;
}

/** A question about the catalogue that is under way when the reader ends has this long to be answered. */
const catalogueMs = 5000;

/** Tidemark's version, as it stands in Debezium's source block. */
const version = '0.1.0';

export interface ReaderParts {
  registry: RegistryClient;
  ledger: SourceLedger;
  requests: SnapshotRequests;
  signal: AbortSignal;
  /** What one life learns for the next. */
  stream: { textValues: boolean; unread: number };
}

/** Returns when asked to stop, throws when something failed. */
export async function readUntilFailure(
  options: ReaderOptions,
  { registry, ledger, requests, signal, stream: form }: ReaderParts,
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
  const producer = new SeenProducer(
    kafkaConfig.producer === 'kafkajs'
      ? new KafkajsProducer(kafka, kafkaConfig, transactionalId)
      : new RecordBatchProducer(kafka, kafkaConfig, transactionalId, topics.progress),
    kafka,
  );
  const settler = new TransactionSettler(kafka, kafkaConfig, transactionalId, log);
  let stream: ReplicationStream | null = null;
  let publisher: Publisher | null = null;
  let publications: PublicationWatch | null = null;
  let runner: SnapshotRunner | null = null;
  let whole: WholeTables | null = null;
  const versions = new TableVersions({
    registry,
    compatibility: config.registry.compatibility ?? 'BACKWARD',
    onIncompatibleChange: (table) => ruleFor(source.tables, table)?.onIncompatibleChange ?? 'park',
    log,
  });
  const encoderIdentity = { serverName: kafkaConfig.topicPrefix, database: identity.database, version };
  const preparer = new TablePreparer(
    { config, client, admin, versions, identity: encoderIdentity, log },
    form,
  );
  let heartbeat: NodeJS.Timeout | undefined;
  let looking: NodeJS.Timeout | undefined;
  try {
    const known = (await ledger.read())?.state === 'streaming';
    const found = await readSlot(client, source.slot);
    requireReadable(identity, found, known);
    // Without the slot there is more missing than that.
    const streamed = known && found !== null;
    const memory = { client, ledger, version: identity.version };
    const tracked = () => trackedTables(client, source);
    const { tables, plans, published } = await planWhole(memory, source, tracked, streamed);
    const snapshots = new TableSnapshots(source.id);
    const missed = new MissedRows(requests, () => epoch, log);
    const partitions = new PartitionWatch({
      source,
      ledger,
      log,
      attached: snapshots.partitions,
      topicOf: (table) => topics.table(table),
      readRows: async (table, condition) =>
        (await requests.request(epoch, tableName(table), { condition, destination: null })) !== null,
      missed,
    });
    await partitions.begin(client, tables, !streamed);
    for (const what of await ensurePublications(client, plans, identity.version)) {
      log.info(`publications brought in line: ${what}`);
    }
    if (source.values === 'auto' && !form.textValues) {
      const columns = await textColumns(client, source, tables);
      if (columns.length > 0) {
        log.warn('values are read as text: the binary form of some types is not known', { columns });
        form.textValues = true;
      }
    }
    await connectAdmin(admin);
    const created = await ensureTopics(admin, kafkaConfig, tables);
    if (created.length > 0) log.info('topics created', { topics: created });
    // To its library, a registry that does not answer has refused (status 400, TM305): ask first.
    await registry.ping();
    const progressSchemaId = await registry.register(`${topics.progress}-value`, progressSchema);

    do await producer.fence();
    while (await settler.settleProgress(topics.progress));
    await writeFence(producer, topics.progress, progressSchemaId, source.id, writer);
    const last = await readLastProgress(kafka, topics.progress, writer);
    const resume = await startPoint(
      {
        config,
        identity,
        client,
        admin,
        producer,
        progressSchemaId,
        ledger,
        requests,
        preparer,
        topics,
        settler,
        writer,
        log,
        signal,
      },
      last,
    );
    await settler.close();
    const { epoch } = parsePosition(resume.position);

    const knownTopics = new Set(Object.keys(resume.endOffsets));
    const sourceControl = {
      pause: () => stream?.pause(),
      resume: () => stream?.resume(),
      confirm: (lsn: bigint) => stream?.confirm(lsn),
    };
    const reading = {
      source,
      requests,
      snapshots,
      topicOf: (table: string) => topics.table(parseTableName(table)!),
      log,
    };
    const encoderOf = (prepared: PreparedTable) => {
      receiver.learnEnds(prepared);
      return prepared.encoder;
    };
    whole = new WholeTables({
      ...reading,
      prepare: async (relation) => encoderOf(await preparer.prepareScan(knownTopics, relation)),
      kafka: kafkaConfig,
      publisher: () => receiver,
      ping: () => stream?.ping(),
    });
    const snapshotRunner = new SnapshotRunner(
      {
        ...reading,
        whole,
        position: () => publisher?.position ?? resume.position,
        prepare: async (relation, destination, current) => {
          const prepared = await preparer.prepareScanWhile(current, knownTopics, relation);
          if (!prepared) return null;
          const encoder = encoderOf(prepared);
          if (destination === null) return { encoder, into: encoder.topic };
          const into = await preparer.alone(() => ensureSideTopic(admin, kafkaConfig, relation, destination));
          if (!knownTopics.has(into)) receiver.learnTopic(into, (await topicEnds(admin, [into])).get(into)!);
          return { encoder, into };
        },
      },
      resume.snapshots,
    );
    runner = snapshotRunner;
    const initialOnes = (some: readonly CatalogueTable[]) =>
      some.filter((table) => snapshotMode(source, table) === 'initial');
    if (published) {
      const anew = tables.filter(({ oid }) => !published[oid]);
      await requests.requestAnew(epoch, initialOnes(anew).map(tableName));
      await missed.columns(await lateColumns(client, published, plans));
    }
    // Before anything is streamed: a table's changes are watched as long as its snapshot is open.
    await runner.load(epoch, tables);
    publisher = new Publisher({
      kafka: kafkaConfig,
      topics,
      producer,
      progressSchemaId,
      resume,
      writer,
      unmatchedDeletes: config.retain?.unmatchedDeletes,
      source: sourceControl,
      prepareParking: (relation) => preparer.prepareParking(relation),
      prepareTable: (relation, notes) => preparer.prepare(knownTopics, relation, notes),
      prepareEvictions: async (table) => {
        const topic = await preparer.alone(() => ensureEvictionsTopic(admin, kafkaConfig, table));
        const known = knownTopics.has(topic);
        return { topic, endOffsets: known ? null : (await topicEnds(admin, [topic])).get(topic)! };
      },
      prepareErasures: (table) => preparer.prepareRegistered(knownTopics, table),
      readParked: (table, from, endMark) =>
        readParked({
          kafka,
          topic: topics.parked,
          table,
          from,
          endMark,
        }),
      snapshots,
      log,
      nowMs: Date.now,
      onProgress: (progress, stats) => {
        snapshotRunner.progressed(progress);
        options.onProgress?.(progress, stats);
      },
    });
    const receiver = publisher;
    stream = new ReplicationStream({
      connection: clientConfig(source.endpoint, { applicationName: `tidemark/${source.id}` }),
      slot: source.slot,
      publications: plans.map((plan) => plan.name),
      startLsn: resume.ackLsn,
      binary: !form.textValues,
      statusIntervalMs: source.statusIntervalMs,
      onMessage: (bytes) => receiver.receive(bytes),
      onKeepalive: (lsn, timeUs) => receiver.keepalive(lsn, timeUs),
    });
    await stream.open();
    log.info('reading the slot', {
      slot: source.slot,
      from: formatLsn(resume.ackLsn),
      position: resume.position,
      values: form.textValues ? 'text' : 'binary',
    });
    await ledger.rememberPublished(publishedTables(plans));
    await partitions.remember();
    await ledger.report(null);
    runner.start();
    const opened = stream;
    heartbeat = setInterval(() => {
      receiver.heartbeat();
      opened.ping();
    }, source.heartbeatIntervalMs);
    const watch = new PublicationWatch({
      config,
      admin,
      ledger,
      version: identity.version,
      log,
      partitions,
      tables,
      missed,
      announce(joining) {
        snapshots.announce(initialOnes(joining).map((table) => topics.table(table)));
      },
      async readBefore(joined) {
        const read = initialOnes(joined);
        const names = read.map(tableName);
        await requests.requestInitial(epoch, names);
        await requests.requestAnew(epoch, names);
        await snapshotRunner.look();
        snapshots.joined(read.map((table) => topics.table(table)));
        return names;
      },
    });
    publications = watch;
    looking = setInterval(() => watch.look(), source.publicationIntervalMs ?? 10_000);
    await Promise.race([stream.ended, publisher.failed, watch.failed, aborted(signal)]);
  } finally {
    clearInterval(heartbeat);
    clearInterval(looking);
    // What waits for an answer to a question about the catalogue would wait for ever on a silent wire.
    const silent = setTimeout(() => cutConnection(client), catalogueMs);
    await runner?.stop();
    await whole?.stop();
    // First stop reading, then let what is in flight end: the slot is confirmed no further than Kafka committed.
    await publisher?.close();
    await stream?.close();
    // Not earlier: it may wait for a lock at the source, and a successor waits for the slot.
    await publications?.close();
    await producer.close();
    await settler.close();
    await admin.disconnect().catch(() => {});
    clearTimeout(silent);
    await endConnection(client);
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
    snapshots: {},
  };
  await producer.send([progressRecord(topic, fence, schemaId)]);
  await producer.commit();
}

function aborted(signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    if (signal.aborted) resolve();
    else signal.addEventListener('abort', () => resolve(), { once: true });
  });
}
