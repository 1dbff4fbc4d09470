/** The mark: what the destination itself says it holds of a Unit. */
import { TidemarkError } from '../../../src/connector/failure.ts';
import type { Position } from '../../../src/connector/position.ts';
import type { TableShape } from '../../../src/connector/shape.ts';
import type { MergeWindow, Receipt } from '../../../src/connector/sink.ts';

/** Of the mark's layout; a later one is refused. */
const format = 1;

export interface Mark {
  format: number;
  sourceId: string;
  destination: string;
  unit: string;
  position: Position;
  sequence: number;
  /** Decimal digits. */
  fencingToken: string;
  commitTimeUs: string;
  receipt: Receipt;
  /** That the rows have, with the names of its columns in the table behind the view. */
  shape: TableShape;
  ids: string[];
  nextId: number;
  few: string[];
}

export function markOf(
  window: MergeWindow,
  receipt: Receipt,
  layout: { shape: TableShape; columns: readonly { id: string }[]; nextId: number; few: readonly string[] },
): Mark {
  return {
    format,
    sourceId: window.sourceId,
    destination: window.destination,
    unit: window.unit,
    position: window.to,
    sequence: window.sequence,
    fencingToken: String(window.fencingToken),
    commitTimeUs: String(window.commitTimeUs),
    receipt,
    shape: layout.shape,
    ids: layout.columns.map(({ id }) => id),
    nextId: layout.nextId,
    few: [...layout.few],
  };
}

/** @throws TidemarkError TM404 for a mark of a later version */
export function checkFormat(mark: Mark): Mark {
  if (mark.format > format) {
    throw new TidemarkError(
      'TM404',
      `the mark of ${mark.unit} has format ${mark.format}; this version knows ${format}`,
      {
        remedy: 'A newer Tidemark wrote this destination: run that version.',
      },
    );
  }
  return mark;
}

/**
 * Null where the Window is to be merged; the Receipt where the destination holds it. A Window older than the last one
 * answers the last one's Receipt, whose Position covers it.
 * @throws TidemarkError TM404 where the Window does not follow what is held
 */
export function decideMerge(window: MergeWindow, mark: Mark | null): Receipt | null {
  const sequence = mark?.sequence ?? 0;
  if (mark && window.sequence <= sequence && window.to <= mark.position)
    return { ...mark.receipt, alreadyHeld: true };
  if (window.sequence === sequence + 1 && (!mark || mark.position <= window.from)) return null;
  const holds = mark ? `Window ${sequence} up to ${mark.position}` : 'nothing';
  throw new TidemarkError(
    'TM404',
    `${window.destination}/${window.unit}: Window ${window.sequence} starts at ${window.from}, but the destination holds ${holds}`,
    {
      remedy:
        'The destination was restored, emptied or changed by hand, or the ledger was. Restore the one that is behind, or rebuild the destination.',
    },
  );
}
