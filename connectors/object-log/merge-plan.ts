/** Which files a compaction merges with which. */
import type { LiveFile } from './generations.ts';

/** Files of at least so many bytes are left as they are. */
export const smallBytes = 16 * 1024 * 1024;
/** Of one merge: bounds its time, memory and disk space. */
const maxBytes = 64 * 1024 * 1024;
const maxFiles = 512;

/**
 * Small files of partitions whose date is before `today`, in batches that become one file each, the oldest dates first.
 * A batch is of one partition and one writer, and in the order of its Windows.
 * @param enough so many small files make a partition worth it
 */
export function planMerges(
  files: readonly LiveFile[],
  encoder: string,
  today: string,
  enough: number,
): LiveFile[][] {
  const partitions = new Map<string, LiveFile[]>();
  for (const file of files) {
    if (file.encoder !== encoder || file.bytes >= smallBytes || file.date >= today) continue;
    const partition = file.path.slice(0, file.path.lastIndexOf('/'));
    const some = partitions.get(partition);
    if (some) some.push(file);
    else partitions.set(partition, [file]);
  }
  const worth = [...partitions.values()].filter((some) => some.length >= enough);
  worth.sort(([a], [b]) => (a!.date < b!.date ? -1 : a!.date > b!.date ? 1 : 0));
  return worth.flatMap(inBatches).filter((batch) => batch.length > 1);
}

function inBatches(files: LiveFile[]): LiveFile[][] {
  const batches: LiveFile[][] = [];
  let bytes = 0;
  for (const file of files.sort((a, b) => a.sequence - b.sequence)) {
    const batch = batches.at(-1);
    if (batch === undefined || bytes + file.bytes > maxBytes || batch.length === maxFiles) {
      batches.push([file]);
      bytes = file.bytes;
    } else {
      batch.push(file);
      bytes += file.bytes;
    }
  }
  return batches;
}
