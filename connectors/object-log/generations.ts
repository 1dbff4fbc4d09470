/**
 * Generations of a table's file list. The first Windows are listed by their manifests alone. A compaction writes a
 * generation: all data files of the Windows up to one of them, with many small files replaced by few. From then on a
 * table is what the newest generation lists and the manifests behind it. Format version 1.
 *
 *   <table>/_generations/<generation>.json                 counts from the moment it exists
 *   <table>/_attempts/generation-<generation>-<nonce>.json  the data objects a compaction is about to write
 */
import { TidemarkError } from '../../src/connector/failure.ts';
import type { Position } from '../../src/connector/position.ts';
import { attemptFolder, sequenceText, tableFolder } from './layout.ts';
import type { ManifestFile } from './manifest.ts';
import { listAll, type ObjectStore } from './object-store.ts';

const formatVersion = 1;

export interface LiveFile extends ManifestFile {
  encoder: string;
  /** Of its first Window: no row is at or before it. */
  from: Position;
  /** Of its last Window. */
  sequence: number;
}

/** A file that a generation replaced. It stays for readers that have an older list. */
export interface RetiredFile {
  path: string;
  /** ISO time of the generation that replaced it. */
  at: string;
}

export interface Generation {
  formatVersion: number;
  sourceId: string;
  destination: string;
  unit: string;
  generation: number;
  nonce: string;
  /** The last Window whose files are listed. */
  through: number;
  /** ISO time. */
  written: string;
  files: LiveFile[];
  retired: RetiredFile[];
}

export function generationFolder(unit: string): string {
  return `${tableFolder(unit)}/_generations/`;
}

export function generationKey(unit: string, generation: number): string {
  return `${generationFolder(unit)}${sequenceText(generation)}.json`;
}

export function mergeAttemptKey(unit: string, generation: number, nonce: string): string {
  return `${attemptFolder(unit)}generation-${sequenceText(generation)}-${nonce}.json`;
}

export function parseMergeAttemptKey(key: string): { generation: number; nonce: string } | null {
  const match = /\/generation-(\d{16})-([0-9a-f]{12})\.json$/.exec(key);
  return match ? { generation: Number(match[1]), nonce: match[2]! } : null;
}

/** Numbers of the generations that exist, in order; old ones are removed in time. */
export async function listGenerations(store: ObjectStore, unit: string): Promise<number[]> {
  const numbers: number[] = [];
  for await (const page of listAll(store, generationFolder(unit))) {
    for (const key of page) {
      const match = /\/(\d{16})\.json$/.exec(key);
      if (match) numbers.push(Number(match[1]));
    }
  }
  return numbers;
}

/** @throws TidemarkError TM103 for a newer format, TM404 for one that is gone or not ours. */
export async function latestGeneration(store: ObjectStore, unit: string): Promise<Generation | null> {
  for (let attempt = 1; ; attempt += 1) {
    const last = (await listGenerations(store, unit)).at(-1);
    if (last === undefined) return null;
    const key = generationKey(unit, last);
    const body = await store.get(key);
    // Between the listing and the reading a newer one may have come and this one gone.
    if (body === null && attempt < 3) continue;
    if (body === null) throw new TidemarkError('TM404', `${key} is gone`);
    let generation: Generation;
    try {
      generation = JSON.parse(body.toString('utf8')) as Generation;
    } catch {
      throw new TidemarkError('TM404', `${key} is not JSON`);
    }
    if (generation.formatVersion > formatVersion) {
      throw new TidemarkError('TM103', `${key} has format ${generation.formatVersion}`, {
        remedy: 'A newer Tidemark wrote this destination: run that version.',
      });
    }
    if (generation.unit !== unit) throw new TidemarkError('TM404', `${key} belongs to something else`);
    return generation;
  }
}

/** Whether this generation is now the newest. Of several compactions that began at the same one, one wins. */
export async function commitGeneration(
  store: ObjectStore,
  generation: Omit<Generation, 'formatVersion'>,
): Promise<boolean> {
  const { unit, nonce } = generation;
  const key = generationKey(unit, generation.generation);
  await store.putIfAbsent(key, Buffer.from(JSON.stringify({ formatVersion, ...generation })));
  // Read back: the number may have been taken, or be so old that its generation was removed.
  const newest = await latestGeneration(store, unit);
  return newest?.generation === generation.generation && newest.nonce === nonce;
}
