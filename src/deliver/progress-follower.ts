/**
 * Follows the progress topic for all destinations of a process: the clock by which Windows are cut. It starts far
 * enough back for the oldest mark it was told of, and keeps boundaries only until every Unit is past them.
 */
import { EventEmitter } from 'node:events';
import { setTimeout as sleep } from 'node:timers/promises';
import type { Admin, Kafka } from 'kafkajs';
import type { Position } from '../connector/position.ts';
import { TidemarkError } from '../platform/errors.ts';
import { kafkaError } from '../platform/kafka.ts';
import type { FetchedRecord } from '../platform/kafka-fetch/record-set.ts';
import { errorFields, type Logger } from '../platform/log.ts';
import { decodeProgress, type ParkedTable } from '../publish/progress.ts';
import { type Boundary, BoundaryList } from './boundary-list.ts';
import type { Mark } from './cut-window.ts';
import type { Reading } from './fetch/cursor.ts';
import type { Fetcher } from './fetch/shared-fetcher.ts';
import { SnapshotList } from './snapshot-list.ts';

/** Read at least this many records back: some are fences and markers, and the mark's own Progress should be seen. */
const leastRecordsBack = 200;

/** Progress may be stamped by another clock than the commit time it carries. */
const clockSkewMs = 10 * 60_000;

export interface ProgressFollowerOptions {
  kafka: Kafka;
  topic: string;
  sourceId: string;
  fetcher: Fetcher;
  log: Logger;
}

export class ProgressFollower {
  readonly #options: ProgressFollowerOptions;
  readonly #boundaries = new BoundaryList();
  readonly #snapshots = new SnapshotList();
  readonly #events = new EventEmitter().setMaxListeners(0);
  #reading: Reading | null = null;
  /** Unit to its mark; null: it needs the origin. */
  readonly #marks = new Map<string, Pick<Mark, 'position' | 'commitTimeUs'> | null>();
  /** Offset that the boundaries in memory start from; null: nothing was begun. */
  #startedAt: number | null = null;
  #low = 0;
  /** End of the topic when it was begun: reading past it means that the newest origin is known. */
  #highAtStart = 0;
  #parked: Readonly<Record<string, ParkedTable>> = {};
  #failure: TidemarkError | null = null;
  #beginning = false;
  #beginAgain = false;
  #stopped = false;

  constructor(options: ProgressFollowerOptions) {
    this.#options = options;
  }

  start(): void {
    this.#begin();
  }

  /** Boundaries, oldest first. */
  get boundaries(): readonly Boundary[] {
    return this.#boundaries.list;
  }

  get newest(): Boundary | null {
    return this.#boundaries.newest;
  }

  /** Tables whose changes go to the parked topic, by `schema.table`. */
  get parked(): Readonly<Record<string, ParkedTable>> {
    return this.#parked;
  }

  /** Of whole tables. Nothing is missing in it where `reachesBack(from)`. */
  get snapshots(): Pick<SnapshotList, 'within'> {
    return this.#snapshots;
  }

  /** Whether `newest` is just that: everything was read that the topic had when reading began, perhaps anew. */
  get caughtUp(): boolean {
    const next = this.#reading?.position ?? null;
    return this.#startedAt !== null && next !== null && next >= this.#highAtStart;
  }

  /** Whether everything that Progress said since then was read, as far as the topic has it. */
  reachesBack(mark: Position): boolean {
    if (this.#startedAt === null) return false;
    const oldest = this.boundaries[0];
    return this.#startedAt <= this.#low || (oldest !== undefined && oldest.position <= mark);
  }

  /** Why nothing is read, for status; null while all is well. */
  get failure(): TidemarkError | null {
    return this.#failure;
  }

  /** `listener` is called after every Progress, and when reading starts over. */
  onChange(listener: () => void): () => void {
    this.#events.on('change', listener);
    return () => this.#events.off('change', listener);
  }

  /**
   * Tells how far back a Unit needs boundaries: to its mark, or (null) to the newest origin. Reading starts over
   * from further back where that is needed.
   */
  track(unit: string, mark: Pick<Mark, 'position' | 'commitTimeUs'> | null): void {
    this.#marks.set(unit, mark);
    if (this.#startedAt === null) {
      this.#begin();
    } else if (this.#startedAt > this.#low) {
      const oldest = this.boundaries[0];
      if (mark === null ? this.#boundaries.latestOrigin === null : oldest && oldest.position > mark.position)
        this.#begin();
    }
    if (this.boundaries.length > 256) this.#forget();
  }

  untrack(unit: string): void {
    this.#marks.delete(unit);
  }

  /**
   * Where a new Unit starts: the newest origin.
   * @returns null while that is not known yet
   * @throws TidemarkError TM307 when the topic does not hold its origin any more
   */
  origin(): Boundary | null {
    if (this.#startedAt === null || !this.caughtUp) return null;
    if (this.#boundaries.latestOrigin) return this.#boundaries.latestOrigin;
    if (this.#startedAt > this.#low || this.newest === null) return null;
    throw new TidemarkError('TM307', 'the progress topic does not reach back to its origin any more', {
      remedy: 'A new destination cannot be filled from Kafka alone: its first records have expired.',
    });
  }

  async stop(): Promise<void> {
    this.#stopped = true;
    this.#reading?.close();
    this.#events.removeAllListeners();
  }

  #read(records: Iterable<FetchedRecord>, from: number): boolean {
    try {
      for (const { value, offset } of records) {
        if (!value || offset < from) continue;
        const progress = decodeProgress(value);
        if (progress.kind === 'fence') continue;
        if (progress.sourceId !== this.#options.sourceId) {
          throw new TidemarkError(
            'TM206',
            `the progress topic is of source ${progress.sourceId}, not ${this.#options.sourceId}`,
          );
        }
        this.#boundaries.push(progress);
        this.#snapshots.push(progress);
        this.#parked = progress.parked;
      }
      this.#failure = null;
    } catch (error) {
      this.#fail(kafkaError(error, 'read the progress topic'));
      // Tried again, slowly: somebody may start the right version.
      void sleep(30_000, undefined, { ref: false }).then(() => this.#begin());
      return false;
    }
    if (this.#startedAt !== null && this.#startedAt > this.#low && this.#tooLate()) this.#begin();
    this.#events.emit('change');
    return true;
  }

  /** Reading began after the boundary that some Unit stands on. */
  #tooLate(): boolean {
    const oldest = this.boundaries[0];
    if (!oldest) return false;
    for (const mark of this.#marks.values())
      if (mark === null ? this.#boundaries.latestOrigin === null : oldest.position > mark.position)
        return true;
    return false;
  }

  /** (Re)starts reading. Asked for while it is under way it is done again: the log may have moved in between. */
  #begin(): void {
    this.#beginAgain = true;
    if (this.#beginning) return;
    this.#beginning = true;
    void (async () => {
      while (this.#beginAgain && !this.#stopped) {
        this.#beginAgain = false;
        await this.#findStart();
      }
      this.#beginning = false;
    })();
  }

  /** Waits for Kafka as long as it takes. */
  async #findStart(): Promise<void> {
    const { topic } = this.#options;
    for (let attempt = 0; !this.#stopped; attempt++) {
      try {
        await this.#admin(async (admin) => {
          const [partition] = await admin.fetchTopicOffsets(topic);
          this.#low = Number(partition!.low);
          this.#highAtStart = Number(partition!.high);
          let start = await this.#startOffset(admin);
          // Twice as far as before, when what is in memory already proved to begin too late.
          if (this.#startedAt !== null && this.#tooLate()) {
            const span = Math.max(leastRecordsBack, this.#highAtStart - this.#startedAt) * 2;
            start = Math.min(start, this.#highAtStart - span);
          }
          start = Math.max(this.#low, start);
          this.#boundaries.clear();
          this.#snapshots.clear();
          this.#startedAt = start;
          this.#reading?.close();
          this.#reading = this.#options.fetcher.read(topic, 0, start, {
            take: async (records, from) => this.#read(records, from),
            displaced: () => this.#begin(),
          });
        });
        this.#failure = null;
        this.#events.emit('change');
        return;
      } catch (error) {
        this.#fail(kafkaError(error, 'find the start of the progress topic'));
        await sleep(Math.min(500 * 2 ** attempt, 10_000), undefined, { ref: false });
      }
    }
  }

  async #startOffset(admin: Admin): Promise<number> {
    let oldestUs: bigint | null = null;
    for (const mark of this.#marks.values()) {
      if (mark === null) return this.#low;
      if (oldestUs === null || mark.commitTimeUs < oldestUs) oldestUs = mark.commitTimeUs;
    }
    const recent = this.#highAtStart - leastRecordsBack;
    if (oldestUs === null) return recent;
    const [found] = await admin.fetchTopicOffsetsByTimestamp(
      this.#options.topic,
      Math.max(0, Number(oldestUs / 1000n) - clockSkewMs),
    );
    return Math.min(Number(found!.offset), recent);
  }

  /** Marks of Units of other processes do not count: each process follows for itself. */
  #forget(): void {
    let oldest: Position | null = null;
    for (const mark of this.#marks.values()) {
      if (mark === null) return;
      if (oldest === null || mark.position < oldest) oldest = mark.position;
    }
    if (oldest === null) return;
    this.#boundaries.dropBefore(oldest);
    this.#snapshots.dropBefore(oldest);
  }

  async #admin<T>(run: (admin: Admin) => Promise<T>): Promise<T> {
    const admin = this.#options.kafka.admin();
    await admin.connect();
    try {
      return await run(admin);
    } finally {
      await admin.disconnect();
    }
  }

  #fail(error: TidemarkError): void {
    this.#failure = error;
    this.#options.log.warn('progress is not followed', errorFields(error));
  }
}
