/** Data files of the Iceberg sink: partitions, order, sizes, names, and statistics that are true of every value. */
import { stat } from 'node:fs/promises';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { quoteText } from '../../connectors/object-log/sql-text.ts';
import { fromDuckdb } from '../../connectors/sinks/iceberg/files/duckdb-values.ts';
import { metricsModes } from '../../connectors/sinks/iceberg/files/metrics-mode.ts';
import { partitionValue } from '../../connectors/sinks/iceberg/files/partition-sql.ts';
import { type WrittenFile, writeDataFiles } from '../../connectors/sinks/iceberg/files/write-data-files.ts';
import { literal } from '../../connectors/sinks/iceberg/plan/read-columns.ts';
import { parseSchema } from '../../connectors/sinks/iceberg/spec/schema.ts';
import { compareValues, valueFromBytes } from '../../connectors/sinks/iceberg/spec/single-value.ts';
import {
  applyTransform,
  canTransform,
  parseTransform,
  transformedType,
} from '../../connectors/sinks/iceberg/spec/transforms.ts';
import type { PrimitiveType, Value } from '../../connectors/sinks/iceberg/spec/types.ts';
import { LocalTable, type LocalTableOptions } from '../iceberg/local-table.ts';
import { randomText, randomValue, valueText, valueTypes } from '../iceberg/values.ts';
import { type Random, random } from './deliver-random.ts';

const types = valueTypes.filter((type) => !type.startsWith('fixed'));
let table: LocalTable;
afterEach(() => table.remove());

async function query(sql: string): Promise<(Value | null)[][]> {
  const result = await table.database.connection.runAndReadAll(sql);
  return result.getRows().map((row) => row.map(fromDuckdb));
}

/** SQL of the value, of the type's own kind in DuckDB. */
function typed(type: PrimitiveType, value: Value | null): string {
  const names: Record<string, string> = { int: 'INTEGER', long: 'BIGINT', string: 'VARCHAR', binary: 'BLOB' };
  const name = type === 'float' ? 'FLOAT' : (names[type] ?? type.toUpperCase());
  return `CAST(${value === null ? 'NULL' : literal(type, value)} AS ${name})`;
}

/** Dates and times that DuckDB can hold. */
function drawn(r: Random, type: PrimitiveType): Value {
  for (;;) {
    const value = randomValue(r, type);
    const days =
      type === 'date'
        ? BigInt(value as number)
        : type.startsWith('timestamp')
          ? (value as bigint) / 86_400_000_000n
          : 0n;
    if (days > -2_000_000n && days < 2_000_000n) return value;
  }
}

describe('partition values in SQL', () => {
  beforeEach(async () => {
    table = await LocalTable.create({ fields: [{ id: 1, name: 'x', required: false, type: 'int' }] });
  });

  it('are those of the transforms', async () => {
    const r = random();
    const names = [
      'identity',
      'bucket[7]',
      'truncate[3]',
      'truncate[50]',
      'year',
      'month',
      'day',
      'hour',
      'void',
    ];
    for (const type of types) {
      const values = [null, ...Array.from({ length: 40 }, () => drawn(r, type))];
      const relation = `(VALUES ${values.map((value, index) => `(${index}, ${typed(type, value)})`).join(', ')}) AS v(n, x)`;
      for (const name of names) {
        const transform = parseTransform(name);
        if (!canTransform(transform, type)) continue;
        const resultType = transformedType(transform, type);
        const field = { id: 1000, name, sourceId: 1, sourceType: type, transform, resultType };
        const sql = partitionValue(table.database.connection, field, 'x');
        const rows = await query(`SELECT n, ${sql} FROM ${relation} ORDER BY n`);
        for (const [index, [, result]] of rows.entries()) {
          const expected = applyTransform(transform, type, values[index]!);
          const context = `seed ${r.seed}: ${name} of ${type} ${valueText(type, values[index]!)}`;
          expect(valueText(resultType, result!), context).toBe(valueText(resultType, expected));
        }
      }
    }
  });
});

const keyed: LocalTableOptions = {
  fields: [
    { id: 1, name: 'id', required: true, type: 'long' },
    { id: 2, name: 'part', required: false, type: 'string' },
    { id: 3, name: 'text', required: false, type: 'string' },
  ],
  key: ['id'],
  partitionBy: [{ 'source-id': 2, 'field-id': 1000, name: 'part', transform: 'identity' }],
};

function local({ localPath }: WrittenFile): string {
  return quoteText(localPath);
}

describe('data files', () => {
  it('hold one partition, null too, sorted by key, and end at about the target size', async () => {
    table = await LocalTable.create({ ...keyed, targetFileBytes: 30_000, rowGroupRows: 2048 });
    const parts = `[NULL, '', 'null', 'a/b', '..', 'é'][range % 6 + 1]`;
    const files = await table.write(
      `(SELECT (range * 7919) % 60000 AS id, ${parts} AS part, md5(range::VARCHAR) AS text FROM range(60000))`,
    );
    const byPart = Map.groupBy(files, ({ file }) => file.partition[0]!);
    expect([...byPart.keys()].sort()).toEqual(['', '..', 'a/b', 'null', 'é', null].sort());
    for (const [part, own] of byPart) {
      expect(own.length).toBeGreaterThan(2);
      for (const written of own) {
        expect(written.file.file_size_in_bytes).toBeLessThan(200_000);
        const [row] = await query(
          `SELECT count(*), count(*) FILTER (part IS DISTINCT FROM ${part === null ? 'NULL' : quoteText(String(part))}),
             count(*) FILTER (id < before) FROM (SELECT *, lag(id) OVER () AS before FROM read_parquet(${local(written)}))`,
        );
        expect(row).toEqual([BigInt(written.file.record_count), 0n, 0n]);
      }
    }
    expect(files.reduce((sum, { file }) => sum + file.record_count, 0)).toBe(60_000);
    const segments = files.map(({ file }) => file.file_path.slice(table.metadata.location.length));
    for (const segment of segments)
      expect(segment).toMatch(/^\/data\/part-[A-Za-z0-9_.-]*\/[0-9a-f-]{36}\.parquet$/);
  });

  it('have hostile names by field id', async () => {
    const names = [
      `it's`,
      'say "x"',
      'a.b',
      'A',
      'a',
      '__proto__',
      'select',
      '{x: 1}',
      'ünï\u{1F600}',
      ' ',
      '*',
      'x'.repeat(300),
    ];
    table = await LocalTable.create({
      fields: names.map((name, index) => ({ id: index + 1, name, required: false, type: 'int' as const })),
    });
    const columns = names.map((_, index) => `${index} AS c${index + 1}`).join(', ');
    const [written] = await writeDataFiles(
      table.database.connection,
      `(SELECT ${columns})`,
      table.dataFileTable(),
      table.settings(),
      ({ id }) => `c${id}`,
    );
    const schema = `MAP {${names.map((_, i) => `${i + 1}: {name: 'c${i}', type: 'INTEGER', default_value: NULL}`).join(', ')}}`;
    expect(await query(`SELECT * FROM read_parquet(${local(written!)}, schema = ${schema})`)).toEqual([
      names.map((_, index) => index),
    ]);
    const written2 = await query(
      `SELECT name FROM parquet_schema(${local(written!)}) WHERE field_id IS NOT NULL`,
    );
    expect(written2.map(([name]) => name)).toEqual(names.map((name) => (name === 'a' ? 'a~5' : name)));
    for (const [index] of names.entries()) {
      expect(valueFromBytes('int', written!.file.lower_bounds!.get(index + 1)!)).toBe(index);
    }
  });

  it('have plain integers, as the specification has them, and are as long as they say', async () => {
    const kinds = ['int', 'long', 'date', 'string', 'decimal(9,2)', 'timestamptz'] as const;
    table = await LocalTable.create({
      fields: kinds.map((type, index) => ({ id: index + 1, name: `c${index}`, required: false, type })),
      rowGroupRows: 2048,
    });
    const columns = kinds
      .map((type, index) => `${typed(type, drawn(random(), type))} AS c${index}`)
      .join(', ');
    const [written] = await table.write(`(SELECT ${columns} FROM range(10000))`);
    const marks = await query(
      `SELECT name, converted_type FROM parquet_schema(${local(written!)}) WHERE field_id IS NOT NULL ORDER BY column_id`,
    );
    expect(marks.map(([, mark]) => mark)).toEqual([
      null,
      null,
      'DATE',
      'UTF8',
      'DECIMAL',
      'TIMESTAMP_MICROS',
    ]);
    expect((await stat(written!.localPath)).size).toBe(written!.file.file_size_in_bytes);
    expect(await query(`SELECT count(*) FROM (SELECT * FROM read_parquet(${local(written!)})) t`)).toEqual([
      [10_000n],
    ]);
  });

  it('hold nested columns of a stranger as null', async () => {
    const { fields } = parseSchema(
      {
        type: 'struct',
        fields: [
          { id: 1, name: 'id', required: false, type: 'int' },
          {
            id: 2,
            name: 'tags',
            required: false,
            type: { type: 'list', 'element-id': 3, 'element-required': false, element: 'string' },
          },
          {
            id: 4,
            name: 'place',
            required: false,
            type: { type: 'struct', fields: [{ id: 5, name: 'x "y"', required: false, type: 'double' }] },
          },
          {
            id: 6,
            name: 'notes',
            required: false,
            type: {
              type: 'map',
              'key-id': 7,
              key: 'string',
              'value-id': 8,
              'value-required': false,
              value: 'long',
            },
          },
        ],
      },
      'schema',
    );
    table = await LocalTable.create({ fields });
    const [written] = await writeDataFiles(
      table.database.connection,
      '(SELECT 7 AS id)',
      table.dataFileTable(),
      table.settings(),
      ({ name }) => (name === 'id' ? 'id' : null),
    );
    const ids = await query(
      `SELECT field_id FROM parquet_schema(${local(written!)}) WHERE field_id IS NOT NULL`,
    );
    expect(ids.map(([id]) => Number(id))).toEqual([1, 2, 3, 4, 5, 6, 7, 8]);
    expect(
      await query(
        `SELECT id, tags IS NULL, place IS NULL, notes IS NULL FROM read_parquet(${local(written!)})`,
      ),
    ).toEqual([[7, true, true, true]]);
    expect([...written!.file.value_counts!.keys()]).toEqual([1]);
  });
});

describe('statistics', () => {
  it('are true of every value, at random', async () => {
    const r = random();
    table = await LocalTable.create({
      fields: types.map((type, index) => ({ id: index + 1, name: `c${index}`, required: false, type })),
    });
    for (let run = 0; run < 25; run += 1) {
      const context = `seed ${r.seed}, run ${run}`;
      const rows = Array.from({ length: 1 + r.integer(30) }, () =>
        types.map((type) => {
          if (r.next() < 0.15) return null;
          if (type === 'string' && r.next() < 0.3) return randomText(r, 20).repeat(r.pick([1, 20, 300]));
          if (type === 'double' && r.next() < 0.2) return Number.NaN;
          return drawn(r, type);
        }),
      );
      const tuples = rows.map(
        (row) => `(${row.map((value, index) => typed(types[index]!, value)).join(', ')})`,
      );
      const names = types.map((_, index) => `c${index}`).join(', ');
      const [written] = await table.write(`(VALUES ${tuples.join(', ')}) AS rows(${names})`);
      const { file } = written!;
      expect(file.record_count, context).toBe(rows.length);
      for (const [index, type] of types.entries()) {
        const id = index + 1;
        const what = `${context}, ${type}`;
        const values = rows.map((row) => row[index]!).filter((value) => value !== null);
        const numbers = values.filter((value) => !Number.isNaN(value));
        expect(file.value_counts!.get(id), what).toBe(rows.length);
        expect(file.null_value_counts!.get(id), what).toBe(rows.length - values.length);
        const float = type === 'float' || type === 'double';
        expect(file.nan_value_counts!.get(id), what).toBe(float ? values.length - numbers.length : undefined);
        const [lower, upper] = [file.lower_bounds!.get(id), file.upper_bounds!.get(id)];
        expect(lower !== undefined, what).toBe(numbers.length > 0);
        for (const value of numbers) {
          expect(compareValues(type, valueFromBytes(type, lower!), value), what).toBeLessThanOrEqual(0);
          if (upper)
            expect(compareValues(type, valueFromBytes(type, upper), value), what).toBeGreaterThanOrEqual(0);
        }
        const bound = upper === undefined ? null : valueFromBytes(type, upper);
        if (typeof bound === 'string') {
          expect(type === 'uuid' || [...bound].length <= 16, what).toBe(true);
        } else if (bound instanceof Uint8Array) expect(bound.length, what).toBeLessThanOrEqual(16);
        else if (numbers.length > 0 && type !== 'string' && type !== 'binary') {
          // Not wider than they must be, but for zeros.
          const same = (one: Value) => numbers.some((value) => value === one);
          expect(same(valueFromBytes(type, lower!)) && same(bound!), what).toBe(true);
        }
      }
    }
  });

  it('of texts that are alike for hundreds of characters', async () => {
    table = await LocalTable.create(keyed);
    const long = 'é'.repeat(5000);
    const [written] = await table.write(
      `(SELECT range AS id, 'p' AS part, ${quoteText(long)} || range AS text FROM range(3))`,
    );
    const { lower_bounds: lower, upper_bounds: upper } = written!.file;
    expect(Buffer.from(lower!.get(3)!).toString()).toBe('é'.repeat(16));
    expect(Buffer.from(upper!.get(3)!).toString()).toBe(`${'é'.repeat(15)}ê`);
  });
});

describe('position delete files', () => {
  it('are sorted by path and position, and have the specification’s field ids and whole bounds', async () => {
    table = await LocalTable.create(keyed);
    const long = `part/${'x'.repeat(400)}`;
    const written = await table.append(
      `(SELECT range AS id, ${quoteText(long)} || range % 2 AS part, '' AS text FROM range(10))`,
    );
    const rows = written.flatMap(({ file }) =>
      [4, 0, 2].map((position) => [file.file_path, position] as const),
    );
    const targets = written.map(({ file }) => ({
      path: file.file_path,
      specId: 0,
      partition: [],
      fields: [],
    }));
    const [deletes] = await table.writeDeletesOf(targets, rows, 'partition');
    const found = await query(`SELECT file_path, pos FROM read_parquet(${local(deletes!)})`);
    const sorted = [...rows].sort(([a, i], [b, j]) => (a < b ? -1 : a > b ? 1 : i - j));
    expect(found).toEqual(sorted.map(([path, position]) => [path, BigInt(position)]));
    const ids = await query(
      `SELECT name, field_id FROM parquet_schema(${local(deletes!)}) WHERE field_id IS NOT NULL`,
    );
    expect(ids.map(([name, id]) => [name, Number(id)])).toEqual([
      ['file_path', 2147483546],
      ['pos', 2147483545],
    ]);
    const paths = written.map(({ file }) => file.file_path).sort();
    expect(Buffer.from(deletes!.file.lower_bounds!.get(2147483546)!).toString()).toBe(paths[0]);
    expect(Buffer.from(deletes!.file.upper_bounds!.get(2147483546)!).toString()).toBe(paths[1]);
  });
});

describe('metrics modes', () => {
  const fields = ['a', 'b', 'c', '__proto__'].map((name, index) => ({
    id: index + 1,
    name,
    required: false,
    type: 'string' as const,
  }));
  beforeEach(async () => {
    table = await LocalTable.create({ fields });
  });
  const modes = (properties: Record<string, string>, needed: number[] = []) =>
    [...metricsModes(fields, properties, new Set(needed)).values()].map((mode) =>
      mode.kind === 'truncate' ? mode.width : mode.kind,
    );

  it.each([
    [{}, [], [16, 16, 16, 16]],
    [{ 'write.metadata.metrics.max-inferred-column-defaults': '2' }, [4], [16, 16, 'none', 16]],
    [{ 'write.metadata.metrics.default': 'counts' }, [2], ['counts', 16, 'counts', 'counts']],
    [
      { 'write.metadata.metrics.default': 'full', 'write.metadata.metrics.column.b': 'none' },
      [],
      ['full', 'none', 'full', 'full'],
    ],
    [
      { 'write.metadata.metrics.column.__proto__': 'truncate(8)', 'write.metadata.metrics.default': 'what' },
      [],
      [16, 16, 16, 8],
    ],
  ] as [Record<string, string>, number[], (string | number)[]][])('of %j', (properties, needed, expected) => {
    expect(modes(properties, needed)).toEqual(expected);
  });
});
