/** From Kafka into a Unit's part of the window store: where each partition starts, what is skipped, when to pause. */
import { asTidemarkError, TidemarkError } from '../platform/errors.ts';
import type { FetchedRecord } from '../platform/kafka-fetch/record-set.ts';
import { splitTopic } from '../publish/record-format.ts';
import type { Mark } from './cut-window.ts';
import type { Reading } from './fetch/cursor.ts';
import type { Fetcher } from './fetch/shared-fetcher.ts';
import type { Assignment } from './group-membership.ts';
import { lostToRetention, type Offsets } from './offsets.ts';
import { readRecord } from './read-record.ts';
import type { IncomingChange } from './stored-change.ts';
import type { TenantFilter } from './tenant-filter.ts';
import type { TenantTables } from './tenant-tables.ts';
import type { UnitStore } from './unit-store.ts';

export interface Watermarks {
  low: number;
  high: number;
}

/**
 * `ample`: whatever comes next may come in; `scarce`: what the next Window needs; `none`: only what the one waits for that is
 * decided, and goes to disk where that must be.
 */
export type Room = 'ample' | 'scarce' | 'none';

export interface UnitIngestOptions {
  destination: string;
  store: UnitStore;
  fetcher: Fetcher;
  /** First and next offset of every partition of a topic. @throws TidemarkError TM301 */
  watermarks(topic: string): Promise<Watermarks[]>;
  /** End offsets of the newest Progress; null while it is not known which that is. */
  newestEnds(): Offsets | null;
  /** Set where the destination is bound to a tenant. */
  tenant: TenantFilter | null;
  tenantTables: Pick<TenantTables, 'require'>;
  /** @param spokenForBytes of rows that Windows need, and that are not there yet */
  room(spokenForBytes: number): Room;
  /** Something was ingested, or failed. */
  changed(): void;
}

/** What a reading hands over, see CursorOwner. */
interface Taken {
  records: Iterable<FetchedRecord>;
  from: number;
  end: number;
}

export class UnitIngest {
  readonly #options: UnitIngestOptions;
  #assignment: Assignment = {};
  #mark: Mark | null = null;
  /** `topic/partition` to the offset after the last record taken. */
  #next = new Map<string, number>();
  /** End offsets of the Window that is waited for. */
  #target: Offsets | null = null;
  /** And of the one after it, as far as that is known. */
  #expected: Offsets | null = null;
  #failure: TidemarkError | null = null;
  #topics: string[] = [];
  readonly #readings = new Map<string, Reading>();
  /** `topic/partition` that are not read until there is room for what comes next in them. */
  readonly #turnedAway = new Set<string>();
  /** Counts the times that what was read became void. */
  #life = 0;
  #closed = false;

  constructor(options: UnitIngestOptions) {
    this.#options = options;
  }

  get topics(): readonly string[] {
    return this.#topics;
  }

  /** @throws what stopped the reading; `begin` starts it again */
  throwIfFailed(): void {
    if (this.#failure) throw this.#failure;
  }

  /** What the group gave this Unit; nothing is read before `begin`. */
  assign(assignment: Assignment): void {
    this.#assignment = assignment;
    // The number of a topic is its place here, and rows in the store carry it: topics are only ever added.
    for (const topic of Object.keys(assignment).sort())
      if (!this.#topics.includes(topic)) this.#topics.push(topic);
  }

  /** The Unit is not this one's any more: nothing is read for it from now on. */
  close(): void {
    this.#closed = true;
    this.#endReadings();
  }

  /** Forgets what was read: the next `begin` starts at its mark. */
  reset(): void {
    this.#endReadings();
    this.#next.clear();
    this.#target = null;
    this.#expected = null;
  }

  /** A batch on its way into the store does not get there any more. */
  #endReadings(): void {
    this.#life++;
    for (const reading of this.#readings.values()) reading.close();
    this.#readings.clear();
    this.#turnedAway.clear();
  }

  /**
   * Reads every partition from where it stopped, or from the mark.
   * @returns false where it is not known yet whether what is missing was ever needed: ask again when more of Progress is read
   * @throws TidemarkError TM307 when Kafka expired what is missing, TM306 when it lost it, TM301
   */
  async begin(mark: Mark): Promise<boolean> {
    const watermarks = new Map<string, Watermarks[]>();
    for (const topic of Object.keys(this.#assignment))
      watermarks.set(topic, await this.#options.watermarks(topic));
    await this.requireTenants(
      Object.fromEntries([...watermarks].map(([topic, list]) => [topic, list.map(({ high }) => high)])),
    );
    if (this.#closed) return false;
    const newestEnds = this.#options.newestEnds();
    this.#mark = mark;
    const starts: { topic: string; partition: number; start: number }[] = [];
    for (const [topic, partitions] of Object.entries(this.#assignment)) {
      for (const partition of partitions) {
        if (!this.#reads(topic, partition)) continue;
        const name = `${topic}/${partition}`;
        if ((this.#readings.get(name)?.position ?? null) !== null) continue;
        const wanted = this.#next.get(name) ?? mark.offsets[topic]?.[partition] ?? 0;
        const known = watermarks.get(topic)?.[partition];
        // An older Progress would tell that nothing was written behind `wanted`, and so that nothing is gone.
        if (known && known.low > wanted && newestEnds === null) return false;
        const end = newestEnds?.[topic]?.[partition];
        starts.push({ topic, partition, start: checkedStart(topic, partition, wanted, known, end) });
      }
    }
    this.#failure = null;
    for (const { topic, partition, start } of starts) this.#read(topic, partition, start);
    return true;
  }

  /**
   * Where the destination is a tenant's: nothing below `ends` can be where it is not looked for.
   * @throws TidemarkError TM413, TM304
   */
  async requireTenants(ends: Offsets): Promise<void> {
    const { tenant, tenantTables } = this.#options;
    if (!tenant) return;
    const all = new Set(this.#topics);
    for (const [topic, list] of Object.entries(ends))
      await tenantTables.require(topic, splitTopic(topic, all).table, list);
  }

  #read(topic: string, partition: number, start: number): void {
    const name = `${topic}/${partition}`;
    this.#next.set(name, start);
    this.#turnedAway.delete(name);
    const reading = this.#options.fetcher.read(topic, partition, start, {
      take: (records, from, end) => this.#take(topic, partition, { records, from, end }),
      displaced: (expected) => this.#displaced(topic, partition, expected),
    });
    this.#readings.set(name, reading);
    this.#pauseOrResume(topic, partition, this.#room());
  }

  /** The mark moved: records at or below it are of no use any more. */
  advance(mark: Mark): void {
    this.#mark = mark;
  }

  /**
   * Lets everything below `ends` in, however full the store is, and what lies below `next` before anything else, as far as
   * there is room.
   */
  setTarget(ends: Offsets | null, next: Offsets | null = null): void {
    this.#target = ends;
    this.#expected = next;
    // Told over and over that nothing is waited for, what was turned away would be fetched over and over.
    this.#pauseAndResume(ends !== null);
  }

  /** Whether everything below `ends` has been read. */
  reached(ends: Offsets): boolean {
    for (const [topic, list] of Object.entries(ends)) {
      for (let partition = 0; partition < list.length; partition++)
        if (this.#reads(topic, partition) && list[partition]! > this.#reached(topic, partition)) return false;
    }
    return true;
  }

  /** There may be room again. */
  relieve(): void {
    this.#pauseAndResume(true);
  }

  /** Whether the records are in the store now; what was turned away is read again when there is room. */
  async #take(topic: string, partition: number, { records, from, end }: Taken): Promise<boolean> {
    const life = this.#life;
    const mark = this.#mark!;
    try {
      // A table's rows are one, whichever topic they came by.
      const { table } = splitTopic(topic, new Set(this.#topics));
      const number = this.#topics.indexOf(table);
      // What an earlier life of the destination was sent is of no use.
      const subscribedLate = mark.offsets[topic] === undefined && topic === table;
      let changes: IncomingChange[] = [];
      for (const record of records) {
        if (record.offset < from) continue;
        const change = readRecord(record, number, topic, this.#options.destination);
        if (!change) continue;
        if (change.position > mark.position) changes.push(change);
        else if (subscribedLate) throw cannotCatchUp(topic);
        if (changes.length < this.#options.store.rowsAtATime) continue;
        if (!(await this.#store(topic, partition, changes, life))) return false;
        changes = [];
        this.#next.set(`${topic}/${partition}`, record.offset + 1);
      }
      if (!(await this.#store(topic, partition, changes, life))) return false;
      this.#next.set(`${topic}/${partition}`, end);
      this.#pauseOrResume(topic, partition, this.#room());
      return true;
    } catch (error) {
      if (life === this.#life) this.#failure = asTidemarkError(error);
      return false;
    } finally {
      this.#options.changed();
    }
  }

  /** False: what was read became void meanwhile, or there is no room for what nobody waits for. */
  async #store(
    topic: string,
    partition: number,
    changes: readonly IncomingChange[],
    life: number,
  ): Promise<boolean> {
    const { tenant, store } = this.#options;
    const own = (await tenant?.own(changes)) ?? changes;
    if (life !== this.#life) return false;
    if (this.#isBelow(this.#target, topic, partition)) {
      await store.append(own);
    } else if (!(await store.appendInMemory(own))) {
      if (life === this.#life) this.#turnedAway.add(`${topic}/${partition}`);
      return false;
    }
    return life === this.#life;
  }

  /** The log begins later or ends earlier than where we were. `begin` finds out which. */
  #displaced(topic: string, partition: number, expected: number): void {
    this.#next.set(`${topic}/${partition}`, expected);
    this.#failure ??= new TidemarkError(
      'TM301',
      `reading ${topic}/${partition} has to start over at ${expected}`,
    );
    this.#options.changed();
  }

  /** A tenant's rows are in one partition alone. */
  #reads(topic: string, partition: number): boolean {
    const { tenant } = this.#options;
    return tenant === null || tenant.partition(this.#assignment[topic]?.length ?? 0) === partition;
  }

  #reached(topic: string, partition: number): number {
    return this.#next.get(`${topic}/${partition}`) ?? 0;
  }

  #isBelow(ends: Offsets | null, topic: string, partition: number): boolean {
    return (ends?.[topic]?.[partition] ?? 0) > this.#reached(topic, partition);
  }

  /** Of records that lie below what is awaited or expected, as far as they are not in the store. */
  #spokenForBytes(): number {
    let records = 0;
    for (const [topic, partitions] of Object.entries(this.#assignment)) {
      const target = this.#target?.[topic];
      const expected = this.#expected?.[topic];
      if (!target && !expected) continue;
      for (const partition of partitions) {
        if (!this.#reads(topic, partition)) continue;
        const end = Math.max(target?.[partition] ?? 0, expected?.[partition] ?? 0);
        records += Math.max(0, end - this.#reached(topic, partition));
      }
    }
    return records * this.#options.store.bytesPerRow;
  }

  #room(): Room {
    return this.#options.store.inMemory ? this.#options.room(this.#spokenForBytes()) : 'none';
  }

  /** By how full the store is by now. @param again whether what was turned away is read again */
  #pauseAndResume(again: boolean): void {
    const room = this.#room();
    for (const [topic, partitions] of Object.entries(this.#assignment)) {
      for (const partition of partitions) {
        if (again || !this.#turnedAway.has(`${topic}/${partition}`))
          this.#pauseOrResume(topic, partition, room);
      }
    }
  }

  #pauseOrResume(topic: string, partition: number, room: Room): void {
    if (this.#closed) return;
    const name = `${topic}/${partition}`;
    const mayRead =
      room === 'ample' ||
      (room === 'scarce' && this.#isBelow(this.#expected, topic, partition)) ||
      this.#isBelow(this.#target, topic, partition);
    if (!this.#turnedAway.has(name)) this.#readings.get(name)?.setPaused(!mayRead);
    else if (mayRead) this.#read(topic, partition, this.#reached(topic, partition));
  }
}

/** @param newestEnd of the newest Progress */
function checkedStart(
  topic: string,
  partition: number,
  wanted: number,
  watermarks: Watermarks | undefined,
  newestEnd: number | undefined,
): number {
  if (!watermarks) throw new TidemarkError('TM306', `${topic} has no partition ${partition} any more`);
  const { low, high } = watermarks;
  if (lostToRetention(wanted, low, newestEnd)) {
    throw new TidemarkError(
      'TM307',
      `${topic}/${partition} begins at offset ${low}, this destination continues at ${wanted}`,
    );
  }
  if (high < wanted)
    throw new TidemarkError('TM306', `${topic}/${partition} ends at ${high}, before ${wanted} that was read`);
  return Math.max(low, wanted);
}

function cannotCatchUp(topic: string): TidemarkError {
  return new TidemarkError('TM307', `the destination is already past records of ${topic}`, {
    remedy:
      'A table that had changes before it was subscribed cannot join a destination that is ahead of them: rebuild the destination, or give the table to a new one.',
  });
}
