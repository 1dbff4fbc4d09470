/**
 * Every commit adds manifests, and planning reads the list of all: once there are many small ones they become few (table
 * properties `commit.manifest.min-count-to-merge`, `commit.manifest.target-size-bytes`, as other writers read them).
 */
import type { FileStore } from '../file-store.ts';
import { entriesOf } from '../plan/table-reader.ts';
import { entryStatus } from '../spec/manifest.ts';
import type { ManifestFile } from '../spec/manifest-list.ts';
import type { TableMetadata } from '../spec/table-metadata.ts';
import { type NewManifest, putManifests } from './new-manifest.ts';

export interface MergedManifests {
  kept: ManifestFile[];
  merged: NewManifest[];
}

function settingsOf({ properties }: TableMetadata) {
  return {
    enabled: properties['commit.manifest-merge.enabled'] !== 'false',
    leastCount: Math.max(2, Number(properties['commit.manifest.min-count-to-merge'] ?? 100)),
    targetBytes: Number(properties['commit.manifest.target-size-bytes'] ?? 8 * 1024 * 1024),
  };
}

/** Whether there would be fewer if they were merged from `leastCount` on. */
export function wouldMerge(
  metadata: TableMetadata,
  manifests: readonly ManifestFile[],
  leastCount: number,
): boolean {
  const { targetBytes } = settingsOf(metadata);
  return [...groupsOf(manifests).values()].some((group) => {
    const small = group.filter(({ manifest_length: length }) => length < targetBytes);
    return small.length >= leastCount && bins(small, targetBytes).length < small.length;
  });
}

function groupsOf(manifests: readonly ManifestFile[]): Map<string, ManifestFile[]> {
  return Map.groupBy(manifests, ({ partition_spec_id: spec, content }) => `${spec} ${content}`);
}

export async function mergeManifests(
  store: Pick<FileStore, 'get' | 'put'>,
  metadata: TableMetadata,
  snapshotId: bigint,
  manifests: readonly ManifestFile[],
): Promise<MergedManifests> {
  const { enabled, leastCount, targetBytes } = settingsOf(metadata);
  const groups = groupsOf(manifests);
  const result: MergedManifests = { kept: [], merged: [] };
  for (const group of groups.values()) {
    const small = group.filter(({ manifest_length: length }) => length < targetBytes);
    if (!enabled || small.length < leastCount) {
      result.kept.push(...group);
      continue;
    }
    result.kept.push(...group.filter((each) => !small.includes(each)));
    for (const bin of bins(small, targetBytes)) {
      if (bin.length === 1) result.kept.push(bin[0]!);
      else result.merged.push(...(await mergeBin(store, metadata, snapshotId, bin)));
    }
  }
  return result;
}

/** Neighbours together, each of about the target's size. */
function bins(manifests: readonly ManifestFile[], targetBytes: number): ManifestFile[][] {
  const all: ManifestFile[][] = [];
  let bytes = Number.POSITIVE_INFINITY;
  for (const manifest of manifests) {
    if (bytes + manifest.manifest_length > targetBytes) {
      all.push([]);
      bytes = 0;
    }
    all.at(-1)!.push(manifest);
    bytes += manifest.manifest_length;
  }
  return all;
}

/** What was deleted by earlier snapshots is left out: they tell it themselves. */
async function mergeBin(
  store: Pick<FileStore, 'get' | 'put'>,
  metadata: TableMetadata,
  snapshotId: bigint,
  bin: readonly ManifestFile[],
): Promise<NewManifest[]> {
  const { partition_spec_id: specId, content } = bin[0]!;
  const entries = [];
  for (const manifest of bin) {
    for (const entry of await entriesOf(store, metadata, manifest)) {
      if (entry.status !== entryStatus.deleted) entries.push({ ...entry, status: entryStatus.existing });
    }
  }
  return putManifests(store, metadata, snapshotId, specId, content, entries);
}
