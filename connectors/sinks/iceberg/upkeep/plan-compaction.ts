/** Which files of a table are worth being written anew. */

import type { LiveFile } from '../plan/live-file.ts';
import type { LiveFiles } from '../plan/live-files.ts';
import { fileContent } from '../spec/data-file.ts';

export interface CompactionRules {
  /** Of a new data file, about. */
  targetFileBytes: number;
  /** Small data files of a partition, or its files of deletes, from which on they are merged; at least 2. */
  leastFiles: number;
  /** A data file with so large a part of its rows deleted is written anew, 0 to 1. */
  deleteRatio: number;
  /** Of one commit. */
  mostFiles: number;
  mostBytes: number;
}

/** Data files that are written anew with one commit, of one partition or several. */
export type FileGroup = LiveFile[];

/** A file of less than this part of the target is small. */
const small = 0.75;
/** A larger file is left alone until smaller ones add up to this part of it: else it is written again for each of them. */
const step = 4;
/** Below this part of the target files are merged whatever their sizes. */
const always = 1 / 64;

/**
 * @param deletedRows of a data file
 * @param settled paths of files that are as few as they get
 */
export function planRewrites(
  live: LiveFiles,
  deletedRows: (file: LiveFile) => number,
  rules: CompactionRules,
  settled: ReadonlySet<string> = new Set(),
): FileGroup[] {
  const groups: FileGroup[] = [];
  let group: FileGroup = [];
  let bytes = 0;
  const end = () => {
    if (group.length > 0) groups.push(group);
    group = [];
    bytes = 0;
  };
  for (const files of Map.groupBy(live.dataFiles(), ({ partitionKey }) => partitionKey).values()) {
    const worn = new Set(
      files.filter((file) => {
        const deleted = deletedRows(file);
        return deleted > 0 && deleted >= file.records * rules.deleteRatio;
      }),
    );
    const open = files.filter(({ path }) => !settled.has(path));
    const merged = smallFiles(open, rules);
    const chosen = [...new Set([...merged, ...worn])];
    // One alone that has no deletes would be copied for nothing.
    if (chosen.length < 2 && worn.size === 0) continue;
    if (bytes + sum(chosen) > rules.mostBytes || group.length + chosen.length > rules.mostFiles) end();
    for (const file of chosen) {
      const full = bytes + file.bytes > rules.mostBytes || group.length === rules.mostFiles;
      if (full && group.length > 0) end();
      group.push(file);
      bytes += file.bytes;
    }
  }
  end();
  return groups.filter((each) => each.length > 1 || deletedRows(each[0]!) > 0);
}

/** Those that are merged: the smallest, up to where the next one is much larger than all before it. */
function smallFiles(files: readonly LiveFile[], rules: CompactionRules): LiveFile[] {
  const { targetFileBytes, leastFiles } = rules;
  const sorted = files
    .filter(({ bytes }) => bytes < targetFileBytes * small)
    .sort((one, other) => one.bytes - other.bytes);
  let before = 0;
  let count = 0;
  for (const { bytes } of sorted) {
    if (count > 0 && bytes > targetFileBytes * always && bytes > before * step) break;
    before += bytes;
    count += 1;
  }
  return count >= leastFiles ? sorted.slice(0, count) : [];
}

/**
 * Keys of partitions whose files of position deletes are to become fewer.
 * @param perFile there is to be one for each data file
 */
export function planDeleteMerges(
  live: LiveFiles,
  deletedRows: (file: LiveFile) => number,
  { leastFiles }: CompactionRules,
  perFile: boolean,
): string[] {
  const counts = new Map<string, number>();
  for (const { content, partitionKey } of live.deleteFiles()) {
    if (content === fileContent.positionDeletes)
      counts.set(partitionKey, (counts.get(partitionKey) ?? 0) + 1);
  }
  const few = (key: string) => {
    const concerned = [...live.dataFilesIn(key)].filter((file) => deletedRows(file) > 0).length;
    return perFile ? concerned : Math.min(concerned, 1);
  };
  return [...counts].filter(([key, count]) => count - few(key) >= leastFiles - 1).map(([key]) => key);
}

function sum(files: readonly LiveFile[]): number {
  return files.reduce((bytes, file) => bytes + file.bytes, 0);
}
