/**
 * The live files of a table's current snapshot (Iceberg specification, "Scan Planning"). It follows the table from one
 * snapshot to the next and reads only manifests that it has not seen: manifests are immutable, and a commit of a date-local
 * Window adds two whatever the table's size.
 */
import type { FileStore } from '../file-store.ts';
import { fileContent } from '../spec/data-file.ts';
import { entryStatus } from '../spec/manifest.ts';
import type { ManifestFile } from '../spec/manifest-list.ts';
import { isUnpartitioned } from '../spec/partition-spec.ts';
import { currentSnapshot, specById, type TableMetadata } from '../spec/table-metadata.ts';
import { type LiveFile, liveFile } from './live-file.ts';
import { entriesOf, hasLiveFiles, manifestsOf } from './table-reader.ts';

export interface LiveChange {
  added: LiveFile[];
  removed: LiveFile[];
}

/** Manifests that are read at the same time. */
const atOnce = 8;

interface Partition {
  data: Set<LiveFile>;
  /** Those that may concern any data file of the partition. */
  deletes: Set<LiveFile>;
}

export class LiveFiles {
  readonly #store: Pick<FileStore, 'get'>;
  readonly #boundsOf: ReadonlySet<number>;
  /** Files of each manifest of the snapshot. */
  readonly #manifests = new Map<string, LiveFile[]>();
  readonly #data = new Map<string, LiveFile>();
  readonly #deletes = new Map<string, LiveFile>();
  readonly #partitions = new Map<string, Partition>();
  /** Position deletes by the one data file that they name. */
  readonly #byTarget = new Map<string, Set<LiveFile>>();
  /** Equality deletes of unpartitioned specs, which hold everywhere. */
  readonly #everywhere = new Set<LiveFile>();
  readonly #followers: ((change: LiveChange) => void)[] = [];
  #snapshotId: bigint | null = null;
  #listed: ManifestFile[] = [];

  /** @param boundsOf ids of the columns by which files are pruned */
  constructor(store: Pick<FileStore, 'get'>, boundsOf: ReadonlySet<number>) {
    this.#store = store;
    this.#boundsOf = boundsOf;
  }

  get snapshotId(): bigint | null {
    return this.#snapshotId;
  }

  /** The manifest list of the snapshot. */
  get manifests(): readonly ManifestFile[] {
    return this.#listed;
  }

  /** Goes to the table's current snapshot. @throws TidemarkError TM405 */
  async advance(metadata: TableMetadata): Promise<LiveChange> {
    const listed = await manifestsOf(this.#store, currentSnapshot(metadata));
    const live = listed.filter(hasLiveFiles);
    const paths = new Set(live.map(({ manifest_path: path }) => path));
    const unseen = live.filter(({ manifest_path: path }) => !this.#manifests.has(path));
    const fresh: [string, LiveFile[]][] = [];
    for (let start = 0; start < unseen.length; start += atOnce) {
      const group = unseen.slice(start, start + atOnce);
      fresh.push(...(await Promise.all(group.map((manifest) => this.#read(metadata, manifest)))));
    }
    // From here on nothing can fail, so that a failure leaves the snapshot before in place.
    const gone = [...this.#manifests.keys()].filter((path) => !paths.has(path));
    const removed = new Map<string, LiveFile>();
    for (const path of gone) {
      for (const file of this.#manifests.get(path)!) {
        removed.set(file.path, file);
        this.#forget(file);
      }
      this.#manifests.delete(path);
    }
    const added: LiveFile[] = [];
    for (const [path, files] of fresh) {
      this.#manifests.set(path, files);
      for (const file of files) {
        this.#remember(file, isUnpartitioned(specById(metadata, file.specId)));
        if (!removed.delete(file.path)) added.push(file);
      }
    }
    this.#snapshotId = metadata['current-snapshot-id'];
    this.#listed = listed;
    const change = { added, removed: [...removed.values()] };
    for (const follower of this.#followers) follower(change);
    return change;
  }

  /** Tells of every change from now on. */
  follow(follower: (change: LiveChange) => void): void {
    this.#followers.push(follower);
  }

  async #read(metadata: TableMetadata, manifest: ManifestFile): Promise<[string, LiveFile[]]> {
    const { manifest_path: path, partition_spec_id: specId } = manifest;
    const entries = await entriesOf(this.#store, metadata, manifest);
    const live = entries.filter(({ status }) => status !== entryStatus.deleted);
    return [path, live.map((entry) => liveFile(entry, specId, path, this.#boundsOf))];
  }

  #remember(file: LiveFile, unpartitioned: boolean): void {
    if (file.content === fileContent.data) {
      this.#data.set(file.path, file);
      this.#partition(file.partitionKey).data.add(file);
      return;
    }
    this.#deletes.set(file.path, file);
    if (file.content === fileContent.equalityDeletes && unpartitioned) this.#everywhere.add(file);
    else if (file.referenced === null) this.#partition(file.partitionKey).deletes.add(file);
    else {
      const known = this.#byTarget.get(file.referenced);
      if (known) known.add(file);
      else this.#byTarget.set(file.referenced, new Set([file]));
    }
  }

  #forget(file: LiveFile): void {
    this.#data.delete(file.path);
    this.#deletes.delete(file.path);
    this.#everywhere.delete(file);
    if (file.referenced !== null) {
      const known = this.#byTarget.get(file.referenced);
      known?.delete(file);
      if (known?.size === 0) this.#byTarget.delete(file.referenced);
    }
    const partition = this.#partitions.get(file.partitionKey);
    if (!partition) return;
    partition.data.delete(file);
    partition.deletes.delete(file);
    if (partition.data.size === 0 && partition.deletes.size === 0) this.#partitions.delete(file.partitionKey);
  }

  #partition(key: string): Partition {
    const known = this.#partitions.get(key);
    if (known) return known;
    const partition = { data: new Set<LiveFile>(), deletes: new Set<LiveFile>() };
    this.#partitions.set(key, partition);
    return partition;
  }

  dataFile(path: string): LiveFile | undefined {
    return this.#data.get(path);
  }

  deleteFile(path: string): LiveFile | undefined {
    return this.#deletes.get(path);
  }

  dataFiles(): Iterable<LiveFile> {
    return this.#data.values();
  }

  deleteFiles(): Iterable<LiveFile> {
    return this.#deletes.values();
  }

  /** Data files of a partition, by LiveFile.partitionKey. */
  dataFilesIn(partitionKey: string): ReadonlySet<LiveFile> {
    return this.#partitions.get(partitionKey)?.data ?? new Set();
  }

  /** Whether an equality delete file holds in all partitions. */
  isEverywhere(file: LiveFile): boolean {
    return this.#everywhere.has(file);
  }

  /** Every delete file that must be applied to a data file. */
  deletesOf(file: LiveFile): LiveFile[] {
    const named = this.#byTarget.get(file.path) ?? [];
    const nearby = this.#partitions.get(file.partitionKey)?.deletes ?? [];
    return [
      ...[...named].filter((each) => each.partitionKey === file.partitionKey),
      ...nearby,
      ...this.#everywhere,
    ].filter(({ content, sequence }) =>
      content === fileContent.positionDeletes ? file.sequence <= sequence : file.sequence < sequence,
    );
  }
}
