/** The way to an HTTP server, which gives an answer of its own while it is told to. Otherwise requests pass as they are. */
import { once } from 'node:events';
import { createServer, request } from 'node:http';

export interface FrontAnswer {
  status: number;
  headers: Record<string, string>;
  body: string;
}

export interface HttpFront {
  endpoint: string;
  /** Every request gets this answer, for as long as the work takes. */
  whileAnswering(answer: FrontAnswer, work: () => Promise<void>): Promise<void>;
  stop(): void;
}

export async function startHttpFront(endpoint: string): Promise<HttpFront> {
  const { hostname, port } = new URL(endpoint);
  let own: FrontAnswer | null = null;
  const server = createServer((incoming, answer) => {
    if (own) {
      incoming.resume();
      answer.writeHead(own.status, own.headers).end(own.body);
      return;
    }
    const { method, url, headers } = incoming;
    // A signature covers the host header: it stays.
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
    async whileAnswering(answer, work) {
      own = answer;
      try {
        await work();
      } finally {
        own = null;
      }
    },
    stop() {
      server.closeAllConnections();
      server.close();
    },
  };
}
