import { join } from 'node:path';
import { tableFolder } from './layout.ts';
import type { ManifestFile } from './manifest.ts';
import type { ObjectStore } from './object-store.ts';

/** Files downloaded at once. */
const downloads = 4;

/** Where programs can open the files of a table: objects of an S3 store are downloaded to the folder. */
export async function localFiles(
  store: ObjectStore,
  unit: string,
  files: readonly Pick<ManifestFile, 'path'>[],
  folder: string,
  extension: string,
): Promise<string[]> {
  const paths: string[] = [];
  const remote: [string, string][] = [];
  for (const [number, { path }] of files.entries()) {
    const key = `${tableFolder(unit)}/${path}`;
    const local = store.localPath(key);
    if (local === null) remote.push([key, join(folder, `${number}.${extension}`)]);
    paths.push(local ?? join(folder, `${number}.${extension}`));
  }
  for (let start = 0; start < remote.length; start += downloads) {
    await Promise.all(
      remote.slice(start, start + downloads).map(([key, local]) => store.download(key, local)),
    );
  }
  return paths;
}
