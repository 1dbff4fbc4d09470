/** The sink's half of the Iceberg format against pyiceberg, a stranger's: each reads what the other wrote. */
import { mkdir, mkdtemp, readFile, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { parseJson, printJson } from '../../connectors/sinks/iceberg/catalog/exact-json.ts';
import { openDatabase } from '../../connectors/sinks/iceberg/files/database.ts';
import { fromDuckdb } from '../../connectors/sinks/iceberg/files/duckdb-values.ts';
import { LocalFileStore } from '../../connectors/sinks/iceberg/local-file-store.ts';
import { LiveFiles } from '../../connectors/sinks/iceberg/plan/live-files.ts';
import { applyUpdates } from '../../connectors/sinks/iceberg/spec/apply-updates.ts';
import {
  parseTableMetadata,
  readTableMetadata,
} from '../../connectors/sinks/iceberg/spec/read-table-metadata.ts';
import type { Schema } from '../../connectors/sinks/iceberg/spec/schema.ts';
import { valueFromBytes, valueToBytes } from '../../connectors/sinks/iceberg/spec/single-value.ts';
import { unpackSnappy } from '../../connectors/sinks/iceberg/spec/snappy.ts';
import {
  currentSchema,
  formatTableMetadata,
  type TableMetadata,
} from '../../connectors/sinks/iceberg/spec/table-metadata.ts';
import {
  applyTransform,
  canTransform,
  parseTransform,
  transformedType,
} from '../../connectors/sinks/iceberg/spec/transforms.ts';
import type { PrimitiveType, Value } from '../../connectors/sinks/iceberg/spec/types.ts';
import type { TableUpdate } from '../../connectors/sinks/iceberg/spec/updates.ts';
import { dumpManifests, type FileAnswer, type TableAnswer } from '../iceberg/dump-manifests.ts';
import { FormatWitness } from '../iceberg/format-witness.ts';
import { LocalTable } from '../iceberg/local-table.ts';
import { TableFinder } from '../iceberg/table-finder.ts';
import { randomValue, valueText, valueTypes } from '../iceberg/values.ts';
import { type Random, random } from './deliver-random.ts';

const root = new URL('../../.tidemark', import.meta.url).pathname;
let folder: string;
let witness: FormatWitness;

beforeAll(async () => {
  await mkdir(root, { recursive: true });
  folder = await mkdtemp(join(root, 'pyiceberg-'));
  witness = await FormatWitness.start(folder);
}, 300_000);
afterAll(async () => {
  await witness.stop();
  await rm(folder, { recursive: true, force: true });
});

describe('values', () => {
  const names = ['identity', 'bucket', 'truncate', 'year', 'month', 'day', 'hour', 'void'];

  function randomTransform(r: Random): string {
    const name = r.pick(names);
    return name === 'bucket' || name === 'truncate'
      ? `${name}[${1 + r.integer(r.pick([4, 100, 2 ** 20]))}]`
      : name;
  }

  /** Python's dates are of the years 1 to 9999. */
  function pythonDate(value: Value | null): boolean {
    return value === null || ((value as number) >= -719_162 && (value as number) <= 2_932_896);
  }

  it('are transformed alike', async () => {
    const r = random();
    const questions: { type: PrimitiveType; transform: string; value: string | null }[] = [];
    const ours: (string | null)[] = [];
    while (questions.length < 4000) {
      const type = r.pick(valueTypes);
      const text = randomTransform(r);
      const transform = parseTransform(text);
      if (!canTransform(transform, type)) continue;
      const value = r.next() < 0.03 ? null : randomValue(r, type);
      if (type === 'date' && !pythonDate(value)) continue;
      const result = applyTransform(transform, type, value);
      questions.push({ type, transform: text, value: valueText(type, value) });
      ours.push(valueText(transformedType(transform, type), result));
    }
    const theirs = await witness.ask<(string | null)[]>('transforms', questions);
    for (const [index, question] of questions.entries()) {
      const { type, transform } = question;
      const bits = type === 'int' ? 32 : 64;
      // Python's integers do not wrap around.
      const wraps =
        transform.startsWith('truncate') && (type === 'int' || type === 'long') && theirs[index] !== null;
      const expected = wraps ? String(BigInt.asIntN(bits, BigInt(theirs[index]!))) : theirs[index];
      const context = `seed ${r.seed}, ${JSON.stringify(question)}`;
      expect(ours[index], context).toBe(expected);
    }
  });

  it('have the same bytes', async () => {
    const r = random();
    const drawn = Array.from({ length: 3000 }, () => {
      const type = r.pick(valueTypes);
      return { type, value: randomValue(r, type), other: randomValue(r, type) };
    });
    const questions = drawn.map(({ type, value, other }) => ({
      type,
      value: valueText(type, value),
      bytes: valueToBytes(type, other).toString('hex'),
    }));
    const answers = await witness.ask<{ bytes: string; value: string }[]>('single_values', questions);
    for (const [index, { type, value, other }] of drawn.entries()) {
      const context = `seed ${r.seed}, ${JSON.stringify(questions[index])}`;
      expect(valueToBytes(type, value).toString('hex'), context).toBe(answers[index]!.bytes);
      expect(answers[index]!.value, context).toBe(valueText(type, other));
      expect(valueText(type, valueFromBytes(type, Buffer.from(answers[index]!.bytes, 'hex'))), context).toBe(
        valueText(type, value),
      );
    }
  });
});

async function read(table: LocalTable, rows = true): Promise<TableAnswer> {
  return witness.ask<TableAnswer>('read_table', { metadata: table.metadataLocation, rows });
}

async function withTable(
  options: Parameters<typeof LocalTable.create>[0],
  use: (table: LocalTable) => Promise<void>,
): Promise<void> {
  const table = await LocalTable.create(options);
  try {
    await use(table);
  } finally {
    await table.remove();
  }
}

describe('tables of ours', () => {
  it('of every type, with rows deleted, are read whole', async () => {
    await withTable(
      {
        fields: valueTypes
          .filter((type) => !type.startsWith('fixed'))
          .map((type, index) => ({ id: index + 2, name: `c ${type}`, required: type === 'uuid', type })),
        partitionBy: [
          { 'source-id': 11, 'field-id': 1000, name: 'first letter', transform: 'truncate[1]' },
          { 'source-id': 7, 'field-id': 1001, name: 'day', transform: 'day' },
        ],
        key: ['c uuid'],
      },
      async (table) => {
        await table.append(`(SELECT
            CASE WHEN range % 7 = 0 THEN NULL ELSE range % 2 = 0 END AS "c boolean",
            -range AS "c int", -range * 10000000000 AS "c long", range / 4 AS "c float",
            CASE range WHEN 3 THEN 'nan'::DOUBLE WHEN 4 THEN 'inf'::DOUBLE ELSE range / 8 END AS "c double",
            CASE WHEN range > 25 THEN NULL ELSE DATE '1969-12-30' + (range // 10)::INTEGER END AS "c date",
            TIME '23:59:59.999999' - INTERVAL 1 SECOND * range AS "c time",
            TIMESTAMP '1969-12-31 23:59:59.999999' + INTERVAL 1 MINUTE * range AS "c timestamp",
            TIMESTAMPTZ '0001-01-01 00:00:00+00' + INTERVAL 1 DAY * range AS "c timestamptz",
            ['é', NULL, '\u{1F600}', 'x/..?y', ''][range % 5 + 1] || repeat('z', range) AS "c string",
            uuid() AS "c uuid", encode('b' || range) AS "c binary", -range / 100 AS "c decimal(9,2)",
            range::DECIMAL(18,0) AS "c decimal(18,0)", (range + 0.5)::DECIMAL(38,10) AS "c decimal(38,10)"
          FROM range(40))`);
        const live = await table.live();
        const files = [...live.dataFiles()];
        const doomed = files.flatMap(({ path, records }) =>
          records > 1 ? [[path, records - 1] as const] : [],
        );
        await table.commit([], await table.writeDeletes(doomed));
        const answer = await read(table);
        expect(answer.rows).toHaveLength(40 - doomed.length);
        const { connection } = table.database;
        const paths = files
          .map(({ path }) => `'${path.slice('file://'.length).replaceAll("'", "''")}'`)
          .join(', ');
        const columns = table.schema.fields.map(({ name }) => `"${name}"`).join(', ');
        const expected = await connection.runAndReadAll(
          `SELECT ${columns} FROM read_parquet([${paths}], filename = true, file_row_number = true, union_by_name = true)
             WHERE NOT list_contains([${doomed.map(([path, at]) => `'${path.slice(7)} ${at}'`)}], filename || ' ' || file_row_number)`,
        );
        const ours = expected
          .getRows()
          .map((row) =>
            table.schema.fields.map(({ type }, index) =>
              valueText(type as PrimitiveType, fromDuckdb(row[index]!)),
            ),
          );
        const theirs = answer.rows.map((row) => table.schema.fields.map(({ name }) => row[name]));
        const sorted = (rows: unknown[][]) => rows.map((row) => JSON.stringify(row)).sort();
        expect(sorted(theirs)).toEqual(sorted(ours));
        expect(answer.manifests).toEqual(await dumpManifests(table.store, table.metadata));
        expect(new Set(answer.files.flatMap(({ deletes }) => deletes)).size).toBe(
          [...live.dataFiles()].filter(({ records }) => records > 1).length,
        );
      },
    );
  });

  it('have the statistics that pyiceberg takes from their footers', async () => {
    await withTable(
      {
        fields: [
          { id: 1, name: 'id', required: true, type: 'long' },
          { id: 2, name: 'text', required: false, type: 'string' },
          { id: 3, name: 'amount', required: false, type: 'decimal(20,3)' },
          { id: 4, name: 'at', required: false, type: 'timestamptz' },
          { id: 5, name: 'day', required: false, type: 'date' },
          { id: 6, name: 'ratio', required: false, type: 'float' },
          { id: 7, name: 'bytes', required: false, type: 'binary' },
          { id: 8, name: 'empty', required: false, type: 'int' },
          { id: 9, name: 'yes', required: false, type: 'boolean' },
          { id: 10, name: 'clock', required: false, type: 'time' },
        ],
        key: ['id'],
        targetFileBytes: 20_000,
        rowGroupRows: 2048,
      },
      async (table) => {
        await table.append(`(SELECT range AS id, 'text ' || range || repeat('y', range % 30) AS text,
            -range / 7 AS amount, TIMESTAMPTZ '2026-01-01 00:00:00+00' - INTERVAL 1 SECOND * range AS at,
            DATE '1970-01-01' - range::INTEGER AS day, (range + 1) / 3 AS ratio, encode(repeat(chr(65 + (range % 26)::INTEGER), 20)) AS bytes,
            NULL AS empty, range % 2 = 0 AS yes, TIME '12:00:00' AS clock FROM range(20000))`);
        const live = await table.live();
        expect([...live.dataFiles()].length).toBeGreaterThan(3);
        const [answers, manifests] = [
          await witness.ask<Record<string, FileAnswer>>('footer_metrics', {
            metadata: table.metadataLocation,
          }),
          await dumpManifests(table.store, table.metadata),
        ];
        for (const entry of manifests.flatMap(({ entries }) => entries)) {
          const theirs = answers[entry.path]!;
          expect(entry.records).toBe(theirs.records);
          expect(entry.split_offsets).toEqual(theirs.split_offsets);
          expect(entry.column_sizes).toEqual(theirs.column_sizes);
          expect(entry.value_counts).toEqual(theirs.value_counts);
          expect(entry.null_value_counts).toEqual(theirs.null_value_counts);
          expect(entry.lower_bounds).toEqual(theirs.lower_bounds);
          expect(entry.upper_bounds).toEqual(theirs.upper_bounds);
        }
      },
    );
  });

  it('without rows, and without a snapshot, are read', async () => {
    await withTable({ fields: [{ id: 1, name: 'id', required: true, type: 'int' }] }, async (table) => {
      expect((await read(table)).rows).toEqual([]);
      await table.commit(await table.write('(SELECT 1 AS id WHERE false)'));
      const answer = await read(table);
      expect(answer.rows).toEqual([]);
      expect(answer.summary).toMatchObject({ operation: 'append', 'total-records': '0' });
    });
  });

  it('of 1,000 columns have statistics for the first 100 and the key', async () => {
    const fields = Array.from({ length: 1000 }, (_, index) => ({
      id: index + 1,
      name: `c${index}`,
      required: index === 999,
      type: 'int' as const,
    }));
    await withTable({ fields, key: ['c999'] }, async (table) => {
      const columns = fields.map(({ name }, index) => `range + ${index} AS ${name}`).join(', ');
      await table.append(`(SELECT ${columns} FROM range(3))`);
      const answer = await read(table);
      expect(answer.rows).toHaveLength(3);
      expect(answer.rows[0]).toMatchObject({ c0: '0', c999: '999' });
      const bounded = Object.keys(answer.files[0]!.lower_bounds).map(Number);
      expect(bounded.sort((a, b) => a - b)).toEqual([...Array.from({ length: 100 }, (_, i) => i + 1), 1000]);
    });
  });
});

describe('tables of theirs', () => {
  const store = new LocalFileStore();

  async function metadataAt(location: string) {
    return readTableMetadata(await readFile(location.slice('file://'.length)));
  }

  const fields = [
    { id: 1, name: 'id', required: false, type: 'int' },
    { id: 2, name: 'tenant.é', required: false, type: 'string' },
    { id: 3, name: 'at', required: false, type: 'timestamptz' },
    { id: 4, name: 'amount', required: false, type: 'decimal(20,2)' },
    { id: 5, name: 'ref', required: false, type: 'uuid' },
    { id: 6, name: 'ratio', required: false, type: 'double' },
  ];
  const partition = [
    { source_id: 2, field_id: 1000, transform: 'identity', name: 'tenant.é' },
    { source_id: 3, field_id: 1001, transform: 'month', name: 'at month' },
    { source_id: 4, field_id: 1002, transform: 'truncate[100]', name: 'amount trunc' },
    { source_id: 5, field_id: 1003, transform: 'bucket[3]', name: 'ref_bucket' },
  ];
  const row = (id: number, tenant: string | null) => ({
    id: String(id),
    'tenant.é': tenant,
    at: tenant === null ? null : String(BigInt(id) * 3_000_000_000_000n),
    amount: `${id}.25`,
    ref: `f79c3e09-677c-4bbd-a479-3f349cb785e${id}`,
    ratio: id === 2 ? '7ff8000000000000' : '3ff0000000000000',
  });

  it.each(['1', '2'])('of format version %s, evolved, are read entry by entry', async (version) => {
    const name = `v${version}`;
    const { metadata } = await witness.ask<{ metadata: string }>('write_table', {
      folder,
      name,
      schema: { type: 'struct', fields, 'schema-id': 0, 'identifier-field-ids': [] },
      partition,
      properties: { 'format-version': version },
      steps: [
        { append: [row(1, 'a'), row(2, "b'/?"), row(3, null)] },
        { promote: ['id', 'long'] },
        { promote: ['amount', 'decimal(30,2)'] },
        { append: [row(4, 'a'), row(5, null)] },
        { partition: ['id', 'bucket[5]', 'id_bucket'] },
        { rename: ['ratio', 'quota'] },
        { append: [row(6, 'c')] },
        { delete: 'id = 4' },
      ],
    });
    const ours = await metadataAt(metadata);
    const answer = await witness.ask<TableAnswer>('read_table', { metadata });
    expect(await dumpManifests(store, ours)).toEqual(answer.manifests);
    const live = new LiveFiles(store, new Set([1]));
    await live.advance(ours);
    expect([...live.dataFiles()].map(({ path }) => path).sort()).toEqual(
      answer.files.map(({ path }) => path).sort(),
    );
    expect(answer.rows).toHaveLength(5);
  });

  it('are theirs and ours in turn', async () => {
    await withTable(
      {
        fields: [
          { id: 1, name: 'id', required: true, type: 'long' },
          { id: 2, name: 'part', required: false, type: 'string' },
        ],
        partitionBy: [{ 'source-id': 2, 'field-id': 1000, name: 'part', transform: 'identity' }],
        key: ['id'],
      },
      async (table) => {
        const rows = (from: number, to: number) =>
          `(SELECT range AS id, 'p' || range % 2 AS part FROM range(${from}, ${to}))`;
        await table.append(rows(0, 10));
        const live = await table.live();
        const target = [...live.dataFiles()].find(({ partition: [part] }) => part === 'p0')!;
        await table.commit([], await table.writeDeletes([[target.path, 1]]));
        const { metadata } = await witness.ask<{ metadata: string }>('write_table', {
          folder,
          name: 'in_turn',
          metadata: table.metadataLocation,
          steps: [{ append: [{ id: '100', part: null }] }, { delete: 'id = 1' }],
        });
        table.metadata = await metadataAt(metadata);
        await table.append(rows(200, 203));
        const answer = await read(table);
        const ids = answer.rows.map(({ id }) => Number(id)).sort((a, b) => a - b);
        expect(ids).toEqual([0, 3, 4, 5, 6, 7, 8, 9, 100, 200, 201, 202]);
        expect(answer.manifests).toEqual(await dumpManifests(table.store, table.metadata));
        expect(answer.summary).toMatchObject({ 'total-position-deletes': '1' });
      },
    );
  });

  it('with files that know no field ids are searched by name', async () => {
    const { metadata } = await witness.ask<{ metadata: string }>('write_table', {
      folder,
      name: 'named',
      schema: {
        type: 'struct',
        'schema-id': 0,
        'identifier-field-ids': [],
        fields: [
          { id: 1, name: 'key', required: false, type: 'long' },
          { id: 2, name: 'other', required: false, type: 'string' },
        ],
      },
      steps: [
        { append: [{ key: '1', other: 'a' }] },
        { add_files: [{ other: ['b', 'c'], key: [2, 3] }] },
        { rename: ['key', 'id'] },
      ],
    });
    const ours = await metadataAt(metadata);
    const database = await openDatabase(folder, 256 * 1024 * 1024);
    const finder = await TableFinder.open({
      folder,
      database,
      metadata: ours,
      schema: currentSchema(ours),
      keyIds: [1],
      store,
    });
    try {
      const found = await finder.rows(await finder.find('(SELECT range AS id FROM range(5))', 'id'));
      expect(found.map(({ key, position }) => [key, position]).sort()).toEqual([
        [1, 0],
        [2, 0],
        [3, 1],
      ]);
    } finally {
      finder.close();
      database.close();
    }
  });
});

describe('metadata', () => {
  it('that updates make is that of pyiceberg', async () => {
    const fields = [{ id: 1, name: 'id', required: true, type: 'long' as const }];
    await withTable({ fields, key: ['id'] }, async (table) => {
      await table.append('(SELECT 1 AS id)');
      const attempt = await table.rebase(await table.prepare(await table.write('(SELECT 2 AS id)')));
      const tag = table.metadata['current-snapshot-id']!;
      const schema: Schema = {
        type: 'struct',
        'schema-id': 1,
        'identifier-field-ids': [1],
        fields: [...fields, { id: 2, name: 'more', required: false, type: 'decimal(9,2)' }],
      };
      const updates: TableUpdate[] = [
        ...attempt.updates,
        {
          action: 'set-snapshot-ref',
          'ref-name': 'a "tag"',
          type: 'tag',
          'snapshot-id': tag,
          'max-ref-age-ms': 5,
        },
        { action: 'add-schema', schema },
        { action: 'set-current-schema', 'schema-id': -1 },
        {
          action: 'add-spec',
          spec: {
            'spec-id': 1,
            fields: [{ 'source-id': 2, 'field-id': 1000, name: 'p', transform: 'truncate[10]' }],
          },
        },
        { action: 'set-default-spec', 'spec-id': -1 },
        {
          action: 'add-sort-order',
          'sort-order': {
            'order-id': 1,
            fields: [{ 'source-id': 1, transform: 'identity', direction: 'asc', 'null-order': 'nulls-last' }],
          },
        },
        { action: 'set-default-sort-order', 'sort-order-id': -1 },
        { action: 'set-properties', updates: { a: 'b', c: 'd' } },
        { action: 'remove-properties', removals: ['a'] },
        { action: 'set-location', location: 's3://elsewhere' },
      ];
      const text = await witness.ask<string>('apply_updates', {
        metadata: formatTableMetadata(table.metadata),
        updates: printJson(updates),
      });
      const theirs = parseTableMetadata(parseJson(text));
      const ours = applyUpdates(table.metadata, updates, Date.now());
      // Times of their own.
      const timeless = (metadata: TableMetadata) => ({
        ...metadata,
        'last-updated-ms': 0,
        'snapshot-log': metadata['snapshot-log'].map((entry) => entry['snapshot-id']),
      });
      expect(timeless(ours)).toEqual(timeless(theirs));
      expect(ours.refs.main!['snapshot-id']).toBe(attempt.snapshot['snapshot-id']);
    });
  });
});

it('snappy blocks are unpacked', async () => {
  const r = random();
  for (const length of [0, 1, 59, 60, 61, 300, 70_000, 300_000]) {
    const word = Buffer.from(Array.from({ length: 1 + r.integer(2000) }, () => r.integer(256)));
    const bytes = Buffer.alloc(length, r.next() < 0.8 ? word : 7);
    const packed = Buffer.from(
      await witness.ask<string>('compress', { codec: 'snappy', bytes: bytes.toString('hex') }),
      'hex',
    );
    expect(unpackSnappy(packed).equals(bytes), `seed ${r.seed}, ${length}`).toBe(true);
    if (packed.length > 4) expect(() => unpackSnappy(packed.subarray(0, -1))).toThrow(RangeError);
  }
});
