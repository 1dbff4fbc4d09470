/**
 * One Unit's life with this worker: acquire, then Window after Window: cut, ingest, decide, merge, record, commit,
 * release. Every step can be repeated from the ledger, so any error is answered by starting the loop again.
 */
import type { Receipt, Sink } from '../connector/sink.ts';
import { asTidemarkError, TidemarkError } from '../platform/errors.ts';
import { failpoint } from '../platform/failpoint.ts';
import { errorFields, type Logger } from '../platform/log.ts';
import { firstIndex } from './boundary-list.ts';
import { type Cut, type CutSettings, cutWindow, type HoldState, type Mark } from './cut-window.ts';
import { reactTo } from './failure-policy.ts';
import type { Assignment } from './group-reader.ts';
import type { Ledger, OpenDelivery, OwnedUnit } from './ledger.ts';
import { type Offsets, pickTopics, recordsBetween } from './offsets.ts';
import type { ProgressFollower } from './progress-follower.ts';
import type { RowSchemas } from './row-schemas.ts';
import type { UnitIngest } from './unit-ingest.ts';
import type { UnitStore } from './unit-store.ts';
import { Wake } from './wake.ts';
import { checkHeld, writeWindow } from './write-window.ts';

export interface DeliveredWindow {
  destination: string;
  unit: string;
  sequence: number;
  /** Changes in the Window. */
  rows: number;
  /** As the destination counts them, see Receipt. */
  bytes: number;
  commitTimeUs: bigint;
  deliveredAtUs: bigint;
  receipt: Receipt;
}

export interface UnitSnapshot {
  unit: string;
  mark: string | null;
  /** Running maximum of commit times at the mark, microseconds since 1970 UTC. */
  commitTimeUs: bigint | null;
  /** Records in Kafka beyond the mark, null records included. */
  backlogRecords: number;
  lastError: { code: string; message: string; remedy: string } | null;
}

export interface UnitWorkerOptions {
  sourceId: string;
  destination: string;
  unit: string;
  owner: string;
  cut: Omit<CutSettings, 'topics'>;
  sink: Sink;
  ledger: Ledger;
  follower: ProgressFollower;
  store: UnitStore;
  ingest: UnitIngest;
  schemas: RowSchemas;
  log: Logger;
  /** The hold in force as last seen; the ledger has the last word. */
  hold(): HoldState | null;
  refreshHold(): Promise<void>;
  /** Topics of this Unit among those of a Progress: all of them must be ours before a Window may pass it. */
  topicsIn(endOffsets: Offsets): readonly string[];
  commit(offsets: Offsets): Promise<void>;
  /** Room was made in the store. */
  released(): void;
  onDelivery(delivery: DeliveredWindow): void;
}

/** How long the loop sleeps when nothing rings; holds and cadences are looked at again then. */
const idleWaitMs = 1000;

export class UnitWorker {
  readonly #options: UnitWorkerOptions;
  readonly #wake = new Wake();
  readonly #stopFollowing: () => void;
  #unit: OwnedUnit | null = null;
  /** What is written down of the ledger must be read again: something failed in between. */
  #stale = false;
  /** The group gave us the Unit; false while it rebalances. */
  #assigned = true;
  /** Counts the times the group gave it to us: it may have been somebody else's in between. */
  #generation = 1;
  /** The generations in which the ledger was asked whose it is, and in which reading began. */
  #confirmedIn = 0;
  #begunIn = 0;
  /** The destination's own Position was compared with the ledger. */
  #heldChecked = false;
  #stopped = false;
  /** Nothing may be written for the Unit any more. */
  #gone = false;
  #lastError: TidemarkError | null = null;
  #running: Promise<void> | null = null;

  constructor(options: UnitWorkerOptions) {
    this.#options = options;
    this.#stopFollowing = options.follower.onChange(() => this.#wake.ring());
  }

  start(assignment: Assignment): void {
    this.#options.ingest.assign(assignment);
    this.#running = this.#run();
  }

  /** Wakes the loop: records came in, or a hold changed. */
  ring(): void {
    this.#wake.ring();
  }

  /** The group rebalances: no new Window begins until it says who owns what. */
  suspend(): void {
    this.#assigned = false;
  }

  /** The Unit stayed with us, as far as the group knows; the ledger's token tells whether it was away meanwhile. */
  resume(assignment: Assignment): void {
    this.#options.ingest.assign(assignment);
    this.#assigned = true;
    this.#generation++;
    this.#wake.ring();
  }

  /** Ends the loop. A merge under way is given `graceMs`; then it gets no more rows, and so fails. */
  async stop(graceMs: number): Promise<void> {
    this.#stopped = true;
    this.#stopFollowing();
    this.#options.ingest.close();
    this.#options.follower.untrack(this.#key);
    this.#wake.ring();
    const { promise, resolve } = Promise.withResolvers<void>();
    const timer = setTimeout(resolve, graceMs);
    await Promise.race([this.#running, promise]);
    clearTimeout(timer);
    this.#gone = true;
  }

  /** Resolves when nothing of this worker runs any more. */
  async ended(): Promise<void> {
    await this.#running;
  }

  snapshot(): UnitSnapshot {
    const mark = this.#unit?.mark ?? null;
    const newest = this.#options.follower.newest;
    const topics = this.#options.ingest.topics;
    return {
      unit: this.#options.unit,
      mark: mark?.position ?? null,
      commitTimeUs: mark?.commitTimeUs ?? null,
      backlogRecords: mark && newest ? recordsBetween(mark.offsets, newest.endOffsets, topics) : 0,
      lastError: this.#lastError && {
        code: this.#lastError.code,
        message: this.#lastError.message,
        remedy: this.#lastError.remedy,
      },
    };
  }

  get #key(): string {
    return `${this.#options.destination}/${this.#options.unit}`;
  }

  async #run(): Promise<void> {
    let failures = 0;
    while (!this.#stopped) {
      try {
        if (!this.#assigned) {
          await this.#wake.wait(idleWaitMs);
          continue;
        }
        const unit = await this.#current();
        if (!unit) continue;
        await this.#step(unit);
        if (this.#lastError && !this.#unit?.open) await this.#recovered();
        failures = 0;
      } catch (thrown) {
        if (this.#stopped) return;
        const error = asTidemarkError(thrown);
        const { leave, delayMs } = reactTo(error, failures++);
        await this.#failed(error, delayMs);
        if (leave) {
          // Reassigned to us it comes back with a new token; until then its owner goes on.
          this.#assigned = false;
          await this.#forget();
        }
        await this.#pause(delayMs);
        this.#stale = true;
      }
    }
  }

  /** The Unit with everything it needs to cut a Window; null: look again. */
  async #current(): Promise<OwnedUnit | null> {
    const { ledger, destination, unit: name, owner, follower } = this.#options;
    const generation = this.#generation;
    const rejoined = this.#confirmedIn !== generation;
    if (this.#unit && (this.#stale || rejoined)) {
      try {
        this.#unit = await ledger.refreshUnit(this.#unit);
      } catch (error) {
        if (!(rejoined && error instanceof TidemarkError && error.code === 'TM403')) throw error;
        await this.#forget();
      }
    }
    if (!this.#unit) this.#unit = await ledger.acquireUnit(destination, name, owner);
    this.#confirmedIn = generation;
    if (!this.#heldChecked) await checkHeld(this.#options.sink, this.#unit);
    this.#heldChecked = true;
    this.#stale = false;
    follower.track(this.#key, this.#unit.mark);
    if (!this.#unit.mark) {
      const origin = follower.origin();
      if (!origin) {
        if (follower.failure) throw follower.failure;
        await this.#wake.wait(idleWaitMs);
        return null;
      }
      const { position, commitTimeUs, endOffsets } = origin;
      const offsets = pickTopics(endOffsets, this.#options.topicsIn(endOffsets));
      this.#unit = await ledger.advanceEmpty(this.#unit, { position, commitTimeUs, offsets });
      follower.track(this.#key, this.#unit!.mark);
    }
    if (this.#begunIn !== generation) {
      await this.#options.ingest.begin(this.#unit!.mark!);
      this.#begunIn = generation;
    }
    this.#options.ingest.throwIfFailed();
    return this.#unit;
  }

  /** The Unit was, or is, somebody else's: what we read of it and know about it is void. */
  async #forget(): Promise<void> {
    this.#unit = null;
    this.#heldChecked = false;
    this.#begunIn = 0;
    this.#options.ingest.reset();
    await this.#options.store.clear();
  }

  async #step(unit: OwnedUnit): Promise<void> {
    if (unit.open) return this.#deliver(unit, unit.open);
    const cut = this.#cut(unit.mark!);
    if (!cut) {
      this.#options.ingest.setTarget(null);
      await this.#wake.wait(idleWaitMs);
      return;
    }
    const { follower, destination, ingest } = this.#options;
    const snapshots = follower.snapshots.within(cut.from, cut.to, destination, ingest.topics);
    const sweeps = snapshots.ended.length > 0;
    if (cut.records === 0 && !sweeps) return this.#advance(unit, cut);
    if (!(await this.#ingested(cut.ingestOffsets))) return;
    const content = await this.#options.store.content(cut);
    if (content.length === 0 && !sweeps) return this.#advance(unit, cut);
    const open = await this.#options.ledger.decideWindow(unit, cut, snapshots);
    if (!open) return this.#options.refreshHold();
    this.#unit = { ...unit, open };
    await this.#deliver(this.#unit, open);
  }

  #cut(mark: Mark): Cut | null {
    const { follower, ingest, cut, hold, topicsIn } = this.#options;
    const { boundaries } = follower;
    // What ended in the Window may stand in a Progress that was not read yet.
    if (!follower.reachesBack(mark.position)) return null;
    const ours = new Set(ingest.topics);
    const covered = (endOffsets: Offsets) => topicsIn(endOffsets).every((topic) => ours.has(topic));
    // A Window past a topic that we do not read yet would lose its records.
    const newest = follower.newest;
    const known =
      !newest || covered(newest.endOffsets)
        ? boundaries
        : boundaries.slice(
            0,
            firstIndex(boundaries.length, (i) => !covered(boundaries[i]!.endOffsets)),
          );
    return cutWindow(mark, known, { ...cut, topics: ingest.topics }, hold());
  }

  /** Waits for the records of a Window. False: the Unit went away meanwhile. */
  async #ingested(ends: Offsets): Promise<boolean> {
    const { ingest } = this.#options;
    ingest.setTarget(ends);
    while (!ingest.reached(ends)) {
      if (this.#stopped || !this.#assigned || this.#begunIn !== this.#generation) return false;
      ingest.throwIfFailed();
      await this.#wake.wait(idleWaitMs);
    }
    return true;
  }

  async #advance(unit: OwnedUnit, { to, commitTimeUs, markOffsets }: Cut): Promise<void> {
    const moved = await this.#options.ledger.advanceEmpty(unit, {
      position: to,
      commitTimeUs,
      offsets: markOffsets,
    });
    if (!moved) return this.#options.refreshHold();
    await this.#settle(moved);
  }

  async #deliver(unit: OwnedUnit, open: OpenDelivery): Promise<void> {
    const { ledger, store, onDelivery, commit, destination, log } = this.#options;
    if (!(await this.#ingested(open.ingestOffsets))) return;
    const content = await store.content(open);
    const receipt = await writeWindow(unit, open, content, {
      ...this.#options,
      topics: this.#options.ingest.topics,
      gone: () => this.#gone,
    });
    await failpoint('after-merge');
    const recorded = await ledger.recordDelivery(unit, open, receipt);
    const deliveredAtUs = BigInt(Date.now()) * 1000n;
    await failpoint('after-ledger');
    await commit(open.markOffsets);
    this.#lastError = null;
    await this.#settle(recorded);
    const { sequence, commitTimeUs } = open;
    const rows = content.reduce((sum, { changes }) => sum + changes, 0);
    log.debug('delivered a Window', { sequence, to: open.to, rows });
    onDelivery({
      destination,
      unit: unit.unit,
      sequence,
      rows,
      bytes: receipt.bytes,
      commitTimeUs,
      deliveredAtUs,
      receipt,
    });
  }

  /** The mark moved: forget what lies behind it. */
  async #settle(unit: OwnedUnit): Promise<void> {
    const { ingest, store, follower, released } = this.#options;
    this.#unit = unit;
    ingest.advance(unit.mark!);
    ingest.setTarget(null);
    follower.track(this.#key, unit.mark);
    await store.release(unit.mark!.position);
    released();
  }

  async #recovered(): Promise<void> {
    await this.#options.ledger.clearFailure(this.#unit!);
    this.#lastError = null;
  }

  async #failed(error: TidemarkError, delayMs: number): Promise<void> {
    const { ledger, log, unit } = this.#options;
    this.#lastError = error;
    this.#begunIn = 0;
    log.warn('a Unit is not delivered', { unit, ...errorFields(error), retryInMs: delayMs });
    if (!this.#unit || error.code === 'TM403') return;
    const { code, message, remedy } = error;
    await ledger.recordFailure(this.#unit, { code, message, remedy }).catch((lost) => {
      log.debug('the error is not in the ledger', errorFields(lost));
    });
  }

  /** Sleeps through rings, except for the last one. */
  async #pause(delayMs: number): Promise<void> {
    const until = Date.now() + delayMs;
    while (!this.#stopped && Date.now() < until) await this.#wake.wait(until - Date.now());
  }
}
