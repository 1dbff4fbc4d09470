/** A table that holds its rows before anybody reads: to Kafka by us and by Debezium, and by COPY to nowhere. */
import { setTimeout as sleep } from 'node:timers/promises';
import type pg from 'pg';
import { to as copyTo } from 'pg-copy-streams';
import { bulkFindings } from '../../src/sample/bulk.ts';
import { migrateSample } from '../../src/sample/migrate.ts';
import { seedSample } from '../../src/sample/seed.ts';
import { type BenchDatabase, BenchStack, publicationOf, say } from './bench-stack.ts';
import { readWithDebezium } from './debezium-source.ts';
import { type Measured, raceBar, raceTable, takesPart } from './race-table.ts';
import { introduceReader, ReaderProcess } from './reader-process.ts';
import type { BenchResult } from './run.ts';

const rows = Number(process.env.BENCH_ROWS ?? 2_000_000);
const rounds = Number(process.env.BENCH_ROUNDS ?? 5);

const titles = {
  ours: 'Tidemark: snapshot in chunks to Kafka, Avro, transactions',
  copy: 'COPY … TO STDOUT (binary), thrown away',
  peer: 'Debezium 3.6.3: initial snapshot to Kafka, Avro',
} as const;
type Contender = keyof typeof titles;

export async function snapshot(): Promise<BenchResult> {
  const measured: Record<Contender, Measured[]> = { ours: [], copy: [], peer: [] };
  const racing = (Object.keys(titles) as Contender[]).filter(takesPart);
  await BenchStack.with('snapshot', async (stack) => {
    const database = await stack.database();
    await migrateSample(database.client);
    await seedSample(database.client, { seed: 1, findings: 0 });
    say(`writing ${rows} rows`);
    await bulkFindings(database.client, { rows, seed: 1 });
    await database.client.query('vacuum analyze app.findings');
    const config = await stack.config(database);
    await introduceReader(config, database.client);
    for (let round = 1; round <= rounds; round++) {
      for (let i = 0; i < racing.length; i++) {
        const contender = racing[(i + round) % racing.length]!;
        const one = await run[contender](stack, database, config, round);
        measured[contender].push(one);
        say(`round ${round}: ${titles[contender]}: ${Math.round(one.rowsPerSecond)} rows/s`);
      }
    }
    await database.client.end();
  });
  return {
    name: 'snapshot',
    rows: raceTable(racing, titles, measured),
    bar: raceBar,
    note: `a table of ${rows} findings, ${rounds} rounds; ratios are medians of pairs`,
  };
}

type Run = (stack: BenchStack, database: BenchDatabase, config: string, round: number) => Promise<Measured>;

const run: Record<Contender, Run> = {
  ours: async (_, { client, name }, config) => {
    const reader = await ReaderProcess.start(config);
    try {
      const cpuBefore = await reader.cpuMicros();
      const startedAt = performance.now();
      await requestSnapshot(client, name);
      await snapshotDone(client);
      const seconds = (performance.now() - startedAt) / 1000;
      const cpu = (await reader.cpuMicros()) - cpuBefore;
      return { rowsPerSecond: rows / seconds, cpuMicrosPerRow: cpu / rows, peakMiB: await reader.peakMiB() };
    } finally {
      await reader.stop();
    }
  },
  copy: async (_, { client }) => {
    const startedAt = performance.now();
    for await (const _ of client.query(copyTo('copy app.findings to stdout (format binary)')));
    return { rowsPerSecond: rows / ((performance.now() - startedAt) / 1000), cpuMicrosPerRow: 0, peakMiB: 0 };
  },
  peer: async (stack, { client, name, url, folder }, _, round) => {
    const slot = `${name}_peer_${round}`;
    try {
      return await readWithDebezium(
        {
          directory: `${folder}/connect-${round}`,
          brokers: [stack.brokers],
          registryUrl: stack.registryUrl,
          sourceUrl: url,
          prefix: `peer-${name}-${round}`,
          slot,
          publication: publicationOf(name),
          table: 'app.findings',
          rows,
        },
        { 'snapshot.mode': 'initial', 'snapshot.fetch.size': '10240' },
      );
    } finally {
      await client.query(
        'select pg_drop_replication_slot(slot_name) from pg_replication_slots where slot_name = $1 and not active',
        [slot],
      );
    }
  },
};

/** As `tidemark snapshot start` does, without the second that starting it takes. */
async function requestSnapshot(client: pg.Client, database: string): Promise<void> {
  await client.query(
    `insert into tidemark.snapshots (source_id, table_name, id, kind, epoch)
     select source_id, 'app.findings', gen_random_uuid(), 'ad-hoc', epoch from tidemark.sources where source_id = $1`,
    [database.replaceAll('_', '-')],
  );
}

async function snapshotDone(client: pg.Client): Promise<void> {
  for (;;) {
    const { rows: open } = await client.query<{ state: string; error: string | null }>(
      `select state, error from tidemark.snapshots order by requested_at desc limit 1`,
    );
    const { state, error } = open[0]!;
    if (state === 'done') return;
    if (state === 'failed' || state === 'cancelled') throw new Error(`the snapshot ${state}: ${error}`);
    await sleep(50);
  }
}
