/** Every operation, on both servers; conflicts; several tables together. */
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { creationCommit } from '../../../connectors/sinks/iceberg/catalog/creation-updates.ts';
import { sameLong } from '../../../connectors/sinks/iceberg/catalog/exact-json.ts';
import {
  CommitConflict,
  NamespaceNotEmpty,
  NoSuchNamespace,
  NoSuchTable,
  TableExists,
} from '../../../connectors/sinks/iceberg/catalog/failures.ts';
import { openRestCatalog } from '../../../connectors/sinks/iceberg/catalog/open-catalog.ts';
import type { RestCatalog } from '../../../connectors/sinks/iceberg/catalog/rest-catalog.ts';
import { openFileStore } from '../../../connectors/sinks/iceberg/file-store.ts';
import { type CatalogFront, startCatalogFront } from '../catalog-front.ts';
import { s3Region, stackS3 } from '../catalogs.ts';
import {
  apache,
  append,
  environment,
  failure,
  schema,
  seaweed,
  settings,
  snapshotsOf,
  twoTables,
} from './world.ts';

export function operations(): void {
  describe.each([apache, seaweed])('$name', (server) => {
    let catalog: RestCatalog;
    let front: CatalogFront;
    /** Through the front. */
    let behind: RestCatalog;

    beforeAll(async () => {
      catalog = await openRestCatalog(settings(server.uri(), server.changes()));
    });
    beforeEach(async () => {
      front = await startCatalogFront(server.uri());
      behind = await openRestCatalog(settings(front.uri, server.changes()));
      front.seen.length = 0;
    });
    afterEach(async () => {
      await behind.close();
      front.stop();
    });
    afterAll(() => catalog.close());

    it('has namespaces of several levels', async () => {
      expect(await catalog.createNamespace(['deep'], { owner: 'tests' })).toBe('created');
      expect(await catalog.createNamespace(['deep'])).toBe('exists');
      expect(await catalog.createNamespace(['deep', 'er'])).toBe('created');
      expect(await catalog.namespaceExists(['deep', 'er'])).toBe(true);
      expect(await catalog.namespaceExists(['deep', 'est'])).toBe(false);
      expect(await catalog.listNamespaces()).toContainEqual(['deep']);
      expect(await catalog.listNamespaces(['deep'])).toEqual([['deep', 'er']]);
      const identifier = { namespace: ['deep', 'er'], name: 't' };
      await catalog.createTable({ identifier, schema });
      expect((await catalog.loadTable(identifier))!.identifier).toEqual(identifier);
      expect(await failure(catalog.dropNamespace(['deep', 'er']))).toBeInstanceOf(NamespaceNotEmpty);
      await catalog.dropTable(identifier, true);
      expect(await catalog.dropNamespace(['deep', 'er'])).toBe('dropped');
      expect(await catalog.dropNamespace(['deep', 'er'])).toBe('absent');
    });

    it('creates, finds, loads, lists and drops tables', async () => {
      const namespace = ['tables'];
      await catalog.createNamespace(namespace);
      const identifier = { namespace, name: 'first' };
      expect(await catalog.tableExists(identifier)).toBe(false);
      expect(await catalog.loadTable(identifier)).toBeNull();
      const created = await catalog.createTable({ identifier, schema, properties: { 'made.by': 'one' } });
      expect(created.metadata).toMatchObject({ 'format-version': 2, properties: { 'made.by': 'one' } });
      // Directories are spelled both file:/ and file:///.
      expect(created.metadataLocation!.replace(':///', ':/')).toContain(
        created.metadata.location.replace(':///', ':/'),
      );
      const again = catalog.createTable({ identifier, schema, properties: { 'made.by': 'another' } });
      if (server.givesExisting) expect((await again).metadata.properties).toMatchObject({ 'made.by': 'one' });
      else expect(await failure(again)).toBeInstanceOf(TableExists);
      expect(await catalog.tableExists(identifier)).toBe(true);
      expect((await catalog.loadTable(identifier))!.metadata['table-uuid']).toBe(
        created.metadata['table-uuid'],
      );
      expect(await catalog.listTables(namespace)).toEqual([identifier]);
      expect(await catalog.dropTable(identifier, false)).toBe('dropped');
      expect(await catalog.dropTable(identifier, false)).toBe('absent');
      const nowhere = { namespace: ['nowhere'], name: 't' };
      expect(await catalog.loadTable(nowhere)).toBeNull();
      if (!server.needsNoNamespace) {
        const unplaced = catalog.createTable({ identifier: nowhere, schema });
        expect(await failure(unplaced)).toBeInstanceOf(NoSuchNamespace);
      }
      const lost = catalog.commit([{ identifier, requirements: [], updates: [] }]);
      expect(await failure(lost)).toBeInstanceOf(NoSuchTable);
    });

    it('removes the files of a table that is purged', async () => {
      const [identifier] = await twoTables(catalog);
      const { metadata, metadataLocation } = (await catalog.loadTable(identifier))!;
      const access = {
        endpoint: stackS3(environment()).endpoint,
        region: s3Region,
        pathStyle: true,
        tlsCa: null,
      };
      const store = await openFileStore(metadata.location, {
        ...access,
        credentials: async () => stackS3(environment()),
      });
      expect(await store.get(metadataLocation!)).not.toBeNull();
      await catalog.dropTable(identifier, true);
      expect(await store.get(metadataLocation!)).toBeNull();
      await store.close();
    });

    it('makes a staged table with the commit that fills it, once', async () => {
      const namespace = ['staged'];
      await catalog.createNamespace(namespace);
      const creation = { identifier: { namespace, name: 't' }, schema, properties: { kept: 'yes' } };
      const { metadata, metadataLocation } = (await catalog.stageTable(creation))!;
      expect(metadataLocation).toBeNull();
      expect(await catalog.tableExists(creation.identifier)).toBe(false);
      const creating = creationCommit(creation, {
        formatVersion: 2,
        uuid: metadata['table-uuid'],
        location: metadata.location,
      });
      const first = append(creation.identifier, null, 1);
      const commit = { ...creating, updates: [...creating.updates, ...first.updates] };
      const [state] = await catalog.commit([commit]);
      expect(state!.metadata['table-uuid']).toBe(metadata['table-uuid']);
      expect(state!.metadata.properties).toMatchObject({ kept: 'yes' });
      expect(await snapshotsOf(catalog, creation.identifier)).toEqual([first.id]);
      expect(await failure(catalog.commit([commit]))).toBeInstanceOf(CommitConflict);
    });

    it('keeps 64-bit snapshot ids as they are', async () => {
      const [identifier] = await twoTables(catalog);
      const first = append(identifier, null, 1);
      const [state] = await catalog.commit([first]);
      expect(sameLong(state!.metadata['current-snapshot-id'] as bigint, first.id)).toBe(true);
      expect(Number.isSafeInteger(Number(first.id))).toBe(false);
      expect(await failure(catalog.commit([append(identifier, first.id + 1n, 2)]))).toBeInstanceOf(
        CommitConflict,
      );
      await catalog.commit([append(identifier, first.id, 2)]);
    });

    it('lets one of two commits from the same state pass', async () => {
      const [identifier] = await twoTables(catalog);
      const rivals = Array.from({ length: 4 }, () => append(identifier, null, 1));
      const results = await Promise.all(rivals.map((rival) => failure(catalog.commit([rival]))));
      expect(results.filter((result) => result === null)).toHaveLength(1);
      const winner = rivals[results.indexOf(null)]!;
      for (const result of results) if (result !== null) expect(result).toBeInstanceOf(CommitConflict);
      expect(await snapshotsOf(catalog, identifier)).toEqual([winner.id]);
    });

    it('commits several tables together or not at all', async () => {
      expect(catalog.commitsTogether).toBe(true);
      const [one, other] = await twoTables(catalog);
      const both = [append(one, null, 1), append(other, null, 1)] as const;
      expect(await catalog.commit(both)).toEqual([null, null]);
      const half = [append(one, both[0].id, 2), append(other, 5n, 2)];
      expect(await failure(catalog.commit(half))).toBeInstanceOf(CommitConflict);
      expect(await snapshotsOf(catalog, one)).toEqual([both[0].id]);
      expect(await snapshotsOf(catalog, other)).toEqual([both[1].id]);
    });

    it('asks in pages', async () => {
      const [first] = await twoTables(behind);
      front.rewrite((url) => url.replace('pageSize=1000', 'pageSize=2'));
      const signature = server === apache;
      // A signature covers the query; there the server's own pages are what there is.
      if (!signature) front.rewrite((url) => url);
      const names = ['a', 'b', 'c', 'd', 'e', 'one', 'other'];
      for (const name of names.slice(0, 5))
        await behind.createTable({ identifier: { ...first, name }, schema });
      front.seen.length = 0;
      const found = await behind.listTables(first.namespace);
      expect(found.map(({ name }) => name).sort()).toEqual(names);
      if (signature) expect(front.seen).toHaveLength(4);
    });
  });
}
