/** `tidemark destination …`: what the ledger knows of destinations, and what an operator may do to one. */
import { userInfo } from 'node:os';
import type { Pool } from 'pg';
import type { CheckFinding } from '../connector/sink.ts';
import {
  type DeliveryRecord,
  type DestinationRecord,
  readDeliveries,
  readDestinations,
} from '../deliver/destination-list.ts';
import { pauseDestination, resumeDestination } from '../deliver/pauses.ts';
import { openControl } from '../platform/control.ts';
import { TidemarkError } from '../platform/errors.ts';
import type { ResolvedConfig } from '../platform/resolved-config.ts';
import { type CommandContext, configOf, exitCode } from './context.ts';
import { type MoveArguments, moveDestination, resync } from './destination-moves.ts';
import { destinationText } from './destination-text.ts';
import { sinkContext } from './sink-context.ts';

export interface DestinationArguments extends MoveArguments {
  /** Of `pause`, `skip` and `replay`. */
  reason?: string | undefined;
  /** Of `show`: deliveries. */
  limit?: string | undefined;
}

const usage =
  'tidemark destination list, show, pause, resume, test, skip, replay or resync <name>; --help has their options';

/** What `show` answers: a destination and its newest deliveries. */
export interface ShownDestination extends DestinationRecord {
  deliveries: DeliveryRecord[];
}

/** @throws TidemarkError TM101 for what does not exist, TM409 */
export async function destinationCommand(
  context: CommandContext,
  args: DestinationArguments,
  [action, name, ...tables]: string[],
): Promise<number> {
  const config = await configOf(context);
  if (action === 'test') return test(context, config, required(name));
  if (action === 'resync') return resync(context, config, required(name), tables);
  const pool = openControl(config.control, context.log, 2);
  try {
    switch (action) {
      case 'list':
        return await list(context, config, pool);
      case 'show':
        return await show(context, config, pool, { name: required(name), limit: limitOf(args.limit) });
      case 'pause':
        return await pause(context, config, pool, { name: required(name), reason: args.reason });
      case 'resume':
        return await resume(context, config, pool, required(name));
      case 'skip':
      case 'replay':
        return await moveDestination(context, config, pool, { kind: action, name: required(name), ...args });
      default:
        throw new TidemarkError('TM101', `destination: ${action ?? 'nothing'} is no action`, {
          remedy: usage,
        });
    }
  } finally {
    await pool.end();
  }
}

function required(name: string | undefined): string {
  if (name) return name;
  throw new TidemarkError('TM101', 'the name of a destination is missing', { remedy: usage });
}

function limitOf(text: string | undefined): number {
  const limit = Number(text ?? 10);
  if (Number.isInteger(limit) && limit > 0) return limit;
  throw new TidemarkError('TM101', '--limit must be a whole number above 0');
}

async function list(context: CommandContext, { source }: ResolvedConfig, pool: Pool): Promise<number> {
  const destinations = await readDestinations(pool, source.id);
  if (context.json) context.stdout(`${jsonOf(destinations)}\n`);
  else
    context.stdout(
      destinations.map((each) => destinationText(each, [])).join('') ||
        'no worker has delivered to any destination yet\n',
    );
  return exitCode.ok;
}

async function show(
  context: CommandContext,
  { source }: ResolvedConfig,
  pool: Pool,
  { name, limit }: { name: string; limit: number },
): Promise<number> {
  const found = (await readDestinations(pool, source.id)).find((each) => each.name === name);
  if (!found) {
    throw new TidemarkError('TM101', `nothing was ever delivered to ${name}`, {
      remedy: '`tidemark destination list` names the known ones.',
    });
  }
  const deliveries = await readDeliveries(pool, { sourceId: source.id, destination: name, limit });
  const shown: ShownDestination = { ...found, deliveries };
  context.stdout(context.json ? `${jsonOf(shown)}\n` : destinationText(found, deliveries));
  return exitCode.ok;
}

async function pause(
  context: CommandContext,
  { source }: ResolvedConfig,
  pool: Pool,
  { name, reason }: { name: string; reason: string | undefined },
): Promise<number> {
  const place = { sourceId: source.id, destination: name };
  const by = userInfo().username;
  const inForce = await pauseDestination(pool, place, { by, reason: reason ?? 'asked for' });
  const answer = { ok: true, destination: name, paused: inForce };
  context.stdout(
    context.json
      ? `${jsonOf(answer)}\n`
      : `✓ ${name} is paused (by ${inForce.by}: ${inForce.reason}): it keeps its place, and nothing is written until \`tidemark destination resume ${name}\`. Kafka keeps what comes as long as kafka.topic.retention says.\n`,
  );
  return exitCode.ok;
}

async function resume(
  context: CommandContext,
  { source }: ResolvedConfig,
  pool: Pool,
  name: string,
): Promise<number> {
  const ended = await resumeDestination(pool, { sourceId: source.id, destination: name });
  const answer = { ok: true, destination: name, ended };
  const text = ended
    ? `✓ ${name} goes on (paused since ${ended.at.toISOString()} by ${ended.by}: ${ended.reason})\n`
    : `✓ ${name} was not paused; what failed is tried again now\n`;
  context.stdout(context.json ? `${jsonOf(answer)}\n` : text);
  return exitCode.ok;
}

/** Sends something that says it is a test, where the kind can; elsewhere what `check` says of it. */
async function test(context: CommandContext, config: ResolvedConfig, name: string): Promise<number> {
  const destination = config.destinations.find((each) => each.name === name);
  const kind = destination && context.sinkKinds.get(destination.kind);
  if (!destination || !kind) {
    throw new TidemarkError('TM101', `there is no destination ${name}`, {
      remedy: `Instance files name these: ${config.destinations.map((each) => each.name).join(', ') || '(none)'}.`,
    });
  }
  const scene = sinkContext(config, destination, context.log);
  const findings = await (kind.test ?? kind.check).call(kind, scene, destination.options);
  const ok = findings.every(({ level }) => level !== 'error');
  const answer = { ok, destination: name, sent: kind.test !== undefined, findings };
  context.stdout(context.json ? `${jsonOf(answer)}\n` : findings.map(findingText).join(''));
  return ok ? exitCode.ok : exitCode.no;
}

function findingText({ level, what, remedy }: CheckFinding): string {
  const mark = { ok: '✓', warn: '!', error: '✗' }[level];
  return `${mark} ${what}\n${remedy === null ? '' : `  → ${remedy}\n`}`;
}

function jsonOf(value: unknown): string {
  return JSON.stringify(value, (_, each) => (typeof each === 'bigint' ? String(each) : each), 2);
}
