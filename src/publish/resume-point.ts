/** Where the reader goes on: decided from the slot, the last Progress and the ledger, and never guessed. */
import { formatLsn, formatPosition, parsePosition } from '../connector/position.ts';
import { TidemarkError } from '../platform/errors.ts';
import type { SlotState, SourceIdentity } from '../replicate/source.ts';
import type { Progress } from './progress.ts';
import type { SourceRow } from './source-ledger.ts';

export type ResumePoint =
  | { kind: 'resume'; progress: Progress }
  /** A standby took over: `progress` opens the next epoch where the old one ended, and nothing is lost. */
  | { kind: 'failover'; progress: Progress }
  /** Start an epoch; `slot` says whether it is there already. */
  | { kind: 'origin'; epoch: number; slot: SlotState | null };

export interface ResumeFacts {
  sourceId: string;
  identity: SourceIdentity;
  slot: SlotState | null;
  row: SourceRow | null;
  progress: Progress | null;
  /** End of the source's WAL on disk, asked for after Progress was read. */
  walLsn: bigint;
}

/** @throws TidemarkError TM203, TM204, TM205, TM241, TM242 or TM306 where going on would lose Changes */
export function decideResume({ identity, slot, row, progress, walLsn }: ResumeFacts): ResumePoint {
  const progressEpoch = progress ? parsePosition(progress.position).epoch : 0;
  if (row?.state === 'creating' && row.epoch > progressEpoch)
    return { kind: 'origin', epoch: row.epoch, slot };
  if (!progress) {
    if (row?.state === 'streaming') {
      throw new TidemarkError(
        'TM306',
        'the progress topic is empty, although this source was streaming: Kafka lost it',
      );
    }
    return { kind: 'origin', epoch: (row?.epoch ?? 0) + 1, slot };
  }
  if (progress.systemIdentifier !== identity.systemIdentifier) {
    throw new TidemarkError(
      'TM205',
      `Progress was written for cluster ${progress.systemIdentifier}, this is ${identity.systemIdentifier}`,
    );
  }
  const forked = progress.timeline !== identity.timeline;
  if (forked) requireSharedPast(progress, identity);
  else if (walLsn < progress.ackLsn) {
    throw new TidemarkError(
      'TM242',
      `the source's WAL ends at ${formatLsn(walLsn)}, the last Progress covers ${formatLsn(progress.ackLsn)}`,
    );
  }
  if (!slot) throw new TidemarkError('TM204', 'the replication slot is gone');
  if (slot.walStatus === 'lost') {
    const why = slot.invalidation === null ? '' : ` (${slot.invalidation})`;
    throw new TidemarkError('TM204', `the replication slot lost its WAL${why}`);
  }
  if (slot.confirmedLsn > progress.ackLsn) {
    throw new TidemarkError(
      'TM203',
      `the slot is confirmed to ${formatLsn(slot.confirmedLsn)}, the last Progress covers ${formatLsn(progress.ackLsn)}`,
    );
  }
  return forked
    ? { kind: 'failover', progress: nextEpoch(progress, identity) }
    : { kind: 'resume', progress };
}

/**
 * After a fork, what is in Kafka must be in the past that both timelines share. A fork lies between two WAL records, so
 * a commit record that starts before it is whole.
 * @throws TidemarkError TM205, TM241
 */
function requireSharedPast(progress: Progress, { timeline, ancestors }: SourceIdentity): void {
  const fork = ancestors.find((ancestor) => ancestor.timeline === progress.timeline);
  if (!fork) {
    throw new TidemarkError(
      'TM205',
      `Progress was written on timeline ${progress.timeline}, the source is on ${timeline}, which does not come from it`,
    );
  }
  const { lsn, ordinal } = parsePosition(progress.position);
  const shared = ordinal > 0 ? lsn < fork.endLsn : lsn <= fork.endLsn;
  if (shared && progress.ackLsn <= fork.endLsn) return;
  throw new TidemarkError(
    'TM241',
    `the source left timeline ${progress.timeline} at ${formatLsn(fork.endLsn)}, the last Progress covers ${formatLsn(progress.ackLsn)}`,
  );
}

/** The same place under the next epoch. Of a Transaction that was cut, the ordinals stay: it comes again. */
function nextEpoch(progress: Progress, identity: SourceIdentity): Progress {
  const { epoch, lsn, ordinal } = parsePosition(progress.position);
  return {
    ...progress,
    // Not an origin: a new destination still starts where the first epoch did.
    kind: progress.boundary ? 'heartbeat' : 'batch',
    position: formatPosition({ epoch: epoch + 1, lsn, ordinal }),
    timeline: identity.timeline,
  };
}

/** @throws TidemarkError TM306 when a partition ends before what Progress says of it */
export function compareEnds(progress: Progress, ends: ReadonlyMap<string, readonly bigint[]>): void {
  for (const [topic, offsets] of Object.entries(progress.endOffsets)) {
    const actual = ends.get(topic);
    offsets.forEach((offset, partition) => {
      const end = actual?.[partition];
      if (end !== undefined && end >= offset) return;
      throw new TidemarkError(
        'TM306',
        `${topic} partition ${partition} ends at ${end ?? 'nothing'}, the last Progress says ${offset}`,
      );
    });
  }
}

/** The first Progress of an epoch: nothing is covered, everything from `lsn` on will come. */
export function originProgress(
  facts: Pick<ResumeFacts, 'sourceId' | 'identity'>,
  epoch: number,
  lsn: bigint,
  endOffsets: Record<string, bigint[]>,
  writer: string,
  nowMs: number,
  /** Of the Position; the consistent point where absent. */
  positionLsn = lsn,
): Progress {
  return {
    kind: 'origin',
    sourceId: facts.sourceId,
    position: formatPosition({ epoch, lsn: positionLsn, ordinal: 0 }),
    boundary: true,
    ackLsn: lsn,
    commitTimeUs: BigInt(nowMs) * 1000n,
    writtenAtUs: BigInt(nowMs) * 1000n,
    systemIdentifier: facts.identity.systemIdentifier,
    timeline: facts.identity.timeline,
    writer,
    endOffsets,
    parked: {},
    snapshots: {},
  };
}
