/**
 * What the sink keeps at the target, in a compacted topic of its own with one partition, and in the transactions that it
 * is about: how far the Unit is, and which table each topic is for. Keys and values are JSON.
 */
import { TidemarkError } from '../../../src/connector/failure.ts';
import { asPosition, type Position } from '../../../src/connector/position.ts';
import type { TableId } from '../../../src/connector/shape.ts';
import type { AppendWindow, Receipt } from '../../../src/connector/sink.ts';
import type { KeyField } from './fields.ts';

/** Version of these records; a higher one is not understood. */
const format = 1;

export interface Progress {
  /** Null before the first Window. */
  position: Position | null;
  sequence: number;
  fencingToken: bigint;
  receipt: Receipt | null;
  /** Of the Window after it, where that needed several transactions: what is there already. */
  partial: Partial | null;
}

export interface Partial {
  sequence: number;
  /**
   * Where that Window ends; absent from what older versions wrote. An operator may have given it up: another one with its
   * number (of rows out of Quarantine, say, which are older) has nothing there.
   */
  to?: Position;
  /** By topic: the last Change of the Window that is there. A retry may have the tables in another order. */
  reached: Readonly<Record<string, Position>>;
}

/** Which table a topic is for, and what its records are found by. */
export interface TopicOwner extends TableId {
  key: KeyField[] | null;
  oid?: number;
}

export interface ProgressMessage {
  key: string;
  value: string;
}

export const nothingYet: Progress = {
  position: null,
  sequence: 0,
  fencingToken: 0n,
  receipt: null,
  partial: null,
};

/** What was read from the topic's beginning to its end. */
export class KnownState {
  progress: Progress = nothingYet;
  /** Of all owners that were here, whether they have written a Window or not. */
  highestToken = 0n;
  readonly topics = new Map<string, TopicOwner>();
  readonly #unit: string;

  constructor({ sourceId, destination }: { sourceId: string; destination: string }) {
    this.#unit = JSON.stringify(['unit', sourceId, destination, '*']);
  }

  /** @throws TidemarkError TM101 where another destination writes here, TM404 for a format from the future */
  take(key: string, value: string): void {
    const [kind, ...names] = JSON.parse(key) as string[];
    const stored = JSON.parse(value) as { format: number };
    if (stored.format > format) {
      throw new TidemarkError(
        'TM404',
        `the progress topic has format ${stored.format}; this version knows ${format}`,
        {
          remedy: 'A newer Tidemark wrote this destination: run that version.',
        },
      );
    }
    if (kind === 'claim') {
      const token = BigInt((stored as unknown as { fencingToken: string }).fencingToken);
      if (token > this.highestToken) this.highestToken = token;
    } else if (kind === 'topic')
      this.topics.set(names[0]!, (stored as unknown as { owner: TopicOwner }).owner);
    else if (key !== this.#unit) {
      throw new TidemarkError(
        'TM101',
        'the progress topic already holds the progress of another destination',
        {
          remedy: 'Give every source and destination a progress.topic of its own.',
        },
      );
    } else {
      this.progress = parseProgress(stored as unknown as StoredProgress);
      if (this.progress.fencingToken > this.highestToken) this.highestToken = this.progress.fencingToken;
    }
  }

  progressMessage(progress: Progress): ProgressMessage {
    const stored: StoredProgress = { format, ...progress, fencingToken: String(progress.fencingToken) };
    return { key: this.#unit, value: JSON.stringify(stored) };
  }
}

type StoredProgress = Omit<Progress, 'fencingToken'> & { format: number; fencingToken: string };

function parseProgress({ position, sequence, fencingToken, receipt, partial }: StoredProgress): Progress {
  return {
    position: position === null ? null : asPosition(position),
    sequence,
    fencingToken: BigInt(fencingToken),
    receipt,
    partial,
  };
}

export function topicMessage(topic: string, owner: TopicOwner): ProgressMessage {
  return { key: JSON.stringify(['topic', topic]), value: JSON.stringify({ format, owner }) };
}

/**
 * Written first by whoever takes over. One record for each token: a compaction must not leave a smaller one in the place
 * of a greater.
 * @param fencingToken null where the taker does not know its own
 */
export function claimMessage(fencingToken: bigint | null): ProgressMessage {
  return {
    key: JSON.stringify(fencingToken === null ? ['claim'] : ['claim', String(fencingToken)]),
    value: JSON.stringify({ format, fencingToken: String(fencingToken ?? 0n) }),
  };
}

/** @throws TidemarkError TM403 for an owner that was replaced */
export function refuseReplaced(window: AppendWindow, { highestToken }: KnownState): void {
  if (highestToken <= window.fencingToken) return;
  throw new TidemarkError(
    'TM403',
    `${window.destination}: the destination has seen token ${highestToken}, this worker has ${window.fencingToken}`,
  );
}

/**
 * What is to be done with a Window: null to write it, or the Receipt of one that is there already. A Window older than
 * the last one answers the last one's, whose Position covers it.
 * @throws TidemarkError TM404 where the Window does not follow what is held
 */
export function decideAppend(window: AppendWindow, stored: Progress): Receipt | null {
  const { position, sequence, receipt, partial } = stored;
  if (position !== null && receipt && window.sequence <= sequence && window.to <= position) {
    return { ...receipt, alreadyHeld: true };
  }
  // Windows without records are not handed to a sink: the next one may start later than the last one ended.
  const follows = window.sequence === sequence + 1 && (position === null || position <= window.from);
  const partsFit =
    partial === null || Object.values(partial.reached).every((reached) => reached <= window.to);
  if (follows && partsFit) return null;
  const holds = position === null ? 'nothing' : `Window ${sequence} up to ${position}`;
  throw new TidemarkError(
    'TM404',
    `${window.destination}: Window ${window.sequence} starts at ${window.from}, but the target holds ${holds}`,
    {
      remedy:
        'The progress topic was restored, emptied or changed, or the ledger was. Restore the one that is behind, or rebuild the destination.',
    },
  );
}
