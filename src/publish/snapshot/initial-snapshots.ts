/** Which tables get a snapshot without being asked for: those whose rows from before the slot nobody has. */
import type pg from 'pg';
import { tableName } from '../../connector/shape.ts';
import { errorFields, type Logger } from '../../platform/log.ts';
import type { SourceConfig } from '../../platform/resolved-config.ts';
import { type CatalogueTable, ruleFor } from '../../replicate/catalogue.ts';
import { keyless } from '../../replicate/snapshot/table-scan.ts';
import type { SnapshotState } from '../progress.ts';
import { holdsNoEarlierRow } from './invisible-commits.ts';
import { isStandby } from './scan-connections.ts';
import type { SnapshotRequests } from './snapshot-requests.ts';
import { isComplete } from './table-snapshots.ts';

export interface InitialSnapshotsOptions {
  source: SourceConfig;
  requests: SnapshotRequests;
  topicOf(table: string): string;
  log: Logger;
}

/**
 * Before the slot is read: asks for initial snapshots where there was none, and ends those that are over or cannot be.
 * @param committed snapshots as the last Progress has them
 */
export async function requestInitialSnapshots(
  { source, requests, topicOf, log }: InitialSnapshotsOptions,
  client: pg.Client,
  epoch: number,
  tables: readonly CatalogueTable[],
  committed: Readonly<Record<string, SnapshotState>>,
): Promise<void> {
  const standby = await isStandby(client);
  const wanted = tables.filter((table) => snapshotMode(source, table) === 'initial').map(tableName);
  await requests.requestInitial(epoch, wanted);
  for (const request of await requests.open()) {
    const table = tables.find((each) => tableName(each) === request.table);
    const topic = topicOf(request.table);
    const done = committed[topic];
    if (done?.id === request.id && isComplete(done)) {
      await requests.finished(request.id, done.rows);
      continue;
    }
    // On a standby they all fail, for another reason.
    if (standby) continue;
    if (request.kind !== 'initial' || !table || hasKey(table)) continue;
    // Without a key there are no chunks, and the slot's own snapshot is gone. Where the table was empty until now
    // everything comes through the stream.
    if (await holdsNoEarlierRow(client, table)) await requests.finished(request.id, 0n);
    else {
      const error = keyless(request.table);
      log.warn(error.message, errorFields(error));
      await requests.failed(request.id, error);
    }
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
