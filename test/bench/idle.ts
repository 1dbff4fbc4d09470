/** What it costs to have it: reader and delivery of 50 tables in which nothing happens. */
import { writeFile } from 'node:fs/promises';
import { setTimeout as sleep } from 'node:timers/promises';
import { BenchStack, say } from './bench-stack.ts';
import { introduceReader, ReaderProcess } from './reader-process.ts';
import type { BenchResult } from './run.ts';

const tables = 50;
const settleSeconds = 20;
const seconds = Number(process.env.BENCH_SECONDS ?? 60);

export async function idle(): Promise<BenchResult> {
  const rows: BenchResult['rows'] = [];
  await BenchStack.with('idle', async (stack) => {
    const database = await stack.database();
    const { client } = database;
    await client.query('create schema app');
    for (let i = 1; i <= tables; i++)
      await client.query(`create table app.idle_${i} (id bigint primary key, title text, at timestamptz)`);
    const replica = await stack.database();
    // As it comes: without the quick heartbeat of the other benchmarks.
    const config = await stack.config(database, { 'source.heartbeat.interval': '2s' });
    const destination = {
      'connector.class': 'postgres',
      tables: 'app.*',
      cadence: 'continuous',
      'connection.url': replica.url,
    };
    await writeFile(
      `${database.folder}/instances/replica.json`,
      JSON.stringify({ name: 'replica', config: destination }),
    );
    await introduceReader(config, client);
    // Each table has been delivered once: nothing is left to set up.
    const reader = await ReaderProcess.start(config);
    const delivery = await ReaderProcess.start(config, 'deliver', 'running');
    for (let i = 1; i <= tables; i++) await client.query(`insert into app.idle_${i} values (1, 'x', now())`);
    say(`idle for ${settleSeconds} s, then ${seconds} s that count`);
    await sleep(settleSeconds * 1000);
    for (const [what, one] of [
      ['reader', reader],
      ['delivery to one Postgres', delivery],
    ] as const) {
      const before = await one.cpuMicros();
      await sleep(seconds * 1000);
      rows.push({
        what,
        '% of a core': Number((((await one.cpuMicros()) - before) / seconds / 10_000).toFixed(2)),
        MiB: Math.round(await one.memoryMiB()),
        'peak MiB': Math.round(await one.peakMiB()),
      });
    }
    await delivery.stop();
    await reader.stop();
    await client.end();
    await replica.client.end();
  });
  return { name: 'idle', rows, note: `${tables} tables, ${seconds} s without a change` };
}
