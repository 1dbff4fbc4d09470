/**
 * The snapshots of all tables at the Position that the destination says it holds. Nobody has to wait for it: a Window is in
 * its tables before it is in the progress table, so that each table has the Position; one that is ahead by a Window that is
 * being committed says in its snapshots which of them was the last before.
 */

import { TidemarkError } from '../../../../src/connector/failure.ts';
import type { Position } from '../../../../src/connector/position.ts';
import { tableText } from '../catalog/catalog.ts';
import type { OpenTable } from '../lake.ts';
import { propertyNames } from '../progress/properties.ts';
import type { Snapshot } from '../spec/snapshot.ts';
import { currentSnapshot, snapshotById, type TableMetadata } from '../spec/table-metadata.ts';

export interface Cut {
  position: Position;
  /** Of the last Window. */
  sequence: number;
}

/** Null where the table had no rows yet. @throws TidemarkError TM408 where the snapshot is not there any more */
export function snapshotAt({ identifier, metadata }: OpenTable, cut: Cut): bigint | null {
  const current = currentSnapshot(metadata);
  let snapshot = current;
  // What others committed after it is theirs, and in the cut where it is not after a Window that is not.
  for (let each = current; each !== null; each = parentOf(metadata, each['parent-snapshot-id'])) {
    if (isBeyond(each, cut)) {
      const parent = each['parent-snapshot-id'];
      snapshot = parentOf(metadata, parent);
      if (snapshot === null && parent !== undefined) {
        throw new TidemarkError(
          'TM408',
          `${tableText(identifier)}: its snapshot at ${cut.position} has expired`,
          {
            remedy: 'Try again; and let snapshots stay for some minutes at least.',
          },
        );
      }
    }
  }
  return snapshot?.['snapshot-id'] ?? null;
}

/** A Window that replays rows from Quarantine has the Position of the one before. */
function isBeyond({ summary }: Snapshot, { position, sequence }: Cut): boolean {
  const held = summary[propertyNames.position];
  if (held === undefined) return false;
  return held > position || Number(summary[propertyNames.sequence] ?? 0) > sequence;
}

function parentOf(metadata: TableMetadata, id: bigint | undefined) {
  return id === undefined ? null : (snapshotById(metadata, id) ?? null);
}
