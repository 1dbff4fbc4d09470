/** Taking files out of a snapshot: the manifests that list them are written anew, with the files marked as deleted. */
import type { FileStore } from '../file-store.ts';
import type { LiveFile } from '../plan/live-file.ts';
import type { LiveFiles } from '../plan/live-files.ts';
import { entriesOf } from '../plan/table-reader.ts';
import { fileContent } from '../spec/data-file.ts';
import { entryStatus, type UnassignedEntry } from '../spec/manifest.ts';
import type { ManifestFile } from '../spec/manifest-list.ts';
import type { TableMetadata } from '../spec/table-metadata.ts';
import { type NewManifest, putManifests } from './new-manifest.ts';
import type { SummaryCounts } from './snapshot-summary.ts';

/**
 * The data files, and the delete files that concern no other file any more.
 * @param removed paths of live data files
 * @param named paths of delete files that go anyway
 */
export function filesToRemove(
  live: LiveFiles,
  removed: readonly string[],
  named: readonly string[] = [],
): LiveFile[] {
  if (removed.length + named.length === 0) return [];
  const also = new Set(named);
  const gone = new Set(removed);
  const files = removed.map((path) => live.dataFile(path)!);
  const oldest = new Map<string, number>();
  for (const { partitionKey } of files) oldest.set(partitionKey, oldestLeft(live, partitionKey, gone));
  const deletes = [...live.deleteFiles()].filter((file) => {
    if (also.has(file.path)) return true;
    if (file.referenced !== null) return gone.has(file.referenced);
    const left = oldest.get(file.partitionKey);
    if (left === undefined || live.isEverywhere(file)) return false;
    return file.content === fileContent.positionDeletes ? left > file.sequence : left >= file.sequence;
  });
  return [...files, ...deletes];
}

/** Data sequence number of the oldest data file that stays in the partition. */
function oldestLeft(live: LiveFiles, partitionKey: string, gone: ReadonlySet<string>): number {
  let oldest = Number.POSITIVE_INFINITY;
  for (const { path, sequence } of live.dataFilesIn(partitionKey)) {
    if (!gone.has(path)) oldest = Math.min(oldest, sequence);
  }
  return oldest;
}

export interface RewrittenManifests {
  kept: ManifestFile[];
  rewritten: NewManifest[];
}

export async function removeFiles(
  store: Pick<FileStore, 'get' | 'put'>,
  metadata: TableMetadata,
  snapshotId: bigint,
  manifests: readonly ManifestFile[],
  files: readonly LiveFile[],
  counts: SummaryCounts,
): Promise<RewrittenManifests> {
  const gone = new Set(files.map(({ path }) => path));
  const touched = new Set(files.map(({ manifest }) => manifest));
  const result: RewrittenManifests = { kept: [], rewritten: [] };
  for (const manifest of manifests) {
    if (!touched.has(manifest.manifest_path)) {
      result.kept.push(manifest);
      continue;
    }
    const { partition_spec_id: specId, content } = manifest;
    const entries: UnassignedEntry[] = [];
    for (const entry of await entriesOf(store, metadata, manifest)) {
      if (entry.status === entryStatus.deleted) continue;
      if (gone.has(entry.data_file.file_path)) {
        counts.remove(specId, entry.data_file);
        entries.push({ ...entry, status: entryStatus.deleted, snapshot_id: snapshotId });
      } else entries.push({ ...entry, status: entryStatus.existing });
    }
    result.rewritten.push(...(await putManifests(store, metadata, snapshotId, specId, content, entries)));
  }
  return result;
}
