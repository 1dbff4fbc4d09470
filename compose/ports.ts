/** Ports on the loopback address, chosen free once and kept from then on. */
import { createServer, type Server } from 'node:net';

export const loopback = '127.0.0.1';

/**
 * Below the range from which Linux and macOS take the ports of outgoing connections. Inside it a client that
 * retries against a stopped server can be given the server's own port and connect to itself.
 */
const range = { first: 20_000, last: 31_999 };

/**
 * A server binds its port a moment after it was chosen, and the port of a stopped one is nobody's: processes that run
 * stacks at the same time choose from different pieces of the range.
 */
const pieces = 64;
const piece = Math.floor((range.last - range.first + 1) / pieces);

/**
 * One free port for every name: the remembered one where nobody holds it now, else a new one. All are held until
 * the last is found, so that no two names get the same one.
 */
export async function choosePorts<Name extends string>(
  names: readonly Name[],
  remembered: Partial<Record<Name, number>>,
): Promise<Record<Name, number>> {
  const held: Server[] = [];
  const chosen: Partial<Record<Name, number>> = {};
  try {
    for (const name of names) {
      const previous = remembered[name];
      let server = previous === undefined ? undefined : await hold(previous);
      let port = previous;
      for (let attempt = 0; server === undefined; attempt++) {
        if (attempt === 400) throw new Error(`no free port between ${range.first} and ${range.last}`);
        // A piece that others have filled is left in the end.
        const [first, length] =
          attempt < 200
            ? [range.first + (process.pid % pieces) * piece, piece]
            : [range.first, range.last - range.first + 1];
        port = first + Math.floor(Math.random() * length);
        server = await hold(port);
      }
      held.push(server);
      chosen[name] = port!;
    }
  } finally {
    await Promise.all(held.map((server) => new Promise((closed) => server.close(closed))));
  }
  return chosen as Record<Name, number>;
}

/** A listener on the port, or undefined when somebody else has it. */
function hold(port: number): Promise<Server | undefined> {
  return new Promise((resolve) => {
    const server = createServer();
    server.once('error', () => resolve(undefined));
    server.listen({ host: loopback, port, exclusive: true }, () => resolve(server));
  });
}
