import { execFileSync, spawnSync } from 'node:child_process';
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { connect, createServer } from 'node:tls';
import pg from 'pg';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { editDistance } from '../../src/platform/configuration/problems.ts';
import {
  formatBytes,
  formatDuration,
  parseBytes,
  parseDuration,
} from '../../src/platform/configuration/scalars.ts';
import { resolveTls, type TlsSettings } from '../../src/platform/configuration/tls.ts';
import { clientConfig, endpointFromUrl, parsePostgresUrl } from '../../src/platform/postgres-endpoint.ts';

describe('Postgres URLs', () => {
  test('every part, percent-decoded', () => {
    expect(
      parsePostgresUrl(
        'postgresql://u%40x:p%2F%3A%40%20+@[::1]:6432/my%20db?sslmode=verify-ca&sslrootcert=%2Fca',
      ),
    ).toEqual({
      host: '::1',
      port: 6432,
      database: 'my db',
      user: 'u@x',
      password: 'p/:@ +',
      tls: { mode: 'verify-ca', ca: '/ca', cert: null, key: null, passphrase: null, serverName: null },
    });
  });

  test.each([
    ['postgres://u:p@/db?host=/var/run/pg', '/var/run/pg'],
    ['postgres://u:p@%2Fvar%2Frun%2Fpg/db', '/var/run/pg'],
    ['postgres:///db?host=/tmp&user=u', '/tmp'],
    ['postgres://u@h', 'h'],
    ['postgres://u@', null],
  ])('the host of %s', (url, host) => {
    expect(parsePostgresUrl(url)).toMatchObject({ host, user: 'u' });
  });

  test.each([
    ['mysql://u:sekret@h/d', /form postgres/],
    ['postgres://u:sek@ret@h/d', /not one host/],
    ['postgres://u:sekret@h1,h2/d', /not one host/],
    ['postgres://u:sekret@h?host=a,b', /more than one host/],
    ['postgres://u:sekret%@h/d', /broken %-escape in its password/],
    ['postgres://u:sekret@h:99999/d', /port/],
    ['postgres://u:sekret@h:0/d', /port/],
    ['postgres://u:sekret@h:abc/d', /not one host/],
    ['postgres://u:sekret@h/d?sslmode=prefer', /sslmode other than/],
    ['postgres://u:sekret@h/d?sekret=1', /parameter other than host, port/],
    ['postgres://u:sekret@h/d?user=a&user=b', /parameter user twice/],
    ['postgres://u:sekret@h/d%00', /zero byte/],
    ['sekret', /form postgres/],
  ])('%s is refused without being repeated', (url, expected) => {
    const parse = () => parsePostgresUrl(url);
    expect(parse).toThrow(expected);
    expect(parse).not.toThrow(/sekret|sek@ret/);
  });

  test('a whole endpoint, its database named after the user', async () => {
    expect(await endpointFromUrl('postgres://u@127.0.0.1')).toEqual({
      host: '127.0.0.1',
      port: 5432,
      database: 'u',
      user: 'u',
      password: null,
      tls: false,
    });
    expect(await endpointFromUrl('postgres://u@h')).toMatchObject({ tls: { rejectUnauthorized: true } });
    await expect(endpointFromUrl('postgres://h/d')).rejects.toThrow(/names no user/);
    await expect(endpointFromUrl('postgres://u@/d?host=/tmp&sslmode=require')).rejects.toThrow(
      /Unix socket has no TLS/,
    );
    await expect(endpointFromUrl('postgres://u@h?sslmode=verify-full&sslrootcert=none')).rejects.toThrow(
      /tls.ca .*does not exist/,
    );
  });
});

describe('clientConfig', () => {
  const endpoint = {
    host: '/tmp',
    port: 5432,
    database: 'd',
    user: 'u',
    password: null,
    tls: false,
  } as const;

  test('the environment and .pgpass have no say', async () => {
    const before = process.env;
    process.env = { ...before, PGPASSWORD: 'wrong', PGSSLMODE: 'require', PGHOST: 'wrong', PGUSER: 'wrong' };
    try {
      const client = new pg.Client(clientConfig(endpoint, { applicationName: 'tidemark test' }));
      expect(client).toMatchObject({ host: '/tmp', user: 'u', database: 'd', ssl: false });
      expect(await (client.password as unknown as () => string)()).toBe('');
    } finally {
      process.env = before;
    }
  });

  test("pg's changes to the TLS object do not reach the endpoint", () => {
    const secured = { ...endpoint, host: 'h', tls: { key: 'k', cert: 'c' } };
    new pg.Client(clientConfig(secured, { applicationName: 'x' }));
    expect(Object.keys(secured.tls)).toContain('key');
    const { ssl, statement_timeout } = clientConfig(secured, { applicationName: 'x', statementTimeoutMs: 5 });
    expect(ssl).toEqual({ key: 'k', cert: 'c' });
    expect(statement_timeout).toBe(5);
  });
});

const hasOpenssl = spawnSync('openssl', ['version']).status === 0;

describe.skipIf(!hasOpenssl)('TLS', () => {
  let folder: string;
  const at = (name: string): string => join(folder, name);
  const settings = (some: Partial<TlsSettings>): TlsSettings => ({
    mode: 'verify-full',
    ca: null,
    cert: null,
    key: null,
    passphrase: null,
    serverName: null,
    ...some,
  });

  beforeAll(async () => {
    folder = await mkdtemp(join(tmpdir(), 'tidemark-tls-'));
    const certificate = (name: string, subject: string, ...more: string[]) =>
      execFileSync(
        'openssl',
        [
          'req',
          '-x509',
          '-newkey',
          'ec',
          '-pkeyopt',
          'ec_paramgen_curve:P-256',
          '-days',
          '2',
          '-subj',
          `/CN=${subject}`,
          '-addext',
          `subjectAltName=DNS:${subject}`,
          '-keyout',
          at(`${name}.key`),
          '-out',
          at(`${name}.crt`),
          ...more,
        ],
        { stdio: 'ignore' },
      );
    certificate('server', 'db.internal', '-nodes');
    certificate('client', 'client', '-passout', 'pass:hush');
    await writeFile(at('broken.crt'), '-----BEGIN CERTIFICATE-----\nsekret\n-----END CERTIFICATE-----\n');
  });
  afterAll(() => rm(folder, { recursive: true }));

  async function faults(some: Partial<TlsSettings>): Promise<string[]> {
    const found: string[] = [];
    await resolveTls(settings(some), (setting, text) => found.push(`${setting} ${text}`));
    return found;
  }

  test('each mode checks what it says, against a real server', async () => {
    const server = createServer({
      key: await readFile(at('server.key')),
      cert: await readFile(at('server.crt')),
    });
    server.on('tlsClientError', () => {});
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
    const { port } = server.address() as AddressInfo;
    const handshake = async (some: Partial<TlsSettings>): Promise<string> => {
      const options = await resolveTls(settings(some), (setting, text) => {
        throw new Error(`${setting} ${text}`);
      });
      if (options === false) return 'plain';
      return new Promise((resolve) => {
        // servername as pg sets it, whatever the options say.
        const socket = connect({ host: '127.0.0.1', port, ...options, servername: 'localhost' }, () => {
          socket.destroy();
          resolve('connected');
        });
        socket.on('error', (error: NodeJS.ErrnoException) => resolve(error.code ?? error.message));
      });
    };
    const ca = at('server.crt');
    expect(await handshake({ mode: 'disable' })).toBe('plain');
    expect(await handshake({ mode: 'require' })).toBe('connected');
    expect(await handshake({ mode: 'require', ca: at('client.crt') })).toMatch(/SELF_SIGNED|UNABLE/);
    expect(await handshake({ mode: 'verify-ca' })).toMatch(/SELF_SIGNED|UNABLE/);
    expect(await handshake({ mode: 'verify-ca', ca })).toBe('connected');
    expect(await handshake({ mode: 'verify-full', ca })).toBe('ERR_TLS_CERT_ALTNAME_INVALID');
    expect(await handshake({ mode: 'verify-full', ca, serverName: 'db.internal' })).toBe('connected');
    expect(await handshake({ mode: 'verify-full', ca, serverName: 'other.internal' })).toBe(
      'ERR_TLS_CERT_ALTNAME_INVALID',
    );
    server.close();
  });

  test('a client certificate with a passphrase', async () => {
    const client = { cert: at('client.crt'), key: at('client.key') };
    expect(await faults({ ...client, passphrase: 'hush' })).toEqual([]);
    expect(await faults({ ...client, passphrase: 'sekret' })).toEqual([
      'key does not fit tls.cert, or tls.key.passphrase is wrong',
    ]);
    expect(await faults({ cert: at('client.crt'), key: at('server.key') })).toEqual([
      'key does not fit tls.cert, or tls.key.passphrase is wrong',
    ]);
  });

  test('settings that would do nothing or cannot work', async () => {
    expect(await faults({ mode: 'disable', ca: at('server.crt'), serverName: 'x' })).toHaveLength(2);
    expect(await faults({ cert: at('client.crt') })).toEqual([expect.stringMatching(/^key is missing/)]);
    expect(await faults({ passphrase: 'x' })).toEqual(['key.passphrase is set without tls.key']);
    expect(await faults({ ca: at('none') })).toEqual(['ca the file cannot be read: it does not exist']);
    expect(await faults({ ca: at('server.key') })).toEqual([
      expect.stringMatching(/no PEM block "CERTIFICATE"/),
    ]);
    expect((await faults({ ca: at('broken.crt') })).join()).toBe('ca the file has a broken certificate');
  });
});

describe('durations, sizes, distances', () => {
  test('what is written comes back', () => {
    for (const text of ['500ms', '2s', '15m', '1h', '7d'])
      expect(formatDuration(parseDuration(text)!)).toBe(text);
    for (const text of ['1', '64MiB', '1GiB', '3TiB']) expect(formatBytes(parseBytes(text)!)).toBe(text);
    expect(parseBytes('1 KiB')).toBe(1024);
  });

  test.each(['', '5', '1.5s', '-1s', '1S', '1 s', 's', '1e3ms', '999999999999999d', '١s'])(
    '%j is no duration',
    (text) => {
      expect(parseDuration(text)).toBeNull();
    },
  );

  test.each(['', '1.5MiB', '-1', '1MB', '1mib', '0x10', '999999999999999TiB'])('%j is no size', (text) => {
    expect(parseBytes(text)).toBeNull();
  });

  test('a swap of neighbours is one edit', () => {
    expect(editDistance('slto', 'slot')).toBe(1);
    expect(editDistance('kitten', 'sitting')).toBe(3);
    expect(editDistance('', 'ab')).toBe(2);
  });
});
