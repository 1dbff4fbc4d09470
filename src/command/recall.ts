/** `tidemark recall`: rows that were evicted come back, one or a million, their hashes checked. */
import { TidemarkError } from '../platform/errors.ts';
import type { ResolvedConfig, RetainConfig } from '../platform/resolved-config.ts';
import { tableName } from '../platform/table-name.ts';
import { listOpen, type Selection } from '../retain/open-tombstones.ts';
import { type RecallProgress, recallRows } from '../retain/recall-rows.ts';
import { connectRetention, retentionError } from '../retain/session.ts';
import { requireSetUp } from '../retain/setup.ts';
import { describeSourceTable, requireKeyForm } from '../retain/source-table.ts';
import { parseFilter } from '../retain/tombstone-filter.ts';
import { type CommandContext, exitCode } from './context.ts';
import { listText, progressText, summaryText } from './recall-text.ts';
import { keysOf, type RetainArguments, tableOf } from './retain-arguments.ts';
import { retaining, withRetention } from './retention-context.ts';

const remedy = `tidemark recall app.findings --list, or --reason "audit 12" with one of --key '["4f1c…","17"]', --keys file, --where "tenant = '42'" and --all`;
const progressEveryMs = 2000;

export async function recallCommand(
  context: CommandContext,
  args: RetainArguments,
  [name, ...positional]: string[],
): Promise<number> {
  const config = await retaining(context);
  if (name === undefined) throw new TidemarkError('TM101', 'recall needs a table', { remedy });
  const keys = await keysOf(args, positional);
  const where = args.where === undefined ? null : parseFilter(args.where);
  if (keys && where)
    throw new TidemarkError('TM101', 'rows are chosen by their keys or by --where, not by both', { remedy });
  const reason = args.reason?.trim() ?? '';
  if (!args.list && (reason === '' || !(keys || where || args.all)))
    throw new TidemarkError('TM101', 'recall needs --reason and which rows', { remedy });
  const client = await connectRetention(config.retain.endpoint, config.source.id, 'recall');
  try {
    await requireSetUp(client);
    const table = await describeSourceTable(client, tableOf(name));
    if (keys) requireKeyForm(table, keys);
    const selection = { table, keys, where };
    if (args.list) return await list(context, client, selection, args.limit);
    return await recall(context, config, client, {
      selection,
      reason,
      destination: args.destination ?? null,
    });
  } catch (error) {
    throw retentionError(error);
  } finally {
    await client.end().catch(() => {});
  }
}

type RetentionClient = Awaited<ReturnType<typeof connectRetention>>;

async function list(
  context: CommandContext,
  client: RetentionClient,
  selection: Selection,
  limitText = '100',
): Promise<number> {
  const limit = /^\d{1,6}$/.test(limitText) ? Number(limitText) : 0;
  if (limit < 1) throw new TidemarkError('TM101', '--limit must be a number from 1 to 999999');
  const found = { table: tableName(selection.table), ...(await listOpen(client, selection, limit)) };
  context.stdout(context.json ? `${JSON.stringify({ ok: true, ...found }, null, 2)}\n` : listText(found));
  return exitCode.ok;
}

async function recall(
  context: CommandContext,
  config: ResolvedConfig & { retain: RetainConfig },
  client: RetentionClient,
  wish: Parameters<typeof recallRows>[1],
): Promise<number> {
  return withRetention(context, config, async (options) => {
    const began = performance.now();
    const summary = await recallRows(client, wish, options, telling(context, began));
    const rows = Object.values(summary.refused).reduce((sum, each) => sum + each, 0);
    const ok = rows === 0 && !summary.interrupted;
    const seconds = Math.round((performance.now() - began) / 100) / 10;
    const report = { ok, ...summary, seconds };
    context.stdout(context.json ? `${JSON.stringify(report, null, 2)}\n` : summaryText(report));
    return ok ? exitCode.ok : exitCode.no;
  });
}

/** Lines for a person alone: whoever reads JSON gets one document. */
function telling({ json, stdout }: CommandContext, began: number): RecallProgress {
  let told = began;
  return (done, of, destination) => {
    const now = performance.now();
    if (json || now - told < progressEveryMs) return;
    told = now;
    stdout(progressText(done, of, destination, now - began));
  };
}
