/** The command line: the only place where roles, commands and connectors are wired together. */
import { parseArgs } from 'node:util';
import { sinkKinds } from '../connectors/sinks/registry.ts';
import { type CommandContext, exitCode } from './command/context.ts';
import { requireKnown, usage, usageOf } from './command/usage.ts';
import { asTidemarkError, TidemarkError } from './platform/errors.ts';
import { createLogger, isLogLevel, logLevels } from './platform/log.ts';

/** Of every command. */
export const options = {
  config: { type: 'string' },
  json: { type: 'boolean', default: false },
  'log-level': { type: 'string' },
  help: { type: 'boolean', short: 'h', default: false },
  version: { type: 'boolean', default: false },
  roles: { type: 'string' },
  destinations: { type: 'string' },
  limit: { type: 'string' },
  timeout: { type: 'string' },
  as: { type: 'string' },
  yes: { type: 'boolean', default: false },
  slot: { type: 'boolean', default: false },
  topics: { type: 'boolean', default: false },
  once: { type: 'boolean', default: false },
  transactions: { type: 'string' },
  rate: { type: 'string' },
  seed: { type: 'string' },
  findings: { type: 'string' },
  where: { type: 'string' },
  for: { type: 'string' },
  reason: { type: 'string' },
  unit: { type: 'string' },
  to: { type: 'string' },
  from: { type: 'string' },
  destination: { type: 'string' },
  all: { type: 'boolean', default: false },
  watch: { type: 'boolean', default: false },
  organization: { type: 'string' },
  out: { type: 'string' },
  'public-key': { type: 'string' },
  sample: { type: 'string' },
  only: { type: 'string' },
  'older-than': { type: 'string' },
  'keep-last': { type: 'string' },
  'orphans-older-than': { type: 'string' },
  'delete-ratio': { type: 'string' },
  list: { type: 'boolean', default: false },
  drop: { type: 'boolean', default: false },
  'dry-run': { type: 'boolean', default: false },
  tenant: { type: 'string' },
  key: { type: 'string', multiple: true },
  keys: { type: 'string' },
  by: { type: 'string' },
  until: { type: 'string' },
  confirm: { type: 'string' },
} as const;

type Values = ReturnType<typeof parseArgs<{ options: typeof options; allowPositionals: true }>>['values'];

/** Commands are loaded when asked for: `status` need not load DuckDB. */
const commands: Record<string, (context: CommandContext, values: Values, rest: string[]) => Promise<number>> =
  {
    check: async (context) => (await import('./command/check.ts')).checkCommand(context),
    run: async (context, values) => (await import('./command/run.ts')).runCommand(context, values),
    status: async (context) => (await import('./command/status.ts')).statusCommand(context),
    verify: async (context, values, rest) =>
      (await import('./command/verify.ts')).verifyCommand(context, { ...values, destination: rest[0] }),
    resume: async (context, values, rest) =>
      (await import('./command/resume.ts')).resumeCommand(context, { ...values, table: rest[0] }),
    snapshot: async (context, values, rest) =>
      (await import('./command/snapshot.ts')).snapshotCommand(context, values, rest),
    destination: async (context, values, rest) =>
      (await import('./command/destination.ts')).destinationCommand(context, values, rest),
    maintain: async (context, values, rest) =>
      (await import('./command/maintain.ts')).maintainCommand(context, values, rest),
    tag: async (context, values, rest) =>
      (await import('./command/tag.ts')).tagCommand(context, values, rest),
    quarantine: async (context, values, rest) =>
      (await import('./command/quarantine.ts')).quarantineCommand(context, values, rest),
    retain: async (context, values, rest) =>
      (await import('./command/retain.ts')).retainCommand(context, values, rest),
    recall: async (context, values, rest) =>
      (await import('./command/recall.ts')).recallCommand(context, values, rest),
    erase: async (context, values, rest) =>
      (await import('./command/erase.ts')).eraseCommand(context, values, rest),
    teardown: async (context, values) =>
      (await import('./command/teardown.ts')).teardownCommand(context, values),
    demo: async (context, values) => (await import('./command/demo.ts')).demoCommand(context, values),
  };

export async function main(argv: string[]): Promise<void> {
  // A command may wait for nothing but child processes, which do not keep this one alive.
  const alive = setInterval(() => {}, 60_000);
  process.exitCode = await dispatch(argv);
  clearInterval(alive);
  // Sockets that a dead server left half open must not keep a finished command alive.
  setTimeout(() => process.exit(), 2000).unref();
}

async function dispatch(argv: string[]): Promise<number> {
  let parsed: { values: Values; positionals: string[] };
  try {
    parsed = parseArgs({ args: argv, options, allowPositionals: true });
  } catch (error) {
    // Node goes on about what begins with a dash and is none.
    const [message = ''] = (error as Error).message.split(/\. |\n/);
    return refused(new TidemarkError('TM101', message, { remedy }), argv.includes('--json'));
  }
  const { values, positionals } = parsed;
  const [name, ...rest] = positionals;
  if (values.version) {
    process.stdout.write('tidemark 0.1.0\n');
    return exitCode.ok;
  }
  if (values.help) {
    process.stdout.write(usageOf(name));
    return exitCode.ok;
  }
  if (name === undefined) {
    process.stderr.write(usage);
    return exitCode.usage;
  }
  const command = Object.hasOwn(commands, name) ? commands[name] : undefined;
  const json = values.json ?? false;
  if (!command) return refused(new TidemarkError('TM101', `there is no command ${name}`, { remedy }), json);
  const level = values['log-level'] ?? process.env.TIDEMARK_LOG_LEVEL ?? (name === 'run' ? 'info' : 'warn');
  if (!isLogLevel(level))
    return refused(
      new TidemarkError('TM101', `--log-level: ${level} is not one of ${logLevels.join(', ')}`),
      json,
    );
  try {
    requireKnown(positionals, given(values));
  } catch (error) {
    return refused(asTidemarkError(error), json);
  }
  const stopping = new AbortController();
  for (const signal of ['SIGINT', 'SIGTERM'] as const) {
    process.on(signal, () => {
      // The second one means it.
      if (stopping.signal.aborted) process.exit(130);
      stopping.abort();
    });
  }
  const context: CommandContext = {
    configFile: values.config ?? process.env.TIDEMARK_CONFIG ?? 'tidemark.yaml',
    json,
    log: createLogger({ level }),
    sinkKinds,
    stdout: (text) => void process.stdout.write(text),
    signal: stopping.signal,
  };
  try {
    return await command(context, values, rest);
  } catch (caught) {
    const error = asTidemarkError(caught);
    if (error.code === 'TM901' && error.retry === 'bug')
      context.log.error('unexpected failure', { stack: stackOf(caught) });
    report(error, context.json);
    if (error.code === 'TM101' || error.code === 'TM102' || error.code === 'TM103') return exitCode.usage;
    return error.retry === 'transient' ? exitCode.unreachable : exitCode.stopped;
  }
}

const remedy = '`tidemark --help` names the commands and their options.';

/** Names of the options that somebody gave: the others have nothing, or false. */
function given(values: Values): string[] {
  return Object.entries(values).flatMap(([name, value]) =>
    value === undefined || value === false ? [] : name,
  );
}

function refused(error: TidemarkError, json: boolean): number {
  report(error, json);
  return exitCode.usage;
}

function report(error: TidemarkError, json: boolean): void {
  const { code, message, remedy } = error;
  if (json) process.stdout.write(`${JSON.stringify({ ok: false, error: { code, message, remedy } })}\n`);
  else process.stderr.write(`${code}: ${message}\n  → ${remedy}\n`);
}

/** Where it began; of a cause only the frames, for its message may hold a value. */
function stackOf(error: unknown): string | undefined {
  if (!(error instanceof Error)) return undefined;
  const cause = error.cause instanceof Error ? error.cause.stack?.split('\n').filter(isFrame) : undefined;
  return [error.stack, ...(cause ? ['caused at', ...cause] : [])].join('\n');
}

function isFrame(line: string): boolean {
  return /^\s+at /.test(line);
}
