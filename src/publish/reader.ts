/**
 * The reader: from an open slot to Kafka. Start-up order is what makes it safe (docs/architecture.md, replicate):
 * check the source, fence the old reader, read Progress to its end, then START_REPLICATION. Whatever fails later, in
 * a way that may pass, ends in the same start-up again.
 */
import { randomUUID } from 'node:crypto';
import { setTimeout as sleep } from 'node:timers/promises';
import type { Admin } from 'kafkajs';
import type pg from 'pg';
import { beforeEverything, formatLsn, parsePosition } from '../connector/position.ts';
import { type TableId, tableName } from '../connector/shape.ts';
import { migrateControl, openControl } from '../platform/control.ts';
import { asTidemarkError, type TidemarkError } from '../platform/errors.ts';
import { failpoint } from '../platform/failpoint.ts';
import { createKafka, kafkaError } from '../platform/kafka.ts';
import { errorFields, type Logger } from '../platform/log.ts';
import { clientConfig } from '../platform/postgres-endpoint.ts';
import { RegistryClient } from '../platform/registry.ts';
import type { ResolvedConfig } from '../platform/resolved-config.ts';
import { type CatalogueTable, ruleFor, trackedTables } from '../replicate/catalogue.ts';
import type { Relation } from '../replicate/pgoutput.ts';
import { ensurePublications, planPublications } from '../replicate/publication.ts';
import { publishedTables } from '../replicate/publication-gap.ts';
import { ReplicationStream } from '../replicate/replication-stream.ts';
import { createSlotWithSnapshot } from '../replicate/snapshot/exported-snapshot.ts';
import {
  askSource,
  connectSource,
  createSlot,
  cutConnection,
  endConnection,
  flushedLsn,
  identifySource,
  readSlot,
  requireReadable,
  type SlotState,
  type SourceIdentity,
} from '../replicate/source.ts';
import { KafkajsProducer } from './kafkajs-producer.ts';
import { readParked } from './parked-log.ts';
import { PartitionWatch } from './partition-watch.ts';
import { encodeProgress, type Progress, progressSchema } from './progress.ts';
import { readLastProgress } from './progress-log.ts';
import { requireWhole } from './publication-memory.ts';
import { PublicationWatch } from './publication-watch.ts';
import { type PreparedTable, Publisher, type PublisherStats } from './publisher.ts';
import { RecordBatchProducer } from './record-batch-producer.ts';
import { topicNames } from './record-format.ts';
import { compareEnds, decideResume, originProgress } from './resume-point.ts';
import { originLsn, publishKeyless } from './snapshot/keyless-origin.ts';
import { SnapshotRequests } from './snapshot/snapshot-requests.ts';
import { hasKey, SnapshotRunner, snapshotMode } from './snapshot/snapshot-runner.ts';
import { TableSnapshots } from './snapshot/table-snapshots.ts';
import { SourceLedger } from './source-ledger.ts';
import { prepareParking, prepareTable, type StreamNotes } from './table-preparation.ts';
import { TableVersions } from './table-versions.ts';
import { ensureTopics } from './topics.ts';
import type { TransactionalProducer } from './transactional-producer.ts';
import { textColumns } from './value-form.ts';
import { dropSlot, type WalBudget, watchWalBudget } from './wal-budget.ts';

export interface ReaderOptions {
  config: ResolvedConfig;
  log: Logger;
  /** Called after every committed batch and heartbeat. */
  onProgress?(progress: Progress, stats: PublisherStats): void;
  /** Called on every heartbeat with the slot as the source has it. */
  onSlot?(slot: SlotState): void;
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

/** A question about the catalogue that is under way when the reader ends has this long to be answered. */
const catalogueMs = 5000;

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

async function superviseReader(options: ReaderOptions, stopped: AbortSignal): Promise<void> {
  const { config, log } = options;
  const ending = new AbortController();
  const budget = watchWalBudget({
    source: config.source,
    log,
    signal: AbortSignal.any([stopped, ending.signal]),
    ...(options.onSlot ? { onSlot: options.onSlot } : {}),
  });
  const signal = AbortSignal.any([stopped, budget.spent]);
  const pool = openControl(config.control, log, 2);
  const registry = new RegistryClient(config.registry, log);
  const ledger = new SourceLedger(pool, config.source.id);
  const stream = { textValues: config.source.values === 'text', unread: 0 };
  let migrated = false;
  let delayMs = 250;
  try {
    for (;;) {
      if (budget.spent.aborted && !stopped.aborted) throw await giveUpSlot(budget, options, ledger, stopped);
      if (signal.aborted) return;
      const startedAt = Date.now();
      try {
        if (!migrated) await migrateControl(pool);
        migrated = true;
        const requests = new SnapshotRequests(pool, config.source.id);
        await readUntilFailure(options, { registry, ledger, requests, signal, stream });
      } catch (caught) {
        const error = asTidemarkError(caught);
        if (signal.aborted) continue;
        await ledger.report(error).catch(() => {});
        if (error.code === 'TM210') chooseValues(stream, config.source.values, error);
        if (error.code === 'TM302') await otherReaderOrGoOn(config, signal, error);
        else if (error.retry !== 'transient') throw error;
        if (Date.now() - startedAt > 10000) delayMs = 250;
        log.warn('the reader starts over from Progress', { ...errorFields(error), delayMs });
        await sleep(delayMs, undefined, { signal }).catch(() => {});
        delayMs = Math.min(delayMs * 2, 5000);
      }
    }
  } finally {
    ending.abort();
    await budget.watching;
    registry.close();
    await pool.end().catch(() => {});
  }
}

/**
 * After a value whose type the reader could not read. A new life knows the types as they are now, and may need no text;
 * Positions do not depend on the form of values, so what was read is not read again.
 */
function chooseValues(
  stream: ReaderParts['stream'],
  wanted: ResolvedConfig['source']['values'],
  error: TidemarkError,
): void {
  stream.unread++;
  if (stream.unread === 1) return;
  if (wanted === 'binary') throw error;
  stream.textValues = true;
}

/** The source's disk before the stream. @returns the error to stop with */
async function giveUpSlot(
  { spent }: WalBudget,
  { config, log }: ReaderOptions,
  ledger: SourceLedger,
  stopped: AbortSignal,
): Promise<TidemarkError> {
  const error = asTidemarkError(spent.reason);
  while (!stopped.aborted) {
    try {
      await dropSlot(config.source);
      break;
    } catch (failure) {
      log.warn('the slot cannot be dropped yet', errorFields(asTidemarkError(failure)));
      await sleep(1000, undefined, { signal: stopped }).catch(() => {});
    }
  }
  await ledger.report(error).catch(() => {});
  return error;
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
  requests: SnapshotRequests;
  signal: AbortSignal;
  /** What one life learns for the next. */
  stream: { textValues: boolean; unread: number };
}

/** One life of the reader; returns when asked to stop, throws when something failed. */
async function readUntilFailure(
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
  const producer: TransactionalProducer =
    kafkaConfig.producer === 'kafkajs'
      ? new KafkajsProducer(kafka, kafkaConfig, transactionalId)
      : new RecordBatchProducer(kafkaConfig, transactionalId);
  let stream: ReplicationStream | null = null;
  let publisher: Publisher | null = null;
  let publications: PublicationWatch | null = null;
  let runner: SnapshotRunner | null = null;
  let preparing: Promise<unknown> = Promise.resolve();
  const versions = new TableVersions({
    registry,
    compatibility: config.registry.compatibility ?? 'BACKWARD',
    onIncompatibleChange: (table) => ruleFor(source.tables, table)?.onIncompatibleChange ?? 'park',
    log,
  });
  let heartbeat: NodeJS.Timeout | undefined;
  let looking: NodeJS.Timeout | undefined;
  try {
    const known = (await ledger.read())?.state === 'streaming';
    const found = await readSlot(client, source.slot);
    requireReadable(identity, found, known);
    const tables = await trackedTables(client, source);
    const plans = planPublications(source, tables, identity.version);
    // Without the slot there is more missing than that.
    const streamed = known && found !== null;
    if (streamed) await requireWhole({ client, ledger, version: identity.version }, plans);
    const snapshots = new TableSnapshots(source.id);
    const partitions = new PartitionWatch({
      source,
      ledger,
      log,
      attached: snapshots.partitions,
      topicOf: (table) => topics.table(table),
      readRows: async (table, condition) =>
        (await requests.request(epoch, tableName(table), condition)) !== null,
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

    await producer.fence();
    await writeFence(producer, topics.progress, progressSchemaId, source.id, writer);
    const last = await readLastProgress(kafka, topics.progress, `tidemark.${source.id}.progress`, writer);
    const resume = await resumeFrom(last);
    const { epoch } = parsePosition(resume.position);
    log.info('reading the slot', {
      slot: source.slot,
      from: formatLsn(resume.ackLsn),
      position: resume.position,
      values: form.textValues ? 'text' : 'binary',
    });

    const knownTopics = new Set(Object.keys(resume.endOffsets));
    const sourceControl = {
      pause: () => stream?.pause(),
      resume: () => stream?.resume(),
      confirm: (lsn: bigint) => stream?.confirm(lsn),
    };
    const snapshotRunner = new SnapshotRunner(
      {
        source,
        requests,
        snapshots,
        topicOf: (table) => topics.table(tableIdOf(table)),
        prepare: async (relation) => {
          const prepared = await prepareScan(knownTopics, relation);
          receiver.learnEnds(prepared);
          return prepared.encoder;
        },
        log,
      },
      resume.snapshots,
    );
    runner = snapshotRunner;
    // Before anything is streamed: a table's changes are watched as long as its snapshot is open.
    await runner.load(client, epoch, tables);
    publisher = new Publisher({
      kafka: kafkaConfig,
      topics,
      producer,
      progressSchemaId,
      resume,
      writer,
      source: sourceControl,
      prepareParking: (relation) => alone(() => prepareParking({ config, client }, relation)),
      prepareTable: (relation, notes) => prepareFor(knownTopics, relation, notes),
      readParked: (table, from, endMark) =>
        readParked({
          kafka,
          topic: topics.parked,
          groupPrefix: `tidemark.${source.id}`,
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
      async readBefore(joined) {
        const names = joined
          .filter((table) => hasKey(table) && snapshotMode(source, table) === 'initial')
          .map(tableName);
        await requests.requestInitial(epoch, names);
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
    // First stop reading, then let what is in flight end: the slot is confirmed no further than Kafka committed.
    await publisher?.close();
    await stream?.close();
    // Not earlier: it may wait for a lock at the source, and a successor waits for the slot.
    await publications?.close();
    await producer.close();
    await admin.disconnect().catch(() => {});
    clearTimeout(silent);
    await endConnection(client);
  }

  async function resumeFrom(last: Progress | null): Promise<Progress> {
    const row = await ledger.read();
    const slot = await readSlot(client, source.slot);
    const walLsn = await flushedLsn(client);
    const point = decideResume({ sourceId: source.id, identity, slot, row, progress: last, walLsn });
    if (point.kind !== 'origin') {
      const { progress } = point;
      compareEnds(progress, await topicEnds(admin, Object.keys(progress.endOffsets)));
      if (point.kind === 'failover') await openEpoch(progress);
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
    return startEpoch(client, {
      admin,
      producer,
      ledger,
      config,
      identity,
      writer,
      topics,
      madeSlot,
      ...point,
    });
  }

  /** The next epoch's first Progress says what the old epoch's last one did. */
  async function openEpoch(progress: Progress): Promise<void> {
    const { epoch } = parsePosition(progress.position);
    // What was read of the tables before goes on being right.
    await requests.carryOver(epoch);
    log.warn('a standby took over; an epoch starts where the old timeline ended', {
      timeline: identity.timeline,
      position: progress.position,
    });
    const written = { ...progress, writer, writtenAtUs: BigInt(Date.now()) * 1000n };
    const value = encodeProgress(
      written,
      await registry.register(`${topics.progress}-value`, progressSchema),
    );
    await producer.send([{ topic: topics.progress, messages: [{ partition: 0, key: source.id, value }] }]);
    await producer.commit();
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
      madeSlot: boolean;
    },
  ): Promise<Progress> {
    await start.ledger.beginEpoch(start.epoch, source.slot, start.identity, start.madeSlot);
    // Of a standby nothing is read beside the stream (TM222), not even what could be.
    const keyless =
      start.madeSlot && !identity.standby
        ? (await trackedTables(sourceClient, source)).filter(
            (table) => !hasKey(table) && snapshotMode(source, table) === 'initial',
          )
        : [];
    if (keyless.length > 0) return startWithKeyless(sourceClient, start, keyless);
    const lsn = start.slot?.confirmedLsn ?? (await createSlot(sourceClient, source, identity));
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
    await writeProgress([origin]);
    await start.ledger.beginStreaming();
    return origin;
  }

  /** In one Kafka transaction, with what was sent before. */
  async function writeProgress(records: readonly Progress[]): Promise<void> {
    const schemaId = await registry.register(`${topics.progress}-value`, progressSchema);
    const messages = records.map((record) => ({
      partition: 0,
      key: source.id,
      value: encodeProgress(record, schemaId),
    }));
    await producer.send([{ topic: topics.progress, messages }]);
    await producer.commit();
  }

  /** Tables without a key are read as the slot's consistent point has them, before anything is streamed. */
  async function startWithKeyless(
    sourceClient: pg.Client,
    { epoch, slot }: { epoch: number; slot: { confirmedLsn: bigint } | null },
    keyless: readonly CatalogueTable[],
  ): Promise<Progress> {
    if (slot) await sourceClient.query('select pg_drop_replication_slot($1)', [source.slot]);
    const exported = await createSlotWithSnapshot(source, identity.version, keyless);
    try {
      log.info('slot created', { slot: source.slot, at: formatLsn(exported.lsn), epoch });
      const tables = await trackedTables(sourceClient, source);
      const ends = await topicEnds(
        admin,
        tables.map((table) => topics.table(table)),
      );
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
          kafka: kafkaConfig,
          producer,
          requests,
          topicOf: (table) => topics.table(tableIdOf(table)),
          prepare: async (relation) => (await prepareScan(new Set(ends.keys()), relation)).encoder,
          log,
          signal,
        },
        origin,
        { client: exported.client, lsn: exported.lsn, epoch },
        keyless,
      );
      await failpoint('before-origin');
      await writeProgress([origin, progress]);
      await ledger.beginStreaming();
      return progress;
    } finally {
      await exported.close();
    }
  }

  /** One after the other: they share the catalogue's connection, and a subject is registered once. */
  function alone<T>(work: () => Promise<T>): Promise<T> {
    const done = preparing.then(work);
    preparing = done.catch(() => {});
    return done;
  }

  function prepareFor(
    knownTopics: ReadonlySet<string>,
    relation: Relation,
    notes: StreamNotes,
    binary = !form.textValues,
  ): Promise<PreparedTable> {
    const encoderIdentity = { serverName: kafkaConfig.topicPrefix, database: identity.database, version };
    const context = {
      config,
      client,
      admin,
      versions,
      identity: encoderIdentity,
      knownTopics,
      binary,
      log,
    };
    return alone(() => prepareTable(context, relation, notes));
  }

  /** For rows that are read beside the stream, as the catalogue has the table now; what is not binary comes as text. */
  async function prepareScan(knownTopics: ReadonlySet<string>, relation: Relation): Promise<PreparedTable> {
    const { rows } = await alone(() =>
      askSource(
        client,
        `select (pg_snapshot_xmax(pg_current_snapshot())::text::numeric % 4294967296)::text as xid`,
        [],
      ),
    );
    const notes = { shape: null, renamedFrom: null, xid: Number(rows[0]!.xid), evolve: false };
    return prepareFor(knownTopics, relation, notes, false);
  }
}

/** Of `schema.name`; neither has a dot in it (fields.ts, tablePattern). */
function tableIdOf(table: string): TableId {
  const dot = table.indexOf('.');
  return { schema: table.slice(0, dot), name: table.slice(dot + 1) };
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
