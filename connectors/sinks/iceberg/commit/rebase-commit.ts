/**
 * One attempt of a prepared commit: the snapshot that follows from the table as it is now, and what the catalog is asked
 * to do. Where somebody else's commit came first the attempt is made anew on the newer base; the new files and their
 * manifests stay (Iceberg specification, "Commit Conflict Resolution and Retry").
 */

import { unsupported } from '../failures.ts';
import type { FileStore } from '../file-store.ts';
import type { LiveFiles } from '../plan/live-files.ts';
import { entriesOf, hasLiveFiles } from '../plan/table-reader.ts';
import { type ManifestFile, writeManifestList } from '../spec/manifest-list.ts';
import { mainBranch, type Snapshot } from '../spec/snapshot.ts';
import { currentSnapshot, type TableMetadata } from '../spec/table-metadata.ts';
import type { TableRequirement, TableUpdate } from '../spec/updates.ts';
import { newManifestListLocation } from './locations.ts';
import { mergeManifests } from './merge-manifests.ts';
import { assign, countEntries, type NewManifest } from './new-manifest.ts';
import type { PreparedCommit } from './prepare-commit.ts';
import { filesToRemove, removeFiles } from './remove-files.ts';
import { SummaryCounts } from './snapshot-summary.ts';
import { operationOf, type TableChange } from './table-change.ts';

export interface RebaseOptions {
  /** Milliseconds since 1970. */
  nowMs: number;
  /** More entries of the snapshot's summary. */
  summary?: Readonly<Record<string, string>>;
}

export interface CommitAttempt {
  snapshot: Snapshot;
  requirements: TableRequirement[];
  updates: TableUpdate[];
  /** Locations of what this attempt wrote: of no use to anybody if the catalog refuses it. */
  written: string[];
}

/** Data files of the change that are not in the table any more: a compaction moved their rows. */
export interface Vanished {
  vanished: string[];
}

/**
 * @param live at the current snapshot of `metadata`
 * @returns Vanished where the positions to delete, or the files to remove, must be looked up again
 * @throws TidemarkError TM405
 */
export async function rebaseCommit(
  store: Pick<FileStore, 'get' | 'put'>,
  { change, snapshotId, manifests: prepared }: PreparedCommit,
  metadata: TableMetadata,
  live: LiveFiles,
  { nowMs, summary = {} }: RebaseOptions,
): Promise<CommitAttempt | Vanished> {
  if (live.snapshotId !== metadata['current-snapshot-id'])
    throw new TypeError('live files of another snapshot');
  if (metadata['format-version'] !== 2) {
    throw unsupported(
      'the table has format version 1, which has no row-level deletes',
      'Upgrade it: set the table property format-version to 2.',
    );
  }
  const vanished = missingFiles(change, live);
  if (vanished.length > 0) return { vanished };
  const counts = countAdded(change);
  const base = live.manifests.filter(hasLiveFiles);
  const { kept, rewritten } = await removeFiles(
    store,
    metadata,
    snapshotId,
    base,
    filesToRemove(live, change.removed, change.removedDeletes),
    counts,
  );
  const { kept: old, merged } = await mergeManifests(store, metadata, snapshotId, kept);
  const parent = currentSnapshot(metadata);
  const sequence = metadata['last-sequence-number'] + 1;
  const fresh = [...prepared, ...rewritten, ...merged].map((manifest) => assign(manifest, sequence));
  const location = newManifestListLocation(metadata, snapshotId);
  const snapshot: Snapshot = {
    'snapshot-id': snapshotId,
    ...(parent === null ? {} : { 'parent-snapshot-id': parent['snapshot-id'] }),
    'sequence-number': sequence,
    // Readers look snapshots up by time: it must not run backwards where clocks differ.
    'timestamp-ms': Math.max(nowMs, metadata['last-updated-ms']),
    'manifest-list': location,
    summary: counts.summary(operationOf(change), parent, summary),
    'schema-id': metadata['current-schema-id'],
  };
  const listed = [...fresh, ...(await withCounts(store, metadata, old))];
  await store.put(location, writeManifestList(snapshot, listed));
  return {
    snapshot,
    requirements: [
      { type: 'assert-table-uuid', uuid: metadata['table-uuid'] },
      { type: 'assert-ref-snapshot-id', ref: mainBranch, 'snapshot-id': metadata['current-snapshot-id'] },
    ],
    updates: [
      { action: 'add-snapshot', snapshot },
      { action: 'set-snapshot-ref', 'ref-name': mainBranch, type: 'branch', 'snapshot-id': snapshotId },
    ],
    written: [location, ...[...rewritten, ...merged].map(({ manifest_path: path }: NewManifest) => path)],
  };
}

function missingFiles(
  { added, deletes, removed, removedDeletes = [] }: TableChange,
  live: LiveFiles,
): string[] {
  const own = new Set(added.map(({ file }) => file.file_path));
  const needed = new Set([...removed, ...deletes.flatMap(({ targets }) => targets)]);
  return [
    ...[...needed].filter((path) => !own.has(path) && live.dataFile(path) === undefined),
    ...removedDeletes.filter((path) => live.deleteFile(path) === undefined),
  ];
}

function countAdded({ added, deletes }: TableChange): SummaryCounts {
  const counts = new SummaryCounts();
  for (const { specId, file } of [...added, ...deletes]) counts.add(specId, file);
  return counts;
}

/** Version 1 may leave out counts that version 2 must have; a wrong zero would hide the manifest's files. */
async function withCounts(
  store: Pick<FileStore, 'get'>,
  metadata: TableMetadata,
  manifests: readonly ManifestFile[],
): Promise<ManifestFile[]> {
  return Promise.all(
    manifests.map(async (manifest) => {
      const known = [
        manifest.added_files_count,
        manifest.existing_files_count,
        manifest.deleted_files_count,
        manifest.added_rows_count,
        manifest.existing_rows_count,
        manifest.deleted_rows_count,
      ];
      if (!known.includes(null)) return manifest;
      return { ...manifest, ...countEntries(await entriesOf(store, metadata, manifest)) };
    }),
  );
}
