/** The servers of one benchmark, databases on them, and the folder that all of it is in and that goes with it. */
import { mkdir, rm, writeFile } from 'node:fs/promises';
import pg from 'pg';
import { type PartName, type Stack, startStack, usualParts } from '../../compose/local-stack.ts';

const root = new URL('../../', import.meta.url).pathname;

export const say = (line: string): void => void process.stderr.write(`bench: ${line}\n`);

export interface BenchDatabase {
  name: string;
  url: string;
  /** The same database through the server's Unix socket, as libpq spells it. */
  socketUrl: string;
  client: pg.Client;
  /** For files of this database's runs. */
  folder: string;
}

export class BenchStack {
  readonly #stack: Stack;
  readonly #directory: string;
  #databases = 0;

  private constructor(stack: Stack, directory: string) {
    this.#stack = stack;
    this.#directory = directory;
  }

  /** Runs `work` over servers of its own. @param name of the benchmark @param more than the usual servers */
  static async with<T>(
    name: string,
    work: (stack: BenchStack) => Promise<T>,
    more: readonly PartName[] = [],
  ): Promise<T> {
    const directory = `${root}.tidemark/bench/${name}`;
    const stack = await startStack({ directory, log: say, fullSpeed: true, parts: [...usualParts, ...more] });
    try {
      return await work(new BenchStack(stack, directory));
    } finally {
      await stack.stop();
      // Gigabytes of segments that no later run reads.
      await rm(directory, { recursive: true, force: true });
    }
  }

  get brokers(): string {
    return this.#stack.environment.TIDEMARK_KAFKA_BROKERS!;
  }

  /** What clients of the servers need. */
  get environment(): Readonly<Record<string, string>> {
    return this.#stack.environment;
  }

  get registryUrl(): string {
    return this.#stack.environment.TIDEMARK_REGISTRY_URL!;
  }

  async database(): Promise<BenchDatabase> {
    const name = `bench_${process.pid}_${++this.#databases}`;
    const { TIDEMARK_SOURCE_URL, TIDEMARK_SOURCE_SOCKET_URL } = this.#stack.environment;
    const admin = new pg.Client(TIDEMARK_SOURCE_URL);
    await admin.connect();
    await admin.query(`create database ${name}`);
    await admin.end();
    const url = new URL(TIDEMARK_SOURCE_URL!);
    url.pathname = `/${name}`;
    const client = new pg.Client(url.href);
    client.on('error', () => {});
    await client.connect();
    const folder = `${this.#directory}/cases/${name}`;
    await mkdir(`${folder}/instances`, { recursive: true });
    // Without a host before the path it is a URL to libpq only.
    const socketUrl = TIDEMARK_SOURCE_SOCKET_URL!.replace(/@\/[^?]*/, `@/${name}`);
    return { name, url: url.href, socketUrl, client, folder };
  }

  /** @returns the file of a configuration that tracks schema app of the database */
  async config(
    { name, url, folder }: BenchDatabase,
    options: Record<string, unknown> = {},
    file = 'tidemark.yaml',
  ): Promise<string> {
    const config = {
      'source.id': sourceIdOf(name),
      'source.url': url,
      'source.tables': ['app.*'],
      'source.tenant.column': 'organization_id',
      // What follows the last commit (a checkpoint) is confirmed by a heartbeat: it must not count as reading.
      'source.heartbeat.interval': '100ms',
      // The backlog is in the WAL: the same rows are not to be read from the table as well.
      'source.snapshot.mode': 'never',
      'kafka.brokers': this.brokers,
      'kafka.topic.replication.factor': 1,
      'kafka.topic.min.insync.replicas': 1,
      'registry.url': this.registryUrl,
      'control.url': url,
      'deliver.instances.directory': 'instances',
      ...options,
    };
    await writeFile(`${folder}/${file}`, JSON.stringify(config, null, 2));
    return `${folder}/${file}`;
  }
}

export function sourceIdOf(database: string): string {
  return database.replaceAll('_', '-');
}

export function publicationOf(database: string): string {
  return `tidemark_${database}`;
}

/** What was written is on disk, so that nobody pays for it while reading. @returns the end of the WAL */
export async function settle(client: pg.Client): Promise<string> {
  await client.query('checkpoint');
  const { rows } = await client.query<{ lsn: string }>('select pg_current_wal_insert_lsn() as lsn');
  return rows[0]!.lsn;
}

/** Nothing of it keeps WAL any more. Its readers must be gone. */
export async function leave({ client, name }: BenchDatabase): Promise<void> {
  await client.query(
    'select pg_drop_replication_slot(slot_name) from pg_replication_slots where database = $1 and not active',
    [name],
  );
  await client.end();
}
