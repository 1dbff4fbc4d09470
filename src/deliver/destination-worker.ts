/**
 * One destination in this process: opens its sink and its window store, joins its consumer group, and runs a worker
 * for every Unit the group gives it.
 */
import { mkdir } from 'node:fs/promises';
import { setTimeout as sleep } from 'node:timers/promises';
import type { Kafka } from 'kafkajs';
import type { Pool } from 'pg';
import type { SinkContext, SinkKind } from '../connector/sink.ts';
import { asTidemarkError, type TidemarkError } from '../platform/errors.ts';
import { failpoint } from '../platform/failpoint.ts';
import { errorFields, type Logger } from '../platform/log.ts';
import type { DestinationConfig, ResolvedConfig } from '../platform/resolved-config.ts';
import type { CutSettings } from './cut-window.ts';
import { DestinationSettings } from './destination-settings.ts';
import { reactTo } from './failure-policy.ts';
import type { SharedFetcher } from './fetch/shared-fetcher.ts';
import type { Gate, Gates } from './gates.ts';
import { type Assignment, GroupMembership } from './group-membership.ts';
import type { Ledger } from './ledger.ts';
import type { Moves } from './moves.ts';
import type { Offsets } from './offsets.ts';
import { unitAssigner } from './partition-assigner.ts';
import { type DestinationName, pauseDestination } from './pauses.ts';
import type { ProgressFollower } from './progress-follower.ts';
import type { DeadLetters } from './quarantine/dead-letters.ts';
import type { QuarantineLedger } from './quarantine/quarantine-ledger.ts';
import { UnitQuarantine } from './quarantine/unit-quarantine.ts';
import type { RowSchemas, SchemaSource } from './row-schemas.ts';
import { createSpillDirectory, removeSpillDirectory } from './spill-directory.ts';
import { TenantFilter } from './tenant-filter.ts';
import type { TenantTables } from './tenant-tables.ts';
import { type Room, UnitIngest, type Watermarks } from './unit-ingest.ts';
import type { UnitStore } from './unit-store.ts';
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
  fetcher: SharedFetcher;
  /** Of rows that wait in memory. */
  heldBytes: number;
  pool: Pool;
  ledger: Ledger;
  gates: Gates;
  moves: Moves;
  quarantineLedger: QuarantineLedger;
  deadLetters: DeadLetters;
  follower: ProgressFollower;
  schemas: RowSchemas;
  registry: SchemaSource;
  tenantTables: TenantTables;
  watermarks(topic: string): Promise<Watermarks[]>;
  log: Logger;
  onDelivery(delivery: DeliveredWindow): void;
  /** The destination refused credentials: perhaps there are new ones. */
  refused(): void;
}

export interface DestinationSnapshot {
  destination: string;
  kind: string;
  /** Null: it is not paused. */
  paused: { by: string; reason: string } | null;
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
  quarantine: UnitQuarantine;
  /** Its name in the window store, never used twice. */
  storeName: string;
  topics: ReadonlySet<string>;
}

/** Of what may wait in memory: beyond it only what the next Window needs is read. */
const readAhead = 0.8;
/** Of what may wait in memory: the next one is read while it is written, and fetches bring more than either needs. */
const inOneWindow = 0.4;
/** A Window is worth this much, however little memory there is. */
const leastRecords = 10_000;
/** Who is behind is counted no more often: every Unit asks whenever it looks for a Window. */
const behindForMs = 200;
/** How long it sleeps when nothing rings. */
const idleMs = 60_000;
/** A merge under way at a clean stop may take this long to finish. */
const stopGraceMs = 10_000;

export class DestinationWorker {
  readonly #options: DestinationWorkerOptions;
  readonly #log: Logger;
  readonly #units = new Map<string, OpenUnit>();
  readonly #matched = new WeakMap<Offsets, readonly string[]>();
  /** Rings when we are to stop, and when a hold or a pause came or went. */
  readonly #moved = new Wake();
  readonly #leaving = new Set<Promise<void>>();
  #group: GroupMembership | null = null;
  #store: WindowStore | null = null;
  readonly #settings: DestinationSettings;
  #directory: string | null = null;
  #error: TidemarkError | null = null;
  #serial = 0;
  #behind = { count: 1, countedAt: Number.NEGATIVE_INFINITY };
  #stopped = false;
  #running: Promise<void> | null = null;

  constructor(options: DestinationWorkerOptions) {
    this.#options = options;
    this.#log = options.log.child({ destination: options.destination.name });
    this.#settings = new DestinationSettings({
      kind: options.kind,
      ledger: options.ledger,
      sourceId: options.config.source.id,
      first: options.destination,
      context: () => this.#sinkContext(),
      log: this.#log,
    });
    options.gates.onChange(options.destination.name, (now, before) => this.#gateMoved(now, before));
  }

  get name(): string {
    return this.#options.destination.name;
  }

  start(): void {
    this.#running ??= this.#run();
  }

  snapshot(): DestinationSnapshot {
    const { destination, kind } = this.#options;
    const error = this.#error ?? this.#options.fetcher.failure ?? this.#options.follower.failure;
    const { pause } = this.#gate;
    return {
      destination: destination.name,
      kind: kind.name,
      paused: pause && { by: pause.by, reason: pause.reason },
      error: error && { code: error.code, message: error.message, remedy: error.remedy },
      units: [...this.#units.values()].map(({ worker }) => worker.snapshot()),
      storedBytes: this.#store?.bytes ?? 0,
    };
  }

  async stop(): Promise<void> {
    this.#stopped = true;
    this.#moved.ring();
    await this.#running;
  }

  async #run(): Promise<void> {
    const unfollow = this.#options.follower.onChange(() => this.#subscribe());
    let unwatch = () => {};
    try {
      await this.#openSometime();
      unwatch = this.#options.fetcher.onTrouble((error) => this.#kafkaTrouble(error));
      this.#subscribe();
      while (!this.#stopped) await this.#moved.wait(idleMs);
    } finally {
      unfollow();
      unwatch();
      await this.#close();
    }
  }

  /** Tries to open it until that succeeds or we stop; not while it is paused. */
  async #openSometime(): Promise<void> {
    let failingSince: number | null = null;
    for (let attempt = 0; !this.#stopped; attempt++) {
      try {
        if (this.#gate.pause) {
          attempt = -1;
          failingSince = null;
          await this.#moved.wait(idleMs);
          continue;
        }
        return await this.#open();
      } catch (thrown) {
        const error = asTidemarkError(thrown);
        const { delayMs } = reactTo(error, attempt);
        await this.#showError(error);
        this.#log.warn('the destination cannot be opened', { ...errorFields(error), retryInMs: delayMs });
        failingSince ??= Date.now();
        const { pauseAfterMs } = this.#settings.current;
        if (error.code === 'TM402') this.#credentialsRefused();
        if (pauseAfterMs !== null && Date.now() - failingSince >= pauseAfterMs)
          await this.#pauseItself(error).catch((lost) => this.#log.debug('not paused', errorFields(lost)));
        await this.#moved.wait(delayMs);
      }
    }
  }

  async #open(): Promise<void> {
    const { config, destination, kind, ledger } = this.#options;
    const bound = kind.keepsRows === false ? null : { tenant: destination.tenant };
    await ledger.registerDestination(destination.name, destination.kind, bound);
    this.#directory ??= await createSpillDirectory(config.deliver.spillDirectory, destination.name);
    this.#store ??= await WindowStore.open({
      directory: `${this.#directory}/store`,
      memoryBytes: config.deliver.spillMemoryBytes,
      heldBytes: this.#options.heldBytes,
      maxBytes: config.deliver.spillMaxBytes,
    });
    await this.#settings.open();
    if (this.#error) await this.#showError(null);
  }

  async #sinkContext(): Promise<SinkContext> {
    const context: SinkContext = {
      ...this.#name,
      scratchDirectory: `${this.#directory}/scratch-${this.#serial++}`,
      log: (level, message, fields) => this.#log[level](message, fields),
      failpoint,
    };
    await mkdir(context.scratchDirectory, { recursive: true });
    return context;
  }

  /** The instance file as it is now: what changed takes effect with the next Window. */
  async applySettings(next: DestinationConfig): Promise<void> {
    const change = await this.#settings.apply(next);
    if (change === 'none') return;
    for (const { worker } of this.#units.values()) change === 'options' ? worker.tryNow() : worker.ring();
    this.#moved.ring();
  }

  #gateMoved(now: Gate, before: Gate): void {
    const { pause } = now;
    if ((pause === null) !== (before.pause === null))
      this.#log.info(pause ? 'paused' : 'resumed', pause ? { by: pause.by, reason: pause.reason } : {});
    this.#moved.ring();
    // What keeps failing may be what somebody dropped, or asked for again, just now.
    const asked =
      now.resumedAt > before.resumedAt ||
      now.moving > before.moving ||
      now.replaying !== before.replaying ||
      now.quarantined < before.quarantined;
    for (const { worker, quarantine } of this.#units.values()) {
      quarantine.invalidate();
      if (asked) worker.tryNow();
      else worker.ring();
    }
  }

  get #gate(): Gate {
    return this.#options.gates.of(this.#options.destination.name);
  }

  get #name(): DestinationName {
    return { sourceId: this.#options.config.source.id, destination: this.#options.destination.name };
  }

  #credentialsRefused(): void {
    this.#settings.reconsider();
    this.#options.refused();
  }

  /** It failed for so long that asking again is of no use: somebody has to look at it. */
  async #pauseItself({ code, message, remedy }: TidemarkError): Promise<void> {
    const reason = `${code}: ${message}`;
    this.#log.error('paused: it failed for too long', { code, message, remedy });
    await pauseDestination(this.#options.pool, this.#name, { by: 'tidemark', reason });
    await this.#options.gates.refresh();
  }

  /** Joins the group once there is something to read, and again when a new table appears. */
  #subscribe(): void {
    const newest = this.#options.follower.newest;
    if (!newest || this.#stopped || !this.#settings.sink || !this.#store) return;
    const topics = this.#topicsIn(newest.endOffsets);
    if (topics.length === 0) return;
    if (!this.#group) {
      this.#group = this.#joinGroup(topics);
      this.#group.start();
      return;
    }
    const known = new Set(this.#group.topics);
    if (topics.some((topic) => !known.has(topic))) {
      this.#log.info('new tables', { topics: topics.filter((topic) => !known.has(topic)) });
      this.#group.subscribe([...new Set([...known, ...topics])].sort());
    }
  }

  #joinGroup(topics: readonly string[]): GroupMembership {
    const { config, destination, kind, kafka } = this.#options;
    return new GroupMembership(
      {
        kafka,
        groupId: `tidemark.${config.source.id}.${destination.name}`,
        assigners: [
          unitAssigner(kind.unit, () => [...this.#units.values()].flatMap(({ topics: own }) => [...own])),
        ],
        sessionTimeoutMs: config.kafka.sessionTimeoutMs,
        log: this.#log,
        assigned: (assignment) => this.#assigned(assignment),
        trouble: (error) => this.#kafkaTrouble(error ?? this.#options.fetcher.failure),
      },
      topics,
    );
  }

  #kafkaTrouble(error: TidemarkError | null): void {
    if (error?.message !== this.#error?.message) void this.#showError(error);
  }

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
    const ingest = new UnitIngest({
      destination: destination.name,
      store,
      fetcher: this.#options.fetcher,
      watermarks: this.#options.watermarks,
      newestEnds: () => (follower.caughtUp && follower.newest?.endOffsets) || null,
      tenant:
        destination.tenant === null ? null : new TenantFilter(destination.tenant, this.#options.registry),
      tenantTables: this.#options.tenantTables,
      room: (spokenForBytes) => this.#room(spokenForBytes),
      changed: () => worker.ring(),
    });
    const quarantine = new UnitQuarantine({
      ledger: this.#options.quarantineLedger,
      deadLetters: this.#options.deadLetters,
      store,
      topicPrefix: config.kafka.topicPrefix,
      topics: () => ingest.topics,
      merges: this.#settings.sink!.mode === 'merge',
      maxRows: () => this.#settings.current.quarantineMaxRows,
      log: this.#log,
    });
    const worker: UnitWorker = new UnitWorker({
      sourceId: config.source.id,
      destination: destination.name,
      unit: name,
      owner: this.#options.owner,
      cutSettings: () => this.#cutSettings(name, store),
      sink: this.#settings.sink!,
      refused: () => this.#credentialsRefused(),
      ledger: this.#options.ledger,
      follower,
      store,
      ingest,
      schemas: this.#options.schemas,
      log: this.#log,
      hold: () => this.#gate.hold,
      refreshHold: () => this.#options.gates.refresh(),
      paused: () => this.#gate.pause !== null,
      moveWanted: () => this.#gate.moving > 0,
      moves: this.#options.moves,
      replaysWanted: () => this.#gate.replaying > 0,
      quarantine,
      quarantineLedger: this.#options.quarantineLedger,
      deadLetters: this.#options.deadLetters,
      replayStore: (work) => this.#replayStore(work),
      pauseAfterMs: () => this.#settings.current.pauseAfterMs,
      pause: (error) => this.#pauseItself(error),
      topicsIn: (endOffsets) => this.#topicsOfUnit(name, endOffsets),
      commit: async (offsets) => this.#group?.commit(offsets),
      released: () => {
        for (const unit of this.#units.values()) unit.ingest.relieve();
      },
      onDelivery: this.#options.onDelivery,
    });
    worker.start(assignment);
    return { worker, ingest, quarantine, storeName, topics: new Set(Object.keys(assignment)) };
  }

  async #replayStore<T>(work: (store: UnitStore) => Promise<T>): Promise<T> {
    const name = `replay#${this.#serial++}`;
    const store = this.#store!;
    try {
      return await work(store.unit(name));
    } finally {
      await store.drop(name).catch((error) => this.#log.warn('a store was not cleared', errorFields(error)));
    }
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

  /**
   * Whoever is behind takes all there is; without a cadence that is to be kept, no more than is merged without going to disk,
   * while the next Window comes in.
   */
  #cutSettings(unit: string, store: UnitStore): Omit<CutSettings, 'topics'> {
    const { tableCadenceMs, cadenceMs: usual, windowMaxRecords: maxRecords } = this.#settings.current;
    const cadenceMs = tableCadenceMs[unit] ?? usual;
    if (cadenceMs > 0) return { cadenceMs, maxRecords, fittingRecords: Number.POSITIVE_INFINITY };
    const share = (this.#options.heldBytes * inOneWindow) / this.#unitsBehind();
    const fittingRecords = Math.max(leastRecords, Math.floor(share / store.bytesPerRow));
    return { cadenceMs, maxRecords, fittingRecords };
  }

  #room(spokenForBytes: number): Room {
    const most = Math.min(this.#options.heldBytes, this.#options.config.deliver.spillMaxBytes / 2);
    const { bytes } = this.#store!;
    if (bytes + spokenForBytes < most * readAhead) return 'ample';
    return bytes < most ? 'scarce' : 'none';
  }

  /** Those that share the memory: most tables have nothing to deliver. */
  #unitsBehind(): number {
    if (performance.now() - this.#behind.countedAt > behindForMs) {
      const units = [...this.#units.values()].filter(({ worker }) => {
        const { mark, backlogRecords } = worker.snapshot();
        return mark === null || backlogRecords > 0;
      });
      this.#behind = { count: Math.max(1, units.length), countedAt: performance.now() };
    }
    return this.#behind.count;
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
    await this.#group?.stop();
    await this.#settings.sink?.close();
    const ended = Promise.all([...workers.map((worker) => worker.ended()), ...this.#leaving]);
    await Promise.race([ended, sleep(stopGraceMs, undefined, { ref: false })]);
    await this.#store?.close();
    if (this.#directory) await removeSpillDirectory(this.#directory);
  }
}
