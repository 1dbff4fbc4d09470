/** Our reader as a process of its own, as it runs in production, and what it costs. */
import { type ChildProcess, spawn } from 'node:child_process';
import { setTimeout as sleep } from 'node:timers/promises';
import type pg from 'pg';
import { cpuMicros, memoryMiB, peakMemoryMiB } from './process-cost.ts';

const root = new URL('../../', import.meta.url).pathname;

export interface ReaderCost {
  seconds: number;
  cpuMicros: number;
  peakMiB: number;
}

export class ReaderProcess {
  readonly pid: number;
  /** performance.now() when it had opened the slot. */
  readonly openedAt: number;
  readonly #child: ChildProcess;
  readonly #startCpu: number;
  readonly #ended: Promise<never>;

  private constructor(child: ChildProcess, openedAt: number, startCpu: number, ended: Promise<never>) {
    this.pid = child.pid!;
    this.#child = child;
    this.openedAt = openedAt;
    this.#startCpu = startCpu;
    this.#ended = ended;
  }

  /** Resolves once it says that it works: what it costs to start is not counted. */
  static async start(
    config: string,
    roles = 'replicate',
    works = 'reading the slot',
    more: readonly string[] = [],
  ): Promise<ReaderProcess> {
    const args = [`${root}src/tidemark.mjs`, 'run', '--roles', roles, '--config', config, ...more];
    const profile = process.env.BENCH_PROFILE
      ? ['--cpu-prof', `--cpu-prof-dir=${process.env.BENCH_PROFILE}`]
      : [];
    const child = spawn(process.execPath, [...profile, ...args], {
      stdio: ['ignore', 'ignore', 'pipe'],
    });
    let log = '';
    const ended = new Promise<never>((_, reject) => {
      child.on('exit', (code) => reject(new Error(`the reader ended with ${code}: ${log.slice(-2000)}`)));
    });
    ended.catch(() => {});
    const reading = new Promise<number>((resolve) => {
      child.stderr.on('data', (chunk: Buffer) => {
        log += chunk.toString();
        if (log.includes(works)) resolve(performance.now());
        log = log.slice(-20000);
      });
    });
    const openedAt = await Promise.race([reading, ended]);
    return new ReaderProcess(child, openedAt, await cpuMicros(child.pid!), ended);
  }

  /** Until what lies before `lsn` is in Kafka and confirmed to the server. @returns what it took since it reads */
  async confirmed(client: pg.Client, lsn: string, timeoutMs = 900_000): Promise<ReaderCost> {
    const giveUpAt = Date.now() + timeoutMs;
    for (;;) {
      const { rows } = await Promise.race([
        client.query<{ done: boolean }>(
          `select coalesce(bool_or(confirmed_flush_lsn >= $1::pg_lsn), false) as done from pg_replication_slots
            where database = current_database() and slot_name like 'tidemark%'`,
          [lsn],
        ),
        this.#ended,
      ]);
      if (rows[0]!.done) break;
      if (Date.now() > giveUpAt) throw new Error(`the reader did not reach ${lsn}`);
      await sleep(20);
    }
    const seconds = (performance.now() - this.openedAt) / 1000;
    return { seconds, cpuMicros: await this.cpuMicros(), peakMiB: await peakMemoryMiB(this.pid) };
  }

  /** Since it reads. */
  async cpuMicros(): Promise<number> {
    return (await cpuMicros(this.pid)) - this.#startCpu;
  }

  peakMiB(): Promise<number> {
    return peakMemoryMiB(this.pid);
  }

  memoryMiB(): Promise<number> {
    return memoryMiB(this.pid);
  }

  async stop(): Promise<void> {
    const exited = new Promise((resolve) => this.#child.on('exit', resolve));
    this.#child.kill('SIGTERM');
    await exited;
  }
}

/** A first short run: slot, publication and ledger exist from then on. */
export async function introduceReader(config: string, client: pg.Client): Promise<void> {
  const reader = await ReaderProcess.start(config);
  const { rows } = await client.query<{ lsn: string }>('select pg_current_wal_lsn() as lsn');
  await reader.confirmed(client, rows[0]!.lsn);
  await reader.stop();
}
