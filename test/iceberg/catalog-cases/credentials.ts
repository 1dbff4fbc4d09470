/** Tokens and signatures. */
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { openRestCatalog } from '../../../connectors/sinks/iceberg/catalog/open-catalog.ts';
import type { CatalogAuth, RestSettings } from '../../../connectors/sinks/iceberg/catalog/options.ts';
import { type CatalogFront, startCatalogFront } from '../catalog-front.ts';
import { stackS3 } from '../catalogs.ts';
import {
  apache,
  append,
  environment,
  failure,
  seaweed,
  settings,
  signed,
  snapshotsOf,
  twoTables,
} from './world.ts';

export function credentials(): void {
  describe('credentials', () => {
    let front: CatalogFront;

    beforeEach(async () => {
      front = await startCatalogFront(apache.uri());
    });
    afterEach(() => front.stop());
    const rules = {
      clientId: 'tide',
      clientSecret: 'mark&=+% secret',
      scope: 'PRINCIPAL_ROLE:ALL',
      expiresInSeconds: 3600,
      acceptedMs: 3_600_000,
      expiredStatus: 419,
    } as const;
    const oauth2 = (
      changes: Partial<Extract<CatalogAuth, { kind: 'oauth2' }>> = {},
    ): Partial<RestSettings> => ({
      auth: {
        kind: 'oauth2',
        tokenUrl: new URL(`${front.uri}/token`),
        clientId: rules.clientId,
        clientSecret: rules.clientSecret,
        scope: rules.scope,
        extra: {},
        ...changes,
      },
    });

    it('are one token for all requests at once', async () => {
      front.demandTokens(rules);
      const catalog = await openRestCatalog(settings(front.uri, oauth2()));
      await Promise.all(Array.from({ length: 8 }, () => catalog.listNamespaces()));
      expect(front.tokens).toBe(1);
      await catalog.close();
    });

    it('are renewed before they end', async () => {
      front.demandTokens({ ...rules, expiresInSeconds: 1, acceptedMs: 1000 });
      const catalog = await openRestCatalog(settings(front.uri, oauth2()));
      for (let i = 0; i < 25; i += 1) {
        await catalog.namespaceExists(['any']);
        await new Promise((resolve) => setTimeout(resolve, 90));
      }
      expect(front.tokens).toBeGreaterThanOrEqual(3);
      // None was refused: each request was sent once.
      expect(front.seen).toHaveLength(26);
      await catalog.close();
    });

    it.each([419, 401] as const)(
      'are renewed when the catalog answers %i, and the commit is sent again',
      async (expiredStatus) => {
        front.demandTokens({ ...rules, expiresInSeconds: null, acceptedMs: 400, expiredStatus });
        const catalog = await openRestCatalog(settings(front.uri, oauth2()));
        const [table] = await twoTables(catalog);
        await new Promise((resolve) => setTimeout(resolve, 450));
        const before = front.tokens;
        const commit = append(table, null, 1);
        await catalog.commit([commit]);
        expect(front.tokens).toBe(before + 1);
        expect(await snapshotsOf(catalog, table)).toEqual([commit.id]);
        await catalog.close();
      },
    );

    it('that are wrong stop the destination, and are in no message', async () => {
      front.demandTokens(rules);
      const cases: Partial<RestSettings>[] = [
        oauth2({ clientSecret: 'wrong-secret' }),
        oauth2({ scope: 'wrong-scope' }),
        { auth: { kind: 'bearer', token: 'wrong-token' } },
        {},
      ];
      for (const changes of cases) {
        const result = await failure(openRestCatalog(settings(front.uri, changes)));
        expect(result).toMatchObject({ code: 'TM402', retry: 'operator' });
        expect(`${result!.message} ${result!.remedy} ${String(result!.cause)}`).not.toMatch(/wrong-|mark/);
      }
    });

    it('that a signature is made with must be the right ones', async () => {
      const wrong = { warehouse: 's3://tables', auth: signed('wrong-secret') };
      // The configuration is open to everybody there.
      const catalog = await openRestCatalog(settings(seaweed.uri(), wrong));
      expect(await failure(catalog.listNamespaces())).toMatchObject({ code: 'TM402' });
      await catalog.close();
    });

    it('may be a token that somebody else got', async () => {
      front.demandTokens(rules);
      const form = new URLSearchParams({
        grant_type: 'client_credentials',
        client_id: rules.clientId,
        client_secret: rules.clientSecret,
        scope: rules.scope,
      });
      const answer = await fetch(`${front.uri}/token`, { method: 'POST', body: form });
      const { access_token: token } = (await answer.json()) as { access_token: string };
      const catalog = await openRestCatalog(settings(front.uri, { auth: { kind: 'bearer', token } }));
      expect(await catalog.listNamespaces()).toBeInstanceOf(Array);
      await catalog.close();
    });

    it('are had from SeaweedFS’s own token endpoint', async () => {
      const { accessKeyId, secretAccessKey } = stackS3(environment());
      const auth: CatalogAuth = {
        kind: 'oauth2',
        tokenUrl: new URL(`${seaweed.uri()}/v1/oauth/tokens`),
        clientId: accessKeyId,
        clientSecret: secretAccessKey,
        scope: 'catalog',
        extra: {},
      };
      const catalog = await openRestCatalog(settings(seaweed.uri(), { warehouse: 's3://tables', auth }));
      expect(await catalog.listNamespaces()).toBeInstanceOf(Array);
      await catalog.close();
    });
  });
}
