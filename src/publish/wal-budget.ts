/**
 * Watches how much WAL the slot keeps, on a connection of its own: the reader may be the one that is stuck. Beyond the
 * budget it warns, or says that the slot has to go before the source's disk is full.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import type pg from 'pg';
import { TidemarkError } from '../platform/errors.ts';
import type { Logger } from '../platform/log.ts';
import type { SourceConfig } from '../platform/resolved-config.ts';
import {
  connectSource,
  cutConnection,
  endConnection,
  readSlot,
  type SlotState,
} from '../replicate/source.ts';

/** From this part of the budget on there are warnings. */
export const warnFraction = 0.8;

/** Between two looks at the slot, however rare heartbeats are. */
const mostMs = 10_000;

export type WalLevel = 'within' | 'near' | 'beyond';

export function walLevel(retainedBytes: bigint, budgetBytes: number): WalLevel {
  const used = Number(retainedBytes);
  if (used > budgetBytes) return 'beyond';
  return used >= budgetBytes * warnFraction ? 'near' : 'within';
}

export interface WalBudgetOptions {
  source: SourceConfig;
  log: Logger;
  signal: AbortSignal;
  onSlot?(slot: SlotState): void;
}

export interface WalBudget {
  /** Aborted when the slot has to be dropped; its reason is the error to stop with (TM244). */
  spent: AbortSignal;
  /** Ends with the options' signal. */
  watching: Promise<void>;
}

export function watchWalBudget(options: WalBudgetOptions): WalBudget {
  const spent = new AbortController();
  return { spent: spent.signal, watching: watch(options, spent) };
}

async function watch(options: WalBudgetOptions, spent: AbortController): Promise<void> {
  const { source, signal } = options;
  let client: pg.Client | null = null;
  let level: WalLevel = 'within';
  signal.addEventListener('abort', () => cutConnection(client), { once: true });
  while (!signal.aborted && !spent.signal.aborted) {
    try {
      client ??= await connectSource(source, 'tidemark/wal-budget', mostMs);
      const slot = await readSlot(client, source.slot);
      if (slot) {
        options.onSlot?.(slot);
        level = judge(options, slot, level, spent);
      }
    } catch {
      // A source that does not answer is the reader's to report.
      cutConnection(client);
      client = null;
    }
    await sleep(Math.min(source.heartbeatIntervalMs, mostMs), undefined, { signal }).catch(() => {});
  }
  if (client) await endConnection(client);
}

function judge(
  { source, log }: WalBudgetOptions,
  slot: SlotState,
  before: WalLevel,
  spent: AbortController,
): WalLevel {
  const { walBudget } = source;
  if (!walBudget) return 'within';
  const level = walLevel(slot.retainedBytes, walBudget.bytes);
  const message = `slot ${slot.name} keeps ${slot.retainedBytes} bytes of WAL, the budget is ${walBudget.bytes}`;
  if (level === 'beyond' && walBudget.action === 'drop-slot') {
    spent.abort(new TidemarkError('TM244', `${message}; it is dropped`));
  } else if (level !== before && level !== 'within') {
    const { code, remedy } = new TidemarkError('TM243', message);
    log[level === 'near' ? 'warn' : 'error'](message, { code, remedy });
  } else if (level !== before) log.info(message);
  return level;
}

/** Whoever reads it is ended: it is our own reader, or one that holds the same WAL. @throws TidemarkError */
export async function dropSlot(source: SourceConfig): Promise<void> {
  const client = await connectSource(source, 'tidemark/wal-budget');
  try {
    for (let attempt = 0; ; attempt++) {
      const slot = await readSlot(client, source.slot);
      if (!slot) return;
      try {
        if (slot.activePid !== null)
          await client.query('select pg_terminate_backend($1, 5000)', [slot.activePid]);
        await client.query('select pg_drop_replication_slot($1)', [source.slot]);
        return;
      } catch (error) {
        // 55006: somebody took it meanwhile. 42704: somebody else dropped it.
        const { code } = error as { code?: string };
        if (code === '42704') return;
        if (code !== '55006' || attempt === 5) throw error;
      }
    }
  } finally {
    await client.end().catch(() => {});
  }
}
