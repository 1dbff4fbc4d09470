/**
 * Snapshots of the past go, with the files that only they need. What a tag or a branch names stays, and of each branch what
 * is young enough or among its last ones (Iceberg specification, "Snapshot Retention Policy").
 */
import { setTimeout as sleep } from 'node:timers/promises';
import type { TableCommit } from '../catalog/catalog.ts';
import { CommitConflict } from '../catalog/failures.ts';
import { settleCommit } from '../catalog/settle-commit.ts';
import type { OpenTable } from '../lake.ts';
import { entriesOf, manifestsOf } from '../plan/table-reader.ts';
import { entryStatus } from '../spec/manifest.ts';
import type { ManifestFile } from '../spec/manifest-list.ts';
import { mainBranch, type Snapshot } from '../spec/snapshot.ts';
import type { TableMetadata } from '../spec/table-metadata.ts';
import type { TableRequirement, TableUpdate } from '../spec/updates.ts';
import type { UpkeepPlace } from './commit-upkeep.ts';
import { sharedFiles } from './shared-files.ts';
import { UpkeepRecord } from './upkeep-records.ts';

export interface ExpiryRules {
  /** Null: what the table says, or five days. */
  maxAgeMs: number | null;
  /** Null: what the table says, or one. */
  keepLast: number | null;
}

export interface Expired {
  snapshotsBefore: number;
  snapshotsAfter: number;
  filesRemoved: number;
  /** Why the table is left as it is. */
  left: string | null;
}

const day = 24 * 60 * 60 * 1000;
const tries = 20;
/** Lists and manifests that are read at the same time. */
const atOnce = 8;
/** Other writers keep as many of its metadata files by default, and remove none. */
const removesMetadata = 'write.metadata.delete-after-commit.enabled';

interface Expiry {
  snapshots: Snapshot[];
  /** Tags and branches whose time is over. */
  refs: string[];
}

export function planExpiry(metadata: TableMetadata, rules: ExpiryRules, nowMs: number): Expiry {
  const { properties, snapshots } = metadata;
  const age = rules.maxAgeMs ?? Number(properties['history.expire.max-snapshot-age-ms'] ?? 5 * day);
  const last = rules.keepLast ?? Number(properties['history.expire.min-snapshots-to-keep'] ?? 1);
  const refAge = Number(properties['history.expire.max-ref-age-ms'] ?? Number.POSITIVE_INFINITY);
  const byId = new Map(snapshots.map((each) => [each['snapshot-id'], each]));
  const kept = new Set<bigint>();
  const refs: string[] = [];
  const inBranches = new Set<bigint>();
  for (const [name, ref] of Object.entries(metadata.refs)) {
    const head = byId.get(ref['snapshot-id']);
    if (!head) continue;
    const over = nowMs - head['timestamp-ms'] > (ref['max-ref-age-ms'] ?? refAge);
    if (name !== mainBranch && over) {
      refs.push(name);
      continue;
    }
    kept.add(head['snapshot-id']);
    if (ref.type === 'tag') continue;
    const oldest = nowMs - (ref['max-snapshot-age-ms'] ?? age);
    const least = ref['min-snapshots-to-keep'] ?? last;
    let count = 0;
    let keeps = true;
    for (let each: Snapshot | undefined = head; each; each = parentOf(each, byId)) {
      count += 1;
      inBranches.add(each['snapshot-id']);
      keeps &&= count <= least || each['timestamp-ms'] >= oldest;
      if (keeps) kept.add(each['snapshot-id']);
    }
  }
  const gone = snapshots.filter(
    (each) =>
      !kept.has(each['snapshot-id']) &&
      // Of no branch: somebody may be about to make one of it.
      (inBranches.has(each['snapshot-id']) || each['timestamp-ms'] < nowMs - age),
  );
  return { snapshots: gone, refs };
}

function parentOf(snapshot: Snapshot, byId: ReadonlyMap<bigint, Snapshot>): Snapshot | undefined {
  const parent = snapshot['parent-snapshot-id'];
  return parent === undefined ? undefined : byId.get(parent);
}

export async function expireSnapshots(
  place: UpkeepPlace,
  first: OpenTable,
  rules: ExpiryRules,
  dryRun: boolean,
): Promise<Expired> {
  const { lake, context } = place;
  let table = first;
  const before = table.metadata.snapshots.length;
  const reader = new SnapshotReader(table);
  const record = new UpkeepRecord(place.progress, table);
  for (let attempt = 1; ; attempt += 1) {
    const { metadata } = table;
    const left = sharedFiles(metadata);
    if (left !== null)
      return { snapshotsBefore: before, snapshotsAfter: metadata.snapshots.length, filesRemoved: 0, left };
    const { snapshots, refs } = planExpiry(metadata, rules, Date.now());
    const after = metadata.snapshots.length - snapshots.length;
    const result = { snapshotsBefore: before, snapshotsAfter: after, filesRemoved: 0, left };
    const says = metadata.properties[removesMetadata] !== undefined;
    if (dryRun || (snapshots.length === 0 && refs.length === 0 && says)) return result;
    const gone = new Set(snapshots);
    const kept = metadata.snapshots.filter((each) => !gone.has(each));
    const files = snapshots.length === 0 ? [] : await reader.onlyIn(metadata, snapshots, kept);
    if (!(await record.stands())) return { ...result, snapshotsAfter: metadata.snapshots.length };
    if (files.length > 0)
      await record.willExpire(
        snapshots.map((each) => each['snapshot-id']),
        files,
      );
    await context.failpoint('iceberg-upkeep-before-expiry');
    try {
      await settleCommit(lake.catalog, [commitOf(table, { snapshots, refs }, says)], {
        // It can be made twice, and then changes nothing.
        landed: ({ metadata: now }) =>
          Array.isArray(now.snapshots) &&
          snapshots.length > 0 &&
          !now.snapshots.some((each) => snapshots.some((one) => String(one['snapshot-id']) === idText(each))),
      });
    } catch (error) {
      if (!(error instanceof CommitConflict) || attempt === tries) {
        if (error instanceof CommitConflict) await record.remove();
        throw error;
      }
      await sleep(10 * attempt * (1 + Math.random()));
      const now = await lake.load(table.identifier);
      if (now === null) return result;
      table = now;
      continue;
    }
    await context.failpoint('iceberg-upkeep-expired');
    for (let start = 0; start < files.length; start += 1000)
      await table.store.delete(files.slice(start, start + 1000));
    await record.remove();
    return { ...result, filesRemoved: files.length };
  }
}

function idText(snapshot: unknown): string {
  return String((snapshot as Record<string, unknown> | null)?.['snapshot-id']);
}

function commitOf(
  { identifier, metadata }: OpenTable,
  { snapshots, refs }: Expiry,
  says: boolean,
): TableCommit {
  const requirements: TableRequirement[] = [
    { type: 'assert-table-uuid', uuid: metadata['table-uuid'] },
    // Whoever moves one of them in between changes what may go.
    ...Object.entries(metadata.refs).map(([ref, { 'snapshot-id': id }]) => ({
      type: 'assert-ref-snapshot-id' as const,
      ref,
      'snapshot-id': id,
    })),
  ];
  const updates: TableUpdate[] = [
    ...refs.map((name) => ({ action: 'remove-snapshot-ref' as const, 'ref-name': name })),
    ...(snapshots.length === 0
      ? []
      : [
          {
            action: 'remove-snapshots' as const,
            'snapshot-ids': snapshots.map((each) => each['snapshot-id']),
          },
        ]),
    ...(says ? [] : [{ action: 'set-properties' as const, updates: { [removesMetadata]: 'true' } }]),
  ];
  return { identifier, requirements, updates } as unknown as TableCommit;
}

/** Reads each list and each manifest once, however often the table changes meanwhile. */
class SnapshotReader {
  readonly #store: OpenTable['store'];
  readonly #lists = new Map<string, ManifestFile[]>();
  readonly #files = new Map<string, string[]>();

  constructor({ store }: OpenTable) {
    this.#store = store;
  }

  /** Locations of files that these snapshots need and no other does. */
  async onlyIn(
    metadata: TableMetadata,
    gone: readonly Snapshot[],
    left: readonly Snapshot[],
  ): Promise<string[]> {
    const [old, kept] = [await this.#manifests(gone), await this.#manifests(left)];
    const manifests = [...old.values()].filter(({ manifest_path: path }) => !kept.has(path));
    const candidates = new Set<string>();
    await this.#each(metadata, manifests, (path) => candidates.add(path));
    if (candidates.size > 0)
      await this.#each(metadata, [...kept.values()], (path) => candidates.delete(path));
    return [
      ...candidates,
      ...manifests.map(({ manifest_path: path }) => path),
      ...gone.map((each) => each['manifest-list']),
    ];
  }

  async #manifests(snapshots: readonly Snapshot[]): Promise<Map<string, ManifestFile>> {
    const found = new Map<string, ManifestFile>();
    await together(snapshots, async (snapshot) => {
      const list = snapshot['manifest-list'];
      const known = this.#lists.get(list) ?? (await manifestsOf(this.#store, snapshot));
      this.#lists.set(list, known);
      for (const manifest of known) found.set(manifest.manifest_path, manifest);
    });
    return found;
  }

  async #each(
    metadata: TableMetadata,
    manifests: readonly ManifestFile[],
    take: (path: string) => void,
  ): Promise<void> {
    await together(manifests, async (manifest) => {
      const { manifest_path: path } = manifest;
      let files = this.#files.get(path);
      if (!files) {
        const entries = await entriesOf(this.#store, metadata, manifest);
        files = entries
          .filter(({ status }) => status !== entryStatus.deleted)
          .map(({ data_file: file }) => file.file_path);
        this.#files.set(path, files);
      }
      for (const file of files) take(file);
    });
  }
}

async function together<T>(items: readonly T[], work: (item: T) => Promise<void>): Promise<void> {
  const left = [...items];
  const next = async (): Promise<void> => {
    for (let each = left.shift(); each !== undefined; each = left.shift()) await work(each);
  };
  await Promise.all(Array.from({ length: atOnce }, next));
}
