/** What a catalog says about itself, and the credentials that come with its tables. */
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { openRestCatalog } from '../../../connectors/sinks/iceberg/catalog/open-catalog.ts';
import { openFileStore } from '../../../connectors/sinks/iceberg/file-store.ts';
import { tableAccess } from '../../../connectors/sinks/iceberg/s3-access.ts';
import { type CatalogFront, startCatalogFront } from '../catalog-front.ts';
import { s3Region, stackS3 } from '../catalogs.ts';
import { apache, environment, failure, schema, settings } from './world.ts';

export function configuration(): void {
  describe('what a catalog says about itself', () => {
    let front: CatalogFront;

    beforeEach(async () => {
      front = await startCatalogFront(apache.uri());
    });
    afterEach(() => front.stop());

    it.each([
      ['names its endpoints without transactions', ['GET /v1/{prefix}/namespaces'], false],
      ['names them with transactions', ['POST /v1/{prefix}/transactions/commit'], true],
      ['names none and has transactions', undefined, true],
    ])('whether it commits tables together: it %s', async (_case, endpoints, together) => {
      const body = JSON.stringify({ defaults: {}, overrides: {}, endpoints });
      front.expect(/^GET \/v1\/config/, { kind: 'answer', answer: { status: 200, body } });
      const catalog = await openRestCatalog(settings(front.uri));
      expect(catalog.commitsTogether).toBe(together);
      await catalog.close();
    });

    it.each([400, 404, 405, 501])('it has no transactions where it answers them with %i', async (status) => {
      front.expect(/^GET \/v1\/config/, {
        kind: 'answer',
        answer: { status: 200, body: '{"defaults":{},"overrides":{}}' },
      });
      front.expect(/transactions/, { kind: 'answer', answer: { status } });
      const catalog = await openRestCatalog(settings(front.uri));
      expect(catalog.commitsTogether).toBe(false);
      await catalog.close();
    });

    it('overrides go before what this side says, and that before defaults', async () => {
      const config = {
        defaults: { prefix: 'default', a: '1', b: '1' },
        overrides: { prefix: 'catalogs/12%3A3', a: '2' },
        endpoints: [],
      };
      front.expect(/^GET \/v1\/config\?warehouse=s3%3A%2F%2Fb%2Fw$/, {
        kind: 'answer',
        answer: { status: 200, body: JSON.stringify(config) },
      });
      const catalog = await openRestCatalog(settings(front.uri, { prefix: 'mine', warehouse: 's3://b/w' }));
      expect(catalog.properties).toMatchObject({ a: '2', b: '1' });
      front.expect(/./, { kind: 'answer', answer: { status: 404 } });
      await catalog.namespaceExists(['x', 'y']);
      expect(front.seen.at(-1)!.url).toBe('/v1/catalogs/12%3A3/namespaces/x%1Fy');
      await catalog.close();
    });

    it('is not believed where it is no catalog', async () => {
      for (const body of ['<html></html>', '[]', '']) {
        front.expect(/config/, { kind: 'answer', answer: { status: 200, body } });
        expect(await failure(openRestCatalog(settings(front.uri)))).toMatchObject({ code: 'TM101' });
      }
      front.expect(/config/, { kind: 'answer', answer: { status: 404 } });
      expect(await failure(openRestCatalog(settings(front.uri)))).toMatchObject({ code: 'TM101' });
    });
  });

  it('a table’s files are reached with the credentials that come with it', async () => {
    const front = await startCatalogFront(apache.uri());
    const catalog = await openRestCatalog(settings(front.uri));
    const identifier = { namespace: ['vended'], name: 't' };
    await catalog.createNamespace(identifier.namespace);
    await catalog.createTable({ identifier, schema, location: 's3://tidemark/vended/t' });
    const table = (await catalog.loadTable(identifier))!;
    expect(front.seen.at(-1)!.headers['x-iceberg-access-delegation']).toBe('vended-credentials');
    const nobody = async () => ({ accessKeyId: 'nobody', secretAccessKey: 'nothing' });
    const { endpoint } = stackS3(environment());
    const configured = { endpoint, region: s3Region, pathStyle: true, tlsCa: null, credentials: nobody };
    const access = tableAccess(table, configured, async () => (await catalog.loadTable(identifier))!);
    const store = await openFileStore(table.metadata.location, access);
    const file = JSON.parse((await store.get(table.metadataLocation!))!.toString()) as {
      'table-uuid': string;
    };
    expect(file['table-uuid']).toBe(table.metadata['table-uuid']);
    await store.close();
    const own = await openFileStore(table.metadata.location, configured);
    expect(await failure(own.get(table.metadataLocation!))).toMatchObject({ code: 'TM402' });
    await own.close();
    await catalog.close();

    const unasked = await openRestCatalog(settings(front.uri, { vendedCredentials: false }));
    const plain = (await unasked.loadTable(identifier))!;
    expect(front.seen.at(-1)!.headers).not.toHaveProperty('x-iceberg-access-delegation');
    expect(JSON.stringify(plain.config)).not.toContain(stackS3(environment()).secretAccessKey);
    await unasked.close();
    front.stop();
  });

  const levelOf = (name: string) => `in ${name.replaceAll('.', '')}`;

  it('names may hold anything', async () => {
    const catalog = await openRestCatalog(settings(apache.uri()));
    const names = [
      'Ünï cödé 🌊',
      'a.b',
      'per%20cent',
      'plus+sign',
      'semi;colon',
      'sla/sh',
      'qu?es#',
      '..',
      `quote'"`,
      'a&b=c',
    ];
    for (const name of names) {
      // This server's database joins levels with dots.
      const namespace = ['hostile', levelOf(name)];
      expect(await catalog.createNamespace(namespace), name).toBe('created');
      expect(await catalog.namespaceExists(namespace), name).toBe(true);
      const identifier = { namespace, name };
      await catalog.createTable({ identifier, schema, location: 's3://tidemark/hostile/names' });
      expect((await catalog.loadTable(identifier))!.identifier, name).toEqual(identifier);
      expect(await catalog.listTables(namespace), name).toEqual([identifier]);
      await catalog.dropTable(identifier, false);
    }
    const found = await catalog.listNamespaces(['hostile']);
    expect(found.map((levels) => levels[1]).sort()).toEqual(names.map(levelOf).sort());
    await catalog.close();
  });
}
