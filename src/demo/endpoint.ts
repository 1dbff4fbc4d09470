/** An HTTP endpoint for the demo's webhook: checks signatures as a receiver does, and keeps what came in a file. */
import { createHmac, randomBytes, timingSafeEqual } from 'node:crypto';
import { appendFile } from 'node:fs/promises';
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';

export interface DemoEndpoint {
  url: string;
  /** Base64, as the webhook's `secret`. */
  secret: string;
  close(): Promise<void>;
}

/** Seconds that a timestamp may be off. */
const tolerance = 300;

/** @param file receives the bodies, a line each */
export async function startEndpoint(file: string): Promise<DemoEndpoint> {
  const secret = randomBytes(32);
  const server = createServer((request, response) => {
    receive(request, secret, file).then(
      (status) => answer(response, status),
      () => answer(response, 500),
    );
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const { port } = server.address() as AddressInfo;
  return {
    url: `http://127.0.0.1:${port}/events`,
    secret: secret.toString('base64'),
    async close() {
      server.closeAllConnections();
      await new Promise((resolve) => server.close(resolve));
    },
  };
}

async function receive(request: IncomingMessage, secret: Buffer, file: string): Promise<number> {
  const parts: Buffer[] = [];
  for await (const part of request) parts.push(part as Buffer);
  const body = Buffer.concat(parts);
  const header = (name: string) => String(request.headers[name] ?? '');
  const [id, timestamp] = [header('webhook-id'), header('webhook-timestamp')];
  if (Math.abs(Date.now() / 1000 - Number(timestamp)) > tolerance) return 401;
  const expected = createHmac('sha256', secret).update(`${id}.${timestamp}.`).update(body).digest();
  const signed = header('webhook-signature')
    .split(' ')
    .some((signature) => same(Buffer.from(signature.replace(/^v1,/, ''), 'base64'), expected));
  if (!signed) return 401;
  if (body.length > 0) await appendFile(file, `${body.toString('utf8')}\n`);
  return 204;
}

function same(a: Buffer, b: Buffer): boolean {
  return a.length === b.length && timingSafeEqual(a, b);
}

function answer(response: ServerResponse, status: number): void {
  response.writeHead(status).end();
}
