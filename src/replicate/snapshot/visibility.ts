/**
 * The visibility race. A commit record is in the WAL, and may be streamed, before its transaction is visible: the gap
 * lasts as long as a synchronous standby takes. A chunk read in that gap holds rows as they were before a Change
 * that the stream has passed already, and would overwrite it. So a chunk counts only if its snapshot sees every
 * transaction that was streamed before its low mark.
 */

/** pg_snapshot: xids below xmin are over, those from xmax on have not begun, of those between `running` lists the rest. */
export interface PgSnapshot {
  xmin: bigint;
  xmax: bigint;
  running: ReadonlySet<bigint>;
}

/** The text of pg_current_snapshot(), `xmin:xmax:xip,xip`. */
export function parsePgSnapshot(text: string): PgSnapshot {
  const match = /^(\d+):(\d+):([\d,]*)$/.exec(text);
  if (!match) throw new Error('not a pg_snapshot');
  const running = match[3] === '' ? [] : match[3]!.split(',').map(BigInt);
  return { xmin: BigInt(match[1]!), xmax: BigInt(match[2]!), running: new Set(running) };
}

/** pgoutput has the low 32 bits of an id; of the ids that end in them the one nearest to the snapshot is meant. */
export function fullXid(xid: number, snapshot: PgSnapshot): bigint {
  return snapshot.xmax + BigInt.asIntN(32, BigInt(xid) - snapshot.xmax);
}

/** Whether the transaction was over when the snapshot was taken. */
export function isOver(snapshot: PgSnapshot, xid: number): boolean {
  const full = fullXid(xid, snapshot);
  return full < snapshot.xmin || (full < snapshot.xmax && !snapshot.running.has(full));
}

/** What a chunk sees: at least this, from before it is read. */
export interface Sight {
  /** null: nothing is known to be visible. */
  snapshot: PgSnapshot | null;
}

/** Transactions remembered at most; with more the watch starts over. About 100 bytes each. */
const mostUnseen = 100_000;

/**
 * Which transactions a chunk's snapshot must see. Watches the stream only while snapshots run: what was streamed
 * before the watch began is either over in the snapshot taken then, or in progress in it and so a suspect.
 */
export class TransactionWatch {
  /** Streamed since, and not known to be visible yet: xid to its number in the stream. */
  readonly #unseen = new Map<number, number>();
  /** In progress when the watch began: they may have been streamed before it. */
  #suspects = new Set<number>();
  /** Of chunks that nothing is known of yet: a transaction is forgotten once all of them see it. */
  readonly #held = new Set<Sight>();
  /** What it sees, every one taken from now on sees. */
  #newest: PgSnapshot | null = null;
  #streamed = 0;
  #watching = false;
  #overflowed = false;

  /** Commits streamed so far. */
  get streamed(): number {
    return this.#streamed;
  }

  get overflowed(): boolean {
    return this.#overflowed;
  }

  /** Call before the snapshot for `suspect` is taken. */
  begin(): void {
    this.#watching = true;
    this.#overflowed = false;
    this.#unseen.clear();
    this.#suspects.clear();
    this.#held.clear();
    this.#newest = null;
  }

  end(): void {
    this.#watching = false;
    this.#unseen.clear();
    this.#suspects.clear();
    this.#held.clear();
  }

  /** @param snapshot taken after `begin`, and after a transaction that began later than any streamed before it */
  suspect(snapshot: PgSnapshot): void {
    this.#suspects = new Set([...snapshot.running].map((xid) => Number(BigInt.asUintN(32, xid))));
    for (const xid of this.#unseen.keys()) this.#suspects.delete(xid);
  }

  /** Transactions that were seen at work after `suspect`: they had not committed, so their commits will be streamed. */
  clear(xids: Iterable<number>): void {
    for (const xid of xids) this.#suspects.delete(xid);
  }

  /** A commit was streamed. */
  committed(xid: number): void {
    this.#streamed++;
    if (!this.#watching) return;
    this.#suspects.delete(xid);
    if (this.#isSettled(xid)) return;
    if (this.#unseen.size >= mostUnseen) this.#overflowed = true;
    else this.#unseen.set(xid, this.#streamed);
  }

  /**
   * A chunk is going to be read. Its snapshot may be known later than those of chunks that are read after it, over other
   * connections: nothing that it may not see is forgotten until then, or until `release`.
   */
  expect(): Sight {
    const sight = { snapshot: this.#newest };
    this.#held.add(sight);
    return sight;
  }

  /** The snapshot of what was expected is known. */
  hold(sight: Sight, snapshot: PgSnapshot): void {
    sight.snapshot = snapshot;
    this.#newest = snapshot;
    for (const xid of this.#unseen.keys()) if (this.#isSettled(xid)) this.#unseen.delete(xid);
    for (const xid of this.#suspects) if (this.#isSettled(xid)) this.#suspects.delete(xid);
  }

  /** What becomes of the chunk is known. */
  release(sight: Sight): void {
    this.#held.delete(sight);
  }

  /** Every chunk's snapshot that counts, now or later, sees it. */
  #isSettled(xid: number): boolean {
    if (!this.#newest || !isOver(this.#newest, xid)) return false;
    for (const { snapshot } of this.#held) if (!snapshot || !isOver(snapshot, xid)) return false;
    return true;
  }

  /** Suspects that the snapshot does not see. */
  suspects(snapshot: PgSnapshot): number {
    let count = 0;
    for (const xid of this.#suspects) if (!isOver(snapshot, xid)) count++;
    return count;
  }

  /**
   * Transactions that the snapshot should see and does not.
   * @param before `streamed` when the chunk's low mark was met
   */
  missing(snapshot: PgSnapshot, before: number): number {
    let count = this.suspects(snapshot);
    for (const [xid, number] of this.#unseen) if (number <= before && !isOver(snapshot, xid)) count++;
    return count;
  }
}
