/** `tidemark retain …`: rows leave the source on proof of delivery. */
import { setTimeout as sleep } from 'node:timers/promises';
import { parseDuration } from '../platform/configuration/scalars.ts';
import { migrateControl } from '../platform/control.ts';
import { TidemarkError } from '../platform/errors.ts';
import { planRetention } from '../retain/plan.ts';
import { Retention } from '../retain/retention.ts';
import type { TableRound } from '../retain/retention-ledger.ts';
import { readRetentionStatus } from '../retain/retention-status.ts';
import { connectRetention, retentionError } from '../retain/session.ts';
import { requireSetUp, setUpRetention } from '../retain/setup.ts';
import { type CommandContext, exitCode } from './context.ts';
import { checkEvidenceCommand, evidenceCommand } from './evidence.ts';
import { recallCommand } from './recall.ts';
import type { RetainArguments } from './retain-arguments.ts';
import { holdCommand } from './retain-hold.ts';
import { overrideCommand } from './retain-override.ts';
import { planText, roundText, statusText } from './retain-text.ts';
import { type RetainingConfig, retaining, withRetention } from './retention-context.ts';

/** Between the rounds of `run --once`. */
const onceIntervalMs = 500;
const defaultTimeoutMs = 120_000;

export async function retainCommand(
  context: CommandContext,
  args: RetainArguments,
  [action, ...rest]: string[],
): Promise<number> {
  // Whoever checks a report has neither the source nor its configuration.
  if (action === 'check-evidence') return checkEvidenceCommand(context, args, rest);
  if (action === 'evidence') return evidenceCommand(context, args);
  if (action === 'recall') return recallCommand(context, args, rest);
  const config = await retaining(context);
  if (action === 'setup') return setup(context, config);
  if (action === 'plan') return plan(context, config);
  if (action === 'run') return run(context, config, args);
  if (action === 'status') return status(context, config);
  if (action === 'hold' || action === 'override') return asOfficer(context, config, args, action, rest);
  throw new TidemarkError(
    'TM101',
    'tidemark retain needs one of setup, plan, run, status, recall, hold, override, evidence and check-evidence',
  );
}

/** Not as the service: it grants itself nothing. */
async function asOfficer(
  context: CommandContext,
  { retain, source }: RetainingConfig,
  args: RetainArguments,
  what: 'hold' | 'override',
  rest: string[],
): Promise<number> {
  const client = await connectRetention(retain.officerEndpoint, source.id, 'retain officer');
  try {
    await requireSetUp(client);
    const command = what === 'hold' ? holdCommand : overrideCommand;
    return await command(context, client, retain, args, rest);
  } catch (caught) {
    const error = retentionError(caught);
    if (error.code !== 'TM505') throw error;
    throw new TidemarkError('TM505', error.message, {
      cause: caught,
      remedy:
        'grant tidemark_retention_officer to <the role of retain.officer.url>; and let it read the table, and that of retain.tenants.table.',
    });
  } finally {
    await client.end().catch(() => {});
  }
}

async function setup(context: CommandContext, { retain }: RetainingConfig): Promise<number> {
  const applied = await setUpRetention(retain.setupEndpoint);
  if (context.json) context.stdout(`${JSON.stringify({ ok: true, applied })}\n`);
  else
    context.stdout(
      applied.length > 0 ? `applied ${applied.join(', ')}\n` : 'the retention schema is up to date\n',
    );
  return exitCode.ok;
}

async function plan(context: CommandContext, config: RetainingConfig): Promise<number> {
  return withRetention(context, config, async (options) => {
    const client = await connectRetention(config.retain.endpoint, config.source.id);
    try {
      const found = await planRetention(client, { ...options, config });
      const ok = found.tables.every(({ enabled, problem }) => !enabled || problem === null);
      context.stdout(context.json ? `${JSON.stringify({ ok, ...found }, null, 2)}\n` : planText(found));
      return ok && found.tenantsWithoutDays === 0 ? exitCode.ok : exitCode.no;
    } finally {
      await client.end().catch(() => {});
    }
  });
}

async function run(
  context: CommandContext,
  config: RetainingConfig,
  { once, timeout }: RetainArguments,
): Promise<number> {
  const timeoutMs = timeout === undefined ? defaultTimeoutMs : parseDuration(timeout);
  if (timeoutMs === null || timeoutMs < 1)
    throw new TidemarkError('TM101', '--timeout must be a duration such as 120s or 10m');
  return withRetention(context, config, async (options) => {
    await migrateControl(options.pool);
    const retention = new Retention({ ...options, config });
    try {
      if (once) return await runOnce(context, retention, timeoutMs);
      await retention.run();
      return exitCode.ok;
    } finally {
      await retention.close();
    }
  });
}

/** Until every table had a round in which nothing waited and nothing went. */
async function runOnce(context: CommandContext, retention: Retention, timeoutMs: number): Promise<number> {
  const deadline = performance.now() + timeoutMs;
  const evicted = new Map<string, number>();
  const ended = new Set<string>();
  const results = new Map<string, TableRound>();
  while (!context.signal.aborted && performance.now() < deadline) {
    const rounds = await retention.round();
    for (const round of rounds) {
      const { table } = round;
      evicted.set(table, (evicted.get(table) ?? 0) + round.evicted);
      // What stays is marked anew each time.
      if (ended.has(table) && round.evicted === 0) continue;
      results.set(table, round);
      if (isOver(round)) ended.add(table);
      else ended.delete(table);
    }
    if (rounds.every(({ table }) => ended.has(table))) break;
    await sleep(onceIntervalMs, undefined, { signal: context.signal }).catch(() => {});
  }
  const tables = [...results.values()].map((round) => ({ ...round, evicted: evicted.get(round.table)! }));
  const ok = tables.every(({ table, problem }) => problem === null && ended.has(table));
  context.stdout(context.json ? `${JSON.stringify({ ok, tables }, null, 2)}\n` : roundText(tables));
  return ok ? exitCode.ok : exitCode.no;
}

/** What changed since it was marked is marked once more; what an attached partition brought along is being read. */
function isOver({ problem, marked, evicted, staying }: TableRound): boolean {
  if (problem) return true;
  const coming = (staying['changed since'] ?? 0) + (staying['partition not read yet'] ?? 0);
  return marked === 0 && evicted === 0 && coming === 0;
}

async function status(context: CommandContext, config: RetainingConfig): Promise<number> {
  return withRetention(context, config, async ({ pool }) => {
    const client = await connectRetention(config.retain.endpoint, config.source.id);
    try {
      const found = await readRetentionStatus(client, pool, config.source.id);
      const ok = found.tables.every(({ problem }) => problem === null);
      context.stdout(context.json ? `${JSON.stringify({ ok, ...found }, null, 2)}\n` : statusText(found));
      return ok ? exitCode.ok : exitCode.no;
    } finally {
      await client.end().catch(() => {});
    }
  });
}
