/**
 * What kafkajs 2.2 gets wrong where a connection ends and is made again:
 *
 * - Bytes of an answer that came in part stay, and whatever comes by the next connection is taken for the rest of it: an
 *   answer of megabytes that a killed broker leaves half sent swallows all that follow.
 * - One that the server ends before it is made is waited for without end.
 * - Both connections to a broker are closed when one is lost. A request in flight on the other is waited for first, and where
 *   that connection goes down as well, nobody tells it.
 * - Two at the same time make two sockets, of which one is forgotten.
 */
import { createRequire } from 'node:module';
import type { Socket } from 'node:net';

const require = createRequire(import.meta.url);

export interface KafkajsConnection {
  host: string;
  port: number;
  socket?: Socket;
  chunks: Buffer[];
  bytesBuffered: number;
  /** Until the length of the next answer, or its end, is there. */
  bytesNeeded: number;
  isConnected(): boolean;
  connect(): Promise<true>;
  rejectRequests(error: Error): void;
}

const { KafkaJSConnectionError } = require('kafkajs/src/errors') as {
  KafkaJSConnectionError: new (message: string, details: { broker: string }) => Error;
};

const lengthBytes = 4;

/** For all connections of this process. */
export function mendConnections(): void {
  const { prototype } = require('kafkajs/src/network/connection') as { prototype: KafkajsConnection };
  const { connect } = prototype;
  const connecting = new WeakMap<KafkajsConnection, Promise<true>>();
  prototype.connect = function (this: KafkajsConnection) {
    if (this.isConnected()) return Promise.resolve(true as const);
    const known = connecting.get(this);
    if (known) return known;
    const made = connectAnew(this, connect).finally(() => connecting.delete(this));
    connecting.set(this, made);
    return made;
  };
}

async function connectAnew(
  connection: KafkajsConnection,
  connect: KafkajsConnection['connect'],
): Promise<true> {
  const broker = `${connection.host}:${connection.port}`;
  const closed = () => new KafkaJSConnectionError('Connection error: closed', { broker });
  if (connection.socket) abandon(connection.socket);
  connection.rejectRequests(closed());
  connection.chunks = [];
  connection.bytesBuffered = 0;
  connection.bytesNeeded = lengthBytes;
  const connected = connect.call(connection);
  const { socket } = connection;
  const ended = new Promise<never>((_, reject) => {
    socket?.once('close', () => {
      if (connection.socket === socket) connection.rejectRequests(closed());
      reject(closed());
    });
  });
  return Promise.race([connected, ended]);
}

/** Nothing that still comes by it reaches the connection. */
function abandon(socket: Socket): void {
  for (const event of ['data', 'end', 'error', 'timeout']) socket.removeAllListeners(event);
  socket.on('error', () => {});
  socket.destroy();
}
