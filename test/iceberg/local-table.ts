/** A table of the Iceberg sink's own making in a local folder: what a catalog does, a test does itself. */
import { randomUUID } from 'node:crypto';
import { mkdir, mkdtemp, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { quoteText } from '../../connectors/object-log/sql-text.ts';
import { printJson } from '../../connectors/sinks/iceberg/catalog/exact-json.ts';
import { dataLocation } from '../../connectors/sinks/iceberg/commit/locations.ts';
import { type PreparedCommit, prepareCommit } from '../../connectors/sinks/iceberg/commit/prepare-commit.ts';
import { type CommitAttempt, rebaseCommit } from '../../connectors/sinks/iceberg/commit/rebase-commit.ts';
import type { TableChange } from '../../connectors/sinks/iceberg/commit/table-change.ts';
import type { FileStore } from '../../connectors/sinks/iceberg/file-store.ts';
import { type Database, openDatabase } from '../../connectors/sinks/iceberg/files/database.ts';
import { metricsModes } from '../../connectors/sinks/iceberg/files/metrics-mode.ts';
import {
  type DataFileTable,
  type WriteSettings,
  type WrittenFile,
  writeDataFiles,
} from '../../connectors/sinks/iceberg/files/write-data-files.ts';
import {
  type DeleteGranularity,
  type DeleteTarget,
  type WrittenDeletes,
  writePositionDeletes,
} from '../../connectors/sinks/iceberg/files/write-position-deletes.ts';
import { LiveFiles } from '../../connectors/sinks/iceberg/plan/live-files.ts';
import { boundSpec } from '../../connectors/sinks/iceberg/plan/table-reader.ts';
import { applyUpdates } from '../../connectors/sinks/iceberg/spec/apply-updates.ts';
import { type PartitionField, unpartitioned } from '../../connectors/sinks/iceberg/spec/partition-spec.ts';
import type { NestedField, Schema } from '../../connectors/sinks/iceberg/spec/schema.ts';
import { unsorted } from '../../connectors/sinks/iceberg/spec/sort-order.ts';
import {
  currentSchema,
  formatTableMetadata,
  type TableMetadata,
} from '../../connectors/sinks/iceberg/spec/table-metadata.ts';
import { type TableUpdate, unmetRequirement } from '../../connectors/sinks/iceberg/spec/updates.ts';
import { DirectoryStore } from './directory-store.ts';

const root = new URL('../../.tidemark', import.meta.url).pathname;

export interface LocalTableOptions {
  /** Locations are those of a bucket in a folder (directory-store.ts). */
  bucket?: boolean;
  /** Elsewhere than in a folder. */
  place?: { store: FileStore; location: string };
  /** The table is there already, and its catalog makes the commits: gives the metadata after one. */
  catalog?: {
    metadata: TableMetadata;
    commit(attempt: Pick<CommitAttempt, 'requirements' | 'updates'>): Promise<TableMetadata>;
  };
  fields: NestedField[];
  partitionBy?: PartitionField[];
  /** Names of the key's columns. */
  key?: string[];
  properties?: Record<string, string>;
  targetFileBytes?: number;
  rowGroupRows?: number;
}

export class LocalTable {
  metadata: TableMetadata;
  readonly store: FileStore;
  readonly folder: string;
  readonly database: Database;
  readonly #options: LocalTableOptions;
  #version = 0;
  #writes = 0;

  private constructor(
    folder: string,
    database: Database,
    metadata: TableMetadata,
    options: LocalTableOptions,
  ) {
    this.folder = folder;
    this.store = options.place?.store ?? new DirectoryStore(folder);
    this.database = database;
    this.metadata = metadata;
    this.#options = options;
  }

  static async create(options: LocalTableOptions): Promise<LocalTable> {
    await mkdir(root, { recursive: true });
    const folder = await mkdtemp(join(root, 'iceberg-table-'));
    const { fields, partitionBy, properties = {} } = options;
    const schema: Schema = {
      type: 'struct',
      'schema-id': 0,
      'identifier-field-ids': options.catalog ? [] : keyIds(options),
      fields,
    };
    const spec = partitionBy ? { 'spec-id': 0, fields: partitionBy } : unpartitioned;
    const updates: TableUpdate[] = [
      { action: 'assign-uuid', uuid: randomUUID() },
      { action: 'add-schema', schema },
      { action: 'set-current-schema', 'schema-id': -1 },
      { action: 'add-spec', spec },
      { action: 'set-default-spec', 'spec-id': -1 },
      { action: 'add-sort-order', 'sort-order': unsorted },
      { action: 'set-default-sort-order', 'sort-order-id': -1 },
      {
        action: 'set-location',
        location:
          options.place?.location ?? (options.bucket ? 's3://bucket/table' : `file://${folder}/table`),
      },
      { action: 'set-properties', updates: properties },
    ];
    const database = await openDatabase(folder, 1024 * 1024 * 1024);
    const { catalog } = options;
    const metadata = catalog?.metadata ?? applyUpdates(null, updates, Date.now());
    const table = new LocalTable(folder, database, metadata, options);
    if (!catalog) await table.#save();
    return table;
  }

  async remove(): Promise<void> {
    this.database.close();
    await rm(this.folder, { recursive: true, force: true });
  }

  get schema(): Schema {
    return currentSchema(this.metadata);
  }

  /** By name: a catalog gives ids of its own. */
  get keyIds(): number[] {
    return keyIds({ ...this.#options, fields: this.schema.fields });
  }

  /** Of the metadata file that readers start from. */
  get metadataLocation(): string {
    return `${this.metadata.location}/metadata/v${this.#version}.metadata.json`;
  }

  /** Of a table in a folder. */
  localPath(location: string): string {
    return (this.store as DirectoryStore).at(location).slice('file://'.length);
  }

  async #save(): Promise<void> {
    this.#version += 1;
    await this.store.put(this.metadataLocation, Buffer.from(formatTableMetadata(this.metadata)));
  }

  /** What a catalog does with a commit. */
  async apply(attempt: Pick<CommitAttempt, 'requirements' | 'updates'>): Promise<void> {
    const { catalog } = this.#options;
    if (catalog) {
      this.metadata = await catalog.commit(attempt);
      return;
    }
    const { requirements, updates } = attempt;
    const unmet = unmetRequirement(this.metadata, requirements);
    if (unmet) throw new Error(`conflict: ${printJson(unmet)}`);
    const before = this.metadataLocation;
    this.metadata = applyUpdates(this.metadata, updates, Date.now(), before);
    await this.#save();
  }

  async live(boundsOf: readonly number[] = this.keyIds): Promise<LiveFiles> {
    const live = new LiveFiles(this.store, new Set(boundsOf));
    await live.advance(this.metadata);
    return live;
  }

  dataFileTable(): DataFileTable {
    const fields = boundSpec(this.metadata, this.metadata['default-spec-id']);
    const needed = new Set([...this.keyIds, ...fields.map(({ sourceId }) => sourceId)]);
    return {
      schema: this.schema,
      fields,
      sortedBy: this.keyIds,
      sortOrderId: null,
      modes: metricsModes(this.schema.fields, this.metadata.properties, needed),
      dataLocation: dataLocation(this.metadata),
    };
  }

  settings(): WriteSettings {
    this.#writes += 1;
    return {
      folder: join(this.folder, `write-${this.#writes}`),
      targetFileBytes: this.#options.targetFileBytes ?? 128 * 1024 * 1024,
      memoryBytes: 512 * 1024 * 1024,
      rowGroupRows: this.#options.rowGroupRows ?? 20_000,
    };
  }

  async write(relation: string): Promise<WrittenFile[]> {
    return writeDataFiles(this.database.connection, relation, this.dataFileTable(), this.settings());
  }

  /** @param rows path and position */
  async writeDeletes(
    rows: readonly (readonly [string, number])[],
    granularity: DeleteGranularity = 'partition',
  ): Promise<WrittenDeletes[]> {
    const live = await this.live();
    const paths = [...new Set(rows.map(([path]) => path))];
    const targets = paths.map((path) => {
      const { specId, partition } = live.dataFile(path)!;
      return { path, specId, partition, fields: boundSpec(this.metadata, specId) };
    });
    return this.writeDeletesOf(targets, rows, granularity);
  }

  async writeDeletesOf(
    targets: readonly DeleteTarget[],
    rows: readonly (readonly [string, number])[],
    granularity: DeleteGranularity = 'partition',
  ): Promise<WrittenDeletes[]> {
    const values = rows.map(([path, position]) => `(${quoteText(path)}, ${position})`).join(', ');
    const relation = `(VALUES ${values}) AS deletes(file_path, pos)`;
    const location = dataLocation(this.metadata);
    const { connection } = this.database;
    return writePositionDeletes(connection, relation, targets, location, granularity, this.settings());
  }

  async upload(written: readonly WrittenFile[]): Promise<void> {
    for (const { file, localPath } of written) await this.store.putFile(file.file_path, localPath);
  }

  async prepare(
    added: readonly WrittenFile[],
    deletes: readonly WrittenDeletes[] = [],
    rest: Partial<TableChange> = {},
  ): Promise<PreparedCommit> {
    await this.upload([...added, ...deletes]);
    const specId = this.metadata['default-spec-id'];
    return prepareCommit(this.store, this.metadata, {
      added: added.map(({ file }) => ({ file, specId })),
      deletes,
      removed: [],
      ...rest,
    });
  }

  async rebase(prepared: PreparedCommit, known?: LiveFiles): Promise<CommitAttempt> {
    const live = known ?? (await this.live());
    const attempt = await rebaseCommit(this.store, prepared, this.metadata, live, { nowMs: Date.now() });
    if ('vanished' in attempt) throw new Error(`vanished: ${attempt.vanished.length}`);
    return attempt;
  }

  async commit(
    added: readonly WrittenFile[],
    deletes: readonly WrittenDeletes[] = [],
    rest: Partial<TableChange> = {},
  ): Promise<CommitAttempt> {
    const attempt = await this.rebase(await this.prepare(added, deletes, rest));
    await this.apply(attempt);
    return attempt;
  }

  /** One commit of the relation's rows. */
  async append(relation: string): Promise<WrittenFile[]> {
    const written = await this.write(relation);
    await this.commit(written);
    return written;
  }
}

function keyIds({ fields, key = [] }: LocalTableOptions): number[] {
  return key.map((name) => fields.find((field) => field.name === name)!.id);
}
