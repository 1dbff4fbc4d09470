/**
 * Postgres, Kafka, a Schema Registry and, where asked for, an object store, ClickHouse and an Iceberg catalog as processes
 * on the loopback address.
 * `stack.ts` is the command over it; the demo and the tests use it directly.
 */
import { randomBytes } from 'node:crypto';
import { rm } from 'node:fs/promises';
import { join } from 'node:path';
import { clickhousePart } from './clickhouse.ts';
import { icebergPart } from './iceberg.ts';
import { kafkaPart } from './kafka.ts';
import {
  createLayout,
  type PartName,
  partNames,
  readJson,
  type StackLayout,
  stackLayout,
  writeJson,
} from './layout.ts';
import { releaseOwnership, takeOwnership } from './owner.ts';
import { type Part, type PartContext, portNames, type StackSettings } from './part.ts';
import { choosePorts } from './ports.ts';
import { postgresPart } from './postgres.ts';
import { checkPrerequisites } from './prerequisites.ts';
import { endRecordedProcess } from './process.ts';
import { registryPart } from './registry.ts';
import { s3Part } from './s3.ts';
import { type PartDeath, ServerProcess, signalServer } from './server-process.ts';

export type { PartName } from './layout.ts';
export type { PartDeath } from './server-process.ts';

/** Without the destinations' servers. */
export const usualParts: readonly PartName[] = ['postgres', 'kafka', 'registry'];

export interface StackOptions {
  /** Folder of data, logs and ports; TIDEMARK_STACK_DIR or `.tidemark/stack` when not given. */
  directory?: string;
  /** `usualParts` when not given. */
  parts?: readonly PartName[];
  /** Receives single progress lines; silent when not given. */
  log?: (line: string) => void;
  /** Called when a server ends although nobody asked it to. The others go on. */
  onDeath?: (death: PartDeath) => void;
  /** Servers as fast and as large as in production, for measurements; small and quick to start when not given. */
  fullSpeed?: boolean;
  /** The Iceberg catalog keeps its tables in the object store, which must be one of the parts; in a directory when not given. */
  bucketWarehouse?: boolean;
  /** Gives up the start: the servers that have started are ended at once. */
  signal?: AbortSignal;
  /** Set by the command alone: `npm run stack:down` may end the owner. */
  ownedByCommand?: boolean;
}

const makePart: Record<PartName, (context: PartContext) => Part> = {
  postgres: postgresPart,
  kafka: kafkaPart,
  registry: registryPart,
  s3: s3Part,
  clickhouse: clickhousePart,
  iceberg: icebergPart,
};

/** A running stack. Its servers are ended when this process dies, however it dies. */
export class Stack {
  readonly directory: string;
  /** TIDEMARK_SOURCE_URL and so on: what clients need, in the form of environment variables. */
  readonly environment: Readonly<Record<string, string>>;
  readonly #layout: StackLayout;
  readonly #servers: Map<PartName, ServerProcess>;
  #stopped: Promise<void> | undefined;

  constructor(layout: StackLayout, servers: Map<PartName, ServerProcess>) {
    this.directory = layout.root;
    this.#layout = layout;
    this.#servers = servers;
    this.environment = Object.assign({}, ...[...servers.values()].map((server) => server.part.environment()));
  }

  /** Starts a stopped or dead part again on the same port with the same data; resolves when it is ready. */
  async startPart(name: PartName): Promise<void> {
    await awake(() => this.#server(name).start());
  }

  /** Ends one part and waits until it is gone. Without a signal it stops cleanly; SIGKILL is the crash. */
  async stopPart(name: PartName, options: { signal?: NodeJS.Signals } = {}): Promise<void> {
    await awake(() => this.#server(name).stop(options.signal));
  }

  /** Sends a signal and does not wait: SIGSTOP and SIGCONT for a part that hangs. */
  signalPart(name: PartName, signal: NodeJS.Signals): void {
    signalServer(this.#server(name), signal);
  }

  /** The server's pid (of Postgres, the postmaster's); undefined while it does not run. */
  pid(name: PartName): number | undefined {
    return this.#server(name).pid;
  }

  logFile(name: PartName): string {
    return this.#server(name).logFile;
  }

  /** Stops everything: the source first, so that nothing new flows, then Kafka and the registry. */
  stop(): Promise<void> {
    this.#stopped ??= awake(() => this.#stop((server) => server.stop()));
    return this.#stopped;
  }

  /** Ends everything at once; the next start recovers. */
  async kill(): Promise<void> {
    await awake(() => Promise.all([...this.#servers.values()].map((server) => server.stop('SIGKILL'))));
  }

  async #stop(end: (server: ServerProcess) => Promise<void>): Promise<void> {
    const endPart = async (name: PartName) => {
      const server = this.#servers.get(name);
      if (server) await end(server);
    };
    const rest = endPart('postgres').then(() => Promise.all([endPart('kafka'), endPart('registry')]));
    // The object store is slow to stop; none of these takes part in the flow.
    await Promise.all([rest, endPart('s3'), endPart('clickhouse'), endPart('iceberg')]);
    await rm(this.#layout.environmentFile, { force: true });
    await releaseOwnership(this.#layout);
  }

  #server(name: PartName): ServerProcess {
    const server = this.#servers.get(name);
    if (server === undefined) throw new Error(`this stack has no ${name}`);
    return server;
  }
}

/**
 * Starts the parts side by side and resolves when real clients get answers from all of them. Fetches what is
 * missing, ends what an earlier run left behind, and takes the folder for this process.
 * @throws TidemarkError TM103 when a program is missing; TM901 with the log's last lines when a part does not start;
 * the signal's reason
 */
export function startStack(options: StackOptions = {}): Promise<Stack> {
  return awake(() => start(options));
}

/**
 * The servers do not keep this process alive (a program that is done may end), but while one of them is waited for,
 * nothing else may: without a timer the process would end in the middle, with exit code 0.
 */
async function awake<T>(work: () => Promise<T>): Promise<T> {
  const timer = setInterval(() => undefined, 60_000);
  try {
    return await work();
  } finally {
    clearInterval(timer);
  }
}

async function start(options: StackOptions): Promise<Stack> {
  const log = options.log ?? (() => undefined);
  const parts = options.parts ?? usualParts;
  const prerequisites = checkPrerequisites(parts);
  const layout = stackLayout(options.directory);
  await createLayout(layout);
  await takeOwnership(layout, options.ownedByCommand ? 'command' : 'program');
  const servers = new Map<PartName, ServerProcess>();
  try {
    await endLeftovers(layout, log);
    const context: PartContext = {
      layout,
      settings: await loadSettings(layout),
      prerequisites,
      log,
      fullSpeed: options.fullSpeed ?? false,
      bucketWarehouse: options.bucketWarehouse ?? false,
    };
    for (const name of parts) {
      servers.set(
        name,
        new ServerProcess(makePart[name](context), layout, options.onDeath ?? (() => undefined)),
      );
    }
    await startAll([...servers.values()], log, options.signal);
    const stack = new Stack(layout, servers);
    await writeJson(layout.environmentFile, stack.environment);
    return stack;
  } catch (error) {
    await Promise.all([...servers.values()].map((server) => server.stop('SIGKILL')));
    await releaseOwnership(layout);
    throw error;
  }
}

/** Ends the servers of an earlier run that was killed. Only for the owner of the folder. */
export async function endLeftovers(layout: StackLayout, log: (line: string) => void): Promise<boolean> {
  await rm(layout.environmentFile, { force: true });
  const ended = await Promise.all(
    partNames.map(async (name) => {
      const found = await endRecordedProcess(join(layout.run, `${name}.json`));
      if (found) log(`ended ${name}, left by an earlier run`);
      return found;
    }),
  );
  return ended.includes(true);
}

/** All at once; every one is awaited even when one fails, so that none is still starting when they are ended. */
async function startAll(
  servers: ServerProcess[],
  log: (line: string) => void,
  signal?: AbortSignal,
): Promise<void> {
  const starts = servers.map(async (server) => {
    const begun = performance.now();
    await server.start(signal);
    log(`${server.part.title} is ready after ${((performance.now() - begun) / 1000).toFixed(1)} s`);
  });
  for (const result of await Promise.allSettled(starts)) {
    if (result.status === 'rejected') throw result.reason;
  }
}

async function loadSettings(layout: StackLayout): Promise<StackSettings> {
  const known = await readJson<StackSettings>(layout.settingsFile);
  const settings: StackSettings = {
    ports: await choosePorts(portNames, known?.ports ?? {}),
    postgresPassword: known?.postgresPassword ?? randomBytes(16).toString('hex'),
    s3SecretKey: known?.s3SecretKey ?? randomBytes(20).toString('hex'),
    clickhousePassword: known?.clickhousePassword ?? randomBytes(16).toString('hex'),
  };
  await writeJson(layout.settingsFile, settings);
  return settings;
}
