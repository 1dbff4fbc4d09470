/** `tidemark destination skip`, `replay` and `resync`: when a destination cannot simply go on. */
import { userInfo } from 'node:os';
import { setTimeout as sleep } from 'node:timers/promises';
import type { Pool } from 'pg';
import { asPosition, type Position } from '../connector/position.ts';
import { type MoveOutcome, moveOutcomes, requestMove } from '../deliver/moves.ts';
import { matchTopics } from '../deliver/unit-topics.ts';
import { parseDuration } from '../platform/configuration/scalars.ts';
import { TidemarkError } from '../platform/errors.ts';
import type { ResolvedConfig } from '../platform/resolved-config.ts';
import { tableName } from '../platform/table-name.ts';
import { topicNames } from '../publish/record-format.ts';
import { hasIdentity, trackedTables } from '../replicate/catalogue.ts';
import { connectSource } from '../replicate/source.ts';
import { type CommandContext, exitCode, tableArgument } from './context.ts';
import { snapshotCommand } from './snapshot.ts';

export interface MoveArguments {
  /** One Unit; all of them where absent. */
  unit?: string | undefined;
  /** Of `skip`: `now`, or a Position. */
  to?: string | undefined;
  /** Of `replay`: `held`, or a Position. */
  from?: string | undefined;
  reason?: string | undefined;
  yes?: boolean | undefined;
  timeout?: string | undefined;
}

const defaultTimeoutMs = 60_000;

/** @throws TidemarkError TM101 without --yes or for what does not exist; TM408 when no worker made the move in time */
export async function moveDestination(
  context: CommandContext,
  { source }: ResolvedConfig,
  pool: Pool,
  {
    kind,
    name,
    unit,
    to,
    from,
    reason,
    yes,
    timeout,
  }: MoveArguments & { kind: 'skip' | 'replay'; name: string },
): Promise<number> {
  const target = kind === 'skip' ? placeOf(to, 'now', '--to') : placeOf(from, 'held', '--from');
  const timeoutMs = timeout === undefined ? defaultTimeoutMs : parseDuration(timeout);
  if (timeoutMs === null) throw new TidemarkError('TM101', '--timeout must be a duration such as 120s');
  if (!yes) throw unconfirmed(kind, name);
  const request = {
    kind,
    target,
    unit: unit ?? null,
    by: userInfo().username,
    reason: reason ?? 'asked for',
  };
  const ids = await requestMove(pool, { sourceId: source.id, destination: name }, request);
  const outcomes = await made(context, pool, ids, timeoutMs);
  if (kind === 'replay' && target !== null && outcomes.some((each) => each.to !== null && each.to > target))
    throw new TidemarkError('TM101', `${name} says itself what it holds, and did not go back to ${target}`, {
      remedy:
        'Where it lost something: --from held. Where rows are wrong: `tidemark destination resync` reads tables again.',
    });
  const answer = { ok: true, destination: name, kind, units: outcomes };
  context.stdout(
    context.json
      ? `${JSON.stringify(answer, null, 2)}\n`
      : outcomes
          .map(
            (each) => `✓ ${name} ${each.unit}: from ${each.from ?? 'nothing'} to ${each.to ?? 'nothing'}\n`,
          )
          .join(''),
  );
  return exitCode.ok;
}

function placeOf(text: string | undefined, word: string, option: string): Position | null {
  if (text === word) return null;
  try {
    if (text !== undefined) return asPosition(text);
  } catch {
    // The message below says what it should be.
  }
  throw new TidemarkError('TM101', `${option} must be ${word}, or a Position`, {
    remedy:
      '`tidemark destination show` has Positions: 42 characters, as 00000001/000000000153A4C8/0000000000000001.',
  });
}

function unconfirmed(kind: 'skip' | 'replay', name: string): TidemarkError {
  return kind === 'skip'
    ? new TidemarkError('TM101', `${name} would never get the changes that are skipped`, {
        remedy: `Add --yes; then \`tidemark destination resync ${name}\` reads its tables again.`,
      })
    : new TidemarkError('TM101', `${name} would get changes again that it was given before`, {
        remedy: 'Add --yes.',
      });
}

async function made(
  context: CommandContext,
  pool: Pool,
  ids: readonly number[],
  timeoutMs: number,
): Promise<MoveOutcome[]> {
  const deadline = performance.now() + timeoutMs;
  for (;;) {
    const outcomes = await moveOutcomes(pool, ids);
    if (outcomes.every(({ done }) => done)) return outcomes;
    if (performance.now() > deadline || context.signal.aborted) {
      const waiting = outcomes.filter(({ done }) => !done).map(({ unit }) => unit);
      throw new TidemarkError('TM408', `not moved yet: ${waiting.join(', ')}`, {
        remedy: 'The request stays: start `tidemark run`; `tidemark status` says what is in the way.',
      });
    }
    await sleep(200, undefined, { signal: context.signal }).catch(() => {});
  }
}

/** Reads tables again for one destination, beside its stream: what is missing comes, what is too much goes. */
export async function resync(
  context: CommandContext,
  config: ResolvedConfig,
  name: string,
  named: readonly string[],
): Promise<number> {
  const destination = config.destinations.find((each) => each.name === name);
  if (!destination) {
    throw new TidemarkError('TM101', `there is no destination ${name}`, {
      remedy: `Instance files name these: ${config.destinations.map((each) => each.name).join(', ') || '(none)'}.`,
    });
  }
  const tables = named.length > 0 ? named.map(tableArgument) : await keyedTables(config, destination.tables);
  if (tables.length === 0) throw new TidemarkError('TM101', `${name} has no table with a key`);
  return snapshotCommand(context, { for: name }, ['start', ...tables]);
}

/** Tables without a key are replaced whole, in every destination: that is not asked for here. */
async function keyedTables(config: ResolvedConfig, patterns: readonly string[]): Promise<string[]> {
  const client = await connectSource(config.source, 'tidemark/resync');
  try {
    const names = topicNames(config.kafka.topicPrefix);
    const tables = await trackedTables(client, config.source);
    return tables
      .filter((table) => hasIdentity(table))
      .filter((table) => matchTopics(config.kafka.topicPrefix, patterns, [names.table(table)]).length > 0)
      .map((table) => tableName(table));
  } finally {
    await client.end().catch(() => {});
  }
}
