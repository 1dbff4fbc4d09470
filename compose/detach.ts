/** The stack in the background: a supervisor process, what it tells the command that started it, and its end. */
import { spawn } from 'node:child_process';
import { mkdir, open } from 'node:fs/promises';
import { join } from 'node:path';
import { TidemarkError } from '../src/platform/errors.ts';
import { createLayout, type PartName, readJson, stackLayout } from './layout.ts';
import { endLeftovers } from './local-stack.ts';
import { findOwner, releaseOwnership, takeOwnership } from './owner.ts';
import { endProcess } from './process.ts';
import { stackError } from './stack-error.ts';

type Environment = Readonly<Record<string, string>>;

/** What the supervisor sends while somebody still waits for it. */
type Message =
  | { kind: 'progress'; line: string }
  | { kind: 'ready'; environment: Environment }
  | { kind: 'failed'; message: string; remedy: string; code: string };

/** Those that `--with` adds, and a variable that shows that a running stack has them. */
const furtherParts: readonly (readonly [PartName, string])[] = [
  ['s3', 'TIDEMARK_S3_ENDPOINT'],
  ['clickhouse', 'TIDEMARK_CLICKHOUSE_URL'],
  ['iceberg', 'TIDEMARK_ICEBERG_URL'],
];

/** Leaves a stack in the background and gives its environment once it is ready; that of a running one at once. */
export async function detachStack(
  parts: readonly PartName[],
  log: (line: string) => void,
): Promise<Environment> {
  const layout = stackLayout();
  const owner = await findOwner(layout);
  if (owner !== undefined) {
    const environment = await readJson<Environment>(layout.environmentFile);
    if (environment === undefined) {
      throw stackError(
        `The stack in ${layout.root} is being started or stopped by process ${owner.pid}.`,
        'Try again.',
      );
    }
    for (const [part, variable] of furtherParts) {
      if (!parts.includes(part) || environment[variable] !== undefined) continue;
      throw stackError(
        `The stack in ${layout.root} runs without ${part}.`,
        'Run `npm run stack:down`, then this again.',
      );
    }
    log(`already running as process ${owner.pid}`);
    return environment;
  }
  await mkdir(layout.logs, { recursive: true });
  const logFile = join(layout.logs, 'supervisor.log');
  const output = await open(logFile, 'a');
  const args = [join(import.meta.dirname, 'stack.ts'), '--in-background'];
  for (const [part] of furtherParts) if (parts.includes(part)) args.push('--with', part);
  const supervisor = spawn(process.execPath, args, {
    detached: true,
    stdio: ['ignore', output.fd, output.fd, 'ipc'],
  });
  await output.close();
  const interrupt = () => void supervisor.kill('SIGTERM');
  process.on('SIGINT', interrupt);
  process.on('SIGTERM', interrupt);
  try {
    return await new Promise<Environment>((resolve, reject) => {
      supervisor.on('message', (message: Message) => {
        if (message.kind === 'progress') log(message.line);
        else if (message.kind === 'ready') resolve(message.environment);
        else {
          const code = message.code === 'TM103' ? 'TM103' : 'TM901';
          reject(new TidemarkError(code, message.message, { remedy: message.remedy, retry: 'operator' }));
        }
      });
      supervisor.on('error', reject);
      supervisor.on('exit', (code, signal) =>
        reject(stackError(`The supervisor ended (${signal ?? `code ${code}`}).`, `Look into ${logFile}`)),
      );
    });
  } finally {
    process.off('SIGINT', interrupt);
    process.off('SIGTERM', interrupt);
    if (supervisor.connected) supervisor.disconnect();
    supervisor.unref();
  }
}

/** The supervisor's side: tells what happens to the waiting command, and to its log for ever after. */
export async function serveDetached(
  parts: readonly PartName[],
  serve: (
    parts: readonly PartName[],
    log: (line: string) => void,
    onReady: (environment: Environment) => void,
  ) => Promise<number>,
): Promise<number> {
  const tell = (message: Message) => {
    // The command may have gone away; its terminal with it.
    if (process.connected) process.send?.(message, () => undefined);
  };
  const log = (line: string) => {
    process.stderr.write(`${new Date().toISOString()} ${line}\n`);
    tell({ kind: 'progress', line });
  };
  try {
    return await serve(parts, log, (environment) => tell({ kind: 'ready', environment }));
  } catch (error) {
    if (error instanceof TidemarkError) {
      tell({ kind: 'failed', message: error.message, remedy: error.remedy, code: error.code });
    }
    throw error;
  }
}

/** Stops the stack of this folder, whoever left it. Exit code: 0 when nothing runs afterwards. */
export async function stopStack(log: (line: string) => void): Promise<number> {
  const layout = stackLayout();
  const owner = await findOwner(layout);
  if (owner?.kind === 'program') {
    throw stackError(
      `The stack in ${layout.root} belongs to process ${owner.pid}, which is not \`npm run stack\`.`,
      'Stop that program; the stack ends with it.',
    );
  }
  if (owner !== undefined) {
    log(`stopping process ${owner.pid} and its servers`);
    await endProcess(owner);
  }
  // After a kill, servers may be left without an owner.
  await createLayout(layout);
  await takeOwnership(layout, 'command');
  const leftovers = await endLeftovers(layout, log).finally(() => releaseOwnership(layout));
  log(owner !== undefined || leftovers ? 'stopped' : 'nothing was running');
  return 0;
}
