/**
 * What a commit can do once, whatever it will be based on: its new files, and the manifests that list them. Everything in
 * these is inherited from the snapshot that gets through (rebase-commit.ts).
 */
import type { FileStore } from '../file-store.ts';
import { entryStatus, type UnassignedEntry } from '../spec/manifest.ts';
import { type ManifestContent, manifestContent } from '../spec/manifest-list.ts';
import { newSnapshotId } from '../spec/snapshot.ts';
import type { TableMetadata } from '../spec/table-metadata.ts';
import { type NewManifest, putManifests } from './new-manifest.ts';
import type { AddedFile, TableChange } from './table-change.ts';

export interface PreparedCommit {
  change: TableChange;
  /** Of the snapshot, in every attempt: it is in the manifests. */
  snapshotId: bigint;
  manifests: readonly NewManifest[];
}

/** @param metadata of any state of the table that has the specs of the new files */
export async function prepareCommit(
  store: Pick<FileStore, 'put'>,
  metadata: TableMetadata,
  change: TableChange,
): Promise<PreparedCommit> {
  const taken = new Set(metadata.snapshots.map((each) => each['snapshot-id']));
  const snapshotId = newSnapshotId(taken);
  const put = (content: ManifestContent, files: readonly AddedFile[]) =>
    putAdded(store, metadata, snapshotId, content, files);
  return {
    change,
    snapshotId,
    manifests: [
      ...(await put(manifestContent.data, change.added)),
      ...(await put(manifestContent.deletes, change.deletes)),
    ],
  };
}

/** A manifest holds files of one spec. */
async function putAdded(
  store: Pick<FileStore, 'put'>,
  metadata: TableMetadata,
  snapshotId: bigint,
  content: ManifestContent,
  files: readonly AddedFile[],
): Promise<NewManifest[]> {
  const bySpec = Map.groupBy(files, ({ specId }) => specId);
  const manifests: NewManifest[] = [];
  for (const [specId, group] of bySpec) {
    const entries = group.map(
      ({ file, sequence }): UnassignedEntry => ({
        status: entryStatus.added,
        snapshot_id: snapshotId,
        sequence_number: sequence ?? null,
        file_sequence_number: null,
        data_file: file,
      }),
    );
    manifests.push(...(await putManifests(store, metadata, snapshotId, specId, content, entries)));
  }
  return manifests;
}
