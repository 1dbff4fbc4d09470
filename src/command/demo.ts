/** `tidemark demo`: the whole pipeline on this machine, live or bounded. */
import { join } from 'node:path';
import { seedEnvironment, startEnvironment } from '../demo/environment.ts';
import { runLive } from '../demo/live.ts';
import { renderSummary, runOnce } from '../demo/once.ts';
import { DemoPipeline } from '../demo/pipeline.ts';
import { loadConfig } from '../platform/config.ts';
import { TidemarkError } from '../platform/errors.ts';
import { createLogger } from '../platform/log.ts';
import { type CommandContext, exitCode } from './context.ts';

export interface DemoArguments {
  once?: boolean | undefined;
  transactions?: string | undefined;
  /** Transactions per second; 0 as fast as possible. */
  rate?: string | undefined;
  seed?: string | undefined;
}

const readyLimitMs = 60_000;

export async function demoCommand(context: CommandContext, args: DemoArguments): Promise<number> {
  const transactions = wholeNumber('--transactions', args.transactions, 2000);
  const rate = wholeNumber('--rate', args.rate, args.once ? 0 : 50);
  const seed = wholeNumber('--seed', args.seed, 1);
  const say = (line: string) => void process.stderr.write(`demo: ${line}\n`);
  const folder = process.env.TIDEMARK_DEMO_DIR ?? join(process.cwd(), '.tidemark', 'demo');
  const { signal, sinkKinds } = context;

  const environment = await startEnvironment(folder, say);
  let pipeline: DemoPipeline | null = null;
  try {
    if (signal.aborted) return exitCode.ok;
    const config = await loadConfig(environment.configFile, sinkKinds);
    // The live view shows errors itself; a log line in between would tear it.
    const live = !args.once && process.stdout.isTTY;
    const log = live ? createLogger({ write: () => {} }) : context.log;
    say('starting the pipeline');
    pipeline = new DemoPipeline({ config, sinkKinds, log, sourceUrl: environment.sourceUrl });
    await pipeline.ready(readyLimitMs);
    await seedEnvironment(environment, seed);
    if (!args.once) {
      await runLive({
        environment,
        pipeline,
        slot: config.source.slot,
        rate,
        seed,
        signal,
        out: process.stdout,
      });
      return exitCode.ok;
    }
    const summary = await runOnce({
      pipeline,
      config,
      sinkKinds,
      log,
      transactions,
      rate,
      seed,
      signal,
      say,
    });
    context.stdout(context.json ? `${JSON.stringify(summary, null, 2)}\n` : renderSummary(summary));
    return summary.equal ? exitCode.ok : exitCode.no;
  } finally {
    say('stopping');
    await pipeline?.stop();
    await environment.stack.stop();
    if (!args.once && pipeline)
      say(`${pipeline.transactions} transactions, ${pipeline.rows} rows; nothing is left running`);
  }
}

function wholeNumber(name: string, text: string | undefined, otherwise: number): number {
  if (text === undefined) return otherwise;
  if (!/^\d{1,9}$/.test(text))
    throw new TidemarkError('TM101', `${name}: ${text.slice(0, 40)} is not a whole number`, {
      remedy: `For example ${name} ${otherwise}.`,
    });
  return Number(text);
}
