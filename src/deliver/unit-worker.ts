/**
 * One Unit's life with this worker: acquire, then Window after Window: cut, ingest, decide, merge, record, commit,
 * release. Every step can be repeated from the ledger, so any error is answered by starting the loop again.
 */
import type { Receipt } from '../connector/sink.ts';
import { asTidemarkError, TidemarkError } from '../platform/errors.ts';
import { failpoint } from '../platform/failpoint.ts';
import { errorFields, type Logger } from '../platform/log.ts';
import { firstIndex } from './boundary-list.ts';
import { type Cut, type CutSettings, cutWindow, type HoldState, type Mark } from './cut-window.ts';
import { deliverWindow } from './deliver-window.ts';
import { reactTo } from './failure-policy.ts';
import type { Assignment } from './group-membership.ts';
import type { Ledger, OpenDelivery, OwnedUnit } from './ledger.ts';
import { moveUnit } from './move-unit.ts';
import type { Moves } from './moves.ts';
import { type Offsets, pickTopics, recordsBetween } from './offsets.ts';
import type { ProgressFollower } from './progress-follower.ts';
import type { DeadLetters } from './quarantine/dead-letters.ts';
import type { QuarantineLedger } from './quarantine/quarantine-ledger.ts';
import type { UnitQuarantine } from './quarantine/unit-quarantine.ts';
import type { RowSchemas } from './row-schemas.ts';
import type { SinkInUse } from './sink-in-use.ts';
import { noSnapshots } from './snapshot-list.ts';
import type { UnitIngest } from './unit-ingest.ts';
import type { UnitStore } from './unit-store.ts';
import { Wake } from './wake.ts';
import { checkHeld } from './write-window.ts';

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
  /** From the first byte written to the acknowledgement. */
  durationMs: number;
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
  /** As they are at present. */
  cutSettings(): Omit<CutSettings, 'topics'>;
  sink: SinkInUse;
  /** The destination refused credentials or rights. */
  refused(): void;
  ledger: Ledger;
  follower: ProgressFollower;
  store: UnitStore;
  ingest: UnitIngest;
  schemas: RowSchemas;
  log: Logger;
  /** The hold in force as last seen; the ledger has the last word. */
  hold(): HoldState | null;
  refreshHold(): Promise<void>;
  /** Nothing may be written to the destination at present. */
  paused(): boolean;
  /** Somebody wants rows of the destination's Quarantine replayed. */
  replaysWanted(): boolean;
  /** An operator wants Units of the destination elsewhere. */
  moveWanted(): boolean;
  moves: Moves;
  quarantine: UnitQuarantine;
  quarantineLedger: QuarantineLedger;
  deadLetters: DeadLetters;
  /** An empty store for the time of the work. */
  replayStore<T>(work: (store: UnitStore) => Promise<T>): Promise<T>;
  /** Pauses the destination, because it failed for so long; null: never by itself. */
  pauseAfterMs(): number | null;
  pause(error: TidemarkError): Promise<void>;
  /** Topics of this Unit among those of a Progress: all of them must be ours before a Window may pass it. */
  topicsIn(endOffsets: Offsets): readonly string[];
  commit(offsets: Offsets): Promise<void>;
  /** Room was made in the store. */
  released(): void;
  onDelivery(delivery: DeliveredWindow): void;
}

type WindowEnd = Pick<Cut, 'to' | 'commitTimeUs' | 'ingestOffsets' | 'markOffsets'>;

/** How long the loop sleeps when nothing rings; holds and cadences are looked at again then. */
const idleWaitMs = 1000;

export class UnitWorker {
  readonly #options: UnitWorkerOptions;
  readonly #wake = new Wake();
  readonly #stopFollowing: () => void;
  #unit: OwnedUnit | null = null;
  /** What is written down of the ledger must be read again: something failed in between. */
  #stale = false;
  /** The group gave us the Unit; false when the ledger said that it is another worker's. */
  #assigned = true;
  /** Counts the times the group gave it to us: it may have been somebody else's in between. */
  #generation = 1;
  /** The generations in which the ledger was asked whose it is, and in which reading began. */
  #confirmedIn = 0;
  #begunIn = 0;
  /** The destination's own Position was compared with the ledger. */
  #heldChecked = false;
  #stopped = false;
  #hurry = false;
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

  /** Whatever it waits for after a failure, it tries now. */
  tryNow(): void {
    this.#hurry = true;
    this.#wake.ring();
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
    if (this.#options.moveWanted() && !(await this.#moved(this.#unit))) return null;
    if (!this.#heldChecked) await this.#checkHeld(this.#unit);
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
      if (!(await this.#options.ingest.begin(this.#unit!.mark!))) {
        if (follower.failure) throw follower.failure;
        await this.#wake.wait(idleWaitMs);
        return null;
      }
      this.#begunIn = generation;
    }
    this.#options.ingest.throwIfFailed();
    return this.#unit;
  }

  #checkHeld(unit: OwnedUnit): Promise<void> {
    return this.#options.sink.with(({ sink }) => checkHeld(sink, unit));
  }

  /** Goes where an operator sends the Unit. False: look again. */
  async #moved(unit: OwnedUnit): Promise<boolean> {
    const { moves, follower, log, refreshHold } = this.#options;
    const move = await moves.pending(unit);
    if (!move) return true;
    follower.track(this.#key, unit.mark);
    const moved = await this.#options.sink.with(({ sink }) =>
      moveUnit(unit, move, { ...this.#options, sink, progress: follower }),
    );
    if (!moved) {
      await this.#wake.wait(idleWaitMs);
      return false;
    }
    // A Window that the destination holds already is recorded before anything else.
    if (moved === unit) return true;
    log.warn('moved by an operator', {
      unit: unit.unit,
      kind: move.kind,
      from: unit.mark?.position ?? null,
      to: moved.mark?.position ?? null,
    });
    await this.#forget();
    this.#unit = moved;
    await refreshHold();
    return true;
  }

  /** The Unit was, or is, somebody else's: what we read of it and know about it is void. */
  async #forget(): Promise<void> {
    this.#unit = null;
    this.#options.quarantine.invalidate();
    this.#heldChecked = false;
    this.#begunIn = 0;
    this.#options.ingest.reset();
    await this.#options.store.clear();
  }

  async #step(unit: OwnedUnit): Promise<void> {
    if (this.#options.paused()) {
      await this.#wake.wait(idleWaitMs);
      return;
    }
    if (unit.open) return this.#again(unit, this.#stillSubscribed(unit.open));
    if (this.#options.replaysWanted() && (await this.#decideReplay(unit))) return;
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
    if (!(await this.#ingested(cut))) return;
    const content = await this.#options.store.content(cut);
    if (content.length === 0 && !sweeps) return this.#advance(unit, cut);
    const open = await this.#options.ledger.decideWindow(unit, cut, snapshots);
    if (!open) return this.#options.refreshHold();
    this.#unit = { ...unit, open };
    await this.#deliver(this.#unit, open);
  }

  /** Another attempt at a Window, perhaps of another process: unless it was paused while its records were waited for. */
  async #again(unit: OwnedUnit, open: OpenDelivery): Promise<void> {
    if (!(await this.#ingested(open))) return;
    if (!(await this.#options.ledger.mayAttempt(unit))) return this.#options.refreshHold();
    await this.#deliver(unit, open);
  }

  /** Without what nobody reads any more of a Window that was decided when other tables were subscribed. */
  #stillSubscribed(open: OpenDelivery): OpenDelivery {
    const { ingestOffsets, markOffsets, snapshots } = open;
    const topics = this.#options.topicsIn(ingestOffsets);
    if (topics.length === Object.keys(ingestOffsets).length) return open;
    const isOurs = ({ topic }: { topic: string }) => topics.includes(topic);
    return {
      ...open,
      ingestOffsets: pickTopics(ingestOffsets, topics),
      // As if they had never been: who subscribes to them again is told that something is missing.
      markOffsets: pickTopics(markOffsets, topics),
      snapshots: { open: snapshots.open.filter(isOurs), ended: snapshots.ended.filter(isOurs) },
    };
  }

  /** A Window of its own for rows of Quarantine that somebody wants replayed: false where none of them is ours. */
  async #decideReplay(unit: OwnedUnit): Promise<boolean> {
    const { ledger, quarantineLedger } = this.#options;
    const { position, commitTimeUs, offsets } = unit.mark!;
    const wanted = (await quarantineLedger.active(unit)).filter(({ state }) => state === 'replaying');
    if (wanted.length === 0) return false;
    const cut: Cut = {
      from: position,
      to: position,
      ingestOffsets: offsets,
      markOffsets: offsets,
      commitTimeUs,
      records: 0,
    };
    const replays = wanted.map(({ id }) => id);
    const open = await ledger.decideWindow(unit, cut, noSnapshots, replays);
    if (!open) {
      await this.#options.refreshHold();
      return true;
    }
    this.#unit = { ...unit, open };
    await this.#deliver(this.#unit, open);
    await this.#options.refreshHold();
    return true;
  }

  #cut(mark: Mark): Cut | null {
    const { follower, ingest, cutSettings, hold, topicsIn } = this.#options;
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
    return cutWindow(mark, known, { ...cutSettings(), topics: ingest.topics }, hold());
  }

  /** Where the Window after this one will end, as far as that is known by now. */
  #endsAfter({ to, commitTimeUs, markOffsets }: WindowEnd): Offsets | null {
    try {
      return this.#cut({ position: to, commitTimeUs, offsets: markOffsets })?.ingestOffsets ?? null;
    } catch {
      // Told when its turn comes.
      return null;
    }
  }

  /** Waits for the records of a Window. False: the Unit went away meanwhile. */
  async #ingested(window: WindowEnd): Promise<boolean> {
    const { ingest } = this.#options;
    const ends = window.ingestOffsets;
    await ingest.requireTenants(ends);
    // While a Window is written the next one is read, or the destination waits for it.
    ingest.setTarget(ends, this.#endsAfter(window));
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
    const { ledger, onDelivery, commit, destination, log } = this.#options;
    if (!(await this.#ingested(open))) return;
    const { changes, ...acknowledged } = await this.#options.sink.with(async ({ sink, credentials }) => ({
      credentials,
      ...(await deliverWindow(unit, open, {
        ...this.#options,
        sink,
        topics: this.#options.ingest.topics,
        gone: () => this.#gone,
      })),
    }));
    await failpoint('after-merge');
    const recorded = await ledger.recordDelivery(unit, open, acknowledged);
    const { receipt, durationMs } = acknowledged;
    const deliveredAtUs = BigInt(Date.now()) * 1000n;
    await failpoint('after-ledger');
    await commit(open.markOffsets);
    this.#lastError = null;
    await this.#settle(recorded);
    const { sequence, commitTimeUs } = open;
    log.debug('delivered a Window', { sequence, to: open.to, rows: changes });
    onDelivery({
      destination,
      unit: unit.unit,
      sequence,
      rows: changes,
      bytes: receipt.bytes,
      commitTimeUs,
      deliveredAtUs,
      durationMs,
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
    const { ledger, log, unit, pause, refused } = this.#options;
    if (error.code === 'TM402') refused();
    this.#lastError = error;
    this.#begunIn = 0;
    log.warn('a Unit is not delivered', { unit, ...errorFields(error), retryInMs: delayMs });
    if (!this.#unit || error.code === 'TM403') return;
    const { code, message, remedy } = error;
    try {
      const failingMs = await ledger.recordFailure(this.#unit, { code, message, remedy }, delayMs);
      const pauseAfterMs = this.#options.pauseAfterMs();
      if (pauseAfterMs !== null && failingMs >= pauseAfterMs) await pause(error);
    } catch (lost) {
      log.debug('the error is not in the ledger', errorFields(lost));
    }
  }

  /** Sleeps through rings, except for the last one and `tryNow`. */
  async #pause(delayMs: number): Promise<void> {
    const until = Date.now() + delayMs;
    this.#hurry = false;
    while (!this.#stopped && !this.#hurry && Date.now() < until) await this.#wake.wait(until - Date.now());
  }
}
