/**
 * Where the next Window of a Unit ends. Pure: the bounds follow from the mark, the settings, the boundaries known
 * and a hold, with time as the running maximum of commit times.
 */
import { type Position, parsePosition } from '../connector/position.ts';
import { TidemarkError } from '../platform/errors.ts';
import { type Boundary, firstAfter, firstIndex } from './boundary-list.ts';
import { type Offsets, pickTopics, recordsBetween } from './offsets.ts';

/** Where a Unit stands: the end of its last Window. */
export interface Mark {
  position: Position;
  /** Microseconds since 1970 UTC. */
  commitTimeUs: bigint;
  /** Start of the next Window in Kafka: a lower bound, records at or below `position` are skipped. */
  offsets: Offsets;
}

export interface CutSettings {
  /** The Unit's topics. */
  topics: readonly string[];
  /** 0: continuous. */
  cadenceMs: number;
  /** A Window that reached it ends at the next boundary. */
  maxRecords: number;
  /** A Window does not go beyond it where it can end before. */
  fittingRecords: number;
}

/** What a hold allows: nothing, or Windows up to exactly the target. */
export interface HoldState {
  target: Position | null;
}

export interface Cut {
  from: Position;
  /** Inclusive; greater than `from`, except for an empty cut in which only time moved. */
  to: Position;
  /** Everything up to `to` lies below these. */
  ingestOffsets: Offsets;
  /** Where the Window after this one starts. */
  markOffsets: Offsets;
  commitTimeUs: bigint;
  /** Offsets between start and end: an upper bound of the Changes; 0 means that nothing is to be delivered. */
  records: number;
}

/** An idle continuous Unit moves its mark at most this often, so that heartbeats do not become ledger writes. */
const idleStepUs = 2_000_000n;

/**
 * @param boundaries oldest first; Position, time and end offsets never decrease
 * @returns null when the next Window cannot end yet
 * @throws TidemarkError TM204 when the source began a new epoch, unless it goes on with the old one: what lies between is
 *   not in Kafka
 */
export function cutWindow(
  mark: Mark,
  boundaries: readonly Boundary[],
  settings: CutSettings,
  hold: HoldState | null,
): Cut | null {
  if (hold) {
    if (hold.target === null || mark.position >= hold.target) return null;
    return cutToTarget(mark, boundaries, settings, hold.target);
  }
  const { cadenceMs, maxRecords, fittingRecords } = settings;
  const { first, end } = candidates(mark, boundaries);
  const recordsAt = (i: number) => recordsAtBoundary(mark, boundaries[i]!, settings);
  const elapsedUs = (i: number) => boundaries[i]!.commitTimeUs - mark.commitTimeUs;
  const count = end - first;
  if (count <= 0) return null;
  const full = first + firstIndex(count, (i) => recordsAt(first + i) >= maxRecords);
  const beyond = first + firstIndex(count, (i) => recordsAt(first + i) > fittingRecords);
  const fitting = beyond > first && beyond < end && recordsAt(beyond - 1) > 0 ? beyond - 1 : beyond;
  // Whoever is behind by a cadence or more takes all there is, so that catching up takes few Windows, not many.
  const due = cadenceMs === 0 || elapsedUs(end - 1) >= BigInt(cadenceMs) * 1000n ? end - 1 : end;
  const last = Math.min(full, fitting, due);
  if (last >= end) return null;
  if (recordsAt(last) > 0) return cutAt(mark, boundaries[last]!, settings);
  // Nothing to deliver: one step over all boundaries without a record, however long the source was quiet.
  const idle = first + firstIndex(count, (i) => recordsAt(first + i) > 0) - 1;
  if (cadenceMs === 0 && elapsedUs(idle) < idleStepUs) return null;
  return cutAt(mark, boundaries[idle]!, settings);
}

/** As fast as the size cap allows, ending exactly at `target`, whatever the cadence. */
function cutToTarget(
  mark: Mark,
  boundaries: readonly Boundary[],
  settings: CutSettings,
  target: Position,
): Cut | null {
  const { first, end } = candidates(mark, boundaries);
  const afterTarget = firstAfter(boundaries, target);
  const inner = Math.min(end, afterTarget);
  const recordsAt = (i: number) => recordsAtBoundary(mark, boundaries[i]!, settings);
  const full =
    first + firstIndex(Math.max(0, inner - first), (i) => recordsAt(first + i) >= settings.maxRecords);
  if (full < inner) return cutAt(mark, boundaries[full]!, settings);
  // What covers the target: a boundary on it, else the first one after it.
  const before = inner > first ? boundaries[inner - 1]! : null;
  const cover = before?.position === target ? before : afterTarget < end ? boundaries[afterTarget]! : null;
  if (!cover) return before && recordsAt(inner - 1) > 0 ? cutAt(mark, before, settings) : null;
  return {
    from: mark.position,
    to: target,
    ingestOffsets: pickTopics(cover.endOffsets, settings.topics),
    markOffsets: withNewTopics(
      before ? pickTopics(before.endOffsets, settings.topics) : mark.offsets,
      pickTopics(cover.endOffsets, settings.topics),
    ),
    commitTimeUs: before?.commitTimeUs ?? mark.commitTimeUs,
    records: recordsBetween(mark.offsets, cover.endOffsets, settings.topics),
  };
}

/** The boundaries a Window may end at: [first, end). Equal Position counts: its time may have moved. */
function candidates(mark: Mark, boundaries: readonly Boundary[]): { first: number; end: number } {
  const after = firstAfter(boundaries, mark.position);
  const timeMoved =
    after > 0 &&
    boundaries[after - 1]!.position === mark.position &&
    boundaries[after - 1]!.commitTimeUs > mark.commitTimeUs;
  const first = timeMoved ? after - 1 : after;
  const { epoch } = parsePosition(mark.position);
  const end = firstIndex(boundaries.length, (i) => brokenAfter(epoch, boundaries[i]!));
  if (end <= first && end < boundaries.length) {
    const found = parsePosition(boundaries[end]!.position).epoch;
    throw new TidemarkError(
      'TM204',
      `the source began epoch ${found}; this destination ends in epoch ${parsePosition(mark.position).epoch}`,
      { remedy: 'Changes between the two were never in Kafka. Rebuild the destination.' },
    );
  }
  return { first, end };
}

/** Whether changes may be missing between the epoch and the boundary. */
function brokenAfter(epoch: number, { position, unbrokenSince }: Boundary): boolean {
  return (unbrokenSince ?? parsePosition(position).epoch) > epoch;
}

function cutAt(mark: Mark, boundary: Boundary, settings: CutSettings): Cut {
  const offsets = pickTopics(boundary.endOffsets, settings.topics);
  return {
    from: mark.position,
    to: boundary.position,
    ingestOffsets: offsets,
    markOffsets: offsets,
    commitTimeUs: boundary.commitTimeUs,
    records: recordsAtBoundary(mark, boundary, settings),
  };
}

/** A topic that began between the two starts at 0; left out, it would look like one that was never subscribed. */
function withNewTopics(lower: Offsets, upper: Offsets): Offsets {
  const result: Record<string, readonly number[]> = { ...lower };
  for (const [topic, ends] of Object.entries(upper)) result[topic] ??= ends.map(() => 0);
  return result;
}

/** On the mark itself there is nothing new, although its start offsets may be a lower bound. */
function recordsAtBoundary(mark: Mark, boundary: Boundary, settings: CutSettings): number {
  if (boundary.position === mark.position) return 0;
  return recordsBetween(mark.offsets, boundary.endOffsets, settings.topics);
}
