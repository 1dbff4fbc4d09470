/**
 * A kafkajs consumer that reads exactly from where it is told, in order and without a gap. kafkajs alone would start
 * at committed offsets and jump to the log's start when they are out of range; here nothing is fetched before
 * `begin` names the offset, and a batch that does not follow the one before is not handed over.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import type { Batch, Consumer, EachBatchPayload, Kafka, KafkaMessage, PartitionAssigner } from 'kafkajs';
import type { TidemarkError } from '../platform/errors.ts';
import { kafkaError } from '../platform/kafka.ts';
import { errorFields, type Logger } from '../platform/log.ts';

/** Topic to partitions. */
export type Assignment = Readonly<Record<string, readonly number[]>>;

export interface GroupReaderOptions {
  kafka: Kafka;
  groupId: string;
  assigners?: PartitionAssigner[];
  sessionTimeoutMs: number;
  /** How long the broker may hold back an empty answer, and so how long a resume may take at most. */
  maxWaitMs?: number;
  log: Logger;
  /** Called at every join, also when the assignment stayed. Nothing is read until `begin`. */
  assigned(assignment: Assignment): void;
  /** The group is rebalancing, or the connection is lost: nothing assigned may be relied on. */
  revoked(): void;
  /**
   * Records in order. False: not taken; the partition stops and goes on from there after another `begin`.
   * Must not throw.
   */
  batch(topic: string, partition: number, messages: readonly KafkaMessage[]): Promise<boolean>;
  /** Kafka cannot be read (it is retried for ever), or (null) it can again. */
  trouble(error: TidemarkError | null): void;
  /** A fetch answered from elsewhere than asked: the log starts later or ends earlier. The partition has stopped. */
  displaced(topic: string, partition: number, expected: number): void;
}

/** Per answer, compressed: kafkajs holds a whole answer in memory, and envelopes shrink about eight times. */
const fetchMaxBytes = 4 << 20;

interface PartitionState {
  topic: string;
  partition: number;
  /** Offset of the next record; null before `begin`. */
  next: number | null;
  paused: boolean;
}

export class GroupReader {
  readonly #options: GroupReaderOptions;
  #topics: readonly string[];
  #partitions = new Map<string, PartitionState>();
  #consumer: Consumer | null = null;
  #running: Promise<void> | null = null;
  #restart: (() => void) | null = null;
  #stopped = false;

  constructor(options: GroupReaderOptions, topics: readonly string[]) {
    this.#options = options;
    this.#topics = topics;
  }

  start(): void {
    this.#running ??= this.#keepRunning();
  }

  get topics(): readonly string[] {
    return this.#topics;
  }

  /** Reads other topics from now on: leaves and joins again. */
  subscribe(topics: readonly string[]): void {
    this.#topics = topics;
    this.#restart?.();
  }

  async stop(): Promise<void> {
    this.#stopped = true;
    this.#restart?.();
    await this.#running;
  }

  /** Offset of the next record, or null where the partition is not read. */
  position(topic: string, partition: number): number | null {
    return this.#partitions.get(`${topic}/${partition}`)?.next ?? null;
  }

  /** Reads a partition of the present assignment from `offset` on; elsewhere without effect. */
  begin(topic: string, partition: number, offset: number): void {
    const state = this.#partitions.get(`${topic}/${partition}`);
    if (!state || !this.#consumer) return;
    state.next = offset;
    state.paused = false;
    this.#consumer.seek({ topic, partition, offset: String(offset) });
    this.#consumer.resume([{ topic, partitions: [partition] }]);
  }

  /** Stops or goes on fetching, for back-pressure. */
  setPaused(topic: string, partition: number, paused: boolean): void {
    const state = this.#partitions.get(`${topic}/${partition}`);
    if (!state || state.next === null || state.paused === paused || !this.#consumer) return;
    state.paused = paused;
    if (paused) this.#consumer.pause([{ topic, partitions: [partition] }]);
    else this.#consumer.resume([{ topic, partitions: [partition] }]);
  }

  /** Commits for those who watch the group's lag; nothing here reads it. Failures are of no consequence. */
  async commit(offsets: Readonly<Record<string, readonly number[]>>): Promise<void> {
    const list = Object.entries(offsets).flatMap(([topic, ends]) =>
      ends
        .map((offset, partition) => ({ topic, partition, offset: String(offset) }))
        .filter(({ partition }) => this.#partitions.has(`${topic}/${partition}`)),
    );
    if (list.length === 0 || !this.#consumer) return;
    try {
      await this.#consumer.commitOffsets(list);
    } catch (error) {
      this.#options.log.debug('offsets were not committed', errorFields(kafkaError(error, 'commit offsets')));
    }
  }

  /** One consumer after the other: kafkajs restarts what it thinks can be retried, we restart the rest. */
  async #keepRunning(): Promise<void> {
    const { log } = this.#options;
    for (let attempt = 0; !this.#stopped; attempt++) {
      const { promise: ended, resolve: end } = Promise.withResolvers<'asked' | 'crashed'>();
      this.#restart = () => end('asked');
      const consumer = this.#createConsumer(() => end('crashed'));
      let started: Promise<void> | null = null;
      try {
        await consumer.connect();
        await consumer.subscribe({ topics: [...this.#topics], fromBeginning: true });
        this.#consumer = consumer;
        started = consumer.run({
          autoCommit: false,
          eachBatchAutoResolve: false,
          eachBatch: (payload) => this.#eachBatch(consumer, payload),
        });
        await Promise.race([started, ended]);
        attempt = 0;
        await ended;
      } catch (error) {
        const failure = kafkaError(error, 'cannot start a consumer');
        log.warn('the consumer did not start; trying again', errorFields(failure));
        this.#options.trouble(failure);
      }
      this.#consumer = null;
      this.#lose();
      // A consumer that is still joining cannot be stopped; it would come alive later.
      await Promise.race([started?.catch(() => {}), sleep(15_000, undefined, { ref: false })]);
      await consumer.disconnect().catch(() => {});
      if (!this.#stopped && (await Promise.race([ended, sleep(0)])) !== 'asked')
        await Promise.race([sleep(Math.min(500 * 2 ** attempt, 10_000)), this.#asked()]);
    }
  }

  #asked(): Promise<void> {
    const { promise, resolve } = Promise.withResolvers<void>();
    this.#restart = resolve;
    return promise;
  }

  #createConsumer(crashed: () => void): Consumer {
    const { kafka, groupId, assigners, sessionTimeoutMs, maxWaitMs } = this.#options;
    const consumer = kafka.consumer({
      groupId,
      ...(assigners ? { partitionAssigners: assigners } : {}),
      sessionTimeout: sessionTimeoutMs,
      rebalanceTimeout: Math.max(sessionTimeoutMs, 15_000),
      heartbeatInterval: Math.max(200, Math.floor(sessionTimeoutMs / 6)),
      maxWaitTimeInMs: maxWaitMs ?? 100,
      maxBytes: fetchMaxBytes,
      readUncommitted: false,
      allowAutoTopicCreation: false,
      retry: { initialRetryTime: 200, maxRetryTime: 5000, retries: 5, restartOnFailure: async () => true },
    });
    const { GROUP_JOIN, REBALANCING, CRASH, START_BATCH_PROCESS } = consumer.events;
    // kafkajs calls listeners at once, before the first fetch of the new assignment.
    consumer.on(GROUP_JOIN, ({ payload }) => this.#join(consumer, payload.memberAssignment));
    consumer.on(REBALANCING, () => this.#lose());
    consumer.on(CRASH, ({ payload }) => {
      this.#lose();
      const failure = kafkaError(payload.error, 'cannot consume');
      this.#options.log.warn('the consumer failed', errorFields(failure));
      this.#options.trouble(failure);
      if (!payload.restart) crashed();
    });
    consumer.on(START_BATCH_PROCESS, ({ payload }) => {
      // Markers and aborted records alone: kafkajs steps over them without calling eachBatch.
      if (payload.batchSize > 0) return;
      const state = this.#partitions.get(`${payload.topic}/${payload.partition}`);
      if (state && state.next !== null && Number(payload.firstOffset ?? -1) === state.next)
        state.next = Number(payload.lastOffset) + 1;
    });
    return consumer;
  }

  #join(consumer: Consumer, memberAssignment: Assignment): void {
    if (this.#stopped) return;
    // On a restart by kafkajs itself this is the same consumer; on the first join run() has not returned yet.
    this.#consumer = consumer;
    const topics = Object.entries(memberAssignment).map(([topic, partitions]) => ({
      topic,
      partitions: [...partitions],
    }));
    consumer.pause(topics);
    this.#partitions = new Map(
      topics.flatMap(({ topic, partitions }) =>
        partitions.map((partition) => [
          `${topic}/${partition}`,
          { topic, partition, next: null, paused: true },
        ]),
      ),
    );
    this.#options.trouble(null);
    this.#options.assigned(memberAssignment);
  }

  #lose(): void {
    if (this.#partitions.size === 0) return;
    this.#partitions = new Map();
    this.#options.revoked();
  }

  async #eachBatch(consumer: Consumer, payload: EachBatchPayload): Promise<void> {
    const { batch, resolveOffset, isStale } = payload;
    const state = this.#partitions.get(`${batch.topic}/${batch.partition}`);
    if (!state || state.next === null || isStale() || consumer !== this.#consumer) return;
    const fetched = Number((batch as Batch & { fetchedOffset: string }).fetchedOffset);
    if (fetched !== state.next) {
      const expected = state.next;
      this.#halt(consumer, state);
      this.#options.displaced(batch.topic, batch.partition, expected);
      return;
    }
    const taken = await this.#options.batch(batch.topic, batch.partition, batch.messages);
    // A rebalance or another begin meanwhile: the state is not this batch's any more.
    if (this.#partitions.get(`${batch.topic}/${batch.partition}`) !== state || state.next !== fetched) return;
    if (!taken) {
      this.#halt(consumer, state);
      return;
    }
    state.next = Number(batch.lastOffset()) + 1;
    resolveOffset(batch.messages.at(-1)!.offset);
  }

  #halt(consumer: Consumer, state: PartitionState): void {
    state.next = null;
    state.paused = true;
    consumer.pause([{ topic: state.topic, partitions: [state.partition] }]);
  }
}
