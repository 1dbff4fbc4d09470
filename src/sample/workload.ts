/** Runs the sample application against a database that migrateSample and seedSample have prepared. */
import { setTimeout as sleep } from 'node:timers/promises';
import pg from 'pg';
import { TidemarkError } from '../platform/errors.ts';
import { day, microsPerDay, SampleClock } from './clock.ts';
import { type OperationKind, operationKinds, operations } from './operations.ts';
import { Prng, Weighted } from './prng.ts';
import { latestArrival } from './rows.ts';
import { type RowCounts, Session, type TableCounts } from './session.ts';
import { readStates, type WorkerState } from './state.ts';
import type { Worker } from './worker.ts';

export interface WorkloadOptions {
  /**
   * A seed replays the same operations, ids included, on a database with the same content; on a database that went
   * on since, it gives other ids, so that a run never collides with an earlier one.
   */
  seed: number | string;
  /** Over all connections; 0 (the default) means as fast as possible. */
  transactionsPerSecond?: number;
  /** Stops after this many, rolled back ones included; without it the workload runs until `signal`. */
  transactions?: number;
  /** Works on the first so many organizations; default all. */
  organizations?: number;
  /** Parallel database connections, default 1. With more, each still does the same operations, in any interleaving. */
  connections?: number;
  /** Transactions of 200 to 800 events now and then; default true. */
  bursts?: boolean;
  /** NaN, infinities, dates before Christ and the like, rarely; default false. */
  hostileValues?: boolean;
  /** Other relative frequencies; 0 leaves an operation out. */
  mix?: Partial<Record<OperationKind, number>>;
  /** Start of the virtual clock; default clock.ts' defaultStart. */
  start?: Date;
  /** Milliseconds since 1970, to follow a real clock (Date.now) instead of the virtual one. Not deterministic. */
  wall?: () => number;
  /** Ends the workload after the transaction in progress. */
  signal?: AbortSignal;
  /** Called after every commit (not after a rollback). */
  onCommit?: (commit: Commit) => void;
}

export interface Commit {
  kind: OperationKind;
  /** Which connection, from 0. */
  worker: number;
  tables: TableCounts;
}

export interface WorkloadTotals {
  committed: number;
  /** Rolled back by intent. */
  rolledBack: number;
  /** Rolled back by Postgres for a deadlock or serialization failure, and not tried again. */
  conflicts: number;
  rows: RowCounts;
  kinds: Record<OperationKind, number>;
}

/**
 * Runs transactions until the bound or the signal, and returns what it did. With one connection, equal seed, start
 * and database content give equal final content.
 *
 * Throws TM101 when there are no organizations with connections; otherwise passes on what Postgres reports (a lost
 * connection ends the workload). The role needs INSERT, SELECT, UPDATE, DELETE and TRUNCATE on the tables, USAGE and
 * SELECT on their sequences, and must own app.events, to which it adds partitions.
 */
export async function runWorkload(
  config: pg.ClientConfig,
  options: WorkloadOptions,
): Promise<WorkloadTotals> {
  const workers = options.connections ?? 1;
  const totals: WorkloadTotals = {
    committed: 0,
    rolledBack: 0,
    conflicts: 0,
    rows: { inserts: 0, updates: 0, deletes: 0, truncates: 0 },
    kinds: Object.fromEntries(operationKinds.map((kind) => [kind, 0])) as Record<OperationKind, number>,
  };
  const clients: pg.Client[] = [];
  try {
    for (let i = 0; i < workers; i++) clients.push(await connect(config));
    const stream = `${options.seed}/${await generation(clients[0]!)}`;
    const states = await readStates(clients[0]!, workers, options.organizations ?? 1_000_000);
    if (states[0]!.connections.length === 0) {
      throw new TidemarkError('TM101', 'the sample database has no organization with a connection', {
        remedy: 'Call migrateSample and seedSample first.',
      });
    }
    // One failing worker stops the others, which would otherwise run on unseen.
    const failed = new AbortController();
    const signal = AbortSignal.any([failed.signal, ...(options.signal ? [options.signal] : [])]);
    const outcomes = await Promise.allSettled(
      clients.map((client, index) =>
        work(
          client,
          states[index]!,
          index,
          { ...options, seed: stream, signal, connections: workers },
          totals,
        ).catch((error) => {
          failed.abort();
          throw error;
        }),
      ),
    );
    const failure = outcomes.find((outcome) => outcome.status === 'rejected');
    if (failure) throw failure.reason;
  } finally {
    await Promise.all(clients.map((client) => client.end().catch(() => {})));
  }
  return totals;
}

async function connect(config: pg.ClientConfig): Promise<pg.Client> {
  const client = new pg.Client(config);
  // Without a listener a lost idle connection would end the process; the next query reports it anyway.
  client.on('error', () => {});
  await client.connect();
  await client.query(`SET TIME ZONE 'UTC'`);
  return client;
}

/** Two sequences that nearly every transaction moves, rolled back or not, and nothing sets back: how far we are. */
async function generation(client: pg.Client): Promise<string> {
  const result = await client.query<{ at: string }>(
    `SELECT concat_ws('-', pg_sequence_last_value(pg_get_serial_sequence('app.audit_log', 'sequence')),
                           pg_sequence_last_value(pg_get_serial_sequence('app.rule_runs', 'id'))) AS at`,
  );
  return result.rows[0]!.at;
}

type WorkerOptions = WorkloadOptions & { connections: number; signal: AbortSignal };

async function work(
  client: pg.Client,
  state: WorkerState,
  index: number,
  options: WorkerOptions,
  totals: WorkloadTotals,
): Promise<void> {
  const prng = new Prng(`${options.seed}/worker-${index}`);
  const clock = new SampleClock(prng, {
    ...(options.start && { start: options.start }),
    ...(options.wall && { wall: options.wall }),
  });
  const session = new Session(client);
  const worker: Worker = { index, session, prng, clock, state, hostile: options.hostileValues ?? false };
  const choice = new Weighted(
    operationKinds.map((kind) =>
      kind === 'burst' && options.bursts === false ? 0 : (options.mix?.[kind] ?? operations[kind].weight),
    ),
  );
  const bound = share(options.transactions ?? Number.POSITIVE_INFINITY, options.connections, index);
  const pace = pacer((options.transactionsPerSecond ?? 0) / options.connections);
  let partitionsUntil = 0;
  for (let done = 0; done < bound && !options.signal.aborted; done++) {
    await pace(options.signal);
    if (options.signal.aborted) break;
    if (clock.now + microsPerDay > partitionsUntil)
      partitionsUntil = await ensurePartitions(client, clock.now);
    const { kind, outcome } = await runTransaction(worker, choice);
    if (outcome === 'conflict') totals.conflicts++;
    else if (outcome === 'rollback') totals.rolledBack++;
    else {
      totals.committed++;
      for (const counts of Object.values(outcome)) addCounts(totals.rows, counts);
      options.onCommit?.({ kind, worker: index, tables: outcome });
    }
    totals.kinds[kind]++;
  }
}

async function runTransaction(
  worker: Worker,
  choice: Weighted,
): Promise<{ kind: OperationKind; outcome: TableCounts | 'rollback' | 'conflict' }> {
  const { session, prng } = worker;
  await session.begin();
  let kind: OperationKind;
  try {
    let wish: 'commit' | 'rollback' | false = false;
    let attempts = 0;
    do {
      // A mix of only operations that find nothing to do would otherwise never end.
      kind = attempts++ < 100 ? operationKinds[choice.draw(prng)]! : 'syncConnection';
      wish = await operations[kind].run(worker);
    } while (wish === false);
    if (wish === 'commit') return { kind, outcome: await session.commit() };
    await session.rollback();
    return { kind, outcome: 'rollback' };
  } catch (error) {
    const state = (error as { code?: unknown }).code;
    if (state === '40001' || state === '40P01') {
      await session.rollback();
      return { kind: kind!, outcome: 'conflict' };
    }
    throw error;
  }
}

/** Events may arrive late, so earlier days need partitions too. Returns the end of the last one. */
async function ensurePartitions(client: pg.Client, now: number): Promise<number> {
  const first = now - latestArrival - microsPerDay;
  const days = 6;
  await client.query('SELECT app.ensure_event_partitions($1, $2)', [day(first), days]);
  return Math.floor(first / microsPerDay) * microsPerDay + days * microsPerDay;
}

/** Waits so that on average `rate` transactions start per second; catches up at most one second. */
function pacer(rate: number): (signal: AbortSignal) => Promise<void> {
  if (rate <= 0) return async () => {};
  let due = performance.now();
  return async (signal) => {
    const now = performance.now();
    due = Math.max(due + 1000 / rate, now - 1000);
    if (due > now) await sleep(due - now, undefined, { signal }).catch(() => {});
  };
}

function share(total: number, parts: number, index: number): number {
  return Number.isFinite(total) ? Math.floor(total / parts) + (index < total % parts ? 1 : 0) : total;
}

function addCounts(sum: RowCounts, counts: RowCounts): void {
  sum.inserts += counts.inserts;
  sum.updates += counts.updates;
  sum.deletes += counts.deletes;
  sum.truncates += counts.truncates;
}
