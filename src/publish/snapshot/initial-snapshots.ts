/** Which tables get a snapshot without being asked for: those whose rows from before the slot nobody has. */
import { tableName } from '../../connector/shape.ts';
import type { SourceConfig } from '../../platform/resolved-config.ts';
import { type CatalogueTable, ruleFor } from '../../replicate/catalogue.ts';
import type { SnapshotState } from '../progress.ts';
import type { SnapshotRequests } from './snapshot-requests.ts';
import { isComplete } from './table-snapshots.ts';

export interface InitialSnapshotsOptions {
  source: SourceConfig;
  requests: SnapshotRequests;
  topicOf(table: string): string;
}

/**
 * Before the slot is read: asks for initial snapshots where there was none, and ends those that are over.
 * @param committed snapshots as the last Progress has them
 */
export async function requestInitialSnapshots(
  { source, requests, topicOf }: InitialSnapshotsOptions,
  epoch: number,
  tables: readonly CatalogueTable[],
  committed: Readonly<Record<string, SnapshotState>>,
): Promise<void> {
  const wanted = tables.filter((table) => snapshotMode(source, table) === 'initial').map(tableName);
  await requests.requestInitial(epoch, wanted);
  for (const request of await requests.open()) {
    const done = committed[topicOf(request.table)];
    if (done?.id === request.id && isComplete(done)) await requests.finished(request.id, done.rows);
  }
}

/** Whether rows can be told apart in the stream and in a scan alike. */
export function hasKey(table: CatalogueTable): boolean {
  if (table.replicaIdentity === 'nothing') return false;
  return table.columns.some(({ identity }) => identity);
}

export function snapshotMode(source: SourceConfig, table: CatalogueTable): 'initial' | 'never' {
  return ruleFor(source.tables, table)?.snapshotMode ?? source.snapshot.mode;
}
