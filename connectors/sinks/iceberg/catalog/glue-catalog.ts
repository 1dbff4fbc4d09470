/**
 * The AWS Glue Data Catalog by its own API. Glue only keeps where a table's metadata file is: this side checks
 * requirements, applies updates and writes the file (MetadataFiles), then swaps the location under Glue's version of the
 * entry, which Glue refuses where somebody else was faster.
 *
 * Not proven here: Glue itself cannot be had. The tests' server (moto) keeps databases, entries and their parameters,
 * but takes any VersionId, so that Glue refuses a stale one rests on its documentation; a refusal as documented is given
 * by a front of the tests. Nor are Lake Formation's rights, SkipArchive's effect and Glue's limits on parameters proven.
 */
import {
  CreateTableCommand,
  DeleteTableCommand,
  GetTableCommand,
  type GlueClient,
  paginateGetTables,
  type Table,
  UpdateTableCommand,
} from '@aws-sdk/client-glue';
import type {
  Catalog,
  LoadedTable,
  Namespace,
  TableCommit,
  TableCreation,
  TableIdentifier,
  TableMetadata,
} from './catalog.ts';
import { tableText } from './catalog.ts';
import { creationCommit } from './creation-updates.ts';
import {
  CommitConflict,
  CommitStateUnknown,
  NamespaceNotEmpty,
  NoSuchTable,
  TableExists,
} from './failures.ts';
import { GlueDatabases } from './glue-databases.ts';
import { glueErrorName, glueFailure, isConflict, isMissing, leavesDoubt } from './glue-failures.ts';
import { databaseOf, nameOf, orAbsent, run } from './glue-requests.ts';
import { metadataLocationOf, tableInput } from './glue-table.ts';

export interface WrittenMetadata {
  metadata: TableMetadata;
  metadataLocation: string;
}

/** Metadata files: the half of a catalog's work that Glue leaves to its clients. */
export interface MetadataFiles {
  readMetadata(location: string): Promise<TableMetadata>;
  /**
   * Checks the requirements against what there is, applies the updates and writes a file that no other writer can name.
   * @throws CommitConflict where a requirement does not hold
   */
  writeMetadata(base: WrittenMetadata | null, commit: TableCommit): Promise<WrittenMetadata>;
  removeMetadata(location: string): Promise<void>;
  /** After a commit: removes the files that the table's log names no more, where the table wants that. */
  removePast(base: WrittenMetadata, now: WrittenMetadata): Promise<void>;
}

export interface GlueSettings {
  /** Of the AWS account whose catalog it is; null: the caller's. */
  catalogId: string | null;
  /** Location below which tables go that name none. */
  warehouse: string;
  formatVersion: number;
}

export class GlueCatalog implements Catalog {
  readonly commitsTogether = false;
  readonly #client: GlueClient;
  readonly #settings: GlueSettings;
  readonly #files: MetadataFiles;
  readonly #catalog: { CatalogId?: string };
  readonly #databases: GlueDatabases;

  constructor(client: GlueClient, settings: GlueSettings, files: MetadataFiles) {
    this.#client = client;
    this.#settings = settings;
    this.#files = files;
    this.#catalog = settings.catalogId === null ? {} : { CatalogId: settings.catalogId };
    this.#databases = new GlueDatabases(client, this.#catalog);
  }

  async listNamespaces(parent: Namespace = []): Promise<Namespace[]> {
    return parent.length === 0 ? this.#databases.list() : [];
  }

  async namespaceExists(namespace: Namespace): Promise<boolean> {
    return this.#databases.exists(namespace);
  }

  async createNamespace(namespace: Namespace, properties: Record<string, string> = {}) {
    return this.#databases.create(namespace, properties);
  }

  async dropNamespace(namespace: Namespace) {
    if ((await this.namespaceExists(namespace)) && (await this.listTables(namespace)).length > 0) {
      throw new NamespaceNotEmpty(`drop database ${namespace.join('.')}`);
    }
    return this.#databases.drop(namespace);
  }

  /** Iceberg tables only. */
  listTables(namespace: Namespace): Promise<TableIdentifier[]> {
    return run('list tables', async () => {
      const found: TableIdentifier[] = [];
      const request = { ...this.#catalog, DatabaseName: databaseOf(namespace) };
      for await (const page of paginateGetTables({ client: this.#client }, request)) {
        for (const table of page.TableList ?? []) {
          if (metadataLocationOf(table) !== null) found.push({ namespace, name: table.Name! });
        }
      }
      return found;
    });
  }

  async tableExists(identifier: TableIdentifier): Promise<boolean> {
    return (await this.#entry(identifier)) !== null;
  }

  async loadTable(identifier: TableIdentifier): Promise<LoadedTable | null> {
    const entry = await this.#entry(identifier);
    return entry === null ? null : this.#loaded(identifier, await this.#metadata(entry, identifier));
  }

  createTable(creation: TableCreation): Promise<LoadedTable> {
    const { warehouse, formatVersion } = this.#settings;
    const { namespace, name } = creation.identifier;
    const ownPlace = `${warehouse.replace(/\/+$/, '')}/${databaseOf(namespace)}.db/${nameOf(name)}`;
    const location = creation.location ?? ownPlace;
    return this.#create(creationCommit(creation, { formatVersion, location }));
  }

  async stageTable(): Promise<null> {
    return null;
  }

  async commit(commits: readonly TableCommit[]): Promise<LoadedTable[]> {
    if (commits.length !== 1) throw new Error('Glue commits one table at a time');
    const commit = commits[0]!;
    if (commit.requirements.some(({ type }) => type === 'assert-create')) return [await this.#create(commit)];
    const { identifier } = commit;
    const what = `commit table ${tableText(identifier)}`;
    const entry = await this.#entry(identifier);
    if (entry === null) throw new NoSuchTable(what);
    const base = await this.#metadata(entry, identifier);
    const written = await this.#files.writeMetadata(base, commit);
    const request = new UpdateTableCommand({
      ...this.#catalog,
      DatabaseName: databaseOf(identifier.namespace),
      TableInput: tableInput(nameOf(identifier.name), written.metadata, written.metadataLocation, entry),
      ...(entry.VersionId === undefined ? {} : { VersionId: entry.VersionId }),
      // Glue keeps a copy of the entry per version else, up to a limit that frequent commits reach.
      SkipArchive: true,
    });
    await this.#swap(identifier, what, written, () => this.#client.send(request));
    // What stays is found as an orphan.
    await this.#files.removePast(base, written).catch(() => undefined);
    return [this.#loaded(identifier, written)];
  }

  /** Files stay: Glue knows none, whatever `purge` asks for. */
  async dropTable({ namespace, name }: TableIdentifier, _purge: boolean) {
    const request = { ...this.#catalog, DatabaseName: databaseOf(namespace), Name: nameOf(name) };
    const answer = await orAbsent('drop a table', () => this.#client.send(new DeleteTableCommand(request)));
    return answer === null ? 'absent' : 'dropped';
  }

  async close(): Promise<void> {
    this.#client.destroy();
  }

  async #create(commit: TableCommit): Promise<LoadedTable> {
    const { identifier } = commit;
    const what = `create table ${tableText(identifier)}`;
    const written = await this.#files.writeMetadata(null, commit);
    const request = new CreateTableCommand({
      ...this.#catalog,
      DatabaseName: databaseOf(identifier.namespace),
      TableInput: tableInput(nameOf(identifier.name), written.metadata, written.metadataLocation, null),
    });
    await this.#swap(identifier, what, written, () => this.#client.send(request));
    return this.#loaded(identifier, written);
  }

  /** Makes the new file the table's, and removes it where it is certain that it never will be. */
  async #swap(
    identifier: TableIdentifier,
    what: string,
    written: WrittenMetadata,
    request: () => Promise<unknown>,
  ): Promise<void> {
    try {
      await request();
    } catch (error) {
      const taken = isConflict(error) || glueErrorName(error) === 'AlreadyExistsException';
      if (leavesDoubt(error) || taken) {
        // The AWS SDK sends a request again whose answer got lost; then it conflicts with itself.
        const now = await this.#entry(identifier).catch(() => null);
        if (now !== null && metadataLocationOf(now) === written.metadataLocation) return;
        if (!taken || now === null) throw new CommitStateUnknown(what, glueErrorName(error));
      }
      await this.#files.removeMetadata(written.metadataLocation).catch(() => undefined);
      if (isConflict(error)) throw new CommitConflict(what);
      if (glueErrorName(error) === 'AlreadyExistsException') throw new TableExists(what);
      if (isMissing(error)) throw new NoSuchTable(what);
      throw glueFailure(error, what);
    }
  }

  async #entry({ namespace, name }: TableIdentifier): Promise<Table | null> {
    const request = { ...this.#catalog, DatabaseName: databaseOf(namespace), Name: nameOf(name) };
    const answer = await orAbsent('look for a table', () => this.#client.send(new GetTableCommand(request)));
    return answer?.Table ?? null;
  }

  async #metadata(entry: Table, identifier: TableIdentifier): Promise<WrittenMetadata> {
    const metadataLocation = metadataLocationOf(entry);
    if (metadataLocation === null) throw new TableExists(`load table ${tableText(identifier)}`);
    return { metadataLocation, metadata: await this.#files.readMetadata(metadataLocation) };
  }

  #loaded(identifier: TableIdentifier, { metadata, metadataLocation }: WrittenMetadata): LoadedTable {
    return { identifier, metadata, metadataLocation, config: {}, storageCredentials: [] };
  }
}
