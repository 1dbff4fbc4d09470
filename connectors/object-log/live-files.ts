/** Which data files hold a table, now or as of a Position. */
import type { Position } from '../../src/connector/position.ts';
import { type Generation, type LiveFile, latestGeneration } from './generations.ts';
import { manifestFolder, manifestKey, parseManifestKey } from './layout.ts';
import { findLatest, type Manifest, readManifest } from './manifest.ts';
import { listAllAfter, type ObjectStore } from './object-store.ts';

/** Manifests read at once. */
const atOnce = 16;

/** The manifests of all Windows behind `through` (0: all), in order. */
export async function* manifestsAfter(
  store: ObjectStore,
  unit: string,
  through: number,
): AsyncIterable<Manifest> {
  const after = through === 0 ? null : manifestKey(unit, through);
  for await (const page of listAllAfter(store, manifestFolder(unit), after)) {
    const sequences = page.flatMap((key) => {
      const name = parseManifestKey(key);
      return name === null || name.fence !== null ? [] : [name.sequence];
    });
    for (let start = 0; start < sequences.length; start += atOnce) {
      const some = sequences.slice(start, start + atOnce);
      yield* await Promise.all(some.map((sequence) => readManifest(store, unit, sequence)));
    }
  }
}

export function liveFilesOf({ files, encoder, from, sequence }: Manifest): LiveFile[] {
  return files.map((file) => ({ ...file, encoder, from, sequence }));
}

/**
 * The data files that have rows up to `at` (and, some of them, later rows too), and the manifest that tells the table's
 * fields at that time. The generation is looked up before the manifests: it may list no Window that these do not.
 */
export async function filesUpTo(
  store: ObjectStore,
  unit: string,
  at: Position,
): Promise<{ files: LiveFile[]; newest: Manifest | null }> {
  const generation = await latestGeneration(store, unit);
  const files: LiveFile[] = [];
  let newest: Manifest | null = null;
  for await (const manifest of manifestsAfter(store, unit, generation?.through ?? 0)) {
    newest = manifest;
    // Every later Window begins later still.
    if (isBeyond(manifest, at)) break;
    files.push(...liveFilesOf(manifest));
  }
  if (generation === null) return { files, newest };
  newest = await manifestAt(store, unit, at, generation);
  const beyond = isBeyond(newest, at) ? newest.sequence : Number.POSITIVE_INFINITY;
  const listed = generation.files.filter(
    ({ from, sequence }) => from < at || (from === at && sequence < beyond),
  );
  return { files: [...listed, ...files], newest };
}

/** Nothing of it is at or before `at`. A Window of rows that came out of Quarantine ends where it begins. */
function isBeyond({ from, to }: Manifest, at: Position): boolean {
  return from >= at && to > at;
}

/** The first manifest beyond `at`, else the last one. */
async function manifestAt(
  store: ObjectStore,
  unit: string,
  at: Position,
  { through }: Generation,
): Promise<Manifest> {
  let high = (await findLatest(store, unit, through)).sequence;
  let found = await readManifest(store, unit, high);
  let low = 1;
  while (low < high) {
    const middle = Math.floor((low + high) / 2);
    const manifest = await readManifest(store, unit, middle);
    if (isBeyond(manifest, at)) {
      high = middle;
      found = manifest;
    } else low = middle + 1;
  }
  return found;
}
