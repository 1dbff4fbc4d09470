/**
 * `npm run bench [-- name …]`: committed measurements on this machine. Ratios within one run are what counts. Results go
 * to docs/benchmarks, as JSON and as a picture; BENCH_ROWS, BENCH_ROUNDS, BENCH_SECONDS, BENCH_MINUTES and BENCH_WITHOUT=peer
 * make a run shorter, and then it is only printed.
 */
import { mkdir, writeFile } from 'node:fs/promises';
import { cpus, release, totalmem } from 'node:os';
import { backlogRace } from './backlog-race.ts';
import { backlogs } from './backlogs.ts';
import { type Circumstances, chart } from './chart.ts';
import { icebergBench } from './deliver/iceberg.ts';
import { mergeCost } from './deliver/merge-cost.ts';
import { throughput } from './deliver/throughput.ts';
import { visible } from './deliver/visible.ts';
import { growth } from './growth.ts';
import { idle } from './idle.ts';
import { latency } from './latency.ts';
import { memory } from './memory.ts';
import { recall } from './recall.ts';
import { retain } from './retain/retain.ts';
import { snapshot } from './snapshot.ts';

export interface BenchResult {
  name: string;
  /** Column to value, as printed. */
  rows: Record<string, string | number>[];
  /** The column that a chart shows. */
  bar?: string;
  /** What was compared with what, in a sentence. */
  note: string;
}

const benches: Record<string, () => Promise<BenchResult>> = {
  ...Object.fromEntries(backlogs.map((backlog) => [backlog.name, () => backlogRace(backlog)])),
  snapshot,
  latency,
  memory,
  idle,
  growth,
  deliver: throughput,
  'deliver-growth': mergeCost,
  'deliver-latency': visible,
  iceberg: icebergBench,
  recall,
  retain,
};
const shortened = ['BENCH_ROWS', 'BENCH_ROUNDS', 'BENCH_SECONDS', 'BENCH_MINUTES', 'BENCH_WITHOUT'].some(
  (name) => process.env[name] !== undefined,
);

const wanted = process.argv.slice(2);
/** A name stands for those that begin with it, too: `deliver` for three of them. */
const named = (want: string) => {
  const found = Object.keys(benches).filter((name) => name === want || name.startsWith(`${want}-`));
  return found.length > 0 ? found : [want];
};
const names = wanted.length > 0 ? wanted.flatMap(named) : Object.keys(benches);
// The stack's children do not keep the process alive by themselves.
setInterval(() => {}, 1000);
for (const name of names) {
  const bench = benches[name];
  if (!bench) {
    process.stderr.write(`no benchmark ${name}; there are: ${Object.keys(benches).join(', ')}\n`);
    process.exit(2);
  }
  const result = await bench();
  console.table(result.rows);
  process.stdout.write(`${result.note}\n`);
  if (!shortened) await keep(result);
}
process.exit(0);

async function keep(result: BenchResult): Promise<void> {
  const folder = new URL('../../docs/benchmarks/', import.meta.url);
  await mkdir(folder, { recursive: true });
  const circumstances: Circumstances = {
    date: new Date().toISOString().slice(0, 10),
    versions: `Node ${process.versions.node}, Postgres 18, Kafka 4.3`,
    machine: `${cpus().length} × ${cpus()[0]!.model.trim()}, ${Math.round(totalmem() / 2 ** 30)} GiB, Linux ${release()}, all on one machine`,
  };
  await writeFile(
    new URL(`${result.name}.json`, folder),
    `${JSON.stringify({ ...result, ...circumstances }, null, 2)}\n`,
  );
  const picture = chart(result, circumstances);
  if (picture) await writeFile(new URL(`${result.name}.svg`, folder), picture);
}
