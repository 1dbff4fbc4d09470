/** The way to an object store, which asks to be left alone when it is told to. Requests pass as they are. */
import { once } from 'node:events';
import { createServer, request } from 'node:http';

export interface S3Front {
  endpoint: string;
  /** Every request is answered as S3 answers too many of them: 503 SlowDown. */
  whileSlow(work: () => Promise<void>): Promise<void>;
  stop(): void;
}

const slowDown =
  '<?xml version="1.0" encoding="UTF-8"?><Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>';

export async function startS3Front(endpoint: string): Promise<S3Front> {
  const { hostname, port } = new URL(endpoint);
  let slow = false;
  const server = createServer((incoming, answer) => {
    if (slow) {
      incoming.resume();
      answer.writeHead(503, { 'content-type': 'application/xml' }).end(slowDown);
      return;
    }
    const { method, url, headers } = incoming;
    // The signature covers the host header: it stays.
    const outgoing = request({ hostname, port, method, path: url, headers }, (response) => {
      answer.writeHead(response.statusCode!, response.headers);
      response.pipe(answer);
    });
    outgoing.on('error', () => answer.destroy());
    incoming.on('error', () => outgoing.destroy());
    incoming.pipe(outgoing);
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const address = server.address() as { port: number };
  return {
    endpoint: `http://127.0.0.1:${address.port}`,
    async whileSlow(work) {
      slow = true;
      try {
        await work();
      } finally {
        slow = false;
      }
    },
    stop() {
      server.closeAllConnections();
      server.close();
    },
  };
}
