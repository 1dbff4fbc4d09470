/** Connections that end in the middle, and what comes by the next ones. */

import type { AddressInfo } from 'node:net';
import { createServer, type Server, type Socket } from 'node:net';
import { afterEach, expect, test } from 'vitest';
import { createKafka } from '../../src/platform/kafka.ts';
import { type BrokerConnection, createCluster, exchange } from '../../src/platform/kafka-cluster.ts';

const servers: Server[] = [];
afterEach(() => {
  for (const server of servers.splice(0)) server.close();
});

interface Pool {
  getConnection(index: number): Promise<BrokerConnection>;
}

/** A broker of which only the connection is real. */
async function connectionTo(answer: (request: Buffer, socket: Socket) => void) {
  const sockets = new Set<Socket>();
  const server = createServer((socket) => {
    sockets.add(socket);
    socket.on('error', () => {});
    socket.on('data', (request) => answer(request, socket));
  });
  servers.push(server);
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const broker = `127.0.0.1:${(server.address() as AddressInfo).port}`;
  const kafka = createKafka(
    { brokers: [broker], clientId: 'test', tls: false, sasl: null },
    { debug: () => {} },
  );
  const cluster = createCluster<{
    connectionPoolBuilder?: unknown;
    brokerPool: { connectionPoolBuilder: { build(): Promise<Pool> } };
  }>(kafka, {});
  return { pool: await cluster.brokerPool.connectionPoolBuilder.build(), sockets };
}

const api = { apiKey: 1, apiName: 'Fetch', apiVersion: 11 };
/** Length, api, version, correlation id. */
const ask = (connection: BrokerConnection, what: number) =>
  exchange(connection, api, (correlationId) => {
    const request = Buffer.alloc(13);
    request.writeInt32BE(9);
    request.writeInt32BE(correlationId, 8);
    request.writeUInt8(what, 12);
    return [request];
  });
const answerTo = (request: Buffer, bytes: number) => {
  const answer = Buffer.alloc(8 + bytes, 7);
  answer.writeInt32BE(4 + bytes);
  request.copy(answer, 4, 8, 12);
  return answer;
};

test('an answer that a connection left half sent is forgotten with it', async () => {
  const { pool } = await connectionTo((request, socket) => {
    const answer = answerTo(request, 1000);
    if (request[12] === 1)
      socket.write(answer.subarray(0, 500), () => setTimeout(() => socket.destroy(), 50));
    else socket.write(answer);
  });
  await expect(ask(await pool.getConnection(1), 1)).rejects.toThrow();
  for (let each = 0; each < 3; each++) {
    const connection = await pool.getConnection(1);
    expect((await ask(connection, 2)).length).toBe(1000);
  }
});

test('what a connection still brings after the next one was made goes nowhere', async () => {
  let first: Socket | null = null;
  const { pool } = await connectionTo((request, socket) => {
    if (request[12] === 1) {
      first = socket;
      socket.end(answerTo(request, 1000).subarray(0, 500));
    } else {
      first?.write(Buffer.alloc(64));
      socket.write(answerTo(request, 1000));
    }
  });
  await expect(ask(await pool.getConnection(1), 1)).rejects.toThrow();
  expect((await ask(await pool.getConnection(1), 2)).length).toBe(1000);
});

test('asked for twice at the same time, it is one connection', async () => {
  const { pool, sockets } = await connectionTo((request, socket) => socket.write(answerTo(request, 10)));
  const [one, two] = await Promise.all([pool.getConnection(0), pool.getConnection(0)]);
  expect(one).toBe(two);
  expect((await ask(one, 2)).length).toBe(10);
  expect(sockets.size).toBe(1);
});
