/** `tidemark snapshot …`: wishes go to the control database, where the reader looks for them every second. */
import { setTimeout as sleep } from 'node:timers/promises';
import type { Pool } from 'pg';
import { matchTopics } from '../deliver/unit-topics.ts';
import { openControl } from '../platform/control.ts';
import { TidemarkError } from '../platform/errors.ts';
import type { ResolvedConfig } from '../platform/resolved-config.ts';
import { parseTableName } from '../platform/table-name.ts';
import { longestTopic, topicNames } from '../publish/record-format.ts';
import {
  type SnapshotRequest,
  type SnapshotRequestState,
  SnapshotRequests,
} from '../publish/snapshot/snapshot-requests.ts';
import { SourceLedger } from '../publish/source-ledger.ts';
import { readsBinary } from '../publish/types/reader-codecs.ts';
import {
  conditionRefused,
  describeTracked,
  destinationRefused,
  requireCondition,
} from '../replicate/snapshot/table-scan.ts';
import { connectSource, readSlot } from '../replicate/source.ts';
import { type CommandContext, configOf, exitCode, tableArgument } from './context.ts';
import { renderSnapshots, snapshotStatus } from './snapshot-text.ts';

export interface SnapshotArguments {
  /** Only rows for which it holds. */
  where?: string | undefined;
  /** Whom it is for. */
  for?: string | undefined;
  /** With `status`: until none is open any more. */
  watch?: boolean | undefined;
}

const moves = {
  pause: { from: ['requested', 'running'], to: 'paused', done: 'paused' },
  resume: { from: ['paused'], to: 'requested', done: 'goes on' },
  // A failed one is acknowledged by it.
  cancel: { from: ['requested', 'running', 'paused', 'failed'], to: 'cancelled', done: 'cancelled' },
} as const satisfies Record<
  string,
  { from: readonly SnapshotRequestState[]; to: SnapshotRequestState; done: string }
>;

const usage =
  'tidemark snapshot start <schema.table>… [--where "…"] [--for destination], pause, resume, cancel or status [table]';

/** @returns 0, or 1 where `status` has a failed one. @throws TidemarkError TM221, TM222, TM224, TM409 */
export async function snapshotCommand(
  context: CommandContext,
  args: SnapshotArguments,
  [action, ...named]: string[],
): Promise<number> {
  const tables = named.map(tableArgument);
  const config = await configOf(context);
  if (args.where !== undefined && action !== 'start')
    throw new TidemarkError('TM101', '--where goes with `snapshot start`');
  if (args.for !== undefined && action !== 'start')
    throw new TidemarkError('TM101', '--for goes with `snapshot start`');
  const pool = openControl(config.control, context.log, 1);
  try {
    const requests = new SnapshotRequests(pool, config.source.id);
    switch (action) {
      case 'start':
        return await start(context, config, pool, requests, tables, args);
      case 'pause':
      case 'resume':
      case 'cancel':
        return await move(context, requests, action, tables);
      case 'status':
        return await status(context, requests, tables, args.watch ?? false);
      default:
        throw new TidemarkError('TM101', `snapshot: ${action ?? 'nothing'} is no action`, { remedy: usage });
    }
  } finally {
    await pool.end();
  }
}

async function start(
  context: CommandContext,
  config: ResolvedConfig,
  pool: Pool,
  requests: SnapshotRequests,
  tables: readonly string[],
  args: SnapshotArguments,
): Promise<number> {
  const condition = args.where ?? null;
  const destination = args.for ?? null;
  if (tables.length === 0)
    throw new TidemarkError('TM101', 'snapshot start needs a table', { remedy: usage });
  if (destination !== null) requireReader(config, destination, tables);
  const known = await new SourceLedger(pool, config.source.id).read();
  if (known?.state !== 'streaming') {
    throw new TidemarkError('TM224', 'no reader has streamed this source yet', {
      remedy:
        'Start `tidemark run`: it reads what the tables hold by itself, unless source.snapshot.mode is never.',
    });
  }
  const client = await connectSource(config.source, 'tidemark/snapshot-request');
  let active: boolean;
  try {
    const { rows } = await client.query('select pg_is_in_recovery() as standby');
    if (rows[0].standby) throw new TidemarkError('TM222', 'the source is a standby');
    for (const table of tables) {
      const scan = await describeTracked(client, config.source, table, readsBinary);
      if (scan.key.length === 0) {
        if (condition !== null) throw conditionRefused(table);
        if (destination !== null) throw destinationRefused(table);
      }
      if (condition !== null) await requireCondition(client, scan, condition);
    }
    active = (await readSlot(client, config.source.slot))?.active ?? false;
  } finally {
    await client.end().catch(() => {});
  }
  const lines: string[] = [];
  for (const table of tables) {
    if ((await requests.request(known.epoch, table, { condition, destination })) === null) {
      const open = (await requests.open()).find((each) => each.table === table);
      const whom = open?.destination ? `, for ${open.destination}` : '';
      throw new TidemarkError(
        'TM224',
        `a snapshot of ${table} is open already${whom}: there is one at a time`,
        {
          remedy: `Wait for it, or end it first: tidemark snapshot cancel ${table}`,
        },
      );
    }
    lines.push(`${table}: requested`);
  }
  if (!active) lines.push('no reader runs: it begins with the next `tidemark run`');
  answer(context, lines, { requested: tables, reader: active });
  return exitCode.ok;
}

/** @throws TidemarkError TM224 where the destination would not get the rows */
function requireReader(config: ResolvedConfig, destination: string, tables: readonly string[]): void {
  const found = config.destinations.find(({ name }) => name === destination);
  if (!found) {
    const names = config.destinations.map(({ name }) => name).join(', ');
    throw new TidemarkError('TM224', `there is no destination ${destination}`, {
      remedy: names ? `Give --for one of: ${names}.` : 'No instance file names a destination.',
    });
  }
  const { topicPrefix } = config.kafka;
  const topics = topicNames(topicPrefix);
  for (const table of tables) {
    const id = parseTableName(table)!;
    if (matchTopics(topicPrefix, found.tables, [topics.table(id)]).length === 0) {
      throw new TidemarkError('TM224', `${destination} does not read ${table}`, {
        remedy: `Add it to "tables" in ${found.file}, or leave --for out.`,
      });
    }
    if (topics.side(id, destination).length > longestTopic) {
      throw new TidemarkError(
        'TM224',
        `the topic of ${table} for ${destination} would have too long a name`,
        {
          remedy: `Kafka takes ${longestTopic} characters. Leave --for out: then all destinations get the rows.`,
        },
      );
    }
  }
}

async function move(
  context: CommandContext,
  requests: SnapshotRequests,
  action: keyof typeof moves,
  tables: readonly string[],
): Promise<number> {
  const { from, to, done } = moves[action];
  if (tables.length === 0)
    throw new TidemarkError('TM101', `snapshot ${action} needs a table`, { remedy: usage });
  for (const table of tables) {
    if ((await requests.move(table, from, to)) > 0) continue;
    const newest = (await requests.newest()).find((each) => each.table === table);
    throw new TidemarkError(
      'TM224',
      newest
        ? `the snapshot of ${table} is ${newest.state}: there is nothing to ${action}`
        : `there is no snapshot of ${table}`,
    );
  }
  answer(
    context,
    tables.map((table) => `${table}: ${done}`),
    { [to]: tables },
  );
  return exitCode.ok;
}

async function status(
  context: CommandContext,
  requests: SnapshotRequests,
  tables: readonly string[],
  watch: boolean,
): Promise<number> {
  for (;;) {
    const all = await requests.newest();
    const missing = tables.find((table) => !all.some((each) => each.table === table));
    if (missing) throw new TidemarkError('TM224', `there is no snapshot of ${missing}`);
    const chosen = tables.length === 0 ? all : all.filter(({ table }) => tables.includes(table));
    show(context, chosen);
    const open = chosen.some(({ state }) => state === 'requested' || state === 'running');
    if (!watch || !open || context.signal.aborted)
      return chosen.some(({ state }) => state === 'failed') ? exitCode.no : exitCode.ok;
    await sleep(1000, undefined, { signal: context.signal }).catch(() => {});
  }
}

function show(context: CommandContext, chosen: readonly SnapshotRequest[]): void {
  const reports = chosen.map((request) => snapshotStatus(request));
  context.stdout(
    context.json ? `${JSON.stringify({ snapshots: reports }, null, 2)}\n` : renderSnapshots(reports),
  );
}

function answer(context: CommandContext, lines: readonly string[], fields: object): void {
  context.stdout(
    context.json ? `${JSON.stringify({ ok: true, ...fields })}\n` : lines.map((line) => `${line}\n`).join(''),
  );
}
