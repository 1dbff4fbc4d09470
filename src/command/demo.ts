/** `tidemark demo`: the whole pipeline on this machine, live or bounded. */
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import type { PartDeath } from '../../compose/local-stack.ts';
import { chosenDestinations } from '../demo/destinations.ts';
import { type DemoEnvironment, seedHistory, startEnvironment } from '../demo/environment.ts';
import { runLive } from '../demo/live.ts';
import { Notices } from '../demo/notices.ts';
import { runOnce } from '../demo/once.ts';
import { DemoPipeline } from '../demo/pipeline.ts';
import { renderSummary } from '../demo/summary.ts';
import { clock, grouped, size } from '../demo/text.ts';
import { demoFolder } from '../demo/try-next.ts';
import { loadConfig } from '../platform/config.ts';
import { TidemarkError } from '../platform/errors.ts';
import { type CommandContext, exitCode } from './context.ts';

export interface DemoArguments {
  /** A bounded run that verifies, instead of the live view. */
  once?: boolean | undefined;
  /** With `once`; 2000. */
  transactions?: string | undefined;
  /** Transactions per second, 0 for as fast as possible; 50, with `once` 0. */
  rate?: string | undefined;
  /** 1 */
  seed?: string | undefined;
  /** Rows that are there before anybody streams them, besides a short history; 200,000. */
  findings?: string | undefined;
  /** Kinds of destinations, separated by commas; postgres and iceberg. */
  destination?: string | undefined;
}

/** As a shell has it for a process that SIGINT ended. */
const interrupted = 130;

const readyLimitMs = 90_000;
/** A download that goes on when somebody wants to stop is given this long, then cut off. */
const startGraceMs = 15_000;

/**
 * @returns 0: done (with `once`: every destination that can be read equals the source), 1: different, 130: `once` was interrupted.
 * @throws TidemarkError what failed inside; everything is stopped by then
 */
export async function demoCommand(context: CommandContext, args: DemoArguments): Promise<number> {
  if (args.transactions !== undefined && !args.once)
    throw new TidemarkError('TM101', '--transactions goes with --once; the live demo has no end');
  const transactions = wholeNumber('--transactions', args.transactions, 2000);
  const rate = wholeNumber('--rate', args.rate, args.once ? 0 : 50);
  const seed = wholeNumber('--seed', args.seed, 1);
  const findings = wholeNumber('--findings', args.findings, 200_000);
  const destinations = chosenDestinations(args.destination);
  const { signal, sinkKinds } = context;
  const say = (line: string) => void process.stderr.write(`demo: ${line}\n`);
  // Servers, timers and sockets may all be such that they do not keep a process alive; a demo must not end by that.
  const alive = setInterval(() => undefined, 60_000);
  const startedAt = performance.now();
  const died = Promise.withResolvers<never>();
  died.promise.catch(() => {});
  let environment: DemoEnvironment | null = null;
  let pipeline: DemoPipeline | null = null;
  // Whatever nobody caught ends the demo in order too, instead of the process at once.
  const uncaught = (error: unknown) => died.reject(error);
  try {
    const folder = join(process.cwd(), demoFolder);
    environment = await started(
      startEnvironment({
        folder: process.env.TIDEMARK_DEMO_DIR ?? folder,
        destinations,
        say,
        onDeath: (death) => died.reject(deathOf(death)),
        signal,
      }),
      signal,
      say,
    );
    process.on('uncaughtException', uncaught);
    const { configFile, sourceUrl } = environment;
    const config = await loadConfig(configFile, sinkKinds);
    const quiet = !args.once && process.stdout.isTTY;
    const notices = new Notices(join(environment.folder, 'demo.log'), ({ code, message, remedy }) => {
      if (!quiet) say(`${code ? `${code}: ` : ''}${message}${remedy ? ` → ${remedy}` : ''}`);
    });
    const { log } = notices;
    const rows = await seedHistory(sourceUrl, {
      seed,
      findings,
      ...(args.once ? {} : { end: new Date() }),
    });
    say(`the sample application has ${grouped(rows)} rows, and nobody streams them yet`);
    say('starting reader and delivery');
    pipeline = new DemoPipeline({
      config,
      sinkKinds,
      log,
      sourceUrl,
      signal,
      outside: died.promise,
      earlierRows: rows,
    });
    await pipeline.deliver(readyLimitMs);
    if (args.once) {
      const verifiable = destinations.filter((each) => each.verifiable).map(({ name }) => name);
      const facts = { config, sinkKinds, log, sourceUrl, verifiable, transactions, rate, seed, signal, say };
      const summary = await runOnce({ pipeline, ...facts });
      context.stdout(context.json ? `${JSON.stringify(summary, null, 2)}\n` : renderSummary(summary));
      return summary.equal ? exitCode.ok : exitCode.no;
    }
    pipeline.measureFrom(await pipeline.now());
    if (destinations.some((each) => each.verifiable)) await pipeline.letGo();
    const slot = config.source.slot;
    const out = process.stdout;
    await runLive({ environment, pipeline, notices, slot, rate, seed, signal, out });
    return exitCode.ok;
  } catch (error) {
    if (!signal.aborted) throw error;
    return args.once ? interrupted : exitCode.ok;
  } finally {
    await end(environment, pipeline, say);
    clearInterval(alive);
    process.off('uncaughtException', uncaught);
    if (pipeline && !args.once)
      sayGoodbye(pipeline, environment!, (performance.now() - startedAt) / 1000, say);
  }
}

/** Servers that are just starting are not left to themselves when somebody wants to stop. */
async function started(
  starting: Promise<DemoEnvironment>,
  signal: AbortSignal,
  say: (line: string) => void,
): Promise<DemoEnvironment> {
  const aborted = new Promise<null>((resolve) => {
    if (signal.aborted) resolve(null);
    signal.addEventListener('abort', () => resolve(null), { once: true });
  });
  const first = await Promise.race([starting, aborted]);
  if (first) return first;
  say('stopping');
  const late = sleep(startGraceMs, null, { ref: false });
  const environment = await Promise.race([starting, late]);
  // A download may take minutes. Servers' guards end what has been started.
  if (!environment) process.exit(interrupted);
  await environment.stop();
  signal.throwIfAborted();
  return environment;
}

/** The workload has ended by now; then the pipeline, then the servers under it, whatever fails on the way. */
async function end(
  environment: DemoEnvironment | null,
  pipeline: DemoPipeline | null,
  say: (line: string) => void,
): Promise<void> {
  if (!environment) return;
  say('stopping');
  try {
    await pipeline?.stop();
  } finally {
    await environment.stop();
  }
}

function sayGoodbye(
  { source, kafka, destinations }: DemoPipeline,
  { folder }: DemoEnvironment,
  seconds: number,
  say: (line: string) => void,
): void {
  say(
    `${clock(seconds)}: ${grouped(source.transactions)} transactions, ${grouped(source.rows)} rows, ${size(kafka.bytes)} into Kafka`,
  );
  for (const { name, windows, rows, bytes } of destinations)
    say(`${name} received ${grouped(rows)} changes in ${grouped(windows)} Windows, ${size(bytes)}`);
  say(`nothing is left running; files, logs and data stay in ${folder} until the next demo`);
}

const deathCodes = {
  postgres: 'TM201',
  kafka: 'TM301',
  registry: 'TM304',
  s3: 'TM401',
  clickhouse: 'TM401',
  iceberg: 'TM401',
} as const;

function deathOf({ part, title, reason, logFile, lastLines }: PartDeath): TidemarkError {
  return new TidemarkError(deathCodes[part], `${title} died (${reason}); its log ends with:\n${lastLines}`, {
    remedy: `Look into ${logFile}, then start the demo again.`,
    retry: 'operator',
  });
}

function wholeNumber(name: string, text: string | undefined, otherwise: number): number {
  if (text === undefined) return otherwise;
  if (!/^\d{1,9}$/.test(text))
    throw new TidemarkError('TM101', `${name}: ${text.slice(0, 40)} is not a whole number`, {
      remedy: `For example ${name} ${otherwise}.`,
    });
  return Number(text);
}
