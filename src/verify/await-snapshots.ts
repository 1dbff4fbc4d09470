/** A table whose first snapshot is not complete lacks rows that nobody lost: there is nothing to compare yet. */
import { setTimeout as sleep } from 'node:timers/promises';
import { TidemarkError } from '../platform/errors.ts';
import type { SnapshotRequest, SnapshotRequests } from '../publish/snapshot/snapshot-requests.ts';
import type { VerifyEvent } from './report.ts';

export interface AwaitSnapshotsOptions {
  requests: SnapshotRequests;
  chosen(table: string): boolean;
  timeoutMs: number;
  pollMs: number;
  signal: AbortSignal;
  onProgress(event: VerifyEvent): void;
}

/** @throws TidemarkError TM223 where one is paused or not complete in time */
export async function awaitSnapshots(options: AwaitSnapshotsOptions): Promise<void> {
  const { requests, chosen, timeoutMs, pollMs, signal, onProgress } = options;
  const startedAt = performance.now();
  for (;;) {
    signal.throwIfAborted();
    const open = (await requests.open()).filter(({ kind, table }) => kind === 'initial' && chosen(table));
    if (open.length === 0) return;
    const waitedMs = performance.now() - startedAt;
    const paused = open.find(({ state }) => state === 'paused');
    if (paused) {
      throw new TidemarkError('TM223', `${howFar(paused)} and is paused`, {
        remedy: `tidemark snapshot resume ${paused.table}`,
      });
    }
    if (waitedMs >= timeoutMs) {
      throw new TidemarkError(
        'TM223',
        `${howFar(open[0]!)}: there is nothing to compare before it is complete`,
        {
          remedy: 'Wait for it (`tidemark snapshot status --watch`), or allow more with --timeout.',
        },
      );
    }
    onProgress({
      phase: 'rows',
      waitedMs,
      tables: open.map(({ table, rows, estimatedRows }) => ({ table, rows, estimatedRows })),
    });
    await sleep(pollMs, undefined, { signal }).catch(() => {});
  }
}

function howFar({ table, rows, estimatedRows }: SnapshotRequest): string {
  if (!estimatedRows) return `the snapshot of ${table} has not begun`;
  return `the snapshot of ${table} is at ${Math.min(99, Math.floor((rows / estimatedRows) * 100))} %`;
}
