/** Tables of the catalog as the sink works with them: parsed, with the store of their files and their live files. */
import { TidemarkError } from '../../../src/connector/failure.ts';
import {
  type Catalog,
  type LoadedTable,
  type TableCreation,
  type TableIdentifier,
  tableText,
} from './catalog/catalog.ts';
import { NoSuchNamespace, TableExists } from './catalog/failures.ts';
import { openCatalog } from './catalog/open-catalog.ts';
import { type FileStore, openFileStore, parseLocation } from './file-store.ts';
import { StoredMetadataFiles } from './glue-metadata-files.ts';
import type { IcebergSettings } from './options.ts';
import { DeletedPositions } from './plan/deleted-positions.ts';
import { LiveFiles } from './plan/live-files.ts';
import type { KnownTable } from './plan/row-finder.ts';
import { tableAccess } from './s3-access.ts';
import { parseTableMetadata } from './spec/read-table-metadata.ts';
import type { TableMetadata } from './spec/table-metadata.ts';

export interface OpenTable {
  identifier: TableIdentifier;
  metadata: TableMetadata;
  /** Of the file with the metadata, where the catalog tells. */
  metadataLocation: string | null;
  store: FileStore;
}

export const formatVersion = 2;

export class Lake {
  readonly catalog: Catalog;
  readonly #settings: IcebergSettings;
  /** Of each table its own: catalogs vend credentials for each. */
  readonly #stores: Map<string, FileStore>;
  /** Tables that were opened with them may be in use. */
  readonly #retired: FileStore[] = [];
  readonly #known = new Map<string, KnownTable & { bounds: string }>();

  private constructor(catalog: Catalog, settings: IcebergSettings, stores: Map<string, FileStore>) {
    this.catalog = catalog;
    this.#settings = settings;
    this.#stores = stores;
  }

  static async open(settings: IcebergSettings): Promise<Lake> {
    const stores = new Map<string, FileStore>();
    const storeOf = async (location: string): Promise<FileStore> => {
      const parsed = parseLocation(location);
      const key = parsed.kind === 'file' ? 'file:' : `s3://${parsed.bucket}`;
      const store = stores.get(key) ?? (await openFileStore(location, settings.s3));
      stores.set(key, store);
      return store;
    };
    const files = new StoredMetadataFiles(storeOf);
    return new Lake(await openCatalog(settings.catalog, files, formatVersion), settings, stores);
  }

  async load(identifier: TableIdentifier): Promise<OpenTable | null> {
    const loaded = await this.catalog.loadTable(identifier);
    return loaded && this.opened(loaded);
  }

  async opened(loaded: LoadedTable): Promise<OpenTable> {
    const { identifier } = loaded;
    const metadata = parseTableMetadata(loaded.metadata, `table ${tableText(identifier)}`);
    const uuid = metadata['table-uuid'];
    let store = this.#stores.get(uuid);
    if (!store) {
      const refresh = async () => {
        const again = await this.catalog.loadTable(identifier);
        if (again === null)
          throw new TidemarkError('TM401', `${tableText(identifier)}: its credentials ended, and it is gone`);
        return again;
      };
      const { s3, catalog } = this.#settings;
      // A catalog may give some although nobody asked.
      const unwanted = catalog.kind === 'rest' && !catalog.vendedCredentials && s3.credentials !== null;
      const access = tableAccess(loaded, s3, unwanted ? null : refresh);
      store = await openFileStore(metadata.location, access);
      this.#stores.set(uuid, store);
    }
    return { identifier, metadata, metadataLocation: loaded.metadataLocation, store };
  }

  /** Loads the table, and makes it, with its namespace, where it is missing. */
  async ensure(
    identifier: TableIdentifier,
    creation: () => Omit<TableCreation, 'identifier'>,
  ): Promise<OpenTable> {
    const found = await this.load(identifier);
    if (found) return found;
    const make = async () => {
      try {
        return await this.catalog.createTable({ identifier, ...creation() });
      } catch (error) {
        if (!(error instanceof TableExists)) throw error;
        // Another owner was faster.
        const loaded = await this.catalog.loadTable(identifier);
        if (loaded === null) throw error;
        return loaded;
      }
    };
    let loaded: LoadedTable;
    try {
      await this.catalog.createNamespace(identifier.namespace);
      loaded = await make();
    } catch (error) {
      if (!(error instanceof NoSuchNamespace)) throw error;
      loaded = await make();
    }
    return this.opened(loaded);
  }

  /** The live files of the table's current snapshot. */
  async live(table: OpenTable): Promise<LiveFiles> {
    return (await this.known(table, [])).live;
  }

  /** The same, and which of their rows are deleted. @param boundsOf ids of columns by which files are found */
  async known({ metadata, store }: OpenTable, boundsOf: readonly number[]): Promise<KnownTable> {
    const uuid = metadata['table-uuid'];
    const bounds = [...boundsOf].sort((a, b) => a - b).join();
    let known = this.#known.get(uuid);
    if (known?.bounds !== bounds) {
      const live = new LiveFiles(store, new Set(boundsOf));
      known = { live, deleted: new DeletedPositions(live), bounds };
    }
    await known.live.advance(metadata);
    this.#known.set(uuid, known);
    return known;
  }

  /**
   * After a failure: what was believed of the tables may be why.
   * @param access whether it may have been the credentials: a catalog may give others before these end
   */
  async forget(access = false): Promise<void> {
    this.#known.clear();
    if (!access) return;
    const earlier = this.#retired.splice(0);
    this.#retired.push(...this.#stores.values());
    this.#stores.clear();
    for (const store of earlier) await store.close();
  }

  async close(): Promise<void> {
    for (const store of [...this.#stores.values(), ...this.#retired]) await store.close();
    await this.catalog.close();
  }
}
