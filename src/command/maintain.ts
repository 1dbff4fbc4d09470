/** `tidemark maintain <destination>`: upkeep of what a destination keeps, beside whoever writes it. */
import {
  type Maintainable,
  type Sink,
  type UpkeepDone,
  type UpkeepStep,
  upkeepSteps,
} from '../connector/sink.ts';
import { parseDuration, parseInteger } from '../platform/configuration/scalars.ts';
import { TidemarkError } from '../platform/errors.ts';
import { parseTableName } from '../platform/table-name.ts';
import { type CommandContext, configOf, exitCode } from './context.ts';
import { maintainText, upkeepLine } from './maintain-text.ts';
import { configuredDestination, withSink } from './open-sink.ts';

export interface MaintainArguments {
  /** Steps, with commas between them; all of them. */
  only?: string | undefined;
  /** States of the past stay so long. */
  'older-than'?: string | undefined;
  'keep-last'?: string | undefined;
  /** Files that nothing names stay so long; 3d. */
  'orphans-older-than'?: string | undefined;
  /** Part of a file's rows that are deleted, from which on it is written anew; 0.3. */
  'delete-ratio'?: string | undefined;
  'dry-run'?: boolean | undefined;
  /** Shorter ages than are safe. */
  yes?: boolean | undefined;
}

const hour = 60 * 60 * 1000;
const day = 24 * hour;
/** Below these a reader or a writer that is under way may lose what it works with. */
const safe = { 'older-than': hour, 'orphans-older-than': day };
const orphanAge = 3 * day;
const interrupted = 130;

/** @throws TidemarkError TM101; what the destination throws */
export async function maintainCommand(
  context: CommandContext,
  args: MaintainArguments,
  [name, ...tables]: string[],
): Promise<number> {
  const request = {
    steps: stepsOf(args.only),
    tables: tables.length === 0 ? null : tables.map(tableOf),
    expireAfterMs: ageOf(args, 'older-than'),
    keepLast: countOf(args['keep-last']),
    orphanAgeMs: ageOf(args, 'orphans-older-than') ?? orphanAge,
    deleteRatio: ratioOf(args['delete-ratio']),
    dryRun: args['dry-run'] ?? false,
    signal: context.signal,
    onProgress: (done: UpkeepDone) => context.log.info('upkeep', { done: upkeepLine(done) }),
  };
  const config = await configOf(context);
  const chosen = configuredDestination(config, context, name, 'maintain');
  const { destination, kind } = chosen;
  const done = await withSink(config, chosen, context, async (sink) => {
    if (isMaintainable(sink)) return sink.maintain(request);
    throw new TidemarkError('TM101', `${destination.name} (${kind.name}) takes no upkeep by Tidemark`, {
      remedy: kind.upkeep ?? 'Nothing needs to be done: what it keeps, it keeps in order by itself.',
    });
  });
  const answer = { ok: true, destination: destination.name, dryRun: request.dryRun, done };
  context.stdout(context.json ? `${JSON.stringify(answer, null, 2)}\n` : maintainText(answer));
  return context.signal.aborted ? interrupted : exitCode.ok;
}

function isMaintainable(sink: Sink): sink is Sink & Maintainable {
  return 'maintain' in sink;
}

function stepsOf(text: string | undefined): UpkeepStep[] {
  if (text === undefined) return [...upkeepSteps];
  const named = text.split(',').map((each) => each.trim());
  const unknown = named.find((each) => !upkeepSteps.some((step) => step === each));
  if (unknown !== undefined)
    throw new TidemarkError('TM101', `--only: ${unknown || 'nothing'} is none of ${upkeepSteps.join(', ')}`);
  return upkeepSteps.filter((step) => named.includes(step));
}

function tableOf(text: string) {
  const table = parseTableName(text);
  if (table) return table;
  throw new TidemarkError('TM101', `${text} is no name of a table`, { remedy: 'Write schema.table.' });
}

function ageOf(args: MaintainArguments, name: keyof typeof safe): number | null {
  const text = args[name];
  if (text === undefined) return null;
  const age = parseDuration(text);
  if (age === null) throw new TidemarkError('TM101', `--${name} must be a duration such as 12h or 5d`);
  if (age >= safe[name] || args.yes || args['dry-run']) return age;
  throw new TidemarkError(
    'TM101',
    `--${name} ${text} may take files from those who read or write right now`,
    {
      remedy: `Wait ${safe[name] / hour} h, or add --yes where nobody has the tables open.`,
    },
  );
}

function countOf(text: string | undefined): number | null {
  if (text === undefined) return null;
  const count = parseInteger(text);
  if (count !== null && count >= 1) return count;
  throw new TidemarkError('TM101', '--keep-last must be a whole number above 0');
}

function ratioOf(text: string | undefined): number {
  const ratio = Number(text ?? 0.3);
  if (ratio > 0 && ratio <= 1) return ratio;
  throw new TidemarkError('TM101', '--delete-ratio must be above 0 and at most 1');
}
