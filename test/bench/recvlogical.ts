/** The floor: Postgres' own client reads a slot with our pgoutput options and throws everything away. */
import { execFile, spawnSync } from 'node:child_process';
import { TidemarkError } from '../../src/platform/errors.ts';
import { publicationOf } from './bench-stack.ts';
import { cpuMicros } from './process-cost.ts';
import type { ReaderCost } from './reader-process.ts';

/** @throws TidemarkError TM103 where it is not installed */
export function requireRecvlogical(): void {
  if (spawnSync('pg_recvlogical', ['--version']).status === 0) return;
  throw new TidemarkError('TM103', 'pg_recvlogical is not installed', {
    remedy: 'apt-get install -y postgresql-client',
  });
}

/** @param url of TCP or of a Unix socket @param end where the backlog ends */
export async function readWithRecvlogical(
  url: string,
  database: string,
  slot: string,
  end: string,
): Promise<ReaderCost> {
  const publication = publicationOf(database);
  const options = [
    'proto_version=1',
    `publication_names=${publication},${publication}_inserts`,
    'binary=true',
    'messages=true',
  ];
  const startedAt = performance.now();
  const program = execFile('pg_recvlogical', [
    ...['-f', '/dev/null', '-d', url, '--slot', slot, '--start', '--no-loop', '--endpos', end],
    ...options.flatMap((option) => ['-o', option]),
  ]);
  let cpu = 0;
  const sampler = setInterval(async () => {
    cpu = (await cpuMicros(program.pid!).catch(() => cpu)) || cpu;
  }, 50);
  const code = await new Promise((resolve) => program.on('exit', resolve));
  clearInterval(sampler);
  if (code !== 0) throw new Error(`pg_recvlogical ended with ${code}`);
  return { seconds: (performance.now() - startedAt) / 1000, cpuMicros: cpu, peakMiB: 0 };
}
