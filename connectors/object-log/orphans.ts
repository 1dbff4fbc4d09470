/**
 * Data objects that no manifest names. Every attempt writes its list of data objects before the first of them, so
 * that sweeping costs what there is to sweep and never lists a table's whole history.
 */
import { type AttemptName, attemptFolder, attemptKey, parseAttemptKey, tableFolder } from './layout.ts';
import { readManifest } from './manifest.ts';
import { listAll, type ObjectStore } from './object-store.ts';

interface AttemptRecord {
  /** Relative to the table's folder. */
  files: string[];
}

export async function recordAttempt(
  store: ObjectStore,
  unit: string,
  attempt: AttemptName,
  files: string[],
): Promise<void> {
  const record: AttemptRecord = { files };
  await store.put(attemptKey(unit, attempt), Buffer.from(JSON.stringify(record)));
}

/** Deletes an attempt's data objects (where it lost) and then its record. */
export async function dropAttempt(
  store: ObjectStore,
  unit: string,
  attempt: AttemptName,
  files: readonly string[],
): Promise<void> {
  if (files.length > 0) await store.delete(files.map((path) => `${tableFolder(unit)}/${path}`));
  await store.delete([attemptKey(unit, attempt)]);
}

/**
 * Sweeps the attempts of sequences that a manifest has decided and whose token is not newer than `token`: their
 * manifest can never be written any more. An attempt of a newer owner, or at an open sequence, is left alone; its
 * owner may be alive. Answers how many data objects were deleted.
 */
export async function sweepOrphans(
  store: ObjectStore,
  unit: string,
  heldSequence: number,
  token: bigint,
): Promise<number> {
  let deleted = 0;
  for await (const page of listAll(store, attemptFolder(unit))) {
    for (const key of page) {
      const attempt = parseAttemptKey(key);
      if (attempt === null || attempt.sequence > heldSequence || attempt.fencingToken > token) continue;
      const body = await store.get(key);
      if (body === null) continue;
      const { files } = JSON.parse(body.toString('utf8')) as AttemptRecord;
      const manifest = await readManifest(store, unit, attempt.sequence);
      const named = new Set(manifest.files.map(({ path }) => path));
      const orphans = files.filter((path) => !named.has(path));
      deleted += orphans.length;
      await dropAttempt(store, unit, attempt, orphans);
    }
  }
  return deleted;
}
