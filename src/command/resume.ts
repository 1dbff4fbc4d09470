/**
 * `tidemark resume`: asks the reader to bring a parked table back. The request is a logical message, a Transaction of its
 * own in the source's WAL, so that what was parked gets its Positions there: after all that is published by then, and
 * before all that comes later.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { parseDuration } from '../platform/configuration/scalars.ts';
import { TidemarkError } from '../platform/errors.ts';
import { createKafka, kafkaError } from '../platform/kafka.ts';
import type { ResolvedConfig } from '../platform/resolved-config.ts';
import { type ResumePolicy, resumePolicies, resumePrefix } from '../publish/parking.ts';
import type { ParkedTable, Progress } from '../publish/progress.ts';
import { peekProgress } from '../publish/progress-log.ts';
import { topicNames } from '../publish/record-format.ts';
import { connectSource, sourceError } from '../replicate/source.ts';
import { type CommandContext, configOf, exitCode, tableArgument } from './context.ts';

export interface ResumeArguments {
  table?: string | undefined;
  /** evolve where absent. */
  as?: string | undefined;
  timeout?: string | undefined;
}

const defaultTimeoutMs = 120_000;
const pollMs = 500;

export async function resumeCommand(context: CommandContext, args: ResumeArguments): Promise<number> {
  const config = await configOf(context);
  if (!args.table) {
    throw new TidemarkError('TM101', 'resume needs the name of a parked table', {
      remedy: 'tidemark resume <schema.table>; `tidemark status` names the parked ones.',
    });
  }
  const table = tableArgument(args.table);
  const as = resumePolicies.find((policy) => policy === (args.as ?? 'evolve'));
  if (!as) throw new TidemarkError('TM101', `--as must be one of ${resumePolicies.join(', ')}`);
  const timeoutMs = args.timeout === undefined ? defaultTimeoutMs : parseDuration(args.timeout);
  if (timeoutMs === null || timeoutMs < 1)
    throw new TidemarkError('TM101', '--timeout must be a duration such as 120s or 10m');
  const before = (await progressOf(config, context)).parked[table];
  if (!before) {
    throw new TidemarkError('TM101', `${table} is not parked`, {
      remedy: '`tidemark status` names the parked tables.',
    });
  }
  await ask(config, table, as);
  const after = await outcome(config, context, { table, before, timeoutMs });
  const text = after
    ? `✗ ${table} is parked again at ${after.position} (${after.code}): ${after.reason}\n`
    : `✓ ${table} is back: what was parked of it is published\n`;
  const answer = { ok: after === null, table, parked: after };
  context.stdout(context.json ? `${JSON.stringify(answer)}\n` : text);
  return after ? exitCode.no : exitCode.ok;
}

async function ask(config: ResolvedConfig, table: string, as: ResumePolicy): Promise<void> {
  const client = await connectSource(config.source, 'tidemark/resume');
  try {
    await client.query('select pg_logical_emit_message(true, $1, $2)', [resumePrefix(as), table]);
  } catch (error) {
    throw sourceError(error);
  } finally {
    await client.end().catch(() => {});
  }
}

/** Null when the table is back; how it is parked now when it had to be parked again. */
async function outcome(
  config: ResolvedConfig,
  context: CommandContext,
  { table, before, timeoutMs }: { table: string; before: ParkedTable; timeoutMs: number },
): Promise<ParkedTable | null> {
  const deadline = performance.now() + timeoutMs;
  for (;;) {
    const now = (await progressOf(config, context)).parked[table];
    if (!now) return null;
    if (now.position !== before.position) return now;
    if (performance.now() > deadline || context.signal.aborted) {
      throw new TidemarkError('TM408', `${table} is not back yet`, {
        remedy: 'The request is in the source’s WAL: start `tidemark run`, and look at `tidemark status`.',
      });
    }
    await sleep(pollMs, undefined, { signal: context.signal }).catch(() => {});
  }
}

async function progressOf(config: ResolvedConfig, { log }: CommandContext): Promise<Progress> {
  const kafka = createKafka(config.kafka, log);
  const { progress } = topicNames(config.kafka.topicPrefix);
  const found = await peekProgress(kafka, progress).catch((error: unknown) => {
    throw kafkaError(error, 'read the newest Progress');
  });
  if (found) return found;
  throw new TidemarkError('TM408', 'there is no Progress: no reader has streamed this source yet');
}
