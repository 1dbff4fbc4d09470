/**
 * The manifest of a Window: one JSON object, written last and only if that sequence has none. A Window is held from
 * the moment its manifest exists; nothing else counts. Format version 1; 2 once the table has generations
 * (generations.ts), which a reader of version 1 does not know.
 */
import { TidemarkError } from '../../src/connector/failure.ts';
import type { Position } from '../../src/connector/position.ts';
import type { TableShape } from '../../src/connector/shape.ts';
import type { AppendWindow, Held, Receipt } from '../../src/connector/sink.ts';
import type { OpCounts } from './change-row.ts';
import type { FieldName } from './fields.ts';
import { manifestFolder, manifestKey, parseManifestKey } from './layout.ts';
import type { ObjectStore } from './object-store.ts';

const plainVersion = 1;
const generationsVersion = 2;

export interface ManifestFile {
  /** Relative to the table's folder. */
  path: string;
  rows: number;
  bytes: number;
  /** The tenant itself; null for NULL and for rows without a tenant (`path` tells them apart). */
  tenant: string | null;
  /** YYYY-MM-DD, UTC: see `dateColumn`. */
  date: string;
  /** Bytes of its longest line, where it has lines. */
  longestLine?: number;
}

export interface Manifest {
  formatVersion: number;
  sourceId: string;
  destination: string;
  unit: string;
  sequence: number;
  /** Exclusive. */
  from: Position;
  /** Inclusive. */
  to: Position;
  /** Decimal digits: JSON numbers are too small. */
  fencingToken: string;
  /** Of the attempt that won. */
  nonce: string;
  /** Microseconds since 1970 UTC, decimal digits. */
  commitTimeUs: string;
  encoder: string;
  /** The table's shape in this Window; null where the Window was empty and no earlier one had a shape. */
  shape: TableShape | null;
  /**
   * True while all files of the table up to here have the same columns with the same types. Readers may then open
   * files one by one instead of all at once to unify their schemas (1,800 files: 2,000 MiB).
   */
  uniform: boolean;
  /** Whether the table's columns changed in its history. */
  reshaped: boolean;
  /** Every field the table ever had, and the Postgres column behind it. */
  fields: FieldName[];
  /** The column whose dates the files lie under; null or absent: the commit's. Of the last shape in the Window. */
  dateColumn?: string | null;
  /** By op. Manifests of older versions lack some, and count rows of snapshots as `c`. */
  rows: Partial<OpCounts>;
  /** Of all data files. */
  bytes: number;
  contentHash: string;
  files: ManifestFile[];
}

export function receiptOf(manifest: Manifest, alreadyHeld: boolean): Receipt {
  return {
    position: manifest.to,
    rows: {
      upserted: 0,
      deleted: 0,
      appended: Object.values(manifest.rows).reduce((sum, rows) => sum + rows, 0),
    },
    bytes: manifest.bytes,
    contentHash: manifest.contentHash,
    commitId: manifestKey(manifest.unit, manifest.sequence),
    alreadyHeld,
  };
}

/** Whether the table had generations when this was written. */
export function hasGenerations({ formatVersion }: Manifest): boolean {
  return formatVersion >= generationsVersion;
}

export function heldOf({ to, sequence, fencingToken }: Manifest): Held {
  return { position: to, sequence, fencingToken: BigInt(fencingToken) };
}

export function newManifest(
  window: AppendWindow,
  hasGenerations: boolean,
  rest: Pick<
    Manifest,
    | 'nonce'
    | 'encoder'
    | 'shape'
    | 'uniform'
    | 'reshaped'
    | 'fields'
    | 'dateColumn'
    | 'rows'
    | 'bytes'
    | 'contentHash'
    | 'files'
  >,
): Manifest {
  return {
    formatVersion: hasGenerations ? generationsVersion : plainVersion,
    sourceId: window.sourceId,
    destination: window.destination,
    unit: window.unit,
    sequence: window.sequence,
    from: window.from,
    to: window.to,
    fencingToken: String(window.fencingToken),
    commitTimeUs: String(window.commitTimeUs),
    ...rest,
  };
}

/** What files of this encoder and these shapes add to the history of the Windows before. */
export function historyWith(
  latest: Pick<Manifest, 'shape' | 'uniform' | 'reshaped' | 'encoder'> | null,
  encoder: string,
  shapes: readonly TableShape[],
): Pick<Manifest, 'uniform' | 'reshaped'> {
  const columns = (of: TableShape) =>
    JSON.stringify([
      of.oid ?? null,
      of.columns.map(({ name, type, number }) => [name, type, number ?? null]),
    ]);
  const all = latest?.shape ? [latest.shape, ...shapes] : shapes;
  const reshaped = latest?.reshaped === true || new Set(all.map(columns)).size > 1;
  const otherEncoder = shapes.length > 0 && latest?.shape != null && latest.encoder !== encoder;
  return { reshaped, uniform: latest?.uniform !== false && !reshaped && !otherEncoder };
}

/** @throws TidemarkError TM103 for a newer format, TM404 for a manifest that is gone or not one of ours. */
export async function readManifest(store: ObjectStore, unit: string, sequence: number): Promise<Manifest> {
  const key = manifestKey(unit, sequence);
  const body = await store.get(key);
  if (body === null) throw new TidemarkError('TM404', `the manifest ${key} is gone`);
  let manifest: Manifest;
  try {
    manifest = JSON.parse(body.toString('utf8')) as Manifest;
  } catch {
    throw new TidemarkError('TM404', `the manifest ${key} is not JSON`);
  }
  if (manifest.formatVersion > generationsVersion) {
    throw new TidemarkError('TM103', `the manifest ${key} has format ${manifest.formatVersion}`, {
      remedy: 'A newer Tidemark wrote this destination: run that version.',
    });
  }
  if (manifest.unit !== unit || manifest.sequence !== sequence) {
    throw new TidemarkError('TM404', `the manifest ${key} belongs to something else`);
  }
  return manifest;
}

export interface Latest {
  /** 0 where there is no manifest. */
  sequence: number;
  /** The largest token in a fence mark seen on the way, or 0. */
  fence: bigint;
}

/**
 * The last manifest's sequence, at or behind `known` (0: nothing known), or before it where `known` itself is gone: then
 * somebody put an older state of the destination in its place. Usually one listing. Sequences have no gap, so
 * a long history is crossed by probing whether anything lies at or behind a point, instead of being listed.
 */
export async function findLatest(store: ObjectStore, unit: string, known: number): Promise<Latest> {
  const folder = manifestFolder(unit);
  // Names of a sequence and of those behind it, its own fences included: they may be newer than the last look.
  const namesFrom = async (sequence: number, limit: number) => {
    const after = sequence === 0 ? null : manifestKey(unit, sequence).replace(/\.json$/, '');
    return (await store.listPage(folder, after, limit)).flatMap((key) => parseManifestKey(key) ?? []);
  };
  let page = await namesFrom(known, 1000);
  if (known > 0 && !page.some(({ sequence, fence }) => sequence === known && fence === null))
    return findLatest(store, unit, 0);
  let low = known;
  if (page.length === 1000) {
    let step = 1000;
    while ((await namesFrom(low + step, 1)).length > 0) {
      low += step;
      step *= 4;
    }
    let high = low + step;
    while (high - low > 400) {
      const middle = Math.floor((low + high) / 2);
      if ((await namesFrom(middle, 1)).length > 0) low = middle;
      else high = middle;
    }
    page = await namesFrom(low, 1000);
  }
  const latest: Latest = { sequence: known, fence: 0n };
  for (const { sequence, fence } of page) {
    if (fence === null) latest.sequence = Math.max(latest.sequence, sequence);
    else if (fence > latest.fence) latest.fence = fence;
  }
  return latest;
}

/**
 * Writes the manifest unless its sequence has one, and answers whichever manifest counts now. A PUT whose outcome is
 * unknown is read back and, if nothing is there, repeated: it is conditional, so it cannot count twice.
 * @throws TidemarkError TM401 where the store stayed unreachable: the outcome is open and the data must stay.
 */
export async function commitManifest(store: ObjectStore, manifest: Manifest): Promise<Manifest> {
  const key = manifestKey(manifest.unit, manifest.sequence);
  const body = Buffer.from(JSON.stringify(manifest));
  for (let attempt = 1; ; attempt += 1) {
    try {
      const outcome = await store.putIfAbsent(key, body);
      if (outcome === 'written') return manifest;
      return await readManifest(store, manifest.unit, manifest.sequence);
    } catch (error) {
      const unknown = error instanceof TidemarkError && error.code === 'TM401';
      if (!unknown || attempt === 3) throw error;
      if ((await store.get(key)) !== null) {
        return await readManifest(store, manifest.unit, manifest.sequence);
      }
    }
  }
}
