/** The role `retain` of `tidemark run`, and what whoever works with evicted rows has to open. */
import { migrateControl, openControl } from '../platform/control.ts';
import { createKafka } from '../platform/kafka.ts';
import { RegistryClient } from '../platform/registry.ts';
import { Retention, type RetentionOptions } from './retention.ts';

export interface RunningRetention {
  stop(): Promise<void>;
}

type Given = Pick<RetentionOptions, 'config' | 'sinkKinds' | 'log' | 'onRound'>;

/** @throws TidemarkError TM409, TM101 */
export async function startRetention(given: Given): Promise<RunningRetention> {
  const stopping = new AbortController();
  const { options, close } = openRetention(given, stopping.signal);
  await migrateControl(options.pool);
  const retention = new Retention(options);
  const running = retention.run();
  return {
    async stop() {
      stopping.abort();
      await running;
      await retention.close();
      await close();
    },
  };
}

/** Connects to nothing yet. */
export function openRetention(
  given: Given,
  signal: AbortSignal,
): { options: RetentionOptions; close(): Promise<void> } {
  const { config, log } = given;
  const pool = openControl(config.control, log, 2);
  const registry = new RegistryClient(config.registry, log);
  const kafka = createKafka(config.kafka, log);
  return {
    options: { ...given, pool, registry, kafka, signal },
    async close() {
      registry.close();
      await pool.end().catch(() => {});
    },
  };
}
