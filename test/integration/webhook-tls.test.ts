/** The webhook sink over TLS, through a proxy, and kept away from addresses that somebody else chose. */
import { execFileSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { createServer } from 'node:http';
import { type AddressInfo, connect } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, afterEach, beforeAll, beforeEach, expect, test, vi } from 'vitest';
import type { OptionValues } from '../../src/connector/sink.ts';
import { TestEndpoint } from '../fixtures/webhook-endpoint.ts';
import { failure, inserts, newSecret, openSink, windowOf } from './webhook-harness.ts';

const secret = newSecret();
let directory: string;
let endpoint: TestEndpoint;
const file = (name: string) => join(directory, name);

function issue(name: string, names: string): void {
  const openssl = (...args: string[]) => execFileSync('openssl', args, { cwd: directory, stdio: 'pipe' });
  const key = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes', '-days', '2'];
  if (name === 'ca')
    openssl('req', '-x509', ...key, '-subj', '/CN=authority', '-keyout', 'ca.key', '-out', 'ca.crt');
  else {
    openssl(
      'req',
      '-new',
      ...key,
      '-subj',
      `/CN=${name}`,
      '-addext',
      `subjectAltName=${names}`,
      '-keyout',
      `${name}.key`,
      '-out',
      `${name}.csr`,
    );
    openssl(
      'x509',
      '-req',
      '-in',
      `${name}.csr`,
      '-CA',
      'ca.crt',
      '-CAkey',
      'ca.key',
      '-days',
      '2',
      '-copy_extensions',
      'copyall',
      '-out',
      `${name}.crt`,
    );
  }
}

beforeAll(() => {
  directory = mkdtempSync(join(tmpdir(), 'webhook-tls-'));
  issue('ca', '');
  issue('server', 'DNS:localhost');
  issue('client', 'DNS:client');
});
afterAll(() => rmSync(directory, { recursive: true }));
beforeEach(async () => {
  const pem = (name: string) => readFileSync(file(name));
  endpoint = await TestEndpoint.start(secret, {
    key: pem('server.key'),
    cert: pem('server.crt'),
    ca: pem('ca.crt'),
    requestCert: true,
    rejectUnauthorized: false,
  });
});
afterEach(async () => {
  vi.unstubAllEnvs();
  await endpoint.stop();
});

async function send(options: OptionValues): Promise<unknown> {
  const { sink } = await openSink({ url: endpoint.url('localhost'), secret, ...options });
  try {
    return await sink.sendWindow(windowOf(inserts(3)));
  } finally {
    await sink.close();
  }
}

test('a certificate of an unknown authority, or for another host, is TM402; require looks at neither', async () => {
  expect(await failure(send({}))).toMatchObject({
    code: 'TM402',
    message: expect.stringMatching(/UNABLE_TO|SELF_SIGNED/),
  });
  const wrongHost = await failure(send({ 'tls.ca': file('ca.crt'), url: endpoint.url('127.0.0.1') }));
  expect(wrongHost).toMatchObject({ code: 'TM402', message: expect.stringContaining('ALTNAME_INVALID') });
  expect(endpoint.deliveries).toHaveLength(0);
  await send({ 'tls.ca': file('ca.crt') });
  await send({ 'tls.mode': 'require' });
  expect(endpoint.acknowledged).toHaveLength(2);
});

test('a client certificate is shown', async () => {
  const subjects: (string | undefined)[] = [];
  endpoint.reply = () => (request, response) => {
    const socket = request.socket as import('node:tls').TLSSocket;
    subjects.push(socket.authorized ? (socket.getPeerCertificate().subject.CN as string) : undefined);
    response.writeHead(204).end();
  };
  await send({ 'tls.ca': file('ca.crt') });
  await send({ 'tls.ca': file('ca.crt'), 'tls.cert': file('client.crt'), 'tls.key': file('client.key') });
  expect(subjects).toEqual([undefined, 'client']);
  expect(await failure(send({ 'tls.ca': file('none.crt') }))).toMatchObject({ code: 'TM102' });
});

test('where private addresses are not allowed, neither an address nor a name leads there', async () => {
  for (const host of ['localhost', '127.0.0.1', '[::1]', '[::ffff:127.0.0.1]']) {
    const own = { 'allow.private.addresses': false, 'tls.mode': 'require', url: endpoint.url(host) };
    expect(await failure(send(own)), host).toMatchObject({ code: 'TM101' });
  }
  const metadata = await failure(send({ url: 'http://169.254.169.254/latest' }));
  expect(metadata).toMatchObject({ code: 'TM101', remedy: expect.stringContaining('never') });
  expect(endpoint.connections).toBe(0);
});

test('the environment’s proxy is used, tunnels TLS, and is passed by for NO_PROXY', async () => {
  const tunnels: string[] = [];
  const proxy = createServer();
  proxy.on('connect', (request, socket, head) => {
    tunnels.push(request.url!);
    const [host, port] = request.url!.split(':');
    const onward = connect(Number(port), host, () => {
      socket.write('HTTP/1.1 200 OK\r\n\r\n');
      onward.write(head);
      onward.pipe(socket).pipe(onward);
    });
    for (const each of [onward, socket]) each.on('error', () => undefined);
  });
  await new Promise<void>((resolve) => proxy.listen(0, '127.0.0.1', resolve));
  vi.stubEnv('HTTPS_PROXY', `http://127.0.0.1:${(proxy.address() as AddressInfo).port}`);
  await send({ 'tls.ca': file('ca.crt') });
  expect(tunnels).toEqual([new URL(endpoint.url('localhost')).host]);
  vi.stubEnv('NO_PROXY', 'localhost');
  await send({ 'tls.ca': file('ca.crt') });
  expect(tunnels).toHaveLength(1);
  expect(endpoint.acknowledged.every(({ verified }) => verified)).toBe(true);
  expect(endpoint.acknowledged).toHaveLength(2);
  proxy.closeAllConnections();
  await new Promise((resolve) => proxy.close(resolve));
});
