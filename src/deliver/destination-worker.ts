/**
 * One destination in this process: opens its sink and its window store, joins its consumer group, and runs a worker
 * for every Unit the group gives it.
 */
import { mkdir } from 'node:fs/promises';
import { setTimeout as sleep } from 'node:timers/promises';
import type { Kafka } from 'kafkajs';
import type { Pool } from 'pg';
import type { Sink, SinkContext, SinkKind } from '../connector/sink.ts';
import { asTidemarkError, type TidemarkError } from '../platform/errors.ts';
import { failpoint } from '../platform/failpoint.ts';
import { errorFields, type Logger } from '../platform/log.ts';
import type { DestinationConfig, ResolvedConfig } from '../platform/resolved-config.ts';
import type { HoldState } from './cut-window.ts';
import { reactTo } from './failure-policy.ts';
import { type Assignment, GroupReader } from './group-reader.ts';
import { holdState } from './holds.ts';
import type { Ledger } from './ledger.ts';
import type { Offsets } from './offsets.ts';
import { unitAssigner } from './partition-assigner.ts';
import type { ProgressFollower } from './progress-follower.ts';
import type { RowSchemas } from './row-schemas.ts';
import { createSpillDirectory, removeSpillDirectory } from './spill-directory.ts';
import { UnitIngest, type Watermarks } from './unit-ingest.ts';
import { matchTopics, unitsOf } from './unit-topics.ts';
import { type DeliveredWindow, type UnitSnapshot, UnitWorker } from './unit-worker.ts';
import { Wake } from './wake.ts';
import { WindowStore } from './window-store.ts';

export interface DestinationWorkerOptions {
  config: ResolvedConfig;
  destination: DestinationConfig;
  kind: SinkKind;
  /** Names this process in the ledger. */
  owner: string;
  kafka: Kafka;
  pool: Pool;
  ledger: Ledger;
  follower: ProgressFollower;
  schemas: RowSchemas;
  watermarks(topic: string): Promise<Watermarks[]>;
  log: Logger;
  onDelivery(delivery: DeliveredWindow): void;
}

export interface DestinationSnapshot {
  destination: string;
  kind: string;
  /** What keeps the whole destination from starting, or null. */
  error: { code: string; message: string; remedy: string } | null;
  /** Units that this process owns. */
  units: UnitSnapshot[];
  /** Bytes in the window store. */
  storedBytes: number;
}

interface OpenUnit {
  worker: UnitWorker;
  ingest: UnitIngest;
  /** Its name in the window store, never used twice. */
  storeName: string;
  topics: ReadonlySet<string>;
}

/** Beyond this much in the store only the records that a decided Window waits for are read. */
const crowdedBytes = 64 << 20;
const holdPollMs = 500;
const touchMs = 5000;
/** A merge under way at a clean stop may take this long to finish. */
const stopGraceMs = 10_000;

export class DestinationWorker {
  readonly #options: DestinationWorkerOptions;
  readonly #log: Logger;
  readonly #units = new Map<string, OpenUnit>();
  readonly #matched = new WeakMap<Offsets, readonly string[]>();
  readonly #stopping = new Wake();
  readonly #leaving = new Set<Promise<void>>();
  #reader: GroupReader | null = null;
  #store: WindowStore | null = null;
  #sink: Sink | null = null;
  #directory: string | null = null;
  #hold: HoldState | null = null;
  #error: TidemarkError | null = null;
  #serial = 0;
  #stopped = false;
  #running: Promise<void> | null = null;

  constructor(options: DestinationWorkerOptions) {
    this.#options = options;
    this.#log = options.log.child({ destination: options.destination.name });
  }

  start(): void {
    this.#running ??= this.#run();
  }

  snapshot(): DestinationSnapshot {
    const { destination, kind } = this.#options;
    const error = this.#error ?? this.#options.follower.failure;
    return {
      destination: destination.name,
      kind: kind.name,
      error: error && { code: error.code, message: error.message, remedy: error.remedy },
      units: [...this.#units.values()].map(({ worker }) => worker.snapshot()),
      storedBytes: this.#store?.bytes ?? 0,
    };
  }

  async stop(): Promise<void> {
    this.#stopped = true;
    this.#stopping.ring();
    await this.#running;
  }

  async #run(): Promise<void> {
    const unfollow = this.#options.follower.onChange(() => this.#subscribe());
    try {
      for (let attempt = 0; !this.#stopped; attempt++) {
        try {
          await this.#open();
          break;
        } catch (thrown) {
          const error = asTidemarkError(thrown);
          const { delayMs } = reactTo(error, attempt);
          await this.#showError(error);
          this.#log.warn('the destination cannot be opened', { ...errorFields(error), retryInMs: delayMs });
          await this.#stopping.wait(delayMs);
        }
      }
      this.#subscribe();
      await this.#watch();
    } finally {
      unfollow();
      await this.#close();
    }
  }

  async #open(): Promise<void> {
    const { config, destination, kind, ledger } = this.#options;
    await ledger.registerDestination(destination.name, destination.kind);
    this.#directory ??= await createSpillDirectory(config.deliver.spillDirectory, destination.name);
    this.#store ??= await WindowStore.open({
      directory: `${this.#directory}/store`,
      memoryBytes: config.deliver.spillMemoryBytes,
      maxBytes: config.deliver.spillMaxBytes,
    });
    const context: SinkContext = {
      sourceId: config.source.id,
      destination: destination.name,
      scratchDirectory: `${this.#directory}/scratch`,
      log: (level, message, fields) => this.#log[level](message, fields),
      failpoint,
    };
    await mkdir(context.scratchDirectory, { recursive: true });
    this.#sink ??= await kind.open(context, destination.options);
    if (this.#error) await this.#showError(null);
  }

  /** Holds are looked at, and the ledger sees that we live. */
  async #watch(): Promise<void> {
    const { ledger, destination, owner } = this.#options;
    let touchedAt = 0;
    while (!this.#stopped) {
      try {
        await this.#refreshHold();
        if (Date.now() - touchedAt > touchMs) {
          await ledger.touchUnits(destination.name, owner);
          touchedAt = Date.now();
        }
      } catch (error) {
        this.#log.debug('holds cannot be read', errorFields(error));
      }
      await this.#stopping.wait(holdPollMs);
    }
  }

  async #refreshHold(): Promise<void> {
    const { pool, config, destination } = this.#options;
    const hold = await holdState(pool, config.source.id, destination.name);
    const changed = hold?.target !== this.#hold?.target || (hold === null) !== (this.#hold === null);
    this.#hold = hold;
    if (changed) for (const { worker } of this.#units.values()) worker.ring();
  }

  /** Joins the group once there is something to read, and again when a new table appears. */
  #subscribe(): void {
    const newest = this.#options.follower.newest;
    if (!newest || this.#stopped || !this.#sink || !this.#store) return;
    const topics = this.#topicsIn(newest.endOffsets);
    if (topics.length === 0) return;
    if (!this.#reader) {
      this.#reader = this.#createReader(topics);
      this.#reader.start();
      return;
    }
    const known = new Set(this.#reader.topics);
    if (topics.some((topic) => !known.has(topic))) {
      this.#log.info('new tables', { topics: topics.filter((topic) => !known.has(topic)) });
      this.#reader.subscribe([...new Set([...known, ...topics])].sort());
    }
  }

  #createReader(topics: readonly string[]): GroupReader {
    const { config, destination, kind, kafka } = this.#options;
    return new GroupReader(
      {
        kafka,
        groupId: `tidemark.${config.source.id}.${destination.name}`,
        assigners: [
          unitAssigner(kind.unit, () => [...this.#units.values()].flatMap(({ topics: own }) => [...own])),
        ],
        sessionTimeoutMs: config.kafka.sessionTimeoutMs,
        log: this.#log,
        assigned: (assignment) => this.#assigned(assignment),
        revoked: () => {
          for (const { worker } of this.#units.values()) worker.suspend();
        },
        batch: async (topic, partition, messages) => {
          const unit = this.#unitOf(topic);
          return unit ? unit.ingest.take(topic, partition, messages) : false;
        },
        trouble: (error) => {
          if (error?.message !== this.#error?.message) void this.#showError(error);
        },
        displaced: (topic, partition, expected) =>
          this.#unitOf(topic)?.ingest.displaced(topic, partition, expected),
      },
      topics,
    );
  }

  #unitOf(topic: string): OpenUnit | undefined {
    for (const unit of this.#units.values()) if (unit.topics.has(topic)) return unit;
    return undefined;
  }

  /** Runs at once, before anything of the new assignment is fetched. */
  #assigned(assignment: Assignment): void {
    if (this.#stopped) return;
    const { kind, config } = this.#options;
    const units = unitsOf(kind.unit, config.kafka.topicPrefix, Object.keys(assignment).sort());
    for (const [name, unit] of this.#units) if (!units.has(name)) this.#lose(name, unit);
    for (const [name, topics] of units) {
      const own = Object.fromEntries(topics.map((topic) => [topic, assignment[topic]!]));
      const known = this.#units.get(name);
      // A Unit of which a topic went away starts afresh: the rows in the store are numbered by topic.
      if (known && topics.length >= known.topics.size) {
        known.topics = new Set(topics);
        known.worker.resume(own);
        continue;
      }
      if (known) this.#lose(name, known);
      this.#units.set(name, this.#startUnit(name, own));
    }
  }

  #lose(name: string, { worker, storeName }: OpenUnit): void {
    this.#units.delete(name);
    const left = worker
      .stop(0)
      .then(() => worker.ended())
      .then(() => this.#store?.drop(storeName))
      .catch((error) => this.#log.warn('a lost Unit was not cleared', errorFields(error)))
      .then(() => void this.#leaving.delete(left));
    this.#leaving.add(left);
  }

  #startUnit(name: string, assignment: Assignment): OpenUnit {
    const { config, destination, follower } = this.#options;
    const storeName = `${name}#${this.#serial++}`;
    const store = this.#store!.unit(storeName);
    const crowded = Math.min(crowdedBytes, config.deliver.spillMaxBytes / 2);
    const ingest = new UnitIngest({
      destination: destination.name,
      store,
      reader: this.#reader!,
      watermarks: this.#options.watermarks,
      newestEnds: () => follower.newest?.endOffsets ?? {},
      crowded: () => this.#store!.bytes >= crowded,
      changed: () => worker.ring(),
    });
    const worker: UnitWorker = new UnitWorker({
      sourceId: config.source.id,
      destination: destination.name,
      unit: name,
      owner: this.#options.owner,
      cut: {
        cadenceMs: destination.tableCadenceMs[name] ?? destination.cadenceMs,
        maxRecords: destination.windowMaxRecords,
      },
      sink: this.#sink!,
      ledger: this.#options.ledger,
      follower,
      store,
      ingest,
      schemas: this.#options.schemas,
      log: this.#log,
      hold: () => this.#hold,
      refreshHold: () => this.#refreshHold(),
      topicsIn: (endOffsets) => this.#topicsOfUnit(name, endOffsets),
      commit: async (offsets) => this.#reader?.commit(offsets),
      released: () => {
        for (const unit of this.#units.values()) unit.ingest.relieve();
      },
      onDelivery: this.#options.onDelivery,
    });
    worker.start(assignment);
    return { worker, ingest, storeName, topics: new Set(Object.keys(assignment)) };
  }

  #topicsIn(endOffsets: Offsets): readonly string[] {
    let topics = this.#matched.get(endOffsets);
    if (!topics) {
      const { config, destination } = this.#options;
      topics = matchTopics(
        config.kafka.topicPrefix,
        destination.tables,
        Object.keys(endOffsets),
        destination.name,
      );
      this.#matched.set(endOffsets, topics);
    }
    return topics;
  }

  #topicsOfUnit(name: string, endOffsets: Offsets): readonly string[] {
    const { kind, config } = this.#options;
    return unitsOf(kind.unit, config.kafka.topicPrefix, this.#topicsIn(endOffsets)).get(name) ?? [];
  }

  async #showError(error: TidemarkError | null): Promise<void> {
    this.#error = error;
    const failure = error && { code: error.code, message: error.message, remedy: error.remedy };
    await this.#options.ledger
      .recordDestinationFailure(this.#options.destination.name, failure)
      .catch((lost) => this.#log.debug('the error is not in the ledger', errorFields(lost)));
  }

  async #close(): Promise<void> {
    const workers = [...this.#units.values()].map(({ worker }) => worker);
    await Promise.all(workers.map((worker) => worker.stop(stopGraceMs)));
    await this.#reader?.stop();
    await this.#sink?.close().catch((error) => this.#log.warn('the sink did not close', errorFields(error)));
    const ended = Promise.all([...workers.map((worker) => worker.ended()), ...this.#leaving]);
    await Promise.race([ended, sleep(stopGraceMs, undefined, { ref: false })]);
    await this.#store?.close();
    if (this.#directory) await removeSpillDirectory(this.#directory);
  }
}
