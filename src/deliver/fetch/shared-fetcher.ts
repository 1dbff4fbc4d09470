/**
 * Reads partitions for everybody in this process: whoever wants the same records of a partition gets them from one answer,
 * however many destinations that are. A request at a time to each broker, for all partitions that it leads, and a second
 * beside it for those where more is known to be there: an answer of megabytes comes in pieces, whenever the process looks.
 *
 * It is no member of any group: which partitions are read from where is its callers' affair, and nothing is skipped or
 * started over by itself. A cursor whose offset the log does not have is told so and stops.
 */
import type { Kafka } from 'kafkajs';
import { TidemarkError } from '../../platform/errors.ts';
import { kafkaError } from '../../platform/kafka.ts';
import { KafkaCluster } from '../../platform/kafka-cluster.ts';
import { fetchPartitions, type PartitionAnswer } from '../../platform/kafka-fetch/fetch-request.ts';
import { errorFields, type Logger } from '../../platform/log.ts';
import { Budget } from './budget.ts';
import { Cursor, type CursorOwner, type Reading } from './cursor.ts';
import { SharedPartition } from './shared-partition.ts';

/** What `UnitIngest` and `ProgressFollower` need of it. */
export interface Fetcher {
  read(topic: string, partition: number, offset: number, owner: CursorOwner): Reading;
}

/** A broker answers with an empty answer after this long, and so it is how long a resumed partition may wait. */
const maxWaitMs = 100;
/** Where nothing came for a while nothing is paused either. */
const quietWaitMs = 750;
const quietAfterMs = 3000;
/**
 * As many of the publisher's batches (256 KiB and a record) as fit into some mebibyte. The broker cuts the last one off where
 * the limit is: at 1 MiB that was three whole ones and a fifth of what was sent for nothing.
 */
const partitionBytes = 4 * (256 << 10) + (32 << 10);
/** Compressed: envelopes shrink about eight times. */
const maxBytes = 4 * partitionBytes;
/** As they are, not compressed. An answer of the size above comes on top. */
const heldBytes = 24 << 20;
const longestBackoffMs = 5000;
/** What failed less often in a row, within some two seconds, is nobody's trouble: a leader that moves, a broker that restarts. */
const lastingFailures = 5;

const outOfRange = 1;
/** The broker's words that a partition has moved, or is moving: unknown topic, no leader, not the leader, old or unknown epoch. */
const moved = new Set([3, 5, 6, 9, 74, 75, 76, 100]);
const unauthorized = 29;
/** What rests when nobody answers who leads what. */
const metadata = 'metadata';

export class SharedFetcher implements Fetcher {
  readonly #cluster: KafkaCluster;
  readonly #log: Logger;
  readonly #partitions = new Map<string, SharedPartition>();
  /** By `topic/partition`: the node that leads it. */
  readonly #leaders = new Map<string, string>();
  /** `node/lane` that a request is under way on. */
  readonly #asking = new Set<string>();
  /** `topic/partition` that are being asked for. */
  readonly #asked = new Set<string>();
  /** What is left alone for a while, because it failed: nodes and `topic/partition`. */
  readonly #resting = new Map<
    string,
    { failures: number; timer: NodeJS.Timeout | null; error: TidemarkError }
  >();
  readonly #budget = new Budget(heldBytes, () => this.#pumpSoon());
  readonly #listeners = new Set<(error: TidemarkError | null) => void>();
  #shown: TidemarkError | null = null;
  #locating = false;
  #fetchedBytes = 0;
  #lastRecordAt = performance.now();
  #pumping = false;
  #closed = false;

  constructor(kafka: Kafka, log: Logger) {
    this.#cluster = new KafkaCluster(kafka);
    this.#log = log;
  }

  /** Of record sets as they came, compressed, since the start. */
  get fetchedBytes(): number {
    return this.#fetchedBytes;
  }

  /** Why something cannot be read at present (it is tried for ever), or null. */
  get failure(): TidemarkError | null {
    return this.#shown;
  }

  /** @param listener called when that changes @returns ends it */
  onTrouble(listener: (error: TidemarkError | null) => void): () => void {
    this.#listeners.add(listener);
    return () => void this.#listeners.delete(listener);
  }

  /** Reads a partition from `offset` on, in order and without a gap, until it is closed or stops by itself. */
  read(topic: string, partition: number, offset: number, owner: CursorOwner): Reading {
    const name = `${topic}/${partition}`;
    let shared = this.#partitions.get(name);
    if (!shared) {
      shared = new SharedPartition(topic, partition);
      this.#partitions.set(name, shared);
    }
    const cursor = new Cursor(offset, owner, () => {
      if (cursor.closed && shared.leave(cursor)) this.#forget(name);
      this.#pumpSoon();
    });
    shared.join(cursor);
    this.#pumpSoon();
    return cursor;
  }

  async close(): Promise<void> {
    this.#closed = true;
    for (const name of [...this.#resting.keys()]) this.#well(name);
    await this.#cluster.close();
  }

  #forget(name: string): void {
    this.#partitions.delete(name);
    this.#leaders.delete(name);
    this.#well(name);
  }

  /** Once for all that changed in one go. */
  #pumpSoon(): void {
    if (this.#pumping) return;
    this.#pumping = true;
    queueMicrotask(() => {
      this.#pumping = false;
      this.#pump();
    });
  }

  /** Asks every broker that is not being asked for what is wanted of it. */
  #pump(): void {
    if (this.#closed || this.#budget.exhausted) return;
    const wanted = [...this.#partitions.values()].filter(
      (shared) => shared.wanted && !this.#asked.has(shared.name) && !this.#rests(shared.name),
    );
    const byNode = Map.groupBy(wanted, ({ name }) => this.#leaders.get(name) ?? null);
    for (const [node, partitions] of byNode) {
      if (node === null) {
        if (!this.#locating && !this.#rests(metadata)) void this.#locate();
      } else if (!this.#rests(node)) this.#askOf(node, partitions);
    }
  }

  /** The second lane never waits for what may come: whatever is asked for on it is there. */
  #askOf(node: string, partitions: readonly SharedPartition[]): void {
    const free = (lane: 0 | 1) => !this.#asking.has(`${node}/${lane}`);
    const behind = partitions.filter((shared) => shared.behind);
    const aside = free(1) ? behind.slice(free(0) ? Math.ceil(behind.length / 2) : 0) : [];
    if (aside.length > 0) void this.#ask(node, 1, aside);
    const rest = partitions.filter((shared) => !aside.includes(shared));
    if (free(0) && rest.length > 0) void this.#ask(node, 0, rest);
  }

  async #ask(node: string, lane: 0 | 1, partitions: readonly SharedPartition[]): Promise<void> {
    this.#asking.add(`${node}/${lane}`);
    for (const { name } of partitions) this.#asked.add(name);
    try {
      const connection = await this.#cluster.connectionTo(node, lane);
      const requests = partitions.flatMap((shared) => {
        const offset = shared.nextOffset();
        return offset === null ? [] : [{ topic: shared.topic, partition: shared.partition, offset, shared }];
      });
      if (requests.length === 0) return;
      const quiet = performance.now() - this.#lastRecordAt > quietAfterMs;
      const limits = { maxWaitMs: quiet ? quietWaitMs : maxWaitMs, maxBytes, partitionBytes };
      const answer = await fetchPartitions(connection, requests, limits);
      if (answer.errorCode !== 0)
        throw new TidemarkError('TM301', `Kafka refuses to be read, error ${answer.errorCode}`);
      this.#well(node);
      for (const { recordSet } of answer.partitions) this.#fetchedBytes += recordSet.length;
      const answers = new Map(answer.partitions.map((one) => [`${one.topic}/${one.partition}`, one]));
      for (const { shared, offset } of requests) await this.#take(shared, offset, answers.get(shared.name));
    } catch (error) {
      this.#troubled(node, error);
      // A broker that went away may not lead them any more.
      for (const { name } of partitions) this.#leaders.delete(name);
    } finally {
      this.#asking.delete(`${node}/${lane}`);
      for (const { name } of partitions) this.#asked.delete(name);
      this.#pumpSoon();
    }
  }

  async #take(shared: SharedPartition, offset: number, answer: PartitionAnswer | undefined): Promise<void> {
    if (!answer) return;
    const { name, topic } = shared;
    try {
      if (answer.errorCode === outOfRange) return shared.displaced(offset);
      if (moved.has(answer.errorCode)) {
        this.#leaders.delete(name);
        throw new TidemarkError('TM301', `${name} has no leader that answers`);
      }
      if (answer.errorCode === unauthorized) throw mayNotRead(topic);
      if (answer.errorCode !== 0)
        throw new TidemarkError('TM301', `${name} cannot be read, error ${answer.errorCode}`);
      if (await shared.take(offset, answer, this.#budget)) this.#lastRecordAt = performance.now();
      this.#well(name);
    } catch (error) {
      this.#troubled(name, error);
    }
  }

  async #locate(): Promise<void> {
    this.#locating = true;
    try {
      // All of them: kafkajs keeps what it knows of the topics that it was asked for last.
      const { leaders, failures } = await this.#cluster.findLeaders([...this.#partitions.values()]);
      for (const [name, node] of leaders) this.#leaders.set(name, node);
      for (const [name, error] of failures) this.#troubled(name, error);
      this.#well(metadata);
    } catch (error) {
      this.#troubled(metadata, error);
    } finally {
      this.#locating = false;
      this.#pumpSoon();
    }
  }

  #rests(name: string): boolean {
    return (this.#resting.get(name)?.timer ?? null) !== null;
  }

  #well(name: string): void {
    const resting = this.#resting.get(name);
    if (!resting) return;
    if (resting.timer) clearTimeout(resting.timer);
    this.#resting.delete(name);
    this.#show();
  }

  #troubled(name: string, thrown: unknown): void {
    if (this.#closed) return;
    const error = kafkaError(thrown, 'read from Kafka');
    this.#log.debug('cannot read', { from: name, ...errorFields(error) });
    const before = this.#resting.get(name);
    if (before?.timer) clearTimeout(before.timer);
    const failures = (before?.failures ?? 0) + 1;
    const resting = { failures, error, timer: null as NodeJS.Timeout | null };
    resting.timer = setTimeout(
      () => {
        resting.timer = null;
        this.#pump();
      },
      Math.min(50 * 2 ** failures, longestBackoffMs),
    );
    this.#resting.set(name, resting);
    this.#show();
  }

  #show(): void {
    const lasting = [...this.#resting.values()].find(({ failures }) => failures >= lastingFailures);
    const error = lasting?.error ?? null;
    if (error?.message === this.#shown?.message) return;
    this.#shown = error;
    for (const listener of this.#listeners) listener(error);
  }
}

function mayNotRead(topic: string): TidemarkError {
  return new TidemarkError('TM301', `the user may not read ${topic}`, {
    remedy: 'Grant READ on it with kafka-acls.',
  });
}
