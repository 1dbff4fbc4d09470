/**
 * Membership in a destination's consumer group: who of its processes delivers which Units. kafkajs keeps it, and commits
 * offsets for those who watch the group's lag; it reads nothing, because where reading goes on is in the ledger.
 *
 * While the group rebalances everybody goes on with what he has: the ledger's fencing token, not the group, decides who may
 * write, so a Unit that stays is not interrupted, and one that moves is fenced the moment its new owner takes it.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import type { Consumer, Kafka, PartitionAssigner } from 'kafkajs';
import type { TidemarkError } from '../platform/errors.ts';
import { kafkaError } from '../platform/kafka.ts';
import { errorFields, type Logger } from '../platform/log.ts';

/** Topic to partitions. */
export type Assignment = Readonly<Record<string, readonly number[]>>;

export interface GroupMembershipOptions {
  kafka: Kafka;
  groupId: string;
  assigners: PartitionAssigner[];
  sessionTimeoutMs: number;
  log: Logger;
  /** Called at every join, also when the assignment stayed. */
  assigned(assignment: Assignment): void;
  /** The group cannot be joined (it is tried for ever), or (null) it could. */
  trouble(error: TidemarkError | null): void;
}

/** How soon a member hears that another one came or went, at most; a sixth of the session where that is shorter. */
const longestHeartbeatMs = 2000;

export class GroupMembership {
  readonly #options: GroupMembershipOptions;
  #topics: readonly string[];
  #assignment: Assignment = {};
  #consumer: Consumer | null = null;
  #running: Promise<void> | null = null;
  #restart: (() => void) | null = null;
  #stopped = false;

  constructor(options: GroupMembershipOptions, topics: readonly string[]) {
    this.#options = options;
    this.#topics = topics;
  }

  start(): void {
    this.#running ??= this.#keepRunning();
  }

  get topics(): readonly string[] {
    return this.#topics;
  }

  /** Other topics from now on: leaves and joins again. */
  subscribe(topics: readonly string[]): void {
    this.#topics = topics;
    this.#restart?.();
  }

  async stop(): Promise<void> {
    this.#stopped = true;
    this.#restart?.();
    await this.#running;
  }

  /** Commits for those who watch the group's lag; nothing here reads it. Failures are of no consequence. */
  async commit(offsets: Readonly<Record<string, readonly number[]>>): Promise<void> {
    const list = Object.entries(offsets).flatMap(([topic, ends]) =>
      ends
        .map((offset, partition) => ({ topic, partition, offset: String(offset) }))
        .filter(({ partition }) => this.#assignment[topic]?.includes(partition)),
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
        started = consumer.run({ autoCommit: false, eachBatch: async () => {} });
        await Promise.race([started, ended]);
        attempt = 0;
        await ended;
      } catch (error) {
        const failure = kafkaError(error, 'cannot start a consumer');
        log.warn('the consumer did not start; trying again', errorFields(failure));
        this.#options.trouble(failure);
      }
      this.#consumer = null;
      this.#assignment = {};
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
    const { kafka, groupId, assigners, sessionTimeoutMs } = this.#options;
    const heartbeatInterval = Math.min(longestHeartbeatMs, Math.max(200, Math.floor(sessionTimeoutMs / 6)));
    const consumer = kafka.consumer({
      groupId,
      partitionAssigners: assigners,
      sessionTimeout: sessionTimeoutMs,
      rebalanceTimeout: Math.max(sessionTimeoutMs, 15_000),
      heartbeatInterval,
      // With nothing to read it looks at the time for a heartbeat this often.
      maxWaitTimeInMs: heartbeatInterval / 2,
      allowAutoTopicCreation: false,
      retry: { initialRetryTime: 200, maxRetryTime: 5000, retries: 5, restartOnFailure: async () => true },
    });
    const { GROUP_JOIN, CRASH } = consumer.events;
    // kafkajs calls listeners at once, before the first fetch of the new assignment.
    consumer.on(GROUP_JOIN, ({ payload }) => this.#join(consumer, payload.memberAssignment));
    consumer.on(CRASH, ({ payload }) => {
      const failure = kafkaError(payload.error, 'cannot stay in the group');
      this.#options.log.warn('the consumer failed', errorFields(failure));
      this.#options.trouble(failure);
      if (!payload.restart) crashed();
    });
    return consumer;
  }

  #join(consumer: Consumer, memberAssignment: Assignment): void {
    if (this.#stopped) return;
    // On a restart by kafkajs itself this is the same consumer; on the first join run() has not returned yet.
    this.#consumer = consumer;
    this.#assignment = memberAssignment;
    consumer.pause(
      Object.entries(memberAssignment).map(([topic, partitions]) => ({ topic, partitions: [...partitions] })),
    );
    this.#options.trouble(null);
    this.#options.assigned(memberAssignment);
  }
}
