/** Marks of one table, while they wait for their proof. */
import type { Position } from '../connector/position.ts';
import { fromProgress, type Offsets } from '../deliver/offsets.ts';
import type { Progress } from '../publish/progress.ts';
import { evictionsOf } from '../publish/record-format.ts';
import type { StayReason } from './delivery-proof.ts';
import type { MarkedRow, Marks } from './mark-rows.ts';

export class WaitingMarks {
  readonly lsn: bigint;
  readonly timeline: number;
  readonly epoch: number;
  readonly markedAtMs: number;
  /** By a clock that nobody sets. */
  readonly #since = performance.now();
  /** There were more rows than are marked. */
  readonly more: boolean;
  /** That destinations have to reach; null: the reader is not there yet. */
  position: Position | null = null;
  /** Where the table's topics ended at that Position. */
  ends: Offsets = {};
  /** Rows that no waiting helps, by key: they hold up no other, so rows are marked anew beside them. */
  readonly blocked = new Map<string, StayReason>();
  /** As they were found before they were marked once more. */
  readonly #before: ReadonlyMap<string, StayReason>;
  #rows: MarkedRow[];

  constructor(
    { rows, lsn, timeline, more }: Marks,
    epoch: number,
    nowMs: number,
    before: ReadonlyMap<string, StayReason> = new Map(),
  ) {
    this.#before = before;
    this.#rows = rows;
    this.lsn = lsn;
    this.timeline = timeline;
    this.epoch = epoch;
    this.markedAtMs = nowMs;
    this.more = more;
  }

  get waitedMs(): number {
    return performance.now() - this.#since;
  }

  get rows(): readonly MarkedRow[] {
    return this.#rows;
  }

  /** Why a row stays, whose proof is not there yet. */
  reasonOf({ key }: MarkedRow, now: StayReason): StayReason {
    return now === 'not delivered yet' ? (this.#before.get(key) ?? now) : now;
  }

  /** Nothing is waited for any more. */
  get isSpent(): boolean {
    return this.#rows.length > 0 && this.#rows.every(({ key }) => this.blocked.has(key));
  }

  /** The reader is there: what the marks speak of is in Kafka up to here. */
  reach(
    position: Position,
    { endOffsets }: Pick<Progress, 'endOffsets'>,
    { topic }: { topic: string },
  ): void {
    this.position = position;
    const topics = [topic, evictionsOf(topic)].filter((name) => endOffsets[name]);
    this.ends = fromProgress(Object.fromEntries(topics.map((name) => [name, endOffsets[name]!])));
  }

  /** They are gone, or have to be marked again. */
  remove(rows: readonly MarkedRow[]): void {
    const gone = new Set(rows);
    this.#rows = this.#rows.filter((row) => !gone.has(row));
  }
}
