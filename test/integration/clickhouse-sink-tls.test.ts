/** The ClickHouse sink over TLS: verified, only encrypted, and refused. A proxy in front of the server speaks TLS. */
import { execFileSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { connect } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createServer, type Server } from 'node:tls';
import { afterAll, beforeAll, expect, test } from 'vitest';
import type { OptionValues } from '../../src/connector/sink.ts';
import { type ClickHouse, openClickHouse, startClickHouse } from './clickhouse-sink-fixture.ts';
import { failure, mergeTable, upsert, users, windowOf } from './postgres-sink-fixture.ts';

let server: ClickHouse;
let proxy: Server;
let directory: string;
let port: number;

function openssl(...args: string[]): void {
  execFileSync('openssl', args, { cwd: directory, stdio: 'pipe' });
}

beforeAll(async () => {
  server = await startClickHouse();
  directory = await mkdtemp(join(tmpdir(), 'tidemark-clickhouse-tls-'));
  const key = ['-newkey', 'rsa:2048', '-nodes'];
  openssl(
    'req',
    '-x509',
    ...key,
    '-days',
    '2',
    '-subj',
    '/CN=authority',
    '-keyout',
    'ca.key',
    '-out',
    'ca.crt',
  );
  const names = ['-subj', '/CN=server', '-addext', 'subjectAltName=DNS:localhost'];
  openssl('req', '-new', ...key, ...names, '-keyout', 'server.key', '-out', 'server.csr');
  const authority = ['-CA', 'ca.crt', '-CAkey', 'ca.key', '-days', '2', '-copy_extensions', 'copyall'];
  openssl('x509', '-req', '-in', 'server.csr', ...authority, '-out', 'server.crt');
  const target = Number(new URL(server.stack.environment.TIDEMARK_CLICKHOUSE_URL!).port);
  const files = {
    cert: readFileSync(join(directory, 'server.crt')),
    key: readFileSync(join(directory, 'server.key')),
  };
  proxy = createServer(files, (socket) => {
    const behind = connect(target, '127.0.0.1');
    socket.pipe(behind).pipe(socket);
    for (const end of [socket, behind]) end.on('error', () => end.destroy());
  });
  proxy.on('tlsClientError', () => undefined);
  await new Promise<void>((listening) => proxy.listen(0, '127.0.0.1', listening));
  port = (proxy.address() as { port: number }).port;
});

afterAll(async () => {
  proxy?.close();
  await server?.stop();
  await rm(directory, { recursive: true, force: true });
});

async function merge(more: OptionValues) {
  const sink = await openClickHouse(server.place(more));
  try {
    const table = mergeTable(users, { states: [upsert(users, ['1', 'one', null])] });
    return await sink.mergeWindow(windowOf(1, [table], { unit: 'app.users' }));
  } finally {
    await sink.close();
  }
}

const url = (host: string) => ({ 'clickhouse.url': `https://${host}:${port}` });

test('the authority that signed is trusted, for the name that it signed', async () => {
  const ca = { 'tls.ca': join(directory, 'ca.crt') };
  expect((await merge({ ...url('localhost'), ...ca })).alreadyHeld).toBe(false);
  expect((await failure(merge({ ...url('127.0.0.1'), ...ca }))).code).toBe('TM402');
});

test('an authority that is not known is TM402, unless nothing is to be verified', async () => {
  const refused = await failure(merge(url('localhost')));
  expect(refused.code).toBe('TM402');
  expect(refused.remedy).toContain('tls.ca');
  expect((await merge({ ...url('127.0.0.1'), 'tls.mode': 'require' })).alreadyHeld).toBe(false);
});
