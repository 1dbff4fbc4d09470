/** `tidemark run`: the pipeline's roles in this process, until a signal or an error that needs somebody. */
import { setFlagsFromString } from 'node:v8';
import { startMetrics } from '../observe/metrics.ts';
import { TidemarkError } from '../platform/errors.ts';
import { type CommandContext, configOf, exitCode } from './context.ts';

const roles = ['replicate', 'deliver', 'retain'] as const;
type Role = (typeof roles)[number];

/**
 * Windows are copied through the heap row by row: V8's own growth made a Window of a million rows peak at 740 MiB, this
 * at 590, for 8 per cent more CPU. For a reader alone it would cost 15 to 30 per cent (its buffers count too).
 */
const deliveryHeap = '--heap-growing-percent=60';

export interface RunArguments {
  /** Comma-separated; all of them where absent. */
  roles?: string | undefined;
  /** Destinations to deliver to, comma-separated; all of them where absent. */
  destinations?: string | undefined;
}

export async function runCommand(context: CommandContext, args: RunArguments): Promise<number> {
  const chosen = parseRoles(args.roles);
  const config = await configOf(context);
  const names = args.destinations?.split(',').map((name) => name.trim());
  if (args.roles !== undefined && chosen.has('retain') && !config.retain)
    throw new TidemarkError('TM101', '--roles: retain needs retain.enabled: true');
  for (const name of names ?? []) {
    if (config.destinations.some((destination) => destination.name === name)) continue;
    const known = config.destinations.map((destination) => destination.name).join(', ');
    throw new TidemarkError('TM101', `--destinations: ${name} is not one of ${known || '(none)'}`);
  }
  const { log, signal } = context;
  if (chosen.has('deliver')) setFlagsFromString(deliveryHeap);
  const metrics = await startMetrics(config);
  // Loaded when needed: a process that only replicates does without DuckDB, one that only delivers without a producer.
  const reader = chosen.has('replicate')
    ? (await import('../publish/reader.ts')).startReader({
        config,
        log: log.child({ role: 'replicate' }),
        onProgress: metrics.onProgress,
        onSlot: metrics.onSlot,
      })
    : null;
  const delivery = chosen.has('deliver')
    ? await (await import('../deliver/delivery.ts')).startDelivery({
        config,
        sinkKinds: context.sinkKinds,
        log: log.child({ role: 'deliver' }),
        onDelivery: metrics.onDelivery,
        reload: async () => (await configOf(context)).destinations,
        ...(names ? { destinations: names } : {}),
      })
    : null;
  if (delivery) metrics.watch(() => delivery.snapshot().destinations);
  const retention =
    chosen.has('retain') && config.retain
      ? (await import('../retain/service.ts')).startRetention({
          config: { ...config, retain: config.retain },
          sinkKinds: context.sinkKinds,
          log: log.child({ role: 'retain' }),
          onRound: metrics.onRound,
        })
      : null;
  log.info('running', {
    roles: [...chosen].filter((role) => role !== 'retain' || retention),
    destinations: config.destinations.map(({ name }) => name),
  });
  try {
    const stopped = new Promise<void>((resolve) => {
      if (signal.aborted) resolve();
      signal.addEventListener('abort', () => resolve(), { once: true });
    });
    await Promise.race([stopped, ...(reader ? [reader.finished] : [])]);
  } finally {
    log.info('stopping');
    await Promise.all([reader?.stop(), delivery?.stop(), retention?.stop()]);
    await metrics.stop();
  }
  return exitCode.ok;
}

function parseRoles(text: string | undefined): Set<Role> {
  if (text === undefined) return new Set(roles);
  const chosen = new Set<Role>();
  for (const name of text.split(',').map((role) => role.trim())) {
    const role = roles.find((known) => known === name);
    if (!role) throw new TidemarkError('TM101', `--roles: ${name} is not one of ${roles.join(', ')}`);
    chosen.add(role);
  }
  return chosen;
}
