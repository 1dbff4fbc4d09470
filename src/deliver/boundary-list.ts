/**
 * The boundary Progress records that Windows may end at, oldest first, in bounded memory. Thinning only makes
 * Windows coarser: a Window may end at any boundary, and what was decided is in the ledger.
 */
import { type Position, parsePosition } from '../connector/position.ts';
import type { Progress } from '../publish/progress.ts';
import { fromProgress, type Offsets } from './offsets.ts';

export interface Boundary {
  position: Position;
  /** Running maximum of commit times, microseconds since 1970 UTC. */
  commitTimeUs: bigint;
  /** The first Progress of an epoch: where a new destination starts. */
  origin: boolean;
  endOffsets: Offsets;
  /**
   * The epoch from which on nothing is missing up to here: an origin begins anew, the epoch of a promoted standby goes
   * on. Absent: its own epoch.
   */
  unbrokenSince?: number;
}

/** A boundary of 100 topics is about 1 KiB, since unchanged offsets are shared with the one before. */
const defaultLimit = 4096;

export class BoundaryList {
  readonly #limit: number;
  #list: Boundary[] = [];
  #latestOrigin: Boundary | null = null;
  #unbrokenSince: number | null = null;

  constructor(limit = defaultLimit) {
    this.#limit = limit;
  }

  get list(): readonly Boundary[] {
    return this.#list;
  }

  get newest(): Boundary | null {
    return this.#list.at(-1) ?? null;
  }

  get latestOrigin(): Boundary | null {
    return this.#latestOrigin;
  }

  /** Progress arrives in order; a repeated Position (a heartbeat on an idle source) only moves the time. */
  push(progress: Progress): void {
    if (progress.kind === 'fence' || !progress.boundary) return;
    const last = this.newest;
    if (last && progress.position < last.position) return;
    if (progress.kind === 'origin') this.#unbrokenSince = null;
    // Of what lies before the first that was read nothing is known.
    this.#unbrokenSince ??= parsePosition(progress.position).epoch;
    const boundary: Boundary = {
      position: progress.position,
      commitTimeUs: progress.commitTimeUs,
      origin: progress.kind === 'origin',
      unbrokenSince: this.#unbrokenSince,
      endOffsets: shareWith(last?.endOffsets, fromProgress(progress.endOffsets)),
    };
    if (boundary.origin) this.#latestOrigin = boundary;
    if (last && last.position === boundary.position) {
      this.#list[this.#list.length - 1] = { ...boundary, origin: boundary.origin || last.origin };
      return;
    }
    this.#list.push(boundary);
    if (this.#list.length > this.#limit) this.#thin();
  }

  /** Forgets what lies before the newest boundary at or before `mark`. */
  dropBefore(mark: Position): void {
    const index = firstAfter(this.#list, mark) - 1;
    if (index > 0) this.#list = this.#list.slice(index);
  }

  clear(): void {
    this.#list = [];
    this.#latestOrigin = null;
    this.#unbrokenSince = null;
  }

  /** Halves the list by dropping, of neighbours, those that stand for the fewest records. */
  #thin(): void {
    const list = this.#list;
    const totals = list.map(({ endOffsets }) => totalOf(endOffsets));
    const costs = list
      .map((_, i) => i)
      .slice(1, -1)
      .sort((a, b) => totals[a + 1]! - totals[a - 1]! - (totals[b + 1]! - totals[b - 1]!));
    const dropped = new Set<number>();
    for (const i of costs) {
      if (dropped.size >= list.length / 2) break;
      if (!dropped.has(i - 1) && !dropped.has(i + 1)) dropped.add(i);
    }
    this.#list = list.filter((_, i) => !dropped.has(i));
  }
}

/** Index of the first boundary whose Position is greater. */
export function firstAfter(list: readonly Boundary[], position: Position): number {
  return firstIndex(list.length, (i) => list[i]!.position > position);
}

/** Smallest index for which the monotone test holds, or `length`. */
export function firstIndex(length: number, test: (index: number) => boolean): number {
  let low = 0;
  let high = length;
  while (low < high) {
    const middle = (low + high) >>> 1;
    if (test(middle)) high = middle;
    else low = middle + 1;
  }
  return low;
}

function totalOf(offsets: Offsets): number {
  let total = 0;
  for (const ends of Object.values(offsets)) for (const end of ends) total += end;
  return total;
}

/** `next` with every array that equals the one before replaced by it; the whole object where nothing changed. */
function shareWith(before: Offsets | undefined, next: Offsets): Offsets {
  if (!before) return next;
  const result: Record<string, readonly number[]> = {};
  let same = Object.keys(before).length === Object.keys(next).length;
  for (const [topic, ends] of Object.entries(next)) {
    const old = before[topic];
    if (old && old.length === ends.length && old.every((end, i) => end === ends[i])) {
      result[topic] = old;
    } else {
      result[topic] = ends;
      same = false;
    }
  }
  return same ? before : result;
}
