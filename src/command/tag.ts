/** `tidemark tag <destination> <name>`: freezes what a destination holds, all tables at one Position. */
import type { Sink, Tag, Taggable } from '../connector/sink.ts';
import { TidemarkError } from '../platform/errors.ts';
import { type CommandContext, configOf, exitCode } from './context.ts';
import { configuredDestination, withSink } from './open-sink.ts';

export interface TagArguments {
  list?: boolean | undefined;
  drop?: boolean | undefined;
}

const usage = 'tidemark tag <destination> <name> [--drop], or tidemark tag <destination> --list';
/** No number: readers would take it for that of a snapshot. */
const plainName = /^(?!\d+$)[A-Za-z0-9][A-Za-z0-9_.-]{0,99}$/;

/** @returns 1 where there is no tag to drop. @throws TidemarkError TM101, TM408; what the destination throws */
export async function tagCommand(
  context: CommandContext,
  { list, drop }: TagArguments,
  [destination, name]: string[],
): Promise<number> {
  if (list ? name !== undefined || drop : name === undefined)
    throw new TidemarkError('TM101', 'tag needs a destination and a name, or --list', { remedy: usage });
  if (name !== undefined && (!plainName.test(name) || name === 'main'))
    throw new TidemarkError('TM101', 'the name of a tag has letters, digits, _ . and -, not digits alone');
  const config = await configOf(context);
  const chosen = configuredDestination(config, context, destination, 'tag');
  return withSink(config, chosen, context, async (sink) => {
    if (!isTaggable(sink)) {
      throw new TidemarkError(
        'TM101',
        `${destination} (${chosen.kind.name}) has no states of the past to name`,
        {
          remedy:
            'Tags are for iceberg. A destination of another kind can be held and copied: `tidemark destination pause`.',
        },
      );
    }
    if (list) {
      const tags = await sink.tags();
      print(context, { ok: true, destination, tags }, tags.map(tagText).join('') || 'no tags\n');
      return exitCode.ok;
    }
    if (drop) {
      const dropped = await sink.dropTag(name!);
      const text = dropped ? `✓ ${name} is dropped\n` : `✗ there is no tag ${name}\n`;
      print(context, { ok: dropped !== null, destination, dropped }, text);
      return dropped ? exitCode.ok : exitCode.no;
    }
    const tag = await sink.tag(name!);
    print(context, { ok: true, destination, tag }, tagText(tag));
    return exitCode.ok;
  });
}

function isTaggable(sink: Sink): sink is Sink & Taggable {
  return 'tag' in sink;
}

function print(context: CommandContext, answer: unknown, text: string): void {
  context.stdout(context.json ? `${JSON.stringify(answer, null, 2)}\n` : text);
}

function tagText({ name, position, commitTimeUs, complete, tables }: Tag): string {
  const time = new Date(Number(BigInt(commitTimeUs) / 1000n)).toISOString();
  const width = Math.max(0, ...tables.map(({ table }) => table.length));
  const lines = tables.map(
    ({ table, snapshot }) => `  ${table.padEnd(width)}  ${snapshot ?? 'not there yet'}`,
  );
  const head = complete
    ? `✓ ${name}  everything up to ${position}, committed at the source by ${time}`
    : `! ${name}  is half made: tag it again, or --drop it`;
  return `${[head, ...lines].join('\n')}\n`;
}
