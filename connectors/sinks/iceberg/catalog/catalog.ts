/**
 * What a sink needs of an Iceberg catalog, whichever it is. Metadata, updates and requirements are those of the REST
 * catalog specification in its JSON form; the catalogs pass them on and look only at what is named here.
 */
import type { JsonObject } from './exact-json.ts';

/** At least one level. */
export type Namespace = readonly string[];

export interface TableIdentifier {
  namespace: Namespace;
  name: string;
}

/** Iceberg's 64-bit numbers: a bigint beyond 2^53 (exact-json.ts). */
export type Long = number | bigint;

/** The content of a table's metadata file. */
export type TableMetadata = JsonObject & {
  'format-version': number;
  'table-uuid': string;
  location: string;
};

/** `{"action": "add-snapshot", …}` */
export type TableUpdate = { action: string } & Record<string, unknown>;

/** `{"type": "assert-ref-snapshot-id", …}` */
export type TableRequirement = { type: string } & Record<string, unknown>;

/** Changes of one table that are made together, if all requirements hold. */
export interface TableCommit {
  identifier: TableIdentifier;
  requirements: readonly TableRequirement[];
  updates: readonly TableUpdate[];
}

export interface TableCreation {
  identifier: TableIdentifier;
  schema: JsonObject;
  partitionSpec?: JsonObject;
  sortOrder?: JsonObject;
  /** Unset: the catalog decides. */
  location?: string;
  properties?: Record<string, string>;
}

/** Properties that hold below a location; of several that fit, those of the longest prefix. */
export interface StorageCredential {
  prefix: string;
  config: Readonly<Record<string, string>>;
}

/** A table as the catalog gave it. */
export interface LoadedTable {
  identifier: TableIdentifier;
  metadata: TableMetadata;
  /** Null of a staged table. */
  metadataLocation: string | null;
  /** What the catalog says about reaching the table's files (`s3.*`); credentials among it must not be logged. */
  config: Readonly<Record<string, string>>;
  storageCredentials: readonly StorageCredential[];
}

/**
 * Failures are those of failures.ts: CommitConflict where requirements do not hold and nothing was changed,
 * CommitStateUnknown where it cannot be told (settle-commit.ts finds out), NoSuchTable, NoSuchNamespace, and other
 * TidemarkErrors.
 */
export interface Catalog {
  /** Tables of one commit() change together, seen by every reader from one moment on. */
  readonly commitsTogether: boolean;
  /** Below a namespace, or the top level. Whole names, not only their last level. */
  listNamespaces(parent?: Namespace): Promise<Namespace[]>;
  namespaceExists(namespace: Namespace): Promise<boolean>;
  /** Levels above it need not exist. */
  createNamespace(namespace: Namespace, properties?: Record<string, string>): Promise<'created' | 'exists'>;
  /** @throws NamespaceNotEmpty */
  dropNamespace(namespace: Namespace): Promise<'dropped' | 'absent'>;
  /** @throws NoSuchNamespace */
  listTables(namespace: Namespace): Promise<TableIdentifier[]>;
  tableExists(identifier: TableIdentifier): Promise<boolean>;
  loadTable(identifier: TableIdentifier): Promise<LoadedTable | null>;
  /**
   * Some catalogs answer the table that is there already instead of refusing (SeaweedFS does): whoever must know gives
   * the table a property of its own and looks whether the answer has it, or stages it and commits `assert-create`.
   * @throws TableExists, NoSuchNamespace
   */
  createTable(creation: TableCreation): Promise<LoadedTable>;
  /**
   * Prepares a table that a commit with `assert-create` then makes. Null where the catalog cannot: it has no staging, and
   * `createTable` is all there is.
   */
  stageTable(creation: TableCreation): Promise<LoadedTable | null>;
  /**
   * One table, or several together where `commitsTogether`; else one after the other is the caller's to do.
   * @returns the new states in the order of the commits; null where the catalog does not tell: load it where needed
   */
  commit(commits: readonly TableCommit[]): Promise<(LoadedTable | null)[]>;
  /** @param purge asks the catalog to remove the files too; not every catalog does */
  dropTable(identifier: TableIdentifier, purge: boolean): Promise<'dropped' | 'absent'>;
  close(): Promise<void>;
}

/** For messages and logs. */
export function tableText({ namespace, name }: TableIdentifier): string {
  return [...namespace, name].join('.');
}
