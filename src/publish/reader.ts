/**
 * The reader, kept alive: each life (reader-life.ts) goes from an open slot to Kafka, and whatever fails in a way that
 * may pass ends in the next one, which starts at Progress again.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { migrateControl, openControl } from '../platform/control.ts';
import { asTidemarkError, type TidemarkError } from '../platform/errors.ts';
import { isKafkaError, kafkaError } from '../platform/kafka.ts';
import { errorFields } from '../platform/log.ts';
import { RegistryClient } from '../platform/registry.ts';
import type { ResolvedConfig } from '../platform/resolved-config.ts';
import { connectSource, readSlot } from '../replicate/source.ts';
import { type ReaderOptions, type ReaderParts, readUntilFailure } from './reader-life.ts';
import { SnapshotRequests } from './snapshot/snapshot-requests.ts';
import { SourceLedger } from './source-ledger.ts';
import { dropSlot, type WalBudget, watchWalBudget } from './wal-budget.ts';

export interface Reader {
  /** Settles when the reader has ended: resolves after stop(), rejects with what needs an operator. */
  finished: Promise<void>;
  stop(): Promise<void>;
}

/** The old reader, once fenced, gives the slot back within this time; a new one takes it within this time. */
const takeoverMs = 4000;

export function startReader(options: ReaderOptions): Reader {
  const stopping = new AbortController();
  const finished = superviseReader(options, stopping.signal);
  finished.catch(() => {});
  return {
    finished,
    async stop() {
      stopping.abort();
      await finished.catch(() => {});
    },
  };
}

async function superviseReader(options: ReaderOptions, stopped: AbortSignal): Promise<void> {
  const { config, log } = options;
  const ending = new AbortController();
  const budget = watchWalBudget({
    source: config.source,
    log,
    signal: AbortSignal.any([stopped, ending.signal]),
    ...(options.onSlot ? { onSlot: options.onSlot } : {}),
  });
  const signal = AbortSignal.any([stopped, budget.spent]);
  const pool = openControl(config.control, log, 2);
  const registry = new RegistryClient(config.registry, log);
  // A snapshot's table may be waiting for a registry that is away: whoever stops does not wait for it.
  signal.addEventListener('abort', () => registry.close(), { once: true });
  const ledger = new SourceLedger(pool, config.source.id);
  const stream = { textValues: config.source.values === 'text', unread: 0 };
  let migrated = false;
  let delayMs = 250;
  try {
    for (;;) {
      if (budget.spent.aborted && !stopped.aborted) throw await giveUpSlot(budget, options, ledger, stopped);
      if (signal.aborted) return;
      const startedAt = Date.now();
      try {
        if (!migrated) await migrateControl(pool);
        migrated = true;
        const requests = new SnapshotRequests(pool, config.source.id);
        await readUntilFailure(options, { registry, ledger, requests, signal, stream });
      } catch (caught) {
        const error = isKafkaError(caught) ? kafkaError(caught, 'talk to Kafka') : asTidemarkError(caught);
        if (signal.aborted) continue;
        await ledger.report(error).catch(() => {});
        if (error.code === 'TM210') chooseValues(stream, config.source.values, error);
        if (error.code === 'TM302') await otherReaderOrGoOn(config, signal, error);
        else if (error.retry !== 'transient') throw error;
        if (Date.now() - startedAt > 10000) delayMs = 250;
        log.warn('the reader starts over from Progress', { ...errorFields(error), delayMs });
        await sleep(delayMs, undefined, { signal }).catch(() => {});
        delayMs = Math.min(delayMs * 2, 5000);
      }
    }
  } finally {
    ending.abort();
    await budget.watching;
    registry.close();
    await pool.end().catch(() => {});
  }
}

/**
 * After a value whose type the reader could not read. A new life knows the types as they are now, and may need no text;
 * Positions do not depend on the form of values, so what was read is not read again.
 */
function chooseValues(
  stream: ReaderParts['stream'],
  wanted: ResolvedConfig['source']['values'],
  error: TidemarkError,
): void {
  stream.unread++;
  if (stream.unread === 1) return;
  if (wanted === 'binary') throw error;
  stream.textValues = true;
}

/** The source's disk before the stream. @returns the error to stop with */
async function giveUpSlot(
  { spent }: WalBudget,
  { config, log }: ReaderOptions,
  ledger: SourceLedger,
  stopped: AbortSignal,
): Promise<TidemarkError> {
  const error = asTidemarkError(spent.reason);
  while (!stopped.aborted) {
    try {
      await dropSlot(config.source);
      break;
    } catch (failure) {
      log.warn('the slot cannot be dropped yet', errorFields(asTidemarkError(failure)));
      await sleep(1000, undefined, { signal: stopped }).catch(() => {});
    }
  }
  await ledger.report(error).catch(() => {});
  return error;
}

/** Fenced by another reader, or by the coordinator after a timeout: if somebody else has the slot, stop. */
async function otherReaderOrGoOn(
  config: ResolvedConfig,
  signal: AbortSignal,
  fenced: TidemarkError,
): Promise<void> {
  await sleep(takeoverMs, undefined, { signal }).catch(() => {});
  const client = await connectSource(config.source, 'tidemark/takeover').catch(() => null);
  if (!client) return;
  try {
    const slot = await readSlot(client, config.source.slot);
    if (slot?.active) throw fenced;
  } finally {
    await client.end().catch(() => {});
  }
}
