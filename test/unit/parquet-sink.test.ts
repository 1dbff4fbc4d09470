/** The Parquet sink's pure parts: names, types and Postgres' spelling of floats. */
import { describe, expect, it } from 'vitest';
import { sha256 } from '../../connectors/object-log/change-row.ts';
import { assignFields } from '../../connectors/object-log/fields.ts';
import { tableFolder, tenantSegment } from '../../connectors/object-log/layout.ts';
import { postgresFloat } from '../../connectors/object-log/postgres-float.ts';
import { classifyS3 } from '../../connectors/object-log/s3-failure.ts';
import { storageOf } from '../../connectors/object-log/storage.ts';
import { fitsNatively } from '../../connectors/sinks/parquet/fits-natively.ts';
import { parquetOptionsFrom } from '../../connectors/sinks/parquet/options.ts';

describe('names of objects', () => {
  const hostile = [
    'a/../b',
    '..',
    '.',
    '',
    null,
    undefined,
    '__none__',
    '__null__',
    '__empty__',
    'a=b',
    'A',
    'a',
    '%2F',
    '/',
    'é',
    '\u{1F600}',
    'x'.repeat(300),
    `${'x'.repeat(299)}y`,
    'ü'.repeat(100),
  ];

  it('a tenant is one safe path segment, and no two tenants share one', () => {
    const segments = hostile.map((tenant) => tenantSegment(tenant, sha256));
    for (const segment of segments) expect(segment).toMatch(/^[A-Za-z0-9_%~-]{1,180}$/);
    expect(new Set(segments).size).toBe(hostile.length);
  });

  it('a table is one path segment', () => {
    expect(tableFolder('public.findings')).toBe('public.findings');
    expect(tableFolder('../x./etc')).toBe('%2E.%2Fx.%2Fetc');
    expect(tableFolder('a b.*')).toBe('a%20b.%2A');
  });
});

describe('types', () => {
  it.each([
    ['numeric(12,2)', 'DECIMAL(12,2)'],
    ['numeric(5,5)', 'DECIMAL(6,5)'],
    ['numeric(38,0)', 'DECIMAL(38,0)'],
    ['numeric(38,38)', 'VARCHAR'],
    ['numeric(39,0)', 'VARCHAR'],
    ['numeric(5,-2)', 'VARCHAR'],
    ['numeric', 'VARCHAR'],
    ['timestamp(3) with time zone', 'TIMESTAMPTZ'],
    ['timestamp without time zone', 'TIMESTAMP'],
    ['time without time zone', 'VARCHAR'],
    ['integer[]', 'VARCHAR'],
    ['app.severity', 'VARCHAR'],
  ])('%s is %s', (type, expected) => {
    expect(storageOf(type).duckdbType).toBe(expected);
  });

  it.each([
    ['numeric(4,1)', '999.9', true],
    ['numeric(4,1)', '-999.9', true],
    ['numeric(4,1)', '1000.0', false],
    ['numeric(4,1)', '1.25', false],
    ['numeric(4,1)', '1', false],
    ['numeric(4,0)', '1.0', false],
    ['numeric(4,1)', 'NaN', false],
    ['numeric(4,0)', 'Infinity', false],
    ['numeric(4,0)', '-Infinity', false],
    ['double precision', '-0', false],
    ['double precision', 'NaN', true],
    ['date', '0001-01-01', true],
    ['date', '0001-01-01 BC', false],
    ['date', '10000-01-01', false],
    ['date', '-infinity', false],
    ['timestamp with time zone', '2026-01-01 00:00:00+00', true],
    ['timestamp with time zone', 'infinity', false],
    ['timestamp with time zone', '0044-03-15 12:00:00+00 BC', false],
  ])('%s %s is native: %s', (type, value, expected) => {
    expect(fitsNatively(storageOf(type), value, 'duckdb')).toBe(expected);
  });
});

it('fields are unique whatever the case, stable, and never given to another column', () => {
  const columns = (...names: string[]) => ({
    columns: names.map((name) => ({ name, type: 'text', key: false, nullable: true })),
  });
  const first = assignFields(columns('a', 'A', 'a~2', '_OP'), []);
  expect(first.map(({ field }) => field)).toEqual(['a', 'A~3', 'a~2', '_OP~2']);
  const later = assignFields(columns('A', 'A~3', 'x'), first);
  expect(later.slice(0, 4).map(({ name, field }) => [name, field])).toEqual(
    first.map(({ name, field }) => [name, field]),
  );
  expect(later.slice(4).map(({ field }) => field)).toEqual(['A~3~2', 'x']);
});

describe('floats as Postgres 18 prints them', () => {
  it.each([
    [0, '0'],
    [-0, '-0'],
    [1e20, '1e+20'],
    [1e-5, '1e-05'],
    [0.0001, '0.0001'],
    [1e14, '100000000000000'],
    [1e15, '1e+15'],
    [123456789012345, '123456789012345'],
    [9007199254740992, '9.007199254740992e+15'],
    [5e-324, '5e-324'],
    [-1.5, '-1.5'],
    [Number.NaN, 'NaN'],
    [-Infinity, '-Infinity'],
    // JavaScript prints 3.055720919218599e+16: exactly halfway to a neighbour, which Postgres does not accept.
    [3.0557209192185992e16, '3.0557209192185992e+16'],
  ])('double precision %d', (value, expected) => {
    expect(postgresFloat(value, 'double')).toBe(expected);
  });

  it.each([
    [999999, '999999'],
    [1e6, '1e+06'],
    [0.1, '0.1'],
    [1234567, '1.234567e+06'],
    [16777216, '1.6777216e+07'],
    [1.17549435e-38, '1.1754944e-38'],
    [3.4028235e38, '3.4028235e+38'],
    [1e-45, '1e-45'],
    // A tie goes to the even digit; below a power of two the nearest decimal may be out of reach.
    [227195.125, '227195.12'],
    [39918.8125, '39918.812'],
    [2 ** -96, '1.2621775e-29'],
    [2 ** 87, '1.5474251e+26'],
  ])('real %d', (value, expected) => {
    expect(postgresFloat(Math.fround(value), 'real')).toBe(expected);
  });
});

describe('options', () => {
  it.each([
    ['ftp://x', 'parquet.url'],
    ['file://relative', 'parquet.url'],
    ['file:///a*b', 'parquet.url'],
    ['s3://Bad_Bucket/x', 'parquet.url'],
  ])('%s is refused by name', (url, key) => {
    expect(() => parquetOptionsFrom({ 'parquet.url': url })).toThrow(key);
  });

  it('parquetjs cannot write zstd', () => {
    const values = { 'parquet.url': 'file:///x', 'parquet.encoder': 'parquetjs' };
    expect(parquetOptionsFrom(values).compression).toBe('snappy');
    expect(() => parquetOptionsFrom({ ...values, 'parquet.compression': 'zstd' })).toThrow('zstd');
  });
});

it.each([
  ['AccessDenied', 403, 'TM402'],
  ['NoSuchBucket', 404, 'TM402'],
  ['SlowDown', 503, 'TM401'],
  ['InternalError', 500, 'TM401'],
  ['TimeoutError', undefined, 'TM401'],
  ['PermanentRedirect', 301, 'TM101'],
  ['TooManyRequests', 429, 'TM401'],
  ['NotImplemented', 405, 'TM402'],
])('S3 %s (%s) is %s', (name, httpStatusCode, code) => {
  const error = Object.assign(new Error('secret body'), { name, $metadata: { httpStatusCode } });
  const failure = classifyS3(error, 'write x', 'parquet.url');
  expect(failure.code).toBe(code);
  expect(failure.message).not.toContain('secret body');
});
