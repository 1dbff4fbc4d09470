/** Reading table metadata of format versions 1 and 2 (Iceberg specification, Appendix C and E). */
import { gunzipSync } from 'node:zlib';
import type { Json } from '../catalog/exact-json.ts';
import { malformed, unsupported } from '../failures.ts';
import { JsonReader, readJson } from './json-reader.ts';
import {
  bindSpec,
  firstPartitionFieldId,
  parsePartitionFields,
  parsePartitionSpec,
} from './partition-spec.ts';
import { highestFieldId, parseSchema } from './schema.ts';
import { mainBranch, parseSnapshot, parseSnapshotReference } from './snapshot.ts';
import { parseSortOrder, unsorted } from './sort-order.ts';
import { currentSchema, defaultSpec, type TableMetadata } from './table-metadata.ts';

/** @param content of a metadata file, gzipped or not. @throws TidemarkError TM405 */
export function readTableMetadata(content: Buffer, what = 'table metadata'): TableMetadata {
  const gzipped = content[0] === 0x1f && content[1] === 0x8b;
  return parseTableMetadata(readJson((gzipped ? gunzipSync(content) : content).toString('utf8'), what), what);
}

/** @throws TidemarkError TM405 */
export function parseTableMetadata(json: Json | undefined, what = 'table metadata'): TableMetadata {
  const reader = new JsonReader(json, what);
  const version = reader.integer('format-version');
  if (version !== 1 && version !== 2) {
    throw unsupported(
      `${what} has format version ${version}`,
      'This sink writes format version 2: create the table with the table property format-version=2.',
    );
  }
  const metadata: TableMetadata = {
    'format-version': version,
    'table-uuid': (version === 1 ? reader.optional('table-uuid', textOf) : reader.text('table-uuid')) ?? '',
    location: reader.text('location'),
    'last-sequence-number': version === 1 ? 0 : reader.integer('last-sequence-number'),
    'last-updated-ms': reader.integer('last-updated-ms'),
    'last-column-id': reader.integer('last-column-id'),
    ...readSchemas(reader),
    ...readSpecs(reader),
    ...readOrders(reader),
    properties: reader.optional('properties', () => reader.map('properties', textOf)) ?? {},
    ...readSnapshots(reader),
    'metadata-log': listOf(reader, 'metadata-log', (each) => ({
      'metadata-file': each.text('metadata-file'),
      'timestamp-ms': each.integer('timestamp-ms'),
    })),
    statistics: reader.optional('statistics', () => reader.list('statistics', (each) => each)) ?? [],
    'partition-statistics':
      reader.optional('partition-statistics', () => reader.list('partition-statistics', (each) => each)) ??
      [],
  };
  validate(metadata, what);
  return metadata;
}

function textOf(reader: JsonReader, name: string): string {
  return reader.text(name);
}

function listOf<T>(reader: JsonReader, name: string, read: (each: JsonReader) => T): T[] {
  return (
    reader.optional(name, () => reader.list(name, (each, what) => read(new JsonReader(each, what)))) ?? []
  );
}

function readSchemas(reader: JsonReader): Pick<TableMetadata, 'schemas' | 'current-schema-id'> {
  if (!reader.has('schemas')) {
    const schema = parseSchema(reader.fields.schema, `${reader.what}, schema`);
    return { schemas: [schema], 'current-schema-id': schema['schema-id'] };
  }
  return {
    schemas: reader.list('schemas', parseSchema),
    'current-schema-id': reader.integer('current-schema-id'),
  };
}

type Specs = Pick<TableMetadata, 'partition-specs' | 'default-spec-id' | 'last-partition-id'>;

function readSpecs(reader: JsonReader): Specs {
  const specs = reader.has('partition-specs')
    ? reader.list('partition-specs', parsePartitionSpec)
    : [
        {
          'spec-id': 0,
          fields: parsePartitionFields(
            new JsonReader({ fields: reader.fields['partition-spec'] ?? null }, reader.what),
          ),
        },
      ];
  const highest = Math.max(
    firstPartitionFieldId - 1,
    ...specs.flatMap(({ fields }) => fields.map((field) => field['field-id'])),
  );
  return {
    'partition-specs': specs,
    'default-spec-id': reader.optional('default-spec-id', integerOf) ?? specs[0]?.['spec-id'] ?? 0,
    'last-partition-id': reader.optional('last-partition-id', integerOf) ?? highest,
  };
}

function integerOf(reader: JsonReader, name: string): number {
  return reader.integer(name);
}

function readOrders(reader: JsonReader): Pick<TableMetadata, 'sort-orders' | 'default-sort-order-id'> {
  if (!reader.has('sort-orders')) return { 'sort-orders': [unsorted], 'default-sort-order-id': 0 };
  return {
    'sort-orders': reader.list('sort-orders', parseSortOrder),
    'default-sort-order-id': reader.integer('default-sort-order-id'),
  };
}

type Snapshots = Pick<TableMetadata, 'current-snapshot-id' | 'snapshots' | 'snapshot-log' | 'refs'>;

function readSnapshots(reader: JsonReader): Snapshots {
  const current = reader.optional('current-snapshot-id', () => reader.long('current-snapshot-id'));
  // What Java writes for none.
  const id = current === undefined || current === -1n ? null : current;
  const refs =
    reader.optional('refs', () =>
      reader.map('refs', (inner, name) =>
        parseSnapshotReference(inner.fields[name], `${inner.what}, a reference`),
      ),
    ) ?? {};
  return {
    'current-snapshot-id': id,
    snapshots: reader.optional('snapshots', () => reader.list('snapshots', parseSnapshot)) ?? [],
    'snapshot-log': listOf(reader, 'snapshot-log', (each) => ({
      'snapshot-id': each.long('snapshot-id'),
      'timestamp-ms': each.integer('timestamp-ms'),
    })),
    refs:
      id === null || Object.hasOwn(refs, mainBranch)
        ? refs
        : { ...refs, [mainBranch]: { 'snapshot-id': id, type: 'branch' } },
  };
}

function validate(metadata: TableMetadata, what: string): void {
  const schema = currentSchema(metadata, what);
  if (highestFieldId(schema) > metadata['last-column-id'])
    throw malformed(`${what}: last-column-id is too low`);
  bindSpec(defaultSpec(metadata, what), [schema, ...metadata.schemas]);
  const order = metadata['default-sort-order-id'];
  if (!metadata['sort-orders'].some((each) => each['order-id'] === order))
    throw malformed(`${what}: the default sort order is not listed`);
  const id = metadata['current-snapshot-id'];
  if (id !== null && !metadata.snapshots.some((each) => each['snapshot-id'] === id))
    throw malformed(`${what}: the current snapshot is not listed`);
  const main = Object.hasOwn(metadata.refs, mainBranch) ? metadata.refs[mainBranch]! : null;
  if ((main?.['snapshot-id'] ?? null) !== id) throw malformed(`${what}: main is not the current snapshot`);
}
