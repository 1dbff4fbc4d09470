/** `tidemark erase`: what privacy law wants gone, with an answer that says where it is not. */
import { parseDuration } from '../platform/configuration/scalars.ts';
import { TidemarkError } from '../platform/errors.ts';
import {
  type ErasureReport,
  type ErasureWish,
  erase,
  planErasure,
  scopeName,
} from '../retain/erase/erase.ts';
import type { EraseScope } from '../retain/erase/scope.ts';
import { connectRetention, retentionError } from '../retain/session.ts';
import { requireSetUp } from '../retain/setup.ts';
import { type CommandContext, exitCode } from './context.ts';
import { erasurePlanText, erasureText } from './erase-text.ts';
import { keysOf, type RetainArguments, requireTexts, tableOf } from './retain-arguments.ts';
import { type RetainingConfig, retaining, withRetention } from './retention-context.ts';

const remedy = `tidemark erase [table]… --tenant 42 --confirm 42, or tidemark erase app.findings --key '["4f1c…","17"]' --confirm app.findings; with --reason "…" and --by "…", or with --list to see what there is`;
const progressEveryMs = 2000;

export async function eraseCommand(
  context: CommandContext,
  args: RetainArguments,
  names: string[],
): Promise<number> {
  const config = await retaining(context);
  const scope = await scopeOf(args, names);
  const wish = args.list ? null : wishOf(args, scope);
  const client = await connectRetention(config.retain.endpoint, config.source.id, 'erase');
  try {
    await requireSetUp(client);
    if (wish) return await run(context, config, client, wish);
    const { counts, without, untracked } = await planErasure(client, scope, { config });
    const plan = { tables: counts, without, untracked };
    context.stdout(
      context.json ? `${JSON.stringify({ ok: true, ...plan }, null, 2)}\n` : erasurePlanText(plan),
    );
    return exitCode.ok;
  } catch (error) {
    throw retentionError(error);
  } finally {
    await client.end().catch(() => {});
  }
}

async function scopeOf(args: RetainArguments, names: readonly string[]): Promise<EraseScope> {
  const keys = await keysOf(args);
  const tables = names.map(tableOf);
  const tenant = args.tenant?.trim() || null;
  if ((tenant === null) === (keys === null) || (keys && tables.length !== 1))
    throw new TidemarkError('TM101', 'what is erased is a --tenant, or rows of one table by their --key', {
      remedy,
    });
  return { tenant, tables, keys };
}

function wishOf(args: RetainArguments, scope: EraseScope): ErasureWish {
  const { reason, by, confirm } = requireTexts(args, 'erase', 'reason', 'by', 'confirm');
  const name = scopeName({ ...scope, tables: scope.keys ? scope.tables : [] });
  if (confirm !== name)
    throw new TidemarkError('TM101', `--confirm ${confirm} is not ${name}`, {
      remedy:
        'Nothing brings back what is erased. If it is meant, give --confirm the tenant, or the table of the keys, once more.',
    });
  const timeoutMs = parseDuration(args.timeout ?? '120s');
  if (timeoutMs === null)
    throw new TidemarkError('TM101', '--timeout must be a duration such as 120s or 10m');
  return { scope, reason, by, timeoutMs };
}

async function run(
  context: CommandContext,
  config: RetainingConfig,
  client: Awaited<ReturnType<typeof connectRetention>>,
  wish: ErasureWish,
): Promise<number> {
  return withRetention(context, config, async (options) => {
    let told = performance.now();
    const report = await erase(client, wish, options, (table, hot, tombstones) => {
      if (context.json || performance.now() - told < progressEveryMs) return;
      told = performance.now();
      context.stdout(`${table}: ${hot} rows deleted, ${tombstones} Tombstones erased so far\n`);
    });
    const ok = isThrough(report);
    context.stdout(context.json ? `${JSON.stringify({ ok, ...report }, null, 2)}\n` : erasureText(report));
    return ok ? exitCode.ok : exitCode.no;
  });
}

/** Nothing is left that running it again could reach. */
function isThrough({ tables, destinations, interrupted }: ErasureReport): boolean {
  return (
    !interrupted &&
    tables.every(({ referred }) => referred === 0) &&
    destinations.every(({ waitsFor }) => waitsFor === null)
  );
}
