/** The manifests of a table, read through its file store. */

import { malformed } from '../failures.ts';
import type { FileStore } from '../file-store.ts';
import { type ManifestEntry, readManifest } from '../spec/manifest.ts';
import { type ManifestFile, readManifestList } from '../spec/manifest-list.ts';
import { type BoundPartitionField, bindSpec } from '../spec/partition-spec.ts';
import type { Snapshot } from '../spec/snapshot.ts';
import { currentSchema, specById, type TableMetadata } from '../spec/table-metadata.ts';

/** Its fields with their columns; specs of the past may name columns that the current schema lacks. */
export function boundSpec(metadata: TableMetadata, specId: number): BoundPartitionField[] {
  const newestFirst = [...metadata.schemas].reverse();
  return bindSpec(specById(metadata, specId), [currentSchema(metadata), ...newestFirst]);
}

/** @throws TidemarkError TM405 where the list is not there or cannot be read */
export async function manifestsOf(
  store: Pick<FileStore, 'get'>,
  snapshot: Snapshot | null,
): Promise<ManifestFile[]> {
  if (snapshot === null) return [];
  const location = snapshot['manifest-list'];
  const bytes = await store.get(location);
  if (bytes === null) throw malformed(`the manifest list ${location} is gone`);
  return readManifestList(bytes, location);
}

/** @throws TidemarkError TM405 where the manifest is not there or cannot be read */
export async function entriesOf(
  store: Pick<FileStore, 'get'>,
  metadata: TableMetadata,
  manifest: ManifestFile,
): Promise<ManifestEntry[]> {
  const bytes = await store.get(manifest.manifest_path);
  if (bytes === null) throw malformed(`the manifest ${manifest.manifest_path} is gone`);
  return readManifest(bytes, manifest, boundSpec(metadata, manifest.partition_spec_id));
}

/** Whether the manifest may list live files. */
export function hasLiveFiles({
  added_files_count: added,
  existing_files_count: existing,
}: ManifestFile): boolean {
  return added !== 0 || existing !== 0;
}
