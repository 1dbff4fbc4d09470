/** A sink of its own for a command, beside the worker's that may run on this machine. */
import { randomUUID } from 'node:crypto';
import { mkdir, rm } from 'node:fs/promises';
import { join } from 'node:path';
import type { Sink, SinkKind } from '../connector/sink.ts';
import { TidemarkError } from '../platform/errors.ts';
import type { DestinationConfig, ResolvedConfig } from '../platform/resolved-config.ts';
import type { CommandContext } from './context.ts';
import { sinkContext } from './sink-context.ts';

export interface ConfiguredDestination {
  destination: DestinationConfig;
  kind: SinkKind;
}

/** @throws TidemarkError TM101 where no instance file has the name */
export function configuredDestination(
  config: ResolvedConfig,
  { sinkKinds }: Pick<CommandContext, 'sinkKinds'>,
  name: string | undefined,
  command: string,
): ConfiguredDestination {
  const known = config.destinations.map((each) => each.name).join(', ') || '(none)';
  if (name === undefined)
    throw new TidemarkError('TM101', `${command} needs the name of a destination: one of ${known}`);
  const destination = config.destinations.find((each) => each.name === name);
  const kind = destination && sinkKinds.get(destination.kind);
  if (destination && kind) return { destination, kind };
  throw new TidemarkError('TM101', `there is no destination ${name}`, {
    remedy: `Instance files name these: ${known}.`,
  });
}

export async function withSink<T>(
  config: ResolvedConfig,
  { destination, kind }: ConfiguredDestination,
  { log }: Pick<CommandContext, 'log'>,
  work: (sink: Sink) => Promise<T>,
): Promise<T> {
  const scratchDirectory = join(config.deliver.spillDirectory, destination.name, `command-${randomUUID()}`);
  await mkdir(scratchDirectory, { recursive: true });
  try {
    const context = { ...sinkContext(config, destination, log), scratchDirectory };
    const sink = await kind.open(context, destination.options);
    try {
      return await work(sink);
    } finally {
      await sink.close().catch(() => {});
    }
  } finally {
    await rm(scratchDirectory, { recursive: true, force: true });
  }
}
