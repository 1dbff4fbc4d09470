/**
 * Files in a table's own folders that no snapshot of it names: what a writer left that was killed, and what expired
 * elsewhere. A file that is younger than the safe age may be one that somebody is about to name, and stays.
 */

import { isObject } from '../catalog/exact-json.ts';
import { dataLocation, metadataLocation } from '../commit/locations.ts';
import { parseLocation } from '../file-store.ts';
import type { OpenTable } from '../lake.ts';
import { attemptsLocation } from '../progress/attempt.ts';
import type { UpkeepPlace } from './commit-upkeep.ts';
import { reachableFiles } from './reachable-files.ts';
import { sharedFiles } from './shared-files.ts';
import { recordedFiles, upkeepLocation } from './upkeep-records.ts';

export interface RemovedOrphans {
  filesRemoved: number;
  bytesRemoved: number;
  left: string | null;
}

/** @param others locations of other tables */
export async function removeOrphans(
  { lake, progress, context }: UpkeepPlace,
  { identifier, metadata, store }: OpenTable,
  others: readonly string[],
  safeAgeMs: number,
  dryRun: boolean,
): Promise<RemovedOrphans> {
  const result: RemovedOrphans = { filesRemoved: 0, bytesRemoved: 0, left: null };
  const mark = sharedFiles(metadata);
  if (mark !== null) return { ...result, left: mark };
  const own = canonical(metadata.location);
  const folders = [dataLocation(metadata), metadataLocation(metadata)].map(canonical);
  if (!folders.every((each) => each.startsWith(`${own}/`)))
    return { ...result, left: 'its files lie outside of its location, where they may be among others' };
  const shared = others.map(canonical).some((each) => `${each}/`.startsWith(`${own}/`));
  if (shared) return { ...result, left: 'another table lies within its location' };
  const before = Date.now() - safeAgeMs;
  const old = new Map<string, { location: string; size: number }>();
  for (const folder of [dataLocation(metadata), metadataLocation(metadata)]) {
    for await (const page of store.list(`${folder}/`, true)) {
      // A store that does not tell the time says zero.
      for (const { location, size, modifiedMs } of page)
        if (modifiedMs > 0 && modifiedMs < before) old.set(canonical(location), { location, size });
    }
  }
  if (old.size === 0) return result;
  // Only now: whatever was named since the files were listed is found.
  const now = await lake.load(identifier);
  if (now === null || now.metadata['table-uuid'] !== metadata['table-uuid']) return result;
  if (now.metadataLocation === null)
    return { ...result, left: 'the catalog does not tell where its metadata is' };
  const named = [
    ...(await reachableFiles(now, now.metadata.snapshots)),
    ...metadataFiles(now),
    ...(await recordedFiles(progress, attemptsLocation(progress.metadata))),
    ...(await recordedFiles(progress, upkeepLocation(progress.metadata))),
  ];
  for (const each of named) old.delete(canonical(each));
  const records = [attemptsLocation(progress.metadata), upkeepLocation(progress.metadata)].map(canonical);
  const orphans = [...old].filter(
    ([each]) => !records.some((folder) => each.startsWith(folder)) && !/\/version-hint\.text$/.test(each),
  );
  result.filesRemoved = orphans.length;
  result.bytesRemoved = orphans.reduce((sum, [, { size }]) => sum + size, 0);
  if (dryRun) return result;
  for (let start = 0; start < orphans.length; start += 1000) {
    await now.store.delete(orphans.slice(start, start + 1000).map(([, { location }]) => location));
    await context.failpoint('iceberg-upkeep-orphans');
  }
  return result;
}

function metadataFiles({ metadata, metadataLocation: current }: OpenTable): string[] {
  const statistics = [...metadata.statistics, ...metadata['partition-statistics']].flatMap((each) => {
    const path = isObject(each) ? each['statistics-path'] : null;
    return typeof path === 'string' ? [path] : [];
  });
  return [current!, ...metadata['metadata-log'].map((each) => each['metadata-file']), ...statistics];
}

/** Writers spell the same place in different ways: `file:/a` and `file:///a`, `s3a://` and `s3://`. */
export function canonical(location: string): string {
  const text = location.replace(/\/+$/, '');
  try {
    const parsed = parseLocation(text);
    return parsed.kind === 'file' ? `file:${parsed.path}` : `s3://${parsed.bucket}/${parsed.key}`;
  } catch {
    return text;
  }
}
