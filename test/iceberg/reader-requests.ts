/** What each reader's program is asked, from what all of them need. */
import type { ReaderCatalog, ReaderName, TableName } from './reader.ts';

export function readRequest(
  name: ReaderName,
  catalog: ReaderCatalog,
  { namespace, name: table }: TableName,
  snapshot: string | undefined,
): Record<string, unknown> {
  const request = { operation: 'read', namespace, table, snapshot };
  if (name === 'duckdb') return { ...request, secrets: secrets(catalog), attach: attach(catalog) };
  return { ...request, properties: catalogProperties(name, catalog) };
}

/** Of Iceberg's Java and Python libraries, which name most things alike. */
export function catalogProperties(
  name: 'pyiceberg' | 'spark',
  { uri, warehouse, oauth2, s3 }: ReaderCatalog,
): Record<string, string> {
  const properties: Record<string, string> = { uri, ...(name === 'pyiceberg' ? { type: 'rest' } : {}) };
  if (warehouse !== undefined) properties.warehouse = warehouse;
  if (oauth2 !== undefined) {
    properties.credential = `${oauth2.clientId}:${oauth2.clientSecret}`;
    properties['oauth2-server-uri'] = oauth2.tokenUrl;
  }
  if (s3 === undefined) return properties;
  return {
    ...properties,
    's3.endpoint': s3.endpoint,
    's3.access-key-id': s3.accessKeyId,
    's3.secret-access-key': s3.secretAccessKey,
    's3.path-style-access': 'true',
    's3.region': s3.region,
    'client.region': s3.region,
  };
}

function secrets({ s3, oauth2 }: ReaderCatalog): string[] {
  const statements: string[] = [];
  if (s3 !== undefined) {
    const endpoint = new URL(s3.endpoint);
    statements.push(
      `CREATE OR REPLACE SECRET files (TYPE s3, KEY_ID ${text(s3.accessKeyId)}, SECRET ${text(s3.secretAccessKey)},
        ENDPOINT ${text(endpoint.host)}, URL_STYLE 'path', USE_SSL ${endpoint.protocol === 'https:'}, REGION ${text(s3.region)})`,
    );
  }
  if (oauth2 !== undefined) {
    statements.push(
      `CREATE OR REPLACE SECRET catalog (TYPE iceberg, CLIENT_ID ${text(oauth2.clientId)},
        CLIENT_SECRET ${text(oauth2.clientSecret)}, OAUTH2_SERVER_URI ${text(oauth2.tokenUrl)})`,
    );
  }
  return statements;
}

function attach({ uri, warehouse, oauth2 }: ReaderCatalog): string {
  const access = oauth2 === undefined ? "AUTHORIZATION_TYPE 'none'" : 'SECRET catalog';
  return `ATTACH ${text(warehouse ?? '')} AS reader
    (TYPE iceberg, ENDPOINT ${text(uri)}, ${access}, ACCESS_DELEGATION_MODE 'none')`;
}

function text(value: string): string {
  return `'${value.replaceAll("'", "''")}'`;
}
