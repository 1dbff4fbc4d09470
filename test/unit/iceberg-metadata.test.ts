/** Table metadata, schemas, updates and names of the Iceberg sink, without a table. */
import { gzipSync } from 'node:zlib';
import { describe, expect, it } from 'vitest';
import type { TableMetadata as CatalogMetadata } from '../../connectors/sinks/iceberg/catalog/catalog.ts';
import { type JsonObject, parseJson } from '../../connectors/sinks/iceberg/catalog/exact-json.ts';
import { dataLocation, metadataLocation } from '../../connectors/sinks/iceberg/commit/locations.ts';
import type { FileStore } from '../../connectors/sinks/iceberg/file-store.ts';
import { StoredMetadataFiles } from '../../connectors/sinks/iceberg/glue-metadata-files.ts';
import { applyUpdates } from '../../connectors/sinks/iceberg/spec/apply-updates.ts';
import { evolveSchema } from '../../connectors/sinks/iceberg/spec/evolve-schema.ts';
import {
  nameMappingOf,
  namesOfField,
  parseNameMapping,
} from '../../connectors/sinks/iceberg/spec/name-mapping.ts';
import { partitionPath } from '../../connectors/sinks/iceberg/spec/partition-path.ts';
import { bindSpec, partitionKey } from '../../connectors/sinks/iceberg/spec/partition-spec.ts';
import {
  parseTableMetadata,
  readTableMetadata,
} from '../../connectors/sinks/iceberg/spec/read-table-metadata.ts';
import { parseSchema, type Schema } from '../../connectors/sinks/iceberg/spec/schema.ts';
import { newSnapshotId, parseSnapshotReference } from '../../connectors/sinks/iceberg/spec/snapshot.ts';
import { formatTableMetadata } from '../../connectors/sinks/iceberg/spec/table-metadata.ts';
import type { PrimitiveType, Value } from '../../connectors/sinks/iceberg/spec/types.ts';
import { unmetRequirement } from '../../connectors/sinks/iceberg/spec/updates.ts';

const schemaJson = {
  type: 'struct',
  'schema-id': 0,
  fields: [
    { id: 1, name: 'id', required: true, type: 'long' },
    { id: 2, name: 'at', required: false, type: 'timestamptz', doc: 'when' },
    {
      id: 3,
      name: 'tags',
      required: false,
      type: { type: 'list', 'element-id': 4, 'element-required': false, element: 'decimal(9, 2)' },
    },
  ],
};

function version2(): JsonObject {
  return parseJson(`{
    "format-version": 2, "table-uuid": "9c12d441-03fe-4693-9a96-a0705ddf69c1", "location": "s3://b/t",
    "last-sequence-number": 34, "last-updated-ms": 1602638573590, "last-column-id": 4, "current-schema-id": 0,
    "schemas": [${JSON.stringify(schemaJson)}],
    "default-spec-id": 0,
    "partition-specs": [{"spec-id": 0, "fields": [
      {"name": "at_day", "transform": "day", "source-id": 2, "field-id": 1000}]}],
    "last-partition-id": 1000, "default-sort-order-id": 0, "sort-orders": [{"order-id": 0, "fields": []}],
    "properties": {"__proto__": "x", "write.data.path": "s3://other/d/"},
    "current-snapshot-id": 3055729675574597004,
    "snapshots": [{"snapshot-id": 3055729675574597004, "timestamp-ms": 1555100955770, "sequence-number": 34,
      "summary": {"operation": "append"}, "manifest-list": "s3://b/t/m.avro", "schema-id": 0}],
    "snapshot-log": [{"snapshot-id": 3055729675574597004, "timestamp-ms": 1555100955770}],
    "metadata-log": [{"metadata-file": "s3://b/t/1.json", "timestamp-ms": 1}],
    "refs": {"main": {"snapshot-id": 3055729675574597004, "type": "branch"},
      "a tag": {"snapshot-id": 3055729675574597004, "type": "tag", "max-ref-age-ms": 10000000}}
  }`) as JsonObject;
}

describe('table metadata', () => {
  it('of version 2 is read whole and written the same', () => {
    const metadata = parseTableMetadata(version2());
    expect(metadata['current-snapshot-id']).toBe(3055729675574597004n);
    expect(metadata.schemas[0]!.fields[2]!.type).toMatchObject({ element: 'decimal(9,2)' });
    expect(metadata.properties).toHaveProperty(['__proto__'], 'x');
    expect(parseTableMetadata(parseJson(formatTableMetadata(metadata)))).toEqual(metadata);
    expect(formatTableMetadata(metadata)).toContain('"current-snapshot-id":3055729675574597004}');
    const gzipped = gzipSync(formatTableMetadata(metadata));
    expect(readTableMetadata(gzipped)).toEqual(metadata);
    expect(dataLocation(metadata)).toBe('s3://other/d');
    expect(metadataLocation(metadata)).toBe('s3://b/t/metadata');
  });

  it('of version 1 is read in the shape of version 2', () => {
    const metadata = parseTableMetadata({
      'format-version': 1,
      location: 's3://b/t/',
      'last-updated-ms': 1,
      'last-column-id': 4,
      schema: { type: 'struct', fields: schemaJson.fields },
      'partition-spec': [
        { name: 'a', transform: 'identity', 'source-id': 1 },
        { name: 'b', transform: 'day', 'source-id': 2 },
      ],
      'current-snapshot-id': -1,
    });
    expect(metadata).toMatchObject({
      'last-sequence-number': 0,
      'current-schema-id': 0,
      'default-spec-id': 0,
      'last-partition-id': 1001,
      'sort-orders': [{ 'order-id': 0, fields: [] }],
      'current-snapshot-id': null,
    });
    expect(metadata['partition-specs'][0]!.fields.map((field) => field['field-id'])).toEqual([1000, 1001]);
    expect(metadataLocation(metadata)).toBe('s3://b/t/metadata');
  });

  it.each([
    ['format-version', 3, /format version 3/],
    ['format-version', '2', /format-version is not an integer/],
    ['table-uuid', null, /table-uuid is not a string/],
    ['last-sequence-number', null, /last-sequence-number/],
    ['current-schema-id', 5, /current schema is not listed/],
    ['default-spec-id', 5, /partition spec 5 is not listed/],
    ['default-sort-order-id', 5, /sort order is not listed/],
    ['last-column-id', 2, /last-column-id is too low/],
    ['current-snapshot-id', 7, /current snapshot is not listed|main is not the current/],
    ['snapshots', [{}], /snapshots\[0\]/],
    ['snapshots', [{ 'snapshot-id': 1, manifests: ['x'] }], /lists its manifests/],
    ['refs', {}, undefined],
    ['refs', { main: { 'snapshot-id': 1, type: 'branch' } }, /main is not the current/],
    [
      'partition-specs',
      [{ 'spec-id': 0, fields: [{ name: 'x', transform: 'day', 'source-id': 1, 'field-id': 1000 }] }],
      /partitioned by day/,
    ],
    [
      'partition-specs',
      [{ 'spec-id': 0, fields: [{ name: 'x', transform: 'zorder', 'source-id': 1, 'field-id': 1000 }] }],
      undefined,
    ],
    [
      'schemas',
      [{ ...schemaJson, fields: [...schemaJson.fields, schemaJson.fields[0]!] }],
      /field id 1 is taken/,
    ],
  ])('with %s as %j', (name, value, complaint) => {
    const json = { ...version2(), [name]: value } as JsonObject;
    const read = () => parseTableMetadata(json);
    if (complaint === undefined) expect(read).not.toThrow();
    else expect(read).toThrow(complaint);
  });

  it('has tags that stay for ever, as others say it', () => {
    const tag = parseJson('{"snapshot-id": 1, "type": "tag", "max-ref-age-ms": 9223372036854775807}');
    expect(parseSnapshotReference(tag, 'a tag')['max-ref-age-ms']).toBe(Number.MAX_SAFE_INTEGER);
  });

  it('that is no JSON is refused without its text', () => {
    expect(() => readTableMetadata(Buffer.from('{"secret'))).toThrow(/^table metadata is not JSON$/);
  });
});

describe('updates', () => {
  const base = () => parseTableMetadata(version2());

  it('find the requirement that does not hold', () => {
    const holding = [
      { type: 'assert-table-uuid', uuid: '9C12D441-03FE-4693-9A96-A0705DDF69C1' },
      { type: 'assert-ref-snapshot-id', ref: 'main', 'snapshot-id': 3055729675574597004n },
      { type: 'assert-ref-snapshot-id', ref: 'none', 'snapshot-id': null },
      { type: 'assert-last-assigned-field-id', 'last-assigned-field-id': 4 },
      { type: 'assert-current-schema-id', 'current-schema-id': 0 },
      { type: 'assert-last-assigned-partition-id', 'last-assigned-partition-id': 1000 },
      { type: 'assert-default-spec-id', 'default-spec-id': 0 },
      { type: 'assert-default-sort-order-id', 'default-sort-order-id': 0 },
    ] as const;
    expect(unmetRequirement(base(), holding)).toBeNull();
    expect(unmetRequirement(null, [{ type: 'assert-create' }])).toBeNull();
    expect(unmetRequirement(base(), [{ type: 'assert-create' }])).not.toBeNull();
    // The next id is what a double would make of it.
    const near = {
      type: 'assert-ref-snapshot-id',
      ref: 'main',
      'snapshot-id': 3055729675574597005n,
    } as const;
    expect(unmetRequirement(base(), [...holding, near])).toEqual(near);
    expect(unmetRequirement(null, [near])).toEqual(near);
  });

  it('leave what they were given', () => {
    const before = base();
    const after = applyUpdates(
      before,
      [{ action: 'remove-snapshots', 'snapshot-ids': [3055729675574597004n] }],
      5,
      's3://b/t/2.json',
    );
    expect(before).toEqual(base());
    expect(after.snapshots).toEqual([]);
    expect(after.refs).toEqual({});
    expect(after['metadata-log']).toHaveLength(2);
  });

  it('keep as many files of the past as the table says, and the catalog’s client removes the others where it says so', async () => {
    const stored = new Map<string, Buffer>();
    const store = {
      get: async (location: string) => stored.get(location) ?? null,
      put: async (location: string, body: Buffer) => void stored.set(location, body),
      delete: async (locations: readonly string[]) => locations.forEach((each) => void stored.delete(each)),
    };
    const files = new StoredMetadataFiles(async () => store as unknown as FileStore);
    const identifier = { namespace: ['a'], name: 't' };
    const commit = (updates: Record<string, string>) => ({
      identifier,
      requirements: [],
      updates: [{ action: 'set-properties', updates }],
    });
    const metadataLocation = 's3://b/t/metadata/00041-x.metadata.json';
    let now = { metadata: parseJson(formatTableMetadata(base())) as CatalogMetadata, metadataLocation };
    const step = async (updates: Record<string, string>) => {
      const next = await files.writeMetadata(now, commit(updates));
      await files.removePast(now, next);
      now = next;
    };
    await store.put(metadataLocation, Buffer.from(''));
    for (let n = 0; n < 5; n += 1) await step({ 'write.metadata.previous-versions-max': '3' });
    expect(now.metadataLocation).toMatch(/\/00046-/);
    expect(now.metadata['metadata-log']).toHaveLength(3);
    expect(stored.size).toBe(6);
    for (let n = 0; n < 3; n += 1) await step({ 'write.metadata.delete-after-commit.enabled': 'true' });
    const numbers = [...stored.keys()].map((each) => Number(/\/(\d+)-/.exec(each)![1]));
    // Those from before the table said so stay.
    expect(numbers).toEqual([41, 42, 46, 47, 48, 49]);
  });

  it('take statistics of snapshots with these', () => {
    const statistics = [3055729675574597004n, 3055729675574597005n].map((id) => ({
      'snapshot-id': id,
      'statistics-path': `s3://b/t/${id}.puffin`,
    }));
    const before = { ...base(), statistics, 'partition-statistics': statistics };
    const after = applyUpdates(
      before,
      [{ action: 'remove-snapshots', 'snapshot-ids': [3055729675574597004n] }],
      5,
    );
    expect(after.statistics).toEqual(statistics.slice(1));
    expect(after['partition-statistics']).toEqual(statistics.slice(1));
  });

  it('refuse a snapshot twice, a number twice and a reference to nothing', () => {
    const [snapshot] = base().snapshots;
    const add = (changed: object) => () =>
      applyUpdates(base(), [{ action: 'add-snapshot', snapshot: { ...snapshot!, ...changed } }], 0);
    expect(add({})).toThrow(/already/);
    expect(add({ 'snapshot-id': 1n, 'parent-snapshot-id': 2n })).toThrow(/given already/);
    const reference = {
      action: 'set-snapshot-ref',
      'ref-name': 'main',
      type: 'branch',
      'snapshot-id': 1n,
    } as const;
    expect(() => applyUpdates(base(), [reference], 0)).toThrow(/not there/);
    expect(() => applyUpdates(base(), [{ action: 'set-current-schema', 'schema-id': -1 }], 0)).toThrow(
      /added none/,
    );
  });
});

describe('the next schema', () => {
  const current: Schema = parseSchema(
    {
      type: 'struct',
      'schema-id': 3,
      'identifier-field-ids': [1],
      fields: [
        { id: 1, name: 'id', required: true, type: 'int' },
        { id: 2, name: 'amount', required: false, type: 'decimal(9,2)' },
        { id: 5, name: 'gone', required: false, type: 'string' },
      ],
    },
    'schema',
  );

  it('promotes, renames, drops and adds, and gives no id twice', () => {
    const { schema, lastColumnId, changed } = evolveSchema(
      current,
      9,
      [
        { name: 'id', fieldId: 1, type: 'long', required: true },
        { name: 'total', fieldId: 2, type: 'decimal(12,2)', required: true, doc: 'of all' },
        { name: 'gone', type: 'int', required: false },
      ],
      ['id', 'total'],
    );
    expect(schema.fields).toEqual([
      { id: 1, name: 'id', required: true, type: 'long' },
      // It may have nulls.
      { id: 2, name: 'total', required: false, type: 'decimal(12,2)', doc: 'of all' },
      { id: 10, name: 'gone', required: false, type: 'int' },
    ]);
    expect([schema['identifier-field-ids'], lastColumnId, changed]).toEqual([[1], 10, true]);
  });

  it('is the same where nothing changed, and refuses other types', () => {
    const wanted = current.fields.map(({ id, name, type, required }) => ({
      fieldId: id,
      name,
      type: type as PrimitiveType,
      required,
    }));
    expect(evolveSchema(current, 5, wanted, ['id']).changed).toBe(false);
    const narrowed = wanted.map((column) => ({ ...column, type: 'string' as const }));
    expect(() => evolveSchema(current, 5, narrowed, ['id'])).toThrow(/column id cannot become string/);
  });
});

describe('names', () => {
  it('of columns without ids are read as the specification has them', () => {
    const mapping = parseNameMapping(
      '[{"field-id": 1, "names": ["id", "record_id"]}, {"names": []}, {"field-id": 3, "names": ["location"], "fields": [{"field-id": 4, "names": ["latitude"]}]}]',
    );
    expect(namesOfField(mapping, 1)).toEqual(['id', 'record_id']);
    expect(namesOfField(mapping, 4)).toEqual([]);
    expect(() => parseNameMapping('[{"names": [1]}]')).toThrow(/is not a string/);
    expect(() => parseNameMapping('nonsense')).toThrow(/schema.name-mapping.default is not JSON/);
    expect(nameMappingOf(parseSchema(schemaJson, 'schema'))).toEqual([
      { 'field-id': 1, names: ['id'] },
      { 'field-id': 2, names: ['at'] },
      { 'field-id': 3, names: ['tags'], fields: [{ 'field-id': 4, names: ['element'] }] },
    ]);
  });

  it.each([
    ['identity', 'string', "a'/..", 'p-a-27-2f..'],
    ['identity', 'string', '', 'p-'],
    ['identity', 'string', null, 'p-null'],
    ['day', 'date', 20_000, 'p-20241004'],
    ['month', 'timestamp', 657, 'p-202410'],
    ['hour', 'timestamp', -1, 'p-1969123123'],
    ['year', 'date', -1, 'p-1969'],
    ['identity', 'decimal(9,2)', -5n, 'p--2d0.05'],
    ['identity', 'binary', Buffer.from([1, 2]), 'p-AQI-3d'],
  ] as [string, PrimitiveType, Value | null, string][])(
    'of a folder for %s of %s %s',
    (transform, type, value, expected) => {
      const schema = parseSchema(
        { type: 'struct', fields: [{ id: 1, name: 'x', required: false, type }] },
        'schema',
      );
      const spec = { 'spec-id': 0, fields: [{ 'source-id': 1, 'field-id': 1000, name: 'p', transform }] };
      const fields = bindSpec(spec, [schema]);
      expect(partitionPath(fields, [value])).toBe(expected);
    },
  );

  it('of folders are short, and differ where values do', () => {
    const schema = parseSchema(
      { type: 'struct', fields: [{ id: 1, name: 'x', required: false, type: 'string' }] },
      'schema',
    );
    const spec = {
      'spec-id': 0,
      fields: [{ 'source-id': 1, 'field-id': 1000, name: 'p', transform: 'identity' }],
    };
    const fields = bindSpec(spec, [schema]);
    const [one, other] = ['a', 'b'].map((end) => partitionPath(fields, ['\u{1F600}'.repeat(500) + end]));
    expect(one).not.toBe(other);
    expect(one!.length).toBeLessThanOrEqual(150);
  });
});

it('partitions are equal whichever width their numbers had', () => {
  expect(partitionKey(0, [5, 'x', null])).toBe(partitionKey(0, [5n, 'x', null]));
  expect(partitionKey(0, ['null'])).not.toBe(partitionKey(0, [null]));
  expect(partitionKey(0, [5])).not.toBe(partitionKey(1, [5]));
  expect(partitionKey(0, [-0])).not.toBe(partitionKey(0, [0]));
});

it('snapshot ids are positive, of 63 bits, and new', () => {
  const draws = [Buffer.alloc(8), Buffer.from('0000000000000002', 'hex'), Buffer.alloc(8, 0xff)];
  expect(newSnapshotId(new Set([1n]), () => draws.shift()!)).toBe(0x7fffffffffffffffn);
});
