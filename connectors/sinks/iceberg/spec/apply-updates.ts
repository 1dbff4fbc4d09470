/**
 * What a catalog does with the updates of a commit. The sink's catalog is a server; this is its model, for tests and for
 * knowing the next metadata before the server says it.
 */
import { malformed } from '../failures.ts';
import { applyToSnapshots } from './apply-snapshot-updates.ts';
import { type PartitionSpec, sameSpec } from './partition-spec.ts';
import { highestFieldId, type Schema, sameSchema } from './schema.ts';
import { type SortOrder, sameOrder } from './sort-order.ts';
import type { TableMetadata } from './table-metadata.ts';
import type { TableUpdate } from './updates.ts';

/** What was added last in this commit: an id of -1 names it. */
interface LastAdded {
  schema: number | null;
  spec: number | null;
  order: number | null;
}

/**
 * The metadata after a commit; what it was given is left as it is.
 * @param base null for a new table
 * @param nowMs milliseconds since 1970
 * @param baseFile location of the base's file, for the metadata log
 * @throws TidemarkError TM405 where an update does not fit
 */
export function applyUpdates(
  base: TableMetadata | null,
  updates: readonly TableUpdate[],
  nowMs: number,
  baseFile?: string,
): TableMetadata {
  const metadata = structuredClone(base) ?? emptyTable();
  const last: LastAdded = { schema: null, spec: null, order: null };
  for (const update of updates) applyOne(metadata, update, last, nowMs);
  if (base && baseFile !== undefined) {
    metadata['metadata-log'].push({ 'metadata-file': baseFile, 'timestamp-ms': base['last-updated-ms'] });
    metadata['metadata-log'] = metadata['metadata-log'].slice(-mostPrevious(metadata));
  }
  metadata['last-updated-ms'] = Math.max(nowMs, metadata['last-updated-ms']);
  return metadata;
}

function mostPrevious({ properties }: TableMetadata): number {
  const most = Number(properties['write.metadata.previous-versions-max'] ?? Number.NaN);
  return Number.isInteger(most) ? Math.max(1, most) : 100;
}

function emptyTable(): TableMetadata {
  return {
    'format-version': 2,
    'table-uuid': '',
    location: '',
    'last-sequence-number': 0,
    'last-updated-ms': 0,
    'last-column-id': 0,
    schemas: [],
    'current-schema-id': 0,
    'partition-specs': [],
    'default-spec-id': 0,
    'last-partition-id': 999,
    'sort-orders': [],
    'default-sort-order-id': 0,
    properties: {},
    'current-snapshot-id': null,
    snapshots: [],
    'snapshot-log': [],
    'metadata-log': [],
    refs: {},
    statistics: [],
    'partition-statistics': [],
  };
}

function applyOne(metadata: TableMetadata, update: TableUpdate, last: LastAdded, nowMs: number): void {
  switch (update.action) {
    case 'assign-uuid':
      metadata['table-uuid'] = update.uuid;
      return;
    case 'upgrade-format-version':
      if (update['format-version'] !== 2) throw malformed('a table can be upgraded to format version 2 only');
      metadata['format-version'] = 2;
      return;
    case 'add-schema':
      last.schema = addSchema(metadata, update.schema);
      return;
    case 'set-current-schema':
      metadata['current-schema-id'] = named(update['schema-id'], last.schema, 'schema');
      return;
    case 'add-spec':
      last.spec = addSpec(metadata, update.spec);
      return;
    case 'set-default-spec':
      metadata['default-spec-id'] = named(update['spec-id'], last.spec, 'partition spec');
      return;
    case 'add-sort-order':
      last.order = addOrder(metadata, update['sort-order']);
      return;
    case 'set-default-sort-order':
      metadata['default-sort-order-id'] = named(update['sort-order-id'], last.order, 'sort order');
      return;
    case 'set-location':
      metadata.location = update.location;
      return;
    case 'set-properties':
      metadata.properties = { ...metadata.properties, ...update.updates };
      return;
    case 'remove-properties':
      metadata.properties = Object.fromEntries(
        Object.entries(metadata.properties).filter(([key]) => !update.removals.includes(key)),
      );
      return;
    case 'remove-partition-specs':
      metadata['partition-specs'] = metadata['partition-specs'].filter(
        (spec) => !update['spec-ids'].includes(spec['spec-id']),
      );
      return;
    case 'remove-schemas':
      metadata.schemas = metadata.schemas.filter(
        (schema) => !update['schema-ids'].includes(schema['schema-id']),
      );
      return;
    default:
      applyToSnapshots(metadata, update, nowMs);
  }
}

function named(id: number, lastAdded: number | null, what: string): number {
  if (id !== -1) return id;
  if (lastAdded === null)
    throw malformed(`the commit names the last ${what} that it added, and it added none`);
  return lastAdded;
}

function addSchema(metadata: TableMetadata, schema: Schema): number {
  metadata['last-column-id'] = Math.max(metadata['last-column-id'], highestFieldId(schema));
  const same = metadata.schemas.find((each) => sameSchema(each, schema));
  if (same) return same['schema-id'];
  const id = nextId(metadata.schemas.map((each) => each['schema-id']));
  metadata.schemas.push({ ...schema, 'schema-id': id });
  return id;
}

function addSpec(metadata: TableMetadata, spec: PartitionSpec): number {
  const same = metadata['partition-specs'].find((each) => sameSpec(each, spec));
  if (same) return same['spec-id'];
  const id = nextId(metadata['partition-specs'].map((each) => each['spec-id']));
  metadata['partition-specs'].push({ ...spec, 'spec-id': id });
  const ids = spec.fields.map((field) => field['field-id']);
  metadata['last-partition-id'] = Math.max(metadata['last-partition-id'], ...ids);
  return id;
}

function addOrder(metadata: TableMetadata, order: SortOrder): number {
  const same = metadata['sort-orders'].find((each) => sameOrder(each, order));
  if (same) return same['order-id'];
  // Zero is the unsorted order's.
  const id =
    order.fields.length === 0
      ? 0
      : Math.max(1, nextId(metadata['sort-orders'].map((each) => each['order-id'])));
  metadata['sort-orders'].push({ ...order, 'order-id': id });
  return id;
}

function nextId(taken: readonly number[]): number {
  return taken.length === 0 ? 0 : Math.max(...taken) + 1;
}
