/** What the cases of the REST catalog client share: the two servers, and tables and commits to try things with. */
import type { Stack } from '../../../compose/local-stack.ts';
import type { TableCommit, TableIdentifier } from '../../../connectors/sinks/iceberg/catalog/catalog.ts';
import { isObject } from '../../../connectors/sinks/iceberg/catalog/exact-json.ts';
import type { CatalogAuth, RestSettings } from '../../../connectors/sinks/iceberg/catalog/options.ts';
import type { RestCatalog } from '../../../connectors/sinks/iceberg/catalog/rest-catalog.ts';
import type { TidemarkError } from '../../../src/connector/failure.ts';
import { s3Region, stackS3 } from '../catalogs.ts';

/** With the parts `s3` and `iceberg`; set before the first case. */
let running: Stack | null = null;

export function useStack(stack: Stack): void {
  running = stack;
}

export function environment(): Readonly<Record<string, string>> {
  return running!.environment;
}

export function settings(uri: string, changes: Partial<RestSettings> = {}): RestSettings {
  return {
    kind: 'rest',
    uri: new URL(uri),
    warehouse: null,
    prefix: null,
    auth: { kind: 'none' },
    vendedCredentials: true,
    headers: {},
    timeoutMs: 20_000,
    tls: { verify: true, ca: null, cert: null, key: null },
    ...changes,
  };
}

export interface Server {
  name: string;
  /** Of the catalog itself. */
  uri(): string;
  changes(): Partial<RestSettings>;
  /** Creating a table that is there answers that table. */
  givesExisting: boolean;
  /** A table needs no namespace. */
  needsNoNamespace: boolean;
}

export const apache: Server = {
  name: 'Iceberg’s own server',
  uri: () => environment().TIDEMARK_ICEBERG_URL!,
  changes: () => ({}),
  givesExisting: false,
  needsNoNamespace: true,
};
export const seaweed: Server = {
  name: 'SeaweedFS, signed',
  uri: () => environment().TIDEMARK_S3_ICEBERG_URL!,
  changes: () => ({ warehouse: 's3://tables', auth: signed(stackS3(environment()).secretAccessKey) }),
  givesExisting: true,
  needsNoNamespace: false,
};

export function signed(secretAccessKey: string): CatalogAuth {
  const accessKeyId = environment().TIDEMARK_S3_ACCESS_KEY!;
  return {
    kind: 'sigv4',
    signingName: 's3tables',
    region: s3Region,
    credentials: { accessKeyId, secretAccessKey },
  };
}

export const schema = {
  type: 'struct',
  'schema-id': 0,
  fields: [{ id: 1, name: 'id', type: 'long', required: true }],
};
export const failure = (work: Promise<unknown>) =>
  work.then(
    () => null,
    (error: unknown) => error as TidemarkError,
  );
let made = 0;

/** A namespace of its own for a test, with two tables. */
export async function twoTables(catalog: RestCatalog): Promise<[TableIdentifier, TableIdentifier]> {
  made += 1;
  const namespace = [`case${made}`];
  await catalog.createNamespace(namespace);
  const one = { namespace, name: 'one' };
  const other = { namespace, name: 'other' };
  for (const identifier of [one, other]) await catalog.createTable({ identifier, schema });
  return [one, other];
}

/** Ids as Java and Python make them: mostly beyond 2^53. */
let snapshots = 9_007_199_254_740_993n;

/** Appends an empty snapshot to main, from a state where main is `parent`. */
export function append(
  identifier: TableIdentifier,
  parent: bigint | null,
  sequence: number,
): TableCommit & { id: bigint } {
  snapshots += 2n;
  const id = snapshots;
  const snapshot = {
    'snapshot-id': id,
    ...(parent === null ? {} : { 'parent-snapshot-id': parent }),
    'sequence-number': sequence,
    'timestamp-ms': Date.now(),
    'manifest-list': `s3://tables/none/snap-${id}.avro`,
    summary: { operation: 'append' },
    'schema-id': 0,
  };
  return {
    id,
    identifier,
    requirements: [{ type: 'assert-ref-snapshot-id', ref: 'main', 'snapshot-id': parent }],
    updates: [
      { action: 'add-snapshot', snapshot },
      { action: 'set-snapshot-ref', 'ref-name': 'main', type: 'branch', 'snapshot-id': id },
    ],
  };
}

export async function snapshotsOf(catalog: RestCatalog, identifier: TableIdentifier): Promise<bigint[]> {
  const metadata = (await catalog.loadTable(identifier))!.metadata;
  const found = Array.isArray(metadata.snapshots) ? metadata.snapshots.filter(isObject) : [];
  return found.map((each) => BigInt(each['snapshot-id'] as number | bigint));
}
