/** A catalog from its settings. */
import type { Catalog } from './catalog.ts';
import type { MetadataFiles } from './glue-catalog.ts';
import { makeDispatcher } from './http-exchange.ts';
import { OAuth2 } from './oauth2.ts';
import type { CatalogSettings, GlueApiSettings, RestSettings } from './options.ts';
import { type Authenticator, anonymous, bearerToken } from './rest-auth.ts';
import { RestCatalog } from './rest-catalog.ts';
import { RestClient } from './rest-client.ts';
import { askConfig } from './rest-config.ts';
import { SigV4 } from './sigv4.ts';

/**
 * @param files for a catalog that leaves metadata files to its clients
 * @throws TidemarkError where the catalog cannot be reached or is none
 */
export function openCatalog(
  settings: CatalogSettings,
  files: MetadataFiles,
  formatVersion: number,
): Promise<Catalog> {
  return settings.kind === 'rest' ? openRestCatalog(settings) : openGlue(settings, files, formatVersion);
}

export async function openRestCatalog(settings: RestSettings): Promise<RestCatalog> {
  const { uri, auth, headers, timeoutMs, tls, warehouse, prefix, vendedCredentials } = settings;
  const dispatcher = makeDispatcher(tls);
  let authenticator: Authenticator;
  if (auth.kind === 'oauth2') authenticator = new OAuth2({ ...auth, timeoutMs }, dispatcher);
  else if (auth.kind === 'sigv4') authenticator = new SigV4(auth);
  else authenticator = auth.kind === 'bearer' ? bearerToken(auth.token) : anonymous;
  const client = new RestClient({ uri, authenticator, headers, timeoutMs }, dispatcher);
  try {
    const config = await askConfig(client, warehouse, prefix === null ? {} : { prefix });
    return new RestCatalog(client, config, vendedCredentials ? ['vended-credentials'] : []);
  } catch (error) {
    await client.close();
    throw error;
  }
}

async function openGlue(
  settings: GlueApiSettings,
  files: MetadataFiles,
  formatVersion: number,
): Promise<Catalog> {
  const { endpoint, region, credentials, warehouse, timeoutMs } = settings;
  const [{ GlueClient }, { GlueCatalog }] = await Promise.all([
    import('@aws-sdk/client-glue'),
    import('./glue-catalog.ts'),
  ]);
  const client = new GlueClient({
    region,
    maxAttempts: 3,
    requestHandler: { connectionTimeout: 10_000, requestTimeout: timeoutMs },
    ...(endpoint === null ? {} : { endpoint }),
    ...(credentials === null ? {} : { credentials }),
  });
  return new GlueCatalog(client, { catalogId: null, warehouse, formatVersion }, files);
}
