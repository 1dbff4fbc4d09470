/** `tidemark quarantine …`: rows that destinations refused. What is wanted is a row in the ledger, which the worker follows. */
import { setTimeout as sleep } from 'node:timers/promises';
import { DeadLetters } from '../deliver/quarantine/dead-letters.ts';
import { type QuarantineEntry, QuarantineLedger } from '../deliver/quarantine/quarantine-ledger.ts';
import { parseDuration } from '../platform/configuration/scalars.ts';
import { openControl } from '../platform/control.ts';
import { TidemarkError } from '../platform/errors.ts';
import { createKafka } from '../platform/kafka.ts';
import { RegistryClient } from '../platform/registry.ts';
import type { ResolvedConfig } from '../platform/resolved-config.ts';
import { type CommandContext, configOf, exitCode } from './context.ts';
import { readQuarantined, type ShownChange } from './quarantined-changes.ts';
import { bytes } from './status-text.ts';

export interface QuarantineArguments {
  destination?: string | undefined;
  all?: boolean | undefined;
  yes?: boolean | undefined;
  timeout?: string | undefined;
}

const usage =
  'tidemark quarantine list, show <id>, replay <id>… or drop <id>… --yes; --destination <name> in the place of ids means all of its';
const defaultTimeoutMs = 120_000;

/** @throws TidemarkError TM101 for what does not exist, TM409, TM301 */
export async function quarantineCommand(
  context: CommandContext,
  args: QuarantineArguments,
  [action, ...named]: string[],
): Promise<number> {
  const config = await configOf(context);
  const pool = openControl(config.control, context.log, 1);
  try {
    const ledger = new QuarantineLedger(pool);
    if (args.destination !== undefined) await requireDestination(config, ledger, args.destination);
    switch (action) {
      case 'list':
        return await list(context, config, ledger, args);
      case 'show':
        return await show(context, config, ledger, idsOf(named));
      case 'replay':
        return await replay(context, config, { ledger, args, named });
      case 'drop':
        return await drop(context, config, { ledger, args, named });
      default:
        throw new TidemarkError('TM101', `quarantine: ${action ?? 'nothing'} is no action`, {
          remedy: usage,
        });
    }
  } finally {
    await pool.end();
  }
}

/** One that is configured no more may still have entries. @throws TidemarkError TM101 */
async function requireDestination(
  { source, destinations }: ResolvedConfig,
  ledger: QuarantineLedger,
  destination: string,
): Promise<void> {
  if (destinations.some(({ name }) => name === destination)) return;
  if ((await ledger.list(source.id, { destination, all: true })).length > 0) return;
  throw new TidemarkError('TM101', `there is no destination ${destination}`, {
    remedy: `Instance files name these: ${destinations.map(({ name }) => name).join(', ') || '(none)'}.`,
  });
}

interface Wish {
  ledger: QuarantineLedger;
  args: QuarantineArguments;
  named: readonly string[];
}

async function list(
  context: CommandContext,
  { source }: ResolvedConfig,
  ledger: QuarantineLedger,
  { destination = undefined, all = false }: QuarantineArguments,
): Promise<number> {
  const entries = await ledger.list(source.id, { destination: destination ?? null, all });
  context.stdout(context.json ? `${JSON.stringify(entries, null, 2)}\n` : listText(entries));
  return exitCode.ok;
}

async function show(
  context: CommandContext,
  config: ResolvedConfig,
  ledger: QuarantineLedger,
  ids: readonly number[],
): Promise<number> {
  const entries = await chosen(ledger, config.source.id, ids, { all: true });
  const deadLetters = new DeadLetters(createKafka(config.kafka, context.log), config.kafka);
  const registry = new RegistryClient(config.registry, context.log);
  try {
    const shown: (QuarantineEntry & { rows: ShownChange[] })[] = [];
    for (const entry of entries)
      shown.push({ ...entry, rows: await readQuarantined(entry, { ledger, deadLetters, registry }) });
    context.stdout(context.json ? `${JSON.stringify(shown, null, 2)}\n` : shown.map(entryText).join(''));
    return exitCode.ok;
  } finally {
    registry.close();
    await deadLetters.close();
  }
}

/** Waits until the worker has tried: what was refused again is held as before. */
async function replay(
  context: CommandContext,
  { source }: ResolvedConfig,
  { ledger, args, named }: Wish,
): Promise<number> {
  const timeoutMs = args.timeout === undefined ? defaultTimeoutMs : parseDuration(args.timeout);
  if (timeoutMs === null) throw new TidemarkError('TM101', '--timeout must be a duration such as 120s');
  const ids = await wanted(ledger, source.id, args, named);
  await ledger.ask(source.id, ids, 'replaying');
  const deadline = performance.now() + timeoutMs;
  let entries: QuarantineEntry[];
  for (;;) {
    entries = (await ledger.list(source.id, { destination: null, all: true })).filter(({ id }) =>
      ids.includes(id),
    );
    if (entries.every(({ state }) => state !== 'replaying')) break;
    if (performance.now() > deadline || context.signal.aborted) {
      throw new TidemarkError('TM408', 'the rows were not replayed yet', {
        remedy:
          'The request stays: start `tidemark run`, and look at `tidemark status` and `tidemark quarantine list`.',
      });
    }
    await sleep(200, undefined, { signal: context.signal }).catch(() => {});
  }
  const refused = entries.filter(({ state }) => state === 'held');
  const answer = { ok: refused.length === 0, replayed: entries.length - refused.length, refused };
  const text =
    refused.length === 0
      ? `✓ ${entries.length} rows are where they belong\n`
      : `✗ ${refused.length} of ${entries.length} rows were refused again\n${listText(refused)}`;
  context.stdout(context.json ? `${JSON.stringify(answer, null, 2)}\n` : text);
  return answer.ok ? exitCode.ok : exitCode.no;
}

async function drop(
  context: CommandContext,
  { source }: ResolvedConfig,
  { ledger, args, named }: Wish,
): Promise<number> {
  const ids = await wanted(ledger, source.id, args, named);
  if (!args.yes) {
    throw new TidemarkError('TM101', `${ids.length} rows would not be delivered`, {
      remedy:
        'Add --yes. Until such a row comes whole again, its destination does not have it as the source does.',
    });
  }
  const dropped = await ledger.ask(source.id, ids, 'dropped');
  const answer = { ok: true, dropped };
  context.stdout(
    context.json
      ? `${JSON.stringify(answer)}\n`
      : `✓ ${dropped.length} rows are dropped: they, and what builds on them, are left out until they come whole again\n`,
  );
  return exitCode.ok;
}

async function wanted(
  ledger: QuarantineLedger,
  sourceId: string,
  { destination }: QuarantineArguments,
  named: readonly string[],
): Promise<number[]> {
  if (named.length > 0)
    return (await chosen(ledger, sourceId, idsOf(named), { all: false })).map(({ id }) => id);
  if (destination === undefined)
    throw new TidemarkError('TM101', 'which rows? Ids or --destination', { remedy: usage });
  // What was dropped stays so, unless somebody names it.
  const waiting = (await ledger.list(sourceId, { destination, all: false })).filter(
    ({ state }) => state !== 'dropped',
  );
  return waiting.map(({ id }) => id);
}

async function chosen(
  ledger: QuarantineLedger,
  sourceId: string,
  ids: readonly number[],
  { all }: { all: boolean },
): Promise<QuarantineEntry[]> {
  const entries = await ledger.list(sourceId, { destination: null, all });
  return ids.map((id) => {
    const entry = entries.find((each) => each.id === id);
    if (entry) return entry;
    throw new TidemarkError('TM101', `there is nothing ${id} in Quarantine`, {
      remedy: '`tidemark quarantine list` names them; --all also those that are done.',
    });
  });
}

function idsOf(named: readonly string[]): number[] {
  if (named.length === 0) throw new TidemarkError('TM101', 'an id is missing', { remedy: usage });
  return named.map((text) => {
    const id = Number(text);
    if (Number.isSafeInteger(id) && id > 0) return id;
    throw new TidemarkError('TM101', `${text} is no id`, { remedy: usage });
  });
}

function listText(entries: readonly QuarantineEntry[]): string {
  if (entries.length === 0) return 'nothing is in Quarantine\n';
  return entries.map(lineOf).join('');
}

function lineOf({
  id,
  destination,
  table,
  state,
  reason,
  changes,
  bytes: size,
  quarantinedAt,
}: QuarantineEntry) {
  return `${id}  ${destination}  ${table}  ${state} since ${quarantinedAt.toISOString()}: ${reason}; ${changes} changes, ${bytes(size)}\n`;
}

function entryText({ rows, ...entry }: QuarantineEntry & { rows: readonly ShownChange[] }): string {
  const lines = rows.map(({ position, op, key, values, unchanged }) => {
    const cells = Object.entries(values).map(([name, value]) => `${name}=${JSON.stringify(value)}`);
    const rest = unchanged.length > 0 ? `; unchanged: ${unchanged.join(', ')}` : '';
    return `  ${position} ${op} ${JSON.stringify(key)} ${cells.join(' ')}${rest}\n`;
  });
  return `${lineOf(entry)}${lines.join('')}`;
}
