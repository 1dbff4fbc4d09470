/**
 * What the sink writes, committed through Iceberg's own REST server, is read by libraries that are not ours, cell by cell:
 * every type, hostile names, partitions of every kind, deletes, a schema that changed.
 */
import { rm } from 'node:fs/promises';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { type Stack, startStack } from '../../compose/local-stack.ts';
import { quoteText } from '../../connectors/object-log/sql-text.ts';
import type { JsonObject } from '../../connectors/sinks/iceberg/catalog/exact-json.ts';
import { openRestCatalog } from '../../connectors/sinks/iceberg/catalog/open-catalog.ts';
import type { RestCatalog } from '../../connectors/sinks/iceberg/catalog/rest-catalog.ts';
import { type FileStore, openFileStore } from '../../connectors/sinks/iceberg/file-store.ts';
import { duckdbType } from '../../connectors/sinks/iceberg/files/duckdb-type.ts';
import { writeDataFiles } from '../../connectors/sinks/iceberg/files/write-data-files.ts';
import { evolveSchema } from '../../connectors/sinks/iceberg/spec/evolve-schema.ts';
import { parseTableMetadata } from '../../connectors/sinks/iceberg/spec/read-table-metadata.ts';
import type { TableMetadata } from '../../connectors/sinks/iceberg/spec/table-metadata.ts';
import type { PrimitiveType } from '../../connectors/sinks/iceberg/spec/types.ts';
import type { Cell } from '../../src/connector/sink.ts';
import { settings } from '../iceberg/catalog-cases/world.ts';
import { s3Region, stackCatalog, stackS3 } from '../iceberg/catalogs.ts';
import { LocalTable } from '../iceberg/local-table.ts';
import { type IcebergReader, readerNames } from '../iceberg/reader.ts';
import { icebergReader } from '../iceberg/readers.ts';

const directory = new URL('../../.tidemark/test-stacks/iceberg-format', import.meta.url).pathname;
let stack: Stack;
let catalog: RestCatalog;
let store: FileStore;

beforeAll(async () => {
  await rm(directory, { recursive: true, force: true });
  stack = await startStack({ directory, parts: ['s3', 'iceberg'] });
  catalog = await openRestCatalog(settings(stack.environment.TIDEMARK_ICEBERG_URL!));
  const credentials = stackS3(stack.environment);
  store = await openFileStore('s3://tidemark/format', {
    endpoint: credentials.endpoint,
    region: s3Region,
    pathStyle: true,
    tlsCa: null,
    credentials: async () => credentials,
  });
});
afterAll(async () => {
  await store?.close();
  await catalog?.close();
  await stack.stop();
  await rm(directory, { recursive: true, force: true });
});

interface Column {
  name: string;
  type: PrimitiveType;
  required?: boolean;
  /** As Postgres prints them, and null. */
  values: Cell[];
}

const columns: Column[] = [
  { name: 'id', type: 'uuid', required: true, values: [] },
  { name: `it's "x".y é`, type: 'string', values: ['', "it's", null, '\u{1F600}', 'x'.repeat(2000)] },
  { name: 'n', type: 'int', values: ['-2147483648', '0', null, '2147483647'] },
  { name: 'big', type: 'long', values: ['-9223372036854775808', null, '9223372036854775807'] },
  { name: 'flag', type: 'boolean', values: ['t', 'f', null] },
  { name: 'real', type: 'float', values: ['0.5', 'NaN', '-Infinity', null] },
  { name: 'ratio', type: 'double', values: ['-1.25', 'NaN', null, 'Infinity'] },
  { name: 'small', type: 'decimal(9,2)', values: ['-1.50', '9999999.99', null] },
  { name: 'medium', type: 'decimal(18,0)', values: ['123456789012345678', null, '-1'] },
  {
    name: 'large',
    type: 'decimal(38,10)',
    values: ['-0.0000000001', null, '1234567890123456789012345678.0123456789'],
  },
  { name: 'day', type: 'date', values: ['0001-01-01', '1969-12-31', null, '9999-12-31'] },
  { name: 'at', type: 'timestamp', values: ['1969-12-31 23:59:59.999999', null, '2026-02-28 12:00:00.5'] },
  {
    name: 'moment',
    type: 'timestamptz',
    values: ['2026-02-28 12:00:00+00', '1969-12-31 23:00:00.000001+00', null],
  },
  { name: 'bytes', type: 'binary', values: ['\\x00ff', '\\x', null] },
];
const rowCount = 24;

function uuid(n: number): string {
  return `f47ac10b-58cc-4372-a567-${String(n).padStart(12, '0')}`;
}

const rows = Array.from({ length: rowCount }, (_, row) =>
  columns.map(({ name, values }) => (name === 'id' ? uuid(row) : values[row % values.length]!)),
);

function cell(type: PrimitiveType, text: Cell): string {
  if (text === null) return `CAST(NULL AS ${duckdbType(type)})`;
  if (type === 'binary') return `unhex(${quoteText(text.slice(2))})`;
  return `CAST(${quoteText(text)} AS ${duckdbType(type)})`;
}

function relation(types: readonly PrimitiveType[], of: readonly Cell[][]): string {
  const tuples = of.map((row) => `(${row.map((text, index) => cell(types[index]!, text)).join(', ')})`);
  return `(VALUES ${tuples.join(', ')}) AS rows(${types.map((_, index) => `c${index}`).join(', ')})`;
}

interface Made {
  table: LocalTable;
  name: string;
}

async function make(name: string, partitionBy: [column: string, transform: string][]): Promise<Made> {
  const identifier = { namespace: ['format'], name };
  const fields = columns.map(({ name: column, type, required = false }, index) => ({
    id: index + 1,
    name: column,
    required,
    type,
  }));
  await catalog.createNamespace(['format']);
  const created = await catalog.createTable({
    identifier,
    schema: { type: 'struct', 'schema-id': 0, 'identifier-field-ids': [1], fields } as unknown as JsonObject,
    partitionSpec: {
      'spec-id': 0,
      fields: partitionBy.map(([column, transform], index) => ({
        'source-id': fields.find((field) => field.name === column)!.id,
        'field-id': 1000 + index,
        name: `${column} ${transform}`,
        transform,
      })),
    },
    location: `s3://tidemark/format/${name}`,
    properties: { 'format-version': '2' },
  });
  const table = await LocalTable.create({
    place: { store, location: '' },
    fields: [],
    key: ['id'],
    catalog: {
      metadata: parseTableMetadata(created.metadata),
      async commit(attempt): Promise<TableMetadata> {
        await catalog.commit([{ identifier, ...attempt }]);
        return parseTableMetadata((await catalog.loadTable(identifier))!.metadata);
      },
    },
  });
  return { table, name };
}

async function append({ table }: Made, of: readonly Cell[][]): Promise<void> {
  const { fields } = table.schema;
  const types = fields.map(({ type }) => type as PrimitiveType);
  const source = ({ id }: { id: number }) => `c${fields.findIndex((field) => field.id === id)}`;
  const { connection } = table.database;
  await table.commit(
    await writeDataFiles(connection, relation(types, of), table.dataFileTable(), table.settings(), source),
  );
}

const sorted = (of: readonly Cell[][]) => of.map((row) => JSON.stringify(row)).sort();

async function read(reader: IcebergReader, { name }: Made) {
  return reader.readTable(stackCatalog(stack.environment), { namespace: ['format'], name });
}

const tables: [string, [string, string][]][] = [
  ['plain', []],
  [
    'by_time',
    [
      ['day', 'month'],
      ['moment', 'day'],
      ['at', 'hour'],
    ],
  ],
  [
    'by_bucket',
    [
      ['id', 'bucket[3]'],
      ['large', 'bucket[2]'],
      ['bytes', 'bucket[2]'],
    ],
  ],
  [
    'by_value',
    [
      [`it's "x".y é`, 'truncate[2]'],
      ['flag', 'identity'],
      ['small', 'truncate[100]'],
      ['big', 'identity'],
    ],
  ],
];

describe.each(tables)('a table %s', (name, partitionBy) => {
  let made: Made;
  let deleted: Set<string>;

  beforeAll(async () => {
    made = await make(name, partitionBy);
    await append(made, rows.slice(0, 16));
    await append(made, rows.slice(16));
    const files = [...(await made.table.live()).dataFiles()];
    const { table } = made;
    const doomed = files.map(({ path }) => [path, 0] as const);
    await table.commit([], await table.writeDeletes(doomed.slice(1), 'partition'));
    await table.commit([], await table.writeDeletes(doomed.slice(0, 1), 'file'));
    deleted = new Set(doomed.map(([path]) => path));
  });
  afterAll(() => made?.table.remove());

  it.each(readerNames)('is the same to %s', async (reader) => {
    const found = await read(icebergReader(reader), made);
    expect(found.columns).toEqual(columns.map((column) => column.name));
    expect(found.rows).toHaveLength(rowCount - deleted.size);
    const all = new Set(sorted(rows));
    for (const row of sorted(found.rows)) expect(all.has(row), row).toBe(true);
    expect(new Set(found.rows.map(([id]) => id)).size).toBe(found.rows.length);
  });
});

it('a column that was promoted, one renamed and one added are read in all files', async () => {
  const made = await make('evolved', [['n', 'bucket[4]']]);
  const { table } = made;
  try {
    await append(made, rows.slice(0, 4));
    const { schema, lastColumnId } = evolveSchema(
      table.schema,
      table.metadata['last-column-id'],
      [
        ...table.schema.fields.map(({ id, name, type, required }) => ({
          fieldId: id,
          name: name === 'day' ? 'Day of it' : name,
          type: ({ n: 'long', real: 'double', small: 'decimal(12,2)' }[name] ?? type) as PrimitiveType,
          required,
        })),
        { name: 'new', type: 'string' as const, required: false },
      ],
      ['id'],
    );
    await table.apply({
      requirements: [
        { type: 'assert-current-schema-id', 'current-schema-id': table.metadata['current-schema-id'] },
      ],
      updates: [
        { action: 'add-schema', schema, 'last-column-id': lastColumnId },
        { action: 'set-current-schema', 'schema-id': -1 },
      ],
    });
    const later = rows.slice(4, 8).map((row) => [...row.with(2, '4294967296'), 'added']);
    await append(made, later);
    const expected = sorted([...rows.slice(0, 4).map((row) => [...row, null]), ...later]);
    for (const name of readerNames) {
      const found = await read(icebergReader(name), made);
      expect(found.columns.slice(-5), name).toEqual(['Day of it', 'at', 'moment', 'bytes', 'new']);
      expect(sorted(found.rows), name).toEqual(expected);
    }
  } finally {
    await table.remove();
  }
});
