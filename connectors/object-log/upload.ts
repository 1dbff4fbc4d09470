import { rm } from 'node:fs/promises';
import type { DataFile } from './data-file.ts';
import { tableFolder } from './layout.ts';
import type { ObjectStore } from './object-store.ts';

/** Data objects uploaded at once. */
const atOnce = 4;

/** Uploads finished local files under these paths of the table, and removes them. */
export async function uploadFiles(
  store: ObjectStore,
  unit: string,
  files: readonly Pick<DataFile, 'localPath'>[],
  paths: readonly string[],
  contentType: string,
): Promise<void> {
  let next = 0;
  const worker = async (): Promise<void> => {
    while (next < files.length) {
      const part = next;
      next += 1;
      await store.putFile(`${tableFolder(unit)}/${paths[part]}`, files[part]!.localPath, contentType);
      await rm(files[part]!.localPath, { force: true });
    }
  };
  const results = await Promise.allSettled(Array.from({ length: atOnce }, worker));
  for (const result of results) if (result.status === 'rejected') throw result.reason;
}
