/**
 * A backlog in Kafka, delivered to each kind of destination by a process of its own, and COPY into the very table that the
 * Postgres replica has, in the same round on the same server.
 */
import { createReadStream, createWriteStream } from 'node:fs';
import { pipeline } from 'node:stream/promises';
import { from as copyFrom, to as copyTo } from 'pg-copy-streams';
import { bulkFindings } from '../../../src/sample/bulk.ts';
import { migrateSample } from '../../../src/sample/migrate.ts';
import { seedSample } from '../../../src/sample/seed.ts';
import { type BenchDatabase, BenchStack, leave, say, settle } from '../bench-stack.ts';
import { median } from '../process-cost.ts';
import { type Measured, raceBar, takesPart } from '../race-table.ts';
import { introduceReader } from '../reader-process.ts';
import type { BenchResult } from '../run.ts';
import {
  clickhouse,
  type Destination,
  deliverAll,
  describe,
  perRow,
  postgres,
  publish,
} from './delivery-run.ts';

const rounds = Number(process.env.BENCH_ROUNDS ?? 5);
const rows = Number(process.env.BENCH_ROWS ?? 500_000);

const titles = {
  copy: 'COPY, binary, of a file into the same table with its key',
  replica: 'Kafka to Postgres, new rows',
  halves: 'Kafka to Postgres, half new rows, half updates',
  lake: 'Kafka to Parquet, new rows',
  archive: 'Kafka to JSONL, new rows',
  columns: 'Kafka to ClickHouse, new rows',
} as const;
type Line = keyof typeof titles;

export async function throughput(): Promise<BenchResult> {
  const measured = new Map<Line, Measured[]>();
  const note = (line: Line, one: Measured, round: number) => {
    measured.set(line, [...(measured.get(line) ?? []), one]);
    const { rowsPerSecond, cpuMicrosPerRow, peakMiB } = one;
    say(
      `round ${round}: ${titles[line]}: ${Math.round(rowsPerSecond)} rows/s, ${cpuMicrosPerRow.toFixed(1)} µs, ${Math.round(peakMiB)} MiB`,
    );
  };
  await BenchStack.with(
    'deliver',
    async (stack) => {
      for (let round = 1; round <= rounds; round++)
        await runRound(stack, (line, one) => note(line, one, round));
    },
    takesPart('columns') ? ['clickhouse'] : [],
  );
  const lines = [...measured.keys()];
  const toCopy = (line: Line) =>
    median(measured.get(line)!.map((one, i) => one.rowsPerSecond / measured.get('copy')![i]!.rowsPerSecond));
  const mid = (line: Line, of: (one: Measured) => number) => median(measured.get(line)!.map(of));
  return {
    name: 'deliver',
    rows: lines.map((line) => ({
      what: titles[line],
      [raceBar]: Math.round(mid(line, (one) => one.rowsPerSecond)),
      'of COPY': Number(toCopy(line).toFixed(2)),
      'CPU µs/row': Number(mid(line, (one) => one.cpuMicrosPerRow).toFixed(2)),
      'peak MiB': Math.round(mid(line, (one) => one.peakMiB)),
    })),
    bar: raceBar,
    note: `${rows} findings of about 312 B of pgoutput, one delivering process, ${rounds} rounds; CPU and memory are of that process (of COPY: not measured)`,
  };
}

async function runRound(stack: BenchStack, note: (line: Line, one: Measured) => void): Promise<void> {
  const source = await stack.database();
  const replica = await stack.database();
  const destinations = destinationsOf(stack, source, replica);
  await migrateSample(source.client);
  await seedSample(source.client, { seed: 1, findings: 0 });
  const config = await stack.config(source);
  for (const destination of Object.values(destinations))
    if (takesPart(destination.name)) await describe(source, destination);
  await introduceReader(config, source.client);
  await bulkFindings(source.client, { rows, seed: 'new' });
  await publish(source.client, config);
  for (const line of Object.keys(destinations) as Exclude<Line, 'copy' | 'halves'>[]) {
    if (!takesPart(line)) continue;
    note(line, perRow(await deliverAll(source, config, destinations[line].name, rows), rows));
    // The replica's table exists by then, and COPY meets the same machine.
    if (line === 'replica') note('copy', await copy(source, replica));
  }
  if (takesPart('replica') && takesPart('halves')) {
    await bulkFindings(source.client, { rows: rows / 2, seed: 'more' });
    const updated = await source.client.query(
      `update app.findings set status = 'resolved', updated_at = now()
        where id in (select md5('new/' || n)::uuid from generate_series(1, $1::int8) as n)`,
      [rows / 2],
    );
    await publish(source.client, config);
    const changes = rows / 2 + updated.rowCount!;
    note('halves', perRow(await deliverAll(source, config, destinations.replica.name, changes), changes));
  }
  await replica.client.end();
  await leave(source);
}

function destinationsOf(stack: BenchStack, { folder }: BenchDatabase, replica: BenchDatabase) {
  return {
    replica: postgres('replica', replica),
    lake: {
      name: 'lake',
      options: { 'connector.class': 'parquet', 'parquet.url': `file://${folder}/lake` },
    },
    archive: {
      name: 'archive',
      options: { 'connector.class': 'jsonl', 'jsonl.url': `file://${folder}/archive` },
    },
    columns: clickhouse('columns', stack, replica.name),
  } satisfies Record<string, Destination>;
}

/** The floor: a file of the replica's rows, as the server's own binary format has them, into an empty table like the replica's. */
async function copy({ folder }: BenchDatabase, { client }: BenchDatabase): Promise<Measured> {
  const file = `${folder}/findings.bin`;
  await client.query('create table app.copied (like app.findings including all)');
  await pipeline(
    client.query(copyTo('copy app.findings to stdout (format binary)')),
    createWriteStream(file),
  );
  await settle(client);
  const startedAt = performance.now();
  const into = client.query(copyFrom('copy app.copied from stdin (format binary)'));
  await pipeline(createReadStream(file, { highWaterMark: 1 << 20 }), into);
  const seconds = (performance.now() - startedAt) / 1000;
  await client.query('drop table app.copied');
  return { rowsPerSecond: into.rowCount / seconds, cpuMicrosPerRow: 0, peakMiB: 0 };
}
