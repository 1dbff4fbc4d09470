/**
 * One process per reader for a whole run of the tests: starting Spark takes seconds. They belong to the run's main
 * process and are started when a test first asks for them; test files, which run in processes of their own, ask over HTTP.
 */
import { rm } from 'node:fs/promises';
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { text } from 'node:stream/consumers';
import { type ReaderName, readerNames } from './reader.ts';
import { readerCommand } from './reader-commands.ts';
import { ReaderProcess } from './reader-process.ts';

export interface SharedReaders {
  url: string;
  stop(): Promise<void>;
}

/** @param folder for the readers' files; removed at the end */
export async function serveReaders(folder: string, log: (line: string) => void): Promise<SharedReaders> {
  const started = new Map<ReaderName, Promise<ReaderProcess>>();
  const reader = (name: ReaderName) => {
    const known = started.get(name) ?? start(name, folder, log);
    started.set(name, known);
    return known;
  };
  const server = createServer((request, response) => void answer(request, response, reader));
  await listen(server);
  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    async stop() {
      server.closeAllConnections();
      server.close();
      const all = await Promise.allSettled(started.values());
      await Promise.all(all.map((each) => (each.status === 'fulfilled' ? each.value.stop() : undefined)));
      if (process.env.KEEP) return;
      await rm(folder, { recursive: true, force: true });
    },
  };
}

async function start(name: ReaderName, folder: string, log: (line: string) => void): Promise<ReaderProcess> {
  const command = await readerCommand(name, folder, log);
  const begun = performance.now();
  const process = await ReaderProcess.start(command);
  log(`${name} is ready after ${((performance.now() - begun) / 1000).toFixed(1)} s`);
  return process;
}

async function answer(
  request: IncomingMessage,
  response: ServerResponse,
  reader: (name: ReaderName) => Promise<ReaderProcess>,
): Promise<void> {
  let answered: unknown;
  try {
    const name = readerNames.find((each) => request.url === `/${each}`);
    if (name === undefined) throw new Error(`there is no reader ${request.url}`);
    const asked: unknown = JSON.parse(await text(request));
    answered = await (await reader(name)).ask(asked);
  } catch (error) {
    answered = { error: error instanceof Error ? error.message : String(error) };
  }
  response.setHeader('content-type', 'application/json');
  response.end(JSON.stringify(answered));
}

function listen(server: Server): Promise<void> {
  return new Promise((resolve, reject) => {
    server.once('error', reject);
    server.listen(0, '127.0.0.1', resolve);
  });
}
