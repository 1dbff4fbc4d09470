/** Every file that snapshots of a table need: lists, manifests, data files and deletes. */

import type { OpenTable } from '../lake.ts';
import { entriesOf, manifestsOf } from '../plan/table-reader.ts';
import { entryStatus } from '../spec/manifest.ts';
import type { Snapshot } from '../spec/snapshot.ts';

/** Manifests that are read at the same time. */
const atOnce = 8;

/** Locations as the table writes them. Takes about 200 bytes of memory for each. */
export async function reachableFiles(
  { metadata, store }: OpenTable,
  snapshots: readonly Snapshot[],
): Promise<Set<string>> {
  const files = new Set<string>();
  const manifests = new Map<string, () => Promise<void>>();
  for (const snapshot of snapshots) {
    files.add(snapshot['manifest-list']);
    for (const manifest of await manifestsOf(store, snapshot)) {
      const { manifest_path: path } = manifest;
      files.add(path);
      manifests.set(path, async () => {
        for (const { status, data_file: file } of await entriesOf(store, metadata, manifest))
          if (status !== entryStatus.deleted) files.add(file.file_path);
      });
    }
  }
  const work = [...manifests.values()];
  const next = async (): Promise<void> => {
    for (let each = work.shift(); each; each = work.shift()) await each();
  };
  await Promise.all(Array.from({ length: atOnce }, next));
  return files;
}

/** Removes what no snapshot of the table needs. @returns how many files */
export async function removeUnnamed(table: OpenTable, files: readonly string[]): Promise<number> {
  const named = await reachableFiles(table, table.metadata.snapshots);
  const unnamed = files.filter((each) => !named.has(each));
  await table.store.delete(unnamed);
  return unnamed.length;
}
