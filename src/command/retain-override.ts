/** `tidemark retain override …`: rows that may go without proof. Everything about one is said in full; nothing is a default. */
import type { Client } from 'pg';
import { TidemarkError } from '../platform/errors.ts';
import type { RetainConfig } from '../platform/resolved-config.ts';
import { tableName } from '../platform/table-name.ts';
import {
  grantOverride,
  listOverrides,
  type OverrideGrant,
  revokeOverride,
} from '../retain/override-grants.ts';
import { type CommandContext, exitCode } from './context.ts';
import { type RetainArguments, requireTexts, tableOf, untilOf } from './retain-arguments.ts';

const remedy =
  'tidemark retain override add <name> <table> --tenant t | --all --reason "…" --by "…" --until 24h --confirm <table>, revoke <name> --reason "…" --by "…", or list [--all]';

export async function overrideCommand(
  context: CommandContext,
  client: Client,
  retain: RetainConfig,
  args: RetainArguments,
  [action, ...rest]: string[],
): Promise<number> {
  if (action === 'list') {
    const overrides = await listOverrides(client, args.all ?? false);
    context.stdout(
      context.json ? `${JSON.stringify({ ok: true, overrides }, null, 2)}\n` : listText(overrides),
    );
    return exitCode.ok;
  }
  if (action === 'add' && rest.length === 2) return add(context, client, retain, args, rest);
  if (action === 'revoke' && rest.length === 1) {
    const { reason, by } = requireTexts(args, 'retain override revoke', 'reason', 'by');
    return told(context, 'revoked', await revokeOverride(client, rest[0]!, { reason, by }));
  }
  throw new TidemarkError('TM101', 'tidemark retain override needs one of add, revoke and list', { remedy });
}

async function add(
  context: CommandContext,
  client: Client,
  retain: RetainConfig,
  args: RetainArguments,
  [name, tableText]: string[],
): Promise<number> {
  const table = tableOf(tableText!);
  const said = requireTexts(args, 'retain override add', 'reason', 'by', 'until', 'confirm');
  if (said.confirm !== tableName(table))
    throw new TidemarkError('TM101', `--confirm ${said.confirm} is not ${tableName(table)}`, {
      remedy: `Rows of ${tableName(table)} would go without proof that anybody has them. If that is meant, give --confirm its name.`,
    });
  const tenant = args.tenant?.trim() || null;
  if ((tenant === null) !== (args.all === true) || args.tenant?.trim() === '')
    throw new TidemarkError('TM101', 'an override is for one --tenant, or for --all of them: say which', {
      remedy,
    });
  const { reason, by } = said;
  const wish = { name: name!.trim(), table, tenant, reason, by, until: untilOf(said.until) };
  return told(context, 'granted', await grantOverride(client, wish, retain));
}

function told(context: CommandContext, what: string, override: OverrideGrant): number {
  context.stdout(
    context.json
      ? `${JSON.stringify({ ok: true, override })}\n`
      : `${what}: override ${override.name}, ${scopeText(override)}\n`,
  );
  return exitCode.ok;
}

function scopeText({ table, tenant, expiresAt }: OverrideGrant): string {
  return `${table}, ${tenant === null ? 'every tenant' : `tenant ${tenant}`}, until ${expiresAt.toISOString()}`;
}

function listText(overrides: readonly OverrideGrant[]): string {
  if (overrides.length === 0) return 'no override\n';
  const lines = overrides.flatMap((override) => {
    const { name, reason, grantedAt, grantedBy, askedBy, revokedAt, revokedBy, revokeReason, inForce } =
      override;
    return [
      `${name}  ${inForce ? 'in force' : 'over'}: ${scopeText(override)}`,
      `  granted ${grantedAt.toISOString()} by ${askedBy ?? grantedBy} (${grantedBy}): ${reason}`,
      ...(revokedAt ? [`  revoked ${revokedAt.toISOString()} by ${revokedBy}: ${revokeReason}`] : []),
    ];
  });
  return `${lines.join('\n')}\n`;
}
