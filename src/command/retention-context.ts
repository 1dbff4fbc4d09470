/** What every command of retention works with. */
import { TidemarkError } from '../platform/errors.ts';
import type { ResolvedConfig, RetainConfig } from '../platform/resolved-config.ts';
import type { RetentionOptions } from '../retain/retention.ts';
import { openRetention } from '../retain/service.ts';
import { type CommandContext, configOf } from './context.ts';

export type RetainingConfig = ResolvedConfig & { retain: RetainConfig };

/** @throws TidemarkError TM101 where nothing is to be evicted */
export async function retaining(context: CommandContext): Promise<RetainingConfig> {
  const config = await configOf(context);
  if (config.retain) return { ...config, retain: config.retain };
  throw new TidemarkError('TM101', 'retain.enabled is not set', {
    remedy: 'Set retain.enabled: true in tidemark.yaml; docs/retention.md says what else there is.',
  });
}

/** Everything that the service works with, and its end. */
export async function withRetention<T>(
  context: CommandContext,
  config: RetainingConfig,
  work: (options: RetentionOptions) => Promise<T>,
): Promise<T> {
  const { log, signal, sinkKinds } = context;
  const { options, close } = openRetention({ config, sinkKinds, log }, signal);
  try {
    return await work(options);
  } finally {
    await close();
  }
}
