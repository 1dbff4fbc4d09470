/** What the Parquet sink's tests share: a sink on either store, Windows made by hand, and an independent model. */
import { mkdir, mkdtemp, rm } from 'node:fs/promises';
import { join, resolve } from 'node:path';
import { DuckDBInstance } from '@duckdb/node-api';
import { type Stack, startStack } from '../../compose/local-stack.ts';
import { parquetSink } from '../../connectors/sinks/parquet/index.ts';
import { formatPosition, type Position } from '../../src/connector/position.ts';
import { type ColumnShape, type TableShape, unitName } from '../../src/connector/shape.ts';
import type {
  AppendSink,
  AppendWindow,
  Cell,
  OptionValues,
  Readable,
  Row,
  RowEvent,
  SinkContext,
} from '../../src/connector/sink.ts';

const root = resolve(import.meta.dirname, '..', '..', '.tidemark');

export async function temporaryFolder(): Promise<{ path: string; remove: () => Promise<void> }> {
  await mkdir(root, { recursive: true });
  const path = await mkdtemp(join(root, 'parquet-test-'));
  return { path, remove: () => rm(path, { recursive: true, force: true }) };
}

/** The option defaults, and what the instance file would add. */
export function optionValues(own: OptionValues): OptionValues {
  const values: OptionValues = {};
  for (const [key, field] of Object.entries(parquetSink.options)) {
    if (field.default !== undefined) values[key] = field.default;
  }
  return { ...values, ...own };
}

export interface Place {
  name: string;
  /** Options of a destination of its own, below a new prefix. */
  options(name: string): OptionValues;
  /** Where DuckDB can run `_latest.sql` as written, without an extension. */
  readable: boolean;
  stop(): Promise<void>;
}

export async function filePlace(): Promise<Place> {
  const folder = await temporaryFolder();
  return {
    name: 'file',
    options: (name) => optionValues({ 'parquet.url': `file://${folder.path}/${name}` }),
    readable: true,
    stop: folder.remove,
  };
}

/** SeaweedFS with one bucket. */
export async function s3Place(): Promise<Place> {
  const folder = await temporaryFolder();
  const stack: Stack = await startStack({ directory: join(folder.path, 'stack'), parts: ['s3'] });
  const environment = stack.environment;
  return {
    name: 's3',
    options: (name) =>
      optionValues({
        'parquet.url': `s3://${environment.TIDEMARK_S3_BUCKET}/lake/${name}`,
        's3.endpoint': environment.TIDEMARK_S3_ENDPOINT!,
        's3.access.key.id': environment.TIDEMARK_S3_ACCESS_KEY!,
        's3.secret.access.key': environment.TIDEMARK_S3_SECRET_KEY!,
        's3.path.style': true,
      }),
    readable: false,
    stop: async () => {
      await stack.stop();
      await folder.remove();
    },
  };
}

export interface Opened {
  sink: AppendSink & Readable;
  context: SinkContext;
  logs: string[];
}

export async function openSink(
  options: OptionValues,
  scratch: string,
  failpoint: (name: string) => Promise<void> = async () => {},
): Promise<Opened> {
  const logs: string[] = [];
  const context: SinkContext = {
    sourceId: 'test',
    destination: 'lake',
    scratchDirectory: scratch,
    log: (level, message, fields) => logs.push(JSON.stringify({ level, message, ...fields })),
    failpoint,
  };
  await mkdir(scratch, { recursive: true });
  return { sink: (await parquetSink.open(context, options)) as AppendSink & Readable, context, logs };
}

export function column(name: string, type: string, key = false): ColumnShape {
  return { name, type, key, nullable: !key };
}

export function shapeOf(name: string, columns: ColumnShape[], tenant: string | null = null): TableShape {
  return {
    schema: 'app',
    name,
    columns,
    keyColumns: columns.flatMap(({ key }, index) => (key ? [index] : [])),
    tenantColumn: tenant === null ? null : columns.findIndex((one) => one.name === tenant),
  };
}

/** Positions of one source, one Transaction after the other. */
export function at(lsn: number, ordinal = 0): Position {
  return formatPosition({ epoch: 1, lsn: BigInt(lsn), ordinal });
}

export const commitTime = (lsn: number): bigint => 1_795_500_000_000_000n + BigInt(lsn) * 7_000_000_000n;

/** A Window over (from, to], in LSNs. */
export function windowOf(
  shape: TableShape,
  sequence: number,
  [from, to]: [number, number],
  events: RowEvent[] | (() => AsyncIterable<RowEvent[]>),
  fencingToken = 1n,
): AppendWindow {
  const source = Array.isArray(events)
    ? async function* () {
        for (let start = 0; start < events.length; start += 700) yield events.slice(start, start + 700);
      }
    : events;
  return {
    sourceId: 'test',
    destination: 'lake',
    unit: unitName(shape),
    sequence,
    from: at(from),
    to: at(to),
    fencingToken,
    commitTimeUs: commitTime(to),
    tables: [{ shape, events: source }],
  };
}

export function insert(shape: TableShape, lsn: number, values: Row, ordinal = 1): RowEvent {
  return {
    op: 'c',
    position: at(lsn, ordinal),
    commitTimeUs: commitTime(lsn),
    key: shape.keyColumns.map((index) => values[index]!),
    values,
    previousKey: null,
    before: null,
  };
}

export async function readAll(
  sink: AppendSink & Readable,
  shape: TableShape,
  position: Position,
): Promise<Row[]> {
  const rows: Row[] = [];
  for await (const batch of sink.readTable(shape, position)) rows.push(...batch);
  return rows;
}

/** Rows in an order of their own, for comparing multisets. */
export function sorted(rows: readonly Row[]): Row[] {
  return [...rows].sort((a, b) => (JSON.stringify(a) < JSON.stringify(b) ? -1 : 1));
}

/** Runs a script of several statements in a fresh DuckDB and answers the last one's rows. */
export async function runScript(sql: string): Promise<{ names: string[]; rows: unknown[][] }> {
  const instance = await DuckDBInstance.create(':memory:');
  const connection = await instance.connect();
  const statements = await connection.extractStatements(sql);
  for (let index = 0; ; index += 1) {
    const prepared = await statements.prepare(index);
    const result = await prepared.runAndReadAll();
    if (index < statements.count - 1) continue;
    const answer = { names: result.columnNames(), rows: result.getRows() as unknown[][] };
    connection.closeSync();
    instance.closeSync();
    return answer;
  }
}

/** Small seeded generator (mulberry32): a failing run is replayed by its seed. */
export function seeded(seed: number): { below(limit: number): number; pick<T>(from: readonly T[]): T } {
  let state = seed >>> 0;
  const next = (): number => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 4294967296;
  };
  const below = (limit: number): number => Math.floor(next() * limit);
  return { below, pick: (from) => from[below(from.length)]! };
}

export type { Cell };
