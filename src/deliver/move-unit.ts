/** Makes a move that an operator asked for, between two Windows of the Unit. */
import type { Sink } from '../connector/sink.ts';
import { TidemarkError } from '../platform/errors.ts';
import { type Boundary, firstAfter } from './boundary-list.ts';
import type { Mark } from './cut-window.ts';
import type { OwnedUnit } from './ledger.ts';
import type { Move, Moves } from './moves.ts';
import { type Offsets, pickTopics } from './offsets.ts';
import type { ProgressFollower } from './progress-follower.ts';

export interface MoveContext {
  moves: Moves;
  sink: Sink;
  progress: Pick<ProgressFollower, 'boundaries' | 'caughtUp' | 'reachesBack'>;
  topicsIn(endOffsets: Offsets): readonly string[];
}

/**
 * @returns the Unit where it is then; null: not yet, the boundary that it is to go to is not known
 * @throws TidemarkError TM404 where there is no way back; what the sink throws
 */
export async function moveUnit(unit: OwnedUnit, move: Move, context: MoveContext): Promise<OwnedUnit | null> {
  return move.kind === 'skip' ? skip(unit, move, context) : replay(unit, move, context);
}

async function skip(
  unit: OwnedUnit,
  move: Move,
  { moves, sink, progress, topicsIn }: MoveContext,
): Promise<OwnedUnit | null> {
  // While it is read (once more) it may begin behind the place that is meant, or end before it.
  if (!progress.caughtUp || (unit.mark && !progress.reachesBack(unit.mark.position))) return null;
  const { boundaries } = progress;
  const boundary = move.target === null ? boundaries.at(-1) : atOrAfter(boundaries, move.target);
  if (!boundary) return null;
  if (unit.open && sink.mode !== 'send') {
    // Written, and not recorded: then it was delivered, and is recorded first.
    const held = await sink.held(unit.unit);
    if (held?.position === unit.open.to && held.sequence === unit.open.sequence) return unit;
  }
  if (unit.mark && boundary.position <= unit.mark.position) return moves.skip(unit, move, unit.mark);
  return moves.skip(unit, move, markAt(boundary, topicsIn));
}

async function replay(unit: OwnedUnit, move: Move, { moves, sink }: MoveContext): Promise<OwnedUnit> {
  if (sink.mode !== 'send') {
    // It would answer that it holds what is older: whoever asked is told that nothing moved.
    if (move.target !== null) return moves.stay(unit, move);
    return moves.replayFromHeld(unit, move, await sink.held(unit.unit));
  }
  if (move.target !== null) return moves.replayFrom(unit, move, move.target);
  throw new TidemarkError('TM404', `${unit.destination} cannot say what it holds`, {
    remedy: 'Name the Position: tidemark destination replay … --from <position>.',
  });
}

function atOrAfter(
  boundaries: readonly Boundary[],
  target: NonNullable<Move['target']>,
): Boundary | undefined {
  const after = firstAfter(boundaries, target);
  const before = boundaries[after - 1];
  return before?.position === target ? before : boundaries[after];
}

function markAt({ position, commitTimeUs, endOffsets }: Boundary, topicsIn: MoveContext['topicsIn']): Mark {
  return { position, commitTimeUs, offsets: pickTopics(endOffsets, topicsIn(endOffsets)) };
}
