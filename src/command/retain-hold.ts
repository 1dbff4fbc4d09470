/** `tidemark retain hold …`: legal holds, which win over every policy and override. */
import type { Client } from 'pg';
import { TidemarkError } from '../platform/errors.ts';
import type { RetainConfig } from '../platform/resolved-config.ts';
import { type LegalHold, listHolds, placeHold, releaseHold } from '../retain/legal-holds.ts';
import { type CommandContext, exitCode } from './context.ts';
import { keysOf, type RetainArguments, requireTexts, tableOf, untilOf } from './retain-arguments.ts';

const remedy = `tidemark retain hold add [table] [--tenant t] [--key '["…"]' | --keys file] --reason "…" --by "…" [--until 2027-01-31], release <id> --reason "…" --by "…", or list [--all]`;

export async function holdCommand(
  context: CommandContext,
  client: Client,
  retain: RetainConfig,
  args: RetainArguments,
  [action, ...rest]: string[],
): Promise<number> {
  if (action === 'list') {
    const holds = await listHolds(client, args.all ?? false);
    context.stdout(context.json ? `${JSON.stringify({ ok: true, holds }, null, 2)}\n` : listText(holds));
    return exitCode.ok;
  }
  if (action === 'add') {
    const [name, ...more] = rest;
    const keys = await keysOf(args);
    const tenant = args.tenant ?? null;
    if (more.length > 0 || (name === undefined && (tenant === null || keys)) || tenant?.trim() === '')
      throw new TidemarkError('TM101', 'a hold is on a tenant, on a table, or on keys of one table', {
        remedy,
      });
    const { reason, by } = requireTexts(args, 'retain hold add', 'reason', 'by');
    const until = args.until === undefined ? null : untilOf(args.until);
    const scope = { tenant, table: name === undefined ? null : tableOf(name), keys };
    return told(context, 'placed', await placeHold(client, scope, { reason, by, until, retain }));
  }
  if (action === 'release' && rest.length === 1) {
    const { reason, by } = requireTexts(args, 'retain hold release', 'reason', 'by');
    return told(context, 'released', await releaseHold(client, rest[0]!, { reason, by }));
  }
  throw new TidemarkError('TM101', 'tidemark retain hold needs one of add, release and list', { remedy });
}

function told(context: CommandContext, what: string, hold: LegalHold): number {
  context.stdout(
    context.json
      ? `${JSON.stringify({ ok: true, hold })}\n`
      : `${what}: ${scopeText(hold)}, hold ${hold.id}\n`,
  );
  return exitCode.ok;
}

function scopeText({ tenant, table, keys }: LegalHold): string {
  const rows = keys === null ? 'all rows' : keys.length === 1 ? '1 row' : `${keys.length} rows`;
  return [
    rows,
    ...(table === null ? [] : [`of ${table}`]),
    ...(tenant === null ? [] : [`of tenant ${tenant}`]),
  ].join(' ');
}

function listText(holds: readonly LegalHold[]): string {
  if (holds.length === 0) return 'no legal hold\n';
  return holds.map((hold) => `${holdLines(hold).join('\n')}\n`).join('');
}

function holdLines(hold: LegalHold): string[] {
  const { id, reason, placedAt, placedBy, askedBy, expiresAt, releasedAt, releasedBy, releaseAskedBy } = hold;
  const until = expiresAt ? `, until ${expiresAt.toISOString()}` : '';
  return [
    `${id}  ${hold.inForce ? 'in force' : 'over'}: ${scopeText(hold)}${until}`,
    `  placed ${placedAt.toISOString()} by ${askedBy ?? placedBy} (${placedBy}): ${reason}`,
    ...(releasedAt
      ? [
          `  released ${releasedAt.toISOString()} by ${releaseAskedBy ?? releasedBy} (${releasedBy}): ${hold.releaseReason}`,
        ]
      : []),
  ];
}
