/** The role `retain` of `tidemark run`, and what whoever works with evicted rows has to open. */
import { setTimeout as sleep } from 'node:timers/promises';
import { migrateControl, openControl } from '../platform/control.ts';
import { asTidemarkError } from '../platform/errors.ts';
import { createKafka } from '../platform/kafka.ts';
import { errorFields } from '../platform/log.ts';
import { RegistryClient } from '../platform/registry.ts';
import { Retention, type RetentionOptions } from './retention.ts';

const mostWaitMs = 30_000;

export interface RunningRetention {
  stop(): Promise<void>;
}

type Given = Pick<RetentionOptions, 'config' | 'sinkKinds' | 'log' | 'onRound'>;

/** Returns at once; everything may be down meanwhile: reader and delivery beside it in this process wait too. */
export function startRetention(given: Given): RunningRetention {
  const stopping = new AbortController();
  const { options, close } = openRetention(given, stopping.signal);
  const retention = new Retention(options);
  const running = migrated(options).then(() => retention.run());
  return {
    async stop() {
      stopping.abort();
      await running;
      await retention.close();
      await close();
    },
  };
}

/** When the control schema is that of this version, or we stop. */
async function migrated({ pool, log, signal }: RetentionOptions): Promise<void> {
  let told = '';
  for (let waitMs = 250; !signal.aborted; waitMs = Math.min(2 * waitMs, mostWaitMs)) {
    try {
      await migrateControl(pool);
      return;
    } catch (caught) {
      const error = asTidemarkError(caught);
      if (error.message !== told) log.warn('the control schema is not ready', errorFields(error));
      told = error.message;
      await sleep(waitMs, undefined, { signal }).catch(() => {});
    }
  }
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
