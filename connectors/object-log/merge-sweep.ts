/** What compactions leave behind: files of interrupted ones, replaced files past their grace, and old generations. */
import {
  type Generation,
  generationKey,
  listGenerations,
  parseMergeAttemptKey,
  type RetiredFile,
} from './generations.ts';
import { attemptFolder, tableFolder } from './layout.ts';
import { listAll, type ObjectStore } from './object-store.ts';

/**
 * Deletes the data files of attempts at generations that are decided, as far as the newest one knows nothing of them. An
 * attempt at the next generation is left alone: its worker may be alive.
 */
export async function sweepMerges(store: ObjectStore, newest: Generation): Promise<void> {
  const { unit } = newest;
  const known = new Set([...newest.files, ...newest.retired].map(({ path }) => path));
  for await (const page of listAll(store, attemptFolder(unit))) {
    for (const key of page) {
      const attempt = parseMergeAttemptKey(key);
      if (attempt === null || attempt.generation > newest.generation) continue;
      const body = await store.get(key);
      if (body === null) continue;
      const { files } = JSON.parse(body.toString('utf8')) as { files: string[] };
      const orphans = files.filter((path) => !known.has(path));
      await store.delete(orphans.map((path) => `${tableFolder(unit)}/${path}`));
      await store.delete([key]);
    }
  }
}

/**
 * Deletes replaced files, and generations but the newest, that are older than the grace. Answers the replaced files that
 * stay. What is deleted may be deleted again: the list forgets it with its next generation.
 */
export async function dropRetired(
  store: ObjectStore,
  newest: Generation | null,
  unit: string,
  graceMs: number,
): Promise<RetiredFile[]> {
  if (newest === null) return [];
  const before = new Date(Date.now() - graceMs).toISOString();
  const due = newest.retired.filter(({ at }) => at < before);
  await store.delete(due.map(({ path }) => `${tableFolder(unit)}/${path}`));
  if (newest.written < before) {
    const older = (await listGenerations(store, unit)).filter((number) => number < newest.generation);
    await store.delete(older.map((number) => generationKey(unit, number)));
  }
  return newest.retired.filter(({ at }) => at >= before);
}
