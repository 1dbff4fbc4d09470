/** The command behind `npm run stack` and `npm run stack:down`. */
import { parseArgs } from 'node:util';
import { TidemarkError } from '../src/platform/errors.ts';
import { detachStack, serveDetached, stopStack } from './detach.ts';
import type { PartName } from './layout.ts';
import { type PartDeath, type Stack, startStack, usualParts } from './local-stack.ts';

const usage = `Usage: npm run stack -- [options]      start Postgres, Kafka and a Schema Registry
       npm run stack:down              stop a stack that was left in the background

  --with NAME   also start s3 (an object store), clickhouse or iceberg (a catalog); may be repeated
  --detach      leave the stack in the background and return when it is ready
  --json        print the environment as one JSON object
  --help        print this

Data, logs and ports are kept in .tidemark/stack, or in the folder that TIDEMARK_STACK_DIR names.
`;

const progress = (line: string) => process.stderr.write(`stack: ${line}\n`);

async function main(): Promise<number> {
  const { values } = parseArgs({
    options: {
      with: { type: 'string', multiple: true, default: [] },
      detach: { type: 'boolean', default: false },
      down: { type: 'boolean', default: false },
      json: { type: 'boolean', default: false },
      help: { type: 'boolean', default: false },
      // Not for people: how --detach starts itself again in the background.
      'in-background': { type: 'boolean', default: false },
    },
  });
  if (values.help) {
    process.stdout.write(usage);
    return 0;
  }
  const further: readonly PartName[] = ['s3', 'clickhouse', 'iceberg'];
  const unknown = values.with.find((name) => !(further as readonly string[]).includes(name));
  if (unknown !== undefined) {
    process.stderr.write(`--with ${unknown}: the further parts are s3, clickhouse and iceberg\n\n${usage}`);
    return 2;
  }
  const parts: PartName[] = [...usualParts, ...further.filter((name) => values.with.includes(name))];
  if (values.down) return stopStack(progress);
  if (values['in-background']) return serveDetached(parts, serve);
  if (values.detach) {
    printEnvironment(await detachStack(parts, progress), values.json);
    progress('running in the background; npm run stack:down stops it');
    return 0;
  }
  return serve(parts, progress, (environment) => {
    printEnvironment(environment, values.json);
    progress('running; Ctrl-C stops it');
  });
}

/** Starts a stack and keeps it up until a signal comes (exit code 0) or one of its parts dies (1). */
async function serve(
  parts: readonly PartName[],
  log: (line: string) => void,
  onReady: (environment: Readonly<Record<string, string>>) => void,
): Promise<number> {
  let stack: Stack | undefined;
  let signals = 0;
  let finish: (code: number) => void = () => undefined;
  const interrupted = new AbortController();
  const finished = new Promise<number>((resolve) => {
    finish = resolve;
  });
  const onSignal = () => {
    signals++;
    log('stopping');
    interrupted.abort();
    if (signals > 1) {
      // A download that goes on; what has been started is ended by the servers' guards.
      if (stack === undefined) process.exit(130);
      void stack.kill();
    }
    finish(0);
  };
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.on(signal, onSignal);
  const onDeath = (death: PartDeath) => {
    log(
      `${death.title} died (${death.reason}); its log is ${death.logFile} and ends with:\n${death.lastLines}`,
    );
    log('stopping the others');
    finish(1);
  };
  const { signal } = interrupted;
  try {
    stack = await startStack({ parts, log, onDeath, signal, ownedByCommand: true });
  } catch (error) {
    if (signal.aborted) return 130;
    throw error;
  }
  onReady(stack.environment);
  // The servers do not keep this process alive; this does.
  const alive = setInterval(() => undefined, 60_000);
  const code = await finished;
  await stack.stop();
  clearInterval(alive);
  log('stopped');
  return code;
}

function printEnvironment(environment: Readonly<Record<string, string>>, asJson: boolean): void {
  const text = asJson
    ? JSON.stringify(environment, null, 2)
    : Object.entries(environment)
        .map(([name, value]) => `${name}=${quoteForShell(value)}`)
        .join('\n');
  process.stdout.write(`${text}\n`);
}

/** The lines can be evaluated by a shell or read as a .env file: an `&` in a URL must not start a job. */
function quoteForShell(value: string): string {
  return /^[\w@%+=:,./-]*$/.test(value) ? value : `'${value.replaceAll("'", "'\\''")}'`;
}

// kafkajs 2.2 computes a negative delay now and then, which Node turns into 1 ms and a warning in our output.
process.removeAllListeners('warning');
process.on('warning', (warning) => {
  if (warning.name !== 'TimeoutNegativeWarning') progress(`${warning.name}: ${warning.message}`);
});

try {
  process.exitCode = await main();
} catch (error) {
  if (!(error instanceof TidemarkError)) throw error;
  process.stderr.write(`stack: ${error.code} ${error.message}\n       ${error.remedy}\n`);
  process.exitCode = 1;
}
