/** The parts of the Iceberg catalog clients that need no server. */
import { describe, expect, it } from 'vitest';
import type { LoadedTable } from '../../connectors/sinks/iceberg/catalog/catalog.ts';
import {
  isObject,
  parseJson,
  printJson,
  sameLong,
} from '../../connectors/sinks/iceberg/catalog/exact-json.ts';
import {
  connectionReason,
  failureOf,
  type Subject,
} from '../../connectors/sinks/iceberg/catalog/failures.ts';
import { catalogFields, catalogFrom } from '../../connectors/sinks/iceberg/catalog/options.ts';
import { RestPaths } from '../../connectors/sinks/iceberg/catalog/rest-paths.ts';
import { retryAfterOf } from '../../connectors/sinks/iceberg/catalog/retry-after.ts';
import { storageProperties, tableAccess } from '../../connectors/sinks/iceberg/s3-access.ts';
import type { OptionField, OptionValues } from '../../src/connector/sink.ts';

describe('JSON', () => {
  it('keeps whole numbers of 64 bits', () => {
    const text =
      '{"a":9223372036854775807,"b":-9007199254740993,"c":9007199254740991,"d":[1.5,1e3,"9223372036854775807"]}';
    const value = parseJson(text);
    expect(value).toEqual({
      a: 9223372036854775807n,
      b: -9007199254740993n,
      c: 9007199254740991,
      d: [1.5, 1000, '9223372036854775807'],
    });
    expect(printJson(value)).toBe(text.replace('1e3', '1000'));
  });

  it('reads random documents as JSON.parse does where numbers are small', () => {
    for (let i = 0; i < 200; i += 1) {
      const value = {
        n: Math.random(),
        i: Math.floor(Math.random() * 2 ** 53),
        s: `${Math.random()}${'1'.repeat(20)}`,
      };
      expect(parseJson(JSON.stringify(value))).toEqual(value);
      expect(printJson(value)).toBe(JSON.stringify(value));
    }
  });

  it('compares numbers however they were read', () => {
    expect(sameLong(5, 5n)).toBe(true);
    expect(sameLong(9007199254740993n, 9007199254740992)).toBe(false);
    expect(isObject([])).toBe(false);
  });
});

it.each<[number, Subject, string, string]>([
  [409, 'commit', 'CommitConflict', 'TM401'],
  [500, 'commit', 'CommitStateUnknown', 'TM401'],
  [502, 'commit', 'CommitStateUnknown', 'TM401'],
  [503, 'commit', 'CommitStateUnknown', 'TM401'],
  [504, 'commit', 'CommitStateUnknown', 'TM401'],
  [404, 'commit', 'NoSuchTable', 'TM405'],
  [400, 'commit', 'TidemarkError', 'TM405'],
  [501, 'commit', 'TidemarkError', 'TM405'],
  [429, 'commit', 'TidemarkError', 'TM401'],
  [409, 'creation', 'TableExists', 'TM405'],
  [404, 'creation', 'NoSuchNamespace', 'TM402'],
  [409, 'namespace removal', 'NamespaceNotEmpty', 'TM405'],
  [401, 'table', 'TidemarkError', 'TM402'],
  [403, 'table', 'TidemarkError', 'TM402'],
  [419, 'table', 'TidemarkError', 'TM402'],
  [500, 'table', 'TidemarkError', 'TM401'],
  [503, 'table', 'TidemarkError', 'TM401'],
  [302, 'catalog', 'TidemarkError', 'TM101'],
  [404, 'catalog', 'TidemarkError', 'TM101'],
])('HTTP %i of a %s is %s, %s', (status, subject, name, code) => {
  const failure = failureOf({ status, type: null, retryAfterMs: 1500 }, 'it', subject);
  expect(failure.constructor.name).toBe(name);
  expect(failure.code).toBe(code);
  if (status === 429 || status >= 500) expect(failure.retryAfterMs).toBe(status === 501 ? null : 1500);
});

it('a broken connection is named by its code alone', () => {
  const error = new Error('secret', { cause: Object.assign(new Error('secret'), { code: 'ECONNRESET' }) });
  expect(connectionReason(Object.assign(error, { code: 'UND_ERR_SOCKET' }))).toBe('ECONNRESET');
  expect(connectionReason('secret')).toBe('unknown failure');
});

it('paths hold names as they are, however they are spelled', () => {
  const table = { namespace: ['a.b', 'c/d'], name: "x y%20'ü" };
  expect(new RestPaths(null).table(table)).toBe('/v1/namespaces/a.b%1Fc%2Fd/tables/x%20y%2520%27%C3%BC');
  const separated = new RestPaths('catalogs/a%3Ab c', '%2E');
  expect(separated.namespace(['a', 'b'])).toBe('/v1/catalogs/a%3Ab%20c/namespaces/a%2Eb');
  // A level with the separator in it would be two.
  expect(separated.namespace(['a.b', 'c'])).toBe('/v1/catalogs/a%3Ab%20c/namespaces/a.b%1Fc');
  expect(separated.parent(['a', 'b'])).toBe('a.b');
});

it('waits are seconds or a moment, and end', () => {
  const now = Date.parse('2026-01-01T00:00:00Z');
  expect(retryAfterOf('30', now)).toBe(30_000);
  expect(retryAfterOf('Thu, 01 Jan 2026 00:00:10 GMT', now)).toBe(10_000);
  expect(retryAfterOf('999999999', now)).toBe(3_600_000);
  for (const value of ['0', '-1', 'soon', '', undefined, ['1', '2'], 'Thu, 01 Jan 2025 00:00:10 GMT']) {
    expect(retryAfterOf(value, now)).toBeNull();
  }
});

it('of the credentials for a table those of the longest fitting prefix hold, before what is configured', () => {
  const table = {
    identifier: { namespace: ['a'], name: 't' },
    metadata: { 'format-version': 2, 'table-uuid': 'u', location: 's3://bucket/warehouse/t' },
    metadataLocation: null,
    config: { 's3.access-key-id': 'config', region: 'r' },
  };
  const credential = (prefix: string) => ({ prefix, config: { 's3.access-key-id': prefix } });
  const given = (...prefixes: string[]) =>
    storageProperties({ ...table, storageCredentials: prefixes.map(credential) });
  expect(given('s3', 's3://bucket/warehouse', 's3://bucket', 's3://other/warehouse/t/long')).toEqual({
    's3.access-key-id': 's3://bucket/warehouse',
    region: 'r',
  });
  expect(given('gs://x')).toEqual(table.config);
});

it('a table’s place and credentials are the catalog’s, and are asked for again when they end', async () => {
  const table = (key: string, config: Record<string, string> = {}): LoadedTable => ({
    identifier: { namespace: ['a'], name: 't' },
    metadata: { 'format-version': 2, 'table-uuid': 'u', location: 's3://bucket/t' },
    metadataLocation: null,
    config,
    storageCredentials: [
      {
        prefix: 's3://bucket',
        config: {
          's3.access-key-id': key,
          's3.secret-access-key': 'secret',
          's3.session-token': 'token',
          's3.session-token-expires-at-ms': '1000',
        },
      },
    ],
  });
  const configured = {
    endpoint: 'http://own',
    region: 'own',
    pathStyle: true,
    tlsCa: 'ca',
    credentials: null,
  };
  const place = {
    's3.endpoint': 'http://theirs',
    'client.region': 'theirs',
    's3.path-style-access': 'false',
  };
  const access = tableAccess(table('first', place), configured, async () => table('second'));
  expect(access).toMatchObject({
    endpoint: 'http://theirs',
    region: 'theirs',
    pathStyle: false,
    tlsCa: 'ca',
  });
  const given = { secretAccessKey: 'secret', sessionToken: 'token', expiration: new Date(1000) };
  expect(await access.credentials!()).toEqual({ accessKeyId: 'first', ...given });
  expect(await access.credentials!()).toEqual({ accessKeyId: 'second', ...given });
  const own = { ...table('x'), storageCredentials: [] };
  expect(tableAccess(own, configured, async () => own)).toEqual(configured);
});

describe('settings', () => {
  const values = (changes: OptionValues): OptionValues => {
    const defaults = Object.entries(catalogFields as Record<string, OptionField>).map(([key, field]) => [
      key,
      field.default ?? null,
    ]);
    return { ...Object.fromEntries(defaults), 'iceberg.catalog.uri': 'https://c.example/api/', ...changes };
  };
  const refusal = (changes: OptionValues) => {
    try {
      catalogFrom(values(changes));
    } catch (error) {
      return (error as Error).message;
    }
    return null;
  };

  it('resolve for each kind of credentials', () => {
    expect(catalogFrom(values({}))).toMatchObject({
      kind: 'rest',
      auth: { kind: 'none' },
      vendedCredentials: true,
    });
    const oauth2 = catalogFrom(
      values({
        'iceberg.catalog.auth': 'oauth2',
        'iceberg.catalog.oauth2.client.secret': 's',
        'iceberg.catalog.oauth2.audience': 'x',
      }),
    );
    expect(oauth2).toMatchObject({
      auth: {
        tokenUrl: new URL('https://c.example/api/v1/oauth/tokens'),
        scope: 'catalog',
        extra: { audience: 'x' },
      },
    });
    expect(catalogFrom(values({ 'iceberg.catalog.auth': 'sigv4' }))).toMatchObject({
      auth: { kind: 'sigv4', signingName: 'glue', region: 'us-east-1', credentials: null },
    });
    expect(
      catalogFrom(values({ 'iceberg.catalog.headers': ['Polaris-Realm: POLARIS', 'X: a:b'] })),
    ).toMatchObject({ headers: { 'polaris-realm': 'POLARIS', x: 'a:b' } });
    expect(
      catalogFrom(values({ 'iceberg.catalog.type': 'glue', 'iceberg.catalog.warehouse': 's3://b/w' })),
    ).toMatchObject({ kind: 'glue', warehouse: 's3://b/w' });
  });

  it('name the key that does not fit, and no value', () => {
    expect(refusal({ 'iceberg.catalog.uri': null })).toBe('iceberg.catalog.uri: is required');
    expect(refusal({ 'iceberg.catalog.uri': 'ftp://x' })).toMatch(/^iceberg.catalog.uri: /);
    expect(refusal({ 'iceberg.catalog.uri': 'http://user:hush@x' })).toMatch(
      /^iceberg.catalog.uri: must hold no/,
    );
    expect(refusal({ 'iceberg.catalog.auth': 'bearer' })).toBe('iceberg.catalog.token: is required');
    expect(refusal({ 'iceberg.catalog.auth': 'oauth2' })).toMatch(/client.secret: is required/);
    expect(
      refusal({ 'iceberg.catalog.auth': 'sigv4', 'iceberg.catalog.sigv4.access.key.id': 'hush' }),
    ).toMatch(/go together$/);
    expect(refusal({ 'iceberg.catalog.headers': ['hush'] })).toBe(
      'iceberg.catalog.headers: must be `Name: value` each',
    );
    expect(refusal({ 'iceberg.catalog.type': 'glue' })).toMatch(/warehouse: is required/);
  });
});
