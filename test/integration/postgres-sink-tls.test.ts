/** The Postgres sink over TLS: encrypted, verified, and a client certificate in place of a password. */
import { execFileSync } from 'node:child_process';
import { mkdirSync } from 'node:fs';
import { chmod, chown, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { afterAll, beforeAll, expect, test, vi } from 'vitest';
import { postgresSink } from '../../connectors/sinks/postgres/index.ts';
import type { MergeSink, Readable } from '../../src/connector/sink.ts';
import {
  context,
  failure,
  options,
  startPostgres,
  type TestServer,
  windowOf,
} from './postgres-sink-fixture.ts';

vi.setConfig({ testTimeout: 60_000 });

let server: TestServer;
let directory: string;
const file = (name: string) => path.join(directory, name);

function openssl(...args: string[]): void {
  execFileSync('openssl', args, { cwd: directory, stdio: 'pipe' });
}

function issue(name: string, subject: string, names: string): void {
  const request = ['-subj', subject, '-addext', `subjectAltName=${names}`];
  openssl(
    'req',
    '-new',
    '-newkey',
    'rsa:2048',
    '-nodes',
    ...request,
    '-keyout',
    `${name}.key`,
    '-out',
    `${name}.csr`,
  );
  const authority = ['-CA', 'ca.crt', '-CAkey', 'ca.key', '-days', '2', '-copy_extensions', 'copyall'];
  openssl('x509', '-req', '-in', `${name}.csr`, ...authority, '-out', `${name}.crt`);
}

beforeAll(async () => {
  server = await startPostgres(async (base) => {
    directory = path.join(base, 'tls');
    mkdirSync(directory);
    openssl(
      'req',
      '-x509',
      '-newkey',
      'rsa:2048',
      '-nodes',
      '-days',
      '2',
      '-subj',
      '/CN=authority',
      '-keyout',
      'ca.key',
      '-out',
      'ca.crt',
    );
    issue('server', '/CN=replica', 'DNS:localhost');
    issue('client', '/CN=certified', 'DNS:client');
    await writeFile(
      file('hba.conf'),
      'hostssl all certified all cert\nhostssl all all all scram-sha-256\nhost all postgres all scram-sha-256\n',
    );
    if (process.getuid?.() === 0) {
      // The server refuses a key that others than its own user may read.
      const id = (flag: string) => Number(execFileSync('id', [flag, 'postgres'], { encoding: 'utf8' }));
      await chown(file('server.key'), id('-u'), id('-g'));
    }
    await chmod(file('server.key'), 0o600);
    return [
      'ssl=on',
      `ssl_cert_file=${file('server.crt')}`,
      `ssl_key_file=${file('server.key')}`,
      `ssl_ca_file=${file('ca.crt')}`,
      `hba_file=${file('hba.conf')}`,
    ];
  });
}, 120_000);
afterAll(() => server.stop());

async function merge(more: Record<string, string>): Promise<unknown> {
  const database = await server.database();
  const admin = await server.connect(database);
  await admin.query(
    'DO $$BEGIN CREATE ROLE certified LOGIN; EXCEPTION WHEN duplicate_object THEN NULL; END$$',
  );
  await admin.query(`GRANT CREATE ON DATABASE ${database} TO certified`);
  await admin.end();
  const sink = (await postgresSink.open(context(), { ...options(server, database), ...more })) as MergeSink &
    Readable;
  try {
    return await sink.mergeWindow(windowOf(1, []));
  } finally {
    await sink.close();
  }
}

test('require encrypts without looking at the certificate', async () => {
  expect(await merge({ 'tls.mode': 'require' })).toMatchObject({ alreadyHeld: false });
});

test('verify-full accepts the authority’s certificate for this host only', async () => {
  const verified = { 'tls.mode': 'verify-full', 'tls.ca': file('ca.crt') };
  expect(await merge({ ...verified, 'connection.host': 'localhost' })).toMatchObject({ alreadyHeld: false });
  const otherName = await failure(merge(verified));
  expect(otherName.code).toBe('TM402');
  expect(otherName.message).toContain('ERR_TLS_CERT_ALTNAME_INVALID');
  const unknown = await failure(merge({ 'tls.mode': 'verify-full', 'connection.host': 'localhost' }));
  expect(unknown.code).toBe('TM402');
});

test('a client certificate logs in', async () => {
  const certified = {
    'connection.user': 'certified',
    'connection.password': '',
    'tls.mode': 'require',
    'tls.cert': file('client.crt'),
    'tls.key': file('client.key'),
  };
  expect(await merge(certified)).toMatchObject({ alreadyHeld: false });
  const without = await failure(merge({ 'connection.user': 'certified', 'tls.mode': 'require' }));
  expect(without.code).toBe('TM402');
  expect((await failure(merge({ ...certified, 'tls.cert': file('missing') }))).code).toBe('TM102');
});
