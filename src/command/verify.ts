/** `tidemark verify <destination>`: proves that it equals the source at one Position, while writes go on. */
import { parseDuration, parseInteger } from '../platform/configuration/scalars.ts';
import { TidemarkError } from '../platform/errors.ts';
import type { Logger } from '../platform/log.ts';
import type { ResolvedConfig } from '../platform/resolved-config.ts';
import type { VerifyEvent } from '../verify/report.ts';
import { renderReport } from '../verify/report-text.ts';
import { verifyDestination } from '../verify/verify-destination.ts';
import { type CommandContext, configOf, exitCode } from './context.ts';

export interface VerifyArguments {
  /** May be absent where only one is configured. */
  destination?: string | undefined;
  /** Differing keys to show per table; 20. */
  limit?: string | undefined;
  /** For each wait, as `120s`. */
  timeout?: string | undefined;
}

/** As a shell has it for a process that SIGINT ended. */
const interrupted = 130;

const defaultLimit = 20;
const defaultTimeoutMs = 120_000;
/** Each wait is told of at most this often. */
const tellEveryMs = 5000;

/** @returns 0: equal, 1: different, 130: interrupted. @throws TidemarkError, see verifyDestination */
export async function verifyCommand(context: CommandContext, args: VerifyArguments): Promise<number> {
  const limit = args.limit === undefined ? defaultLimit : parseInteger(args.limit);
  if (limit === null || limit < 0 || limit > 100_000)
    throw new TidemarkError('TM101', '--limit must be a whole number from 0 to 100000');
  const timeoutMs = args.timeout === undefined ? defaultTimeoutMs : parseDuration(args.timeout);
  if (timeoutMs === null || timeoutMs < 1)
    throw new TidemarkError('TM101', '--timeout must be a duration such as 120s or 10m');
  const config = await configOf(context);
  try {
    const report = await verifyDestination({
      config,
      sinkKinds: context.sinkKinds,
      destination: chooseDestination(config, args.destination),
      log: context.log,
      limit,
      timeoutMs,
      signal: context.signal,
      onProgress: tellProgress(context.log),
    });
    context.stdout(context.json ? `${JSON.stringify(report, null, 2)}\n` : renderReport(report));
    return report.equal ? exitCode.ok : exitCode.no;
  } catch (error) {
    if (!context.signal.aborted) throw error;
    context.log.info('verify was interrupted; the destination goes on');
    return interrupted;
  }
}

function chooseDestination({ destinations }: ResolvedConfig, name: string | undefined): string {
  if (name !== undefined) return name;
  if (destinations.length === 1) return destinations[0]!.name;
  const known = destinations.map((destination) => destination.name).join(', ') || '(none)';
  throw new TidemarkError('TM101', `verify needs a destination: one of ${known}`);
}

function tellProgress(log: Logger): (event: VerifyEvent) => void {
  let toldAt = 0;
  let phase = '';
  return (event) => {
    const now = performance.now();
    if (event.phase === phase && now - toldAt < tellEveryMs) return;
    toldAt = now;
    phase = event.phase;
    const { phase: _, ...fields } = event;
    log.info(messages[event.phase], fields);
  };
}

const messages = {
  rows: 'waiting for the first snapshot of tables',
  snapshot: 'waiting for transactions at the source that began earlier',
  deliver: 'waiting for the destination to reach the Position',
  compare: 'comparing',
} as const;
