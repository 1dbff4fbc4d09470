/** `npm run bench [-- name …]`: committed measurements on this machine. Ratios within one run are what counts. */
import { mkdir, writeFile } from 'node:fs/promises';
import { backlogRace } from './backlog-race.ts';
import { backlogs } from './backlogs.ts';
import { growth } from './growth.ts';
import { idle } from './idle.ts';
import { latency } from './latency.ts';
import { memory } from './memory.ts';
import { snapshot } from './snapshot.ts';

export interface BenchResult {
  name: string;
  /** Column to value, as printed. */
  rows: Record<string, string | number>[];
  /** The column that a chart shows; the higher, the better. */
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
};

const names = process.argv.slice(2).length > 0 ? process.argv.slice(2) : Object.keys(benches);
// The stack's children do not keep the process alive by themselves.
setInterval(() => {}, 1000);
const results = new URL('../../.tidemark/bench/', import.meta.url);
for (const name of names) {
  const bench = benches[name];
  if (!bench) {
    process.stderr.write(`no benchmark ${name}; there are: ${Object.keys(benches).join(', ')}\n`);
    process.exit(2);
  }
  const result = await bench();
  console.table(result.rows);
  process.stdout.write(`${result.note}\n`);
  await mkdir(results, { recursive: true });
  await writeFile(
    new URL(`${name}.json`, results),
    `${JSON.stringify({ ...result, at: new Date().toISOString() }, null, 2)}\n`,
  );
}
process.exit(0);
