/** One destination under measurement: its instance file, the process that delivers to it, and what the ledger says. */
import { writeFile } from 'node:fs/promises';
import { setTimeout as sleep } from 'node:timers/promises';
import type pg from 'pg';
import { type BenchDatabase, type BenchStack, settle } from '../bench-stack.ts';
import type { Measured } from '../race-table.ts';
import { type ReaderCost, ReaderProcess } from '../reader-process.ts';

export interface Destination {
  name: string;
  /** Of the instance file, beside `tables` and `cadence`. */
  options: Record<string, string>;
}

export function postgres(name: string, { url }: BenchDatabase): Destination {
  return { name, options: { 'connector.class': 'postgres', 'connection.url': url } };
}

/** On the stack's engine, which must have been asked for. */
export function clickhouse(name: string, { environment }: BenchStack, database: string): Destination {
  return {
    name,
    options: {
      'connector.class': 'clickhouse',
      'clickhouse.url': environment.TIDEMARK_CLICKHOUSE_URL ?? '',
      'clickhouse.user': environment.TIDEMARK_CLICKHOUSE_USER ?? '',
      'clickhouse.password': environment.TIDEMARK_CLICKHOUSE_PASSWORD ?? '',
      'clickhouse.database': database,
    },
  };
}

/** In the stack's catalog, which must have been asked for, over a directory. */
export function iceberg(name: string, { environment }: BenchStack, namespace: string): Destination {
  return {
    name,
    options: {
      'connector.class': 'iceberg',
      'iceberg.catalog.uri': environment.TIDEMARK_ICEBERG_URL ?? '',
      'iceberg.namespace': namespace,
    },
  };
}

/** The instance file of a destination of schema app. @param cadence as its option */
export async function describe(
  { folder }: BenchDatabase,
  { name, options }: Destination,
  cadence = 'continuous',
): Promise<void> {
  const config = { tables: 'app.*', cadence, ...options };
  await writeFile(`${folder}/instances/${name}.json`, JSON.stringify({ name, config }));
}

/** Everything that was written is in Kafka. */
export async function publish(client: pg.Client, config: string): Promise<void> {
  const end = await settle(client);
  const reader = await ReaderProcess.start(config);
  await reader.confirmed(client, end);
  await reader.stop();
}

/**
 * Delivers what Kafka holds for a destination.
 * @param rows that its Receipts count when it is done, all Windows together
 * @returns what it took since it owns its Unit: joining a group takes as long as the broker likes
 */
export async function deliverAll(
  database: BenchDatabase,
  config: string,
  destination: string,
  rows: number,
): Promise<ReaderCost> {
  const before = await receipts(database.client, destination);
  const process = await start(config, destination);
  try {
    await owned(database.client, destination, before.token);
    return await delivered(process, database, destination, before.rows + rows);
  } finally {
    await process.stop();
  }
}

/**
 * @param rows that the Receipts of the destination's Windows count when it is done
 * @returns what it took the process from now on
 */
export async function delivered(
  process: ReaderProcess,
  { client }: BenchDatabase,
  destination: string,
  rows: number,
): Promise<ReaderCost> {
  const startedAt = performance.now();
  const cpuBefore = await process.cpuMicros();
  const giveUpAt = Date.now() + 900_000;
  for (;;) {
    const now = await receipts(client, destination);
    if (now.rows >= rows) break;
    if (Date.now() > giveUpAt) throw new Error(`${destination} got ${now.rows} of ${rows} rows`);
    await sleep(20);
  }
  return {
    seconds: (performance.now() - startedAt) / 1000,
    cpuMicros: (await process.cpuMicros()) - cpuBefore,
    peakMiB: await process.peakMiB(),
  };
}

/** A process that delivers to one destination alone. */
export function start(config: string, destination: string): Promise<ReaderProcess> {
  return ReaderProcess.start(config, 'deliver', 'running', ['--destinations', destination]);
}

export function perRow({ seconds, cpuMicros, peakMiB }: ReaderCost, rows: number): Measured {
  return { rowsPerSecond: rows / seconds, cpuMicrosPerRow: cpuMicros / rows, peakMiB };
}

async function owned(client: pg.Client, destination: string, tokenBefore: bigint): Promise<void> {
  while ((await receipts(client, destination)).token <= tokenBefore) await sleep(5);
}

/** Rows of its Windows so far, and the newest token of its owners. */
export async function receipts(
  client: pg.Client,
  destination: string,
): Promise<{ rows: number; token: bigint }> {
  const { rows } = await client.query<{ rows: string; token: string }>(
    `select (select coalesce(sum((r->>'upserted')::int8 + (r->>'deleted')::int8 + (r->>'appended')::int8), 0)
               from tidemark.deliveries, lateral (select receipt->'rows' as r) as counted
              where destination = $1 and state = 'delivered') as rows,
            (select coalesce(max(token), 0) from tidemark.units where destination = $1) as token`,
    [destination],
  );
  return { rows: Number(rows[0]!.rows), token: BigInt(rows[0]!.token) };
}
