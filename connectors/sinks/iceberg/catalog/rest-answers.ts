/** Bodies of a REST catalog's answers, checked as far as they are used. */
import { TidemarkError } from '../../../../src/connector/failure.ts';
import type { LoadedTable, StorageCredential, TableIdentifier, TableMetadata } from './catalog.ts';
import { isObject, type Json } from './exact-json.ts';
import type { RestAnswer } from './rest-client.ts';

/** LoadTableResult and CommitTableResponse. @param properties of the catalog, which hold for each of its tables */
export function loadedTable(
  body: Json,
  identifier: TableIdentifier,
  what: string,
  properties: Readonly<Record<string, string>>,
): LoadedTable {
  const metadata = isObject(body) ? body.metadata : null;
  if (!isObject(body) || !isMetadata(metadata)) throw unreadable(what, 'metadata');
  const location = body['metadata-location'];
  return {
    identifier,
    metadata,
    metadataLocation: typeof location === 'string' ? location : null,
    config: { ...properties, ...texts(body.config) },
    storageCredentials: credentialsOf(body['storage-credentials']),
  };
}

const credentialKeys = /^s3\.(access-key-id|secret-access-key|session-token)/;

/** As it is for a destination that has credentials of its own. */
export function withoutCredentials(table: LoadedTable): LoadedTable {
  const config = Object.entries(table.config).filter(([key]) => !credentialKeys.test(key));
  return { ...table, config: Object.fromEntries(config), storageCredentials: [] };
}

/** Names of several levels under a key, each an array or a table identifier. */
export function namesOf({ body }: RestAnswer, key: 'namespaces' | 'identifiers'): string[][] {
  const names = isObject(body) ? body[key] : null;
  if (!Array.isArray(names)) throw unreadable(`list ${key}`, key);
  return names.map((each) => {
    const levels = isObject(each) ? [...list(each.namespace), each.name ?? null] : list(each);
    if (levels.length === 0 || !levels.every((level) => typeof level === 'string')) {
      throw unreadable(`list ${key}`, key);
    }
    return levels;
  });
}

/** Null on the last page. */
export function tokenOf({ body }: RestAnswer): string | null {
  const token = isObject(body) ? body['next-page-token'] : null;
  return typeof token === 'string' && token !== '' ? token : null;
}

/** The entries whose value is text. */
export function texts(value: Json | undefined): Record<string, string> {
  if (!isObject(value)) return {};
  return Object.fromEntries(
    Object.entries(value).filter((entry): entry is [string, string] => typeof entry[1] === 'string'),
  );
}

function credentialsOf(value: Json | undefined): StorageCredential[] {
  return list(value).flatMap((each) =>
    isObject(each) && typeof each.prefix === 'string'
      ? [{ prefix: each.prefix, config: texts(each.config) }]
      : [],
  );
}

function isMetadata(value: Json | undefined): value is TableMetadata {
  return (
    isObject(value) &&
    typeof value['format-version'] === 'number' &&
    typeof value['table-uuid'] === 'string' &&
    typeof value.location === 'string'
  );
}

function list(value: Json | undefined): Json[] {
  return Array.isArray(value) ? value : [];
}

export function unreadable(what: string, field: string): TidemarkError {
  return new TidemarkError(
    'TM101',
    `${what}: the answer has no ${field} as the Iceberg REST API defines it`,
    {
      remedy: 'Set iceberg.catalog.uri to an Iceberg REST catalog.',
    },
  );
}
