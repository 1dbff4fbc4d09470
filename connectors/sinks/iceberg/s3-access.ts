/** How the files of a table on S3 are reached: what the destination is configured with, and what the catalog says. */
import type { LoadedTable } from './catalog/catalog.ts';

export interface S3Credentials {
  accessKeyId: string;
  secretAccessKey: string;
  sessionToken?: string;
  /** When they end. */
  expiration?: Date;
}

export interface S3Access {
  /** Null for AWS. */
  endpoint: string | null;
  region: string;
  pathStyle: boolean;
  /** Path of a PEM file. */
  tlsCa: string | null;
  /**
   * Null: the machine's own AWS identity. A function is asked again when the credentials that it gave end: vended ones
   * come with a table, so it loads the table again.
   */
  credentials: (() => Promise<S3Credentials>) | null;
}

/**
 * What holds for a table: properties of the catalog take precedence, since it knows where it keeps its tables.
 * @param refresh loads the table again, for fresh credentials; null where the catalog's credentials are not wanted
 */
export function tableAccess(
  table: LoadedTable,
  configured: S3Access,
  refresh: (() => Promise<LoadedTable>) | null,
): S3Access {
  const properties = storageProperties(table);
  const pathStyle = properties['s3.path-style-access'];
  const vended = refresh && vendedCredentials(properties);
  return {
    endpoint: properties['s3.endpoint'] ?? configured.endpoint,
    region: properties['client.region'] ?? properties['s3.region'] ?? configured.region,
    pathStyle: pathStyle === undefined ? configured.pathStyle : pathStyle === 'true',
    tlsCa: configured.tlsCa,
    credentials: vended && refresh ? vendedSource(vended, refresh) : configured.credentials,
  };
}

/** Storage credentials come before `config`; of several, those of the longest prefix of the table's location. */
export function storageProperties({
  metadata,
  config,
  storageCredentials,
}: LoadedTable): Readonly<Record<string, string>> {
  const fitting = storageCredentials
    .filter(({ prefix }) => metadata.location.startsWith(prefix))
    .sort((one, other) => other.prefix.length - one.prefix.length)[0];
  return fitting === undefined ? config : { ...config, ...fitting.config };
}

function vendedCredentials(properties: Readonly<Record<string, string>>): S3Credentials | null {
  const accessKeyId = properties['s3.access-key-id'];
  const secretAccessKey = properties['s3.secret-access-key'];
  if (accessKeyId === undefined || secretAccessKey === undefined) return null;
  const sessionToken = properties['s3.session-token'];
  const ends = Number(properties['s3.session-token-expires-at-ms'] ?? Number.NaN);
  return {
    accessKeyId,
    secretAccessKey,
    ...(sessionToken === undefined ? {} : { sessionToken }),
    ...(Number.isFinite(ends) ? { expiration: new Date(ends) } : {}),
  };
}

/** The first ones as they came, later ones with the table loaded again. */
function vendedSource(
  first: S3Credentials,
  refresh: () => Promise<LoadedTable>,
): () => Promise<S3Credentials> {
  let unused: S3Credentials | null = first;
  return async () => {
    const credentials = unused ?? vendedCredentials(storageProperties(await refresh()));
    unused = null;
    // The catalog stopped vending: the old ones are refused with what the store says about them.
    return credentials ?? first;
  };
}
