/**
 * Whether a table still has the rows of the Window that its properties name. A rollback by hand takes snapshots of Windows
 * away, and `CREATE OR REPLACE` all of them, while the properties stay as they were.
 */
import { TidemarkError } from '../../../../src/connector/failure.ts';
import { tableText } from '../catalog/catalog.ts';
import type { OpenTable } from '../lake.ts';
import type { Snapshot } from '../spec/snapshot.ts';
import { currentSnapshot, snapshotById, type TableMetadata } from '../spec/table-metadata.ts';
import { propertyNames } from './properties.ts';

/**
 * What the current snapshot, or the last one before it that is of a Window, says of that Window: empty where there is none,
 * null where the snapshots do not tell: it has expired, or they are of a version that did not write it.
 */
export function windowInHistory(metadata: TableMetadata): Readonly<Record<string, string>> | null {
  let snapshot = currentSnapshot(metadata);
  while (snapshot !== null) {
    if (sequenceOf(snapshot) > 0) return snapshot.summary;
    const parent: bigint | undefined = snapshot['parent-snapshot-id'];
    if (parent === undefined) break;
    const before = snapshotById(metadata, parent);
    if (!before) return null;
    snapshot = before;
  }
  return metadata.snapshots.some((each) => sequenceOf(each) > 0) ? {} : null;
}

/** @throws TidemarkError TM404 where Windows were taken out of the table */
export function checkHistory({ identifier, metadata }: OpenTable): void {
  const held = Number(metadata.properties[propertyNames.sequence] ?? 0);
  const known = windowInHistory(metadata);
  if (known === null) return;
  const there = Number(known[propertyNames.sequence] ?? 0);
  if (there >= held) return;
  const last = metadata.snapshots.findLast((each) => sequenceOf(each) === held);
  throw new TidemarkError(
    'TM404',
    `table ${tableText(identifier)}: it had Window ${held}, and somebody took it back to ${there === 0 ? 'before its first one' : `Window ${there}`}`,
    {
      remedy: `${last ? `Make snapshot ${last['snapshot-id']} the current one again` : 'Restore the table'}; or drop it, and bring its rows anew with \`tidemark destination resync\`.`,
    },
  );
}

function sequenceOf({ summary }: Snapshot): number {
  return Number(summary[propertyNames.sequence] ?? 0);
}
