/**
 * Snapshots of tables without a key while the stream runs. Rows that look alike cannot be told apart, so nothing that
 * is read may also be streamed: the stream is held, then a temporary slot gives a consistent point L and a snapshot of
 * it, the stream goes on to exactly L, and there the table is replaced: a truncate and all its rows, under a Position
 * that lies before every commit from L on.
 *
 * Hold first, create second: the slot's WAL begins after everything that was received, so L lies beyond it. A table is
 * one Kafka transaction with its boundary Progress. An attempt that dies is aborted, by itself or by the fence of the
 * next reader: nobody who reads committed records ever sees a part of it. A table that takes longer than a Kafka
 * transaction may is cut into several, of which only the last is a boundary; of those a dead attempt leaves a part, which
 * is ended by the truncate of the next attempt: its request is open until one has come through. Positions are never used
 * twice, because every attempt has an L of its own.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import type { Client } from 'pg';
import { formatLsn, parsePosition } from '../../connector/position.ts';
import { tableName } from '../../connector/shape.ts';
import { asTidemarkError, TidemarkError } from '../../platform/errors.ts';
import { failpoint } from '../../platform/failpoint.ts';
import { errorFields, type Logger } from '../../platform/log.ts';
import type { KafkaConfig, SourceConfig } from '../../platform/resolved-config.ts';
import { type CatalogueTable, trackedTables } from '../../replicate/catalogue.ts';
import type { Relation } from '../../replicate/pgoutput.ts';
import { temporarySnapshot } from '../../replicate/snapshot/exported-snapshot.ts';
import {
  conditionRefused,
  describeTable,
  destinationRefused,
  estimateRows,
} from '../../replicate/snapshot/table-scan.ts';
import { connectSource, flushedLsn, sourceError } from '../../replicate/source.ts';
import { newSnapshot } from '../progress.ts';
import type { HeldWriter, Publisher } from '../publisher.ts';
import type { TableEncoder } from '../table-encoder.ts';
import { readsBinary } from '../types/reader-codecs.ts';
import { hasKey } from './initial-snapshots.ts';
import { holdsNoEarlierRow, oldestTransaction } from './invisible-commits.ts';
import { originLsn } from './keyless-origin.ts';
import type { SnapshotRequest, SnapshotRequests } from './snapshot-requests.ts';
import { TableCopy } from './table-copy.ts';
import type { TableSnapshots } from './table-snapshots.ts';

export interface WholeTablesOptions {
  source: SourceConfig;
  kafka: KafkaConfig;
  requests: SnapshotRequests;
  snapshots: TableSnapshots;
  /** It begins after this. */
  publisher(): Pick<Publisher, 'hold' | 'release' | 'publishHeld' | 'isParked' | 'ackLsn' | 'closed'>;
  topicOf(table: string): string;
  prepare(relation: Relation): Promise<TableEncoder>;
  /** Asks the source where the stream is. */
  ping(): void;
  log: Logger;
}

const pollMs = 1000;
const retryMs = 1000;
const longestRetryMs = 30_000;
/** A wait for other transactions is worth a line in the log after this time, and again at most this often. */
const quietMs = 5000;
const remindMs = 60_000;
/** Of the transaction's timeout: the rest is for what was not counted, and for the commit. */
const timeoutShare = 0.5;

/** Somebody paused or cancelled it. */
class Withdrawn extends Error {}

interface Wanted {
  request: SnapshotRequest;
  table: CatalogueTable;
}

export class WholeTables {
  readonly #options: WholeTablesOptions;
  /** By id, until it is over or paused. Their topics are tracked, by whoever handed them over. */
  readonly #taken = new Map<string, SnapshotRequest>();
  readonly #stopping = new AbortController();
  #running: Promise<void> | null = null;
  #delayMs = 0;
  /** Tables that held nothing, by request, and how far the stream must come before that counts. */
  readonly #empty = new Map<string, bigint>();

  constructor(options: WholeTablesOptions) {
    this.#options = options;
  }

  /** From now on the request is ours, until it is over or paused. */
  take(request: SnapshotRequest): void {
    this.#taken.set(request.id, request);
    this.#start();
  }

  #start(): void {
    this.#running ??= this.#run()
      // The control database went away while a failure was told to it.
      .catch((error: unknown) =>
        this.#options.log.debug('snapshots wait', errorFields(asTidemarkError(error))),
      )
      .finally(() => {
        this.#running = null;
        // One may have been taken at the very end.
        const over = this.#stopping.signal.aborted || this.#options.publisher().closed;
        if (this.#taken.size > 0 && !over) this.#start();
      });
  }

  has(id: string): boolean {
    return this.#taken.has(id);
  }

  async stop(): Promise<void> {
    this.#stopping.abort();
    await this.#running;
  }

  async #run(): Promise<void> {
    const { log } = this.#options;
    const { signal } = this.#stopping;
    while (!signal.aborted && this.#taken.size > 0) {
      try {
        await this.#round();
        this.#delayMs = 0;
      } catch (caught) {
        // What Kafka refused is no fault of the table: the next life begins anew.
        if (signal.aborted || this.#options.publisher().closed) return;
        if (caught instanceof Withdrawn) continue;
        const error = asTidemarkError(caught);
        if (error.retry !== 'transient') {
          for (const request of this.#taken.values()) await this.#end(request, error);
          continue;
        }
        this.#delayMs = Math.min(longestRetryMs, Math.max(retryMs, this.#delayMs * 2));
        log.warn('a snapshot of tables without a key is tried again', {
          ...errorFields(error),
          tables: [...this.#taken.values()].map(({ table }) => table),
          delayMs: this.#delayMs,
        });
        await this.#report(`${error.code}: ${error.message}`).catch(() => {});
        await sleep(this.#delayMs, undefined, { signal }).catch(() => {});
      }
    }
  }

  /** All that are wanted now, with one hold and one slot. */
  async #round(): Promise<void> {
    const { source, log } = this.#options;
    const client = await connectSource(source, 'tidemark/snapshot');
    try {
      const wanted = await this.#wanted(client);
      if (wanted.length === 0) {
        if (this.#taken.size > 0) await sleep(pollMs / 4);
        return;
      }
      const tables = wanted.map(({ table }) => tableName(table));
      log.info('tables without a key are read in one transaction, and the stream waits for it', { tables });
      await this.#hold(client, wanted);
    } catch (error) {
      throw error instanceof Withdrawn ? error : sourceError(error);
    } finally {
      this.#options.publisher().release();
      await client.end().catch(() => {});
    }
  }

  async #hold(client: Client, wanted: readonly Wanted[]): Promise<void> {
    const { source, requests, ping, log } = this.#options;
    const publisher = this.#options.publisher();
    const { signal } = this.#stopping;
    await this.#report('the transaction that is being streamed');
    await this.#meanwhile(publisher.hold(), signal);
    await failpoint('table-hold');
    const waiting = new AbortController();
    const creating = temporarySnapshot(
      source,
      wanted.map(({ table }) => table),
      AbortSignal.any([signal, waiting.signal]),
    );
    const exported = await this.#watchWait(client, creating, waiting);
    const { lsn } = exported;
    // Not politely: it may be in the middle of a COPY.
    const abandon = () => exported.abandon();
    signal.addEventListener('abort', abandon, { once: true });
    try {
      await failpoint('table-slot');
      log.info('the stream goes on to the snapshot', { at: formatLsn(lsn) });
      await this.#report(`the stream to come to ${formatLsn(lsn)}`);
      const arrived = publisher.hold(lsn);
      const pinging = setInterval(ping, pollMs / 4);
      try {
        await this.#meanwhile(arrived, signal);
      } finally {
        clearInterval(pinging);
      }
      for (const { request, table } of wanted) {
        signal.throwIfAborted();
        await requests.progressed(request.id, 0n, 0, readingText);
        try {
          const rows = await this.#replace(exported.client, lsn, request, table);
          await requests.finished(request.id, rows);
          log.info(`the snapshot of ${request.table} is complete`, { rows: Number(rows) });
          this.#forget(request);
        } catch (error) {
          if (error instanceof Withdrawn) {
            log.info(`the snapshot of ${request.table} was paused or cancelled before it counted`);
            throw error;
          }
          const failure = sourceError(error);
          if (signal.aborted || publisher.closed || failure.retry === 'transient') throw failure;
          await this.#end(request, failure);
          // In the middle of a COPY the connection is of no use any more: those that are left get a slot of their own.
          return;
        }
      }
    } finally {
      signal.removeEventListener('abort', abandon);
      abandon();
    }
  }

  /** One table, in one Kafka transaction. @returns rows */
  async #replace(
    client: Client,
    lsn: bigint,
    request: SnapshotRequest,
    table: CatalogueTable,
  ): Promise<bigint> {
    const { source, kafka, snapshots, requests, prepare, topicOf } = this.#options;
    const publisher = this.#options.publisher();
    const { signal } = this.#stopping;
    const topic = topicOf(request.table);
    let rows = 0n;
    await publisher.publishHeld(lsn, async (writer: HeldWriter) => {
      if (publisher.isParked(request.table))
        throw new TidemarkError('TM223', `${request.table} is parked, so it cannot be read`);
      let begunAt = performance.now();
      let isCut = false;
      let lookedAt = begunAt;
      const at = after(writer, originLsn(lsn));
      const copy = new TableCopy({
        source,
        kafka,
        at,
        commitTimeUs: writer.commitTimeUs,
        prepare: async (relation) => {
          const encoder = await prepare(relation);
          if (encoder.keyless) return encoder;
          throw new TidemarkError('TM201', `${request.table} was given a key just now: it is read in chunks`);
        },
        full: async (batch, sofar) => {
          signal.throwIfAborted();
          const now = performance.now();
          await writer.send(batch);
          if (now - begunAt > kafka.transactionTimeoutMs * timeoutShare) {
            await writer.commitPart(copy.position);
            begunAt = now;
            isCut = true;
          }
          await failpoint('table-batch');
          if (now - lookedAt < pollMs) return;
          lookedAt = now;
          // A part that counts is not left alone.
          if (!isCut) await this.#requireWanted([request]);
          await requests.progressed(request.id, BigInt(sofar), 0, readingText);
        },
      });
      rows = BigInt(await copy.rows(client, table, true));
      await writer.send(copy.takeBatch());
      if (!isCut) await this.#requireWanted([request]);
      await failpoint('before-table-commit');
      // The truncate stands for the sweep.
      const state = newSnapshot(request.id, { since: null, destination: null });
      snapshots.track(topic, { ...state, read: true, rows });
      return copy.position;
    });
    await failpoint('after-table-commit');
    return rows;
  }

  /** Those that are to be read now; the others are put aside, ended, or found to need no reading. */
  async #wanted(client: Client): Promise<Wanted[]> {
    const { source, requests, log } = this.#options;
    const open = await requests.open();
    const tracked = await trackedTables(client, source);
    // Also those that nobody has handed over yet: they share the hold.
    for (const request of open) {
      const table = tracked.find((each) => tableName(each) === request.table);
      if (table && !hasKey(table) && request.state !== 'paused') this.#taken.set(request.id, request);
    }
    const wanted: Wanted[] = [];
    for (const request of [...this.#taken.values()]) {
      const now = open.find(({ id }) => id === request.id);
      const table = tracked.find((each) => tableName(each) === request.table);
      if (!now) this.#forget(request);
      // For the runner of chunks to come back with, or to refuse.
      else if (now.state === 'paused' || !table) this.#taken.delete(request.id);
      else if (now.condition !== null) await this.#end(request, conditionRefused(request.table));
      else if (now.destination !== null) await this.#end(request, destinationRefused(request.table));
      else if (now.kind === 'initial' && (await this.#heldNothing(client, request, table))) {
        // A delete of a row that was never streamed may be on its way still.
        if (this.#options.publisher().ackLsn < this.#empty.get(request.id)!) continue;
        await requests.finished(request.id, 0n);
        log.info(`${request.table} held no row before: all of it comes through the stream`);
        this.#forget(request);
      } else {
        const scan = await describeTable(client, source, table, readsBinary);
        if (scan.key.length > 0) {
          this.#taken.delete(request.id);
          continue;
        }
        await requests.started(request.id, now.estimatedRows ?? (await estimateRows(client, scan, null)));
        wanted.push({ request, table });
      }
    }
    return wanted;
  }

  async #heldNothing(client: Client, { id }: SnapshotRequest, table: CatalogueTable): Promise<boolean> {
    if (this.#empty.has(id)) return true;
    if (!(await holdsNoEarlierRow(client, table))) return false;
    this.#empty.set(id, await flushedLsn(client));
    return true;
  }

  /**
   * The slot's point is reached when all transactions that were open have ended, and that is up to them.
   * @param waiting ends it
   */
  async #watchWait<T>(client: Client, creating: Promise<T>, waiting: AbortController): Promise<T> {
    const { log } = this.#options;
    const begunAt = performance.now();
    let loggedAt: number | null = null;
    let settled = false;
    const created = creating.finally(() => {
      settled = true;
    });
    created.catch(() => {});
    try {
      for (;;) {
        await Promise.race([created.catch(() => {}), sleep(pollMs, undefined, { ref: false })]);
        if (settled) return await created;
        const oldest = await oldestTransaction(client);
        await this.#requireWanted([...this.#taken.values()]);
        await this.#report(
          `the end of transactions that were open when it began${oldest}; the stream waits with it`,
        );
        const now = performance.now();
        if (now - begunAt < quietMs || (loggedAt !== null && now - loggedAt < remindMs)) continue;
        loggedAt = now;
        log.warn('the stream is held until transactions have ended that were open when a snapshot began', {
          tables: [...this.#taken.values()].map(({ table }) => table),
          oldest: oldest.trim() || 'not visible to this role',
          heldMs: Math.round(now - begunAt),
        });
      }
    } catch (error) {
      waiting.abort();
      await created.catch(() => {});
      throw error;
    }
  }

  /** @throws Withdrawn where one of them was paused or cancelled: what was done for them does not count */
  async #requireWanted(some: readonly SnapshotRequest[]): Promise<void> {
    const open = await this.#options.requests.open();
    const gone = some.filter(({ id }) => {
      const now = open.find((each) => each.id === id);
      return !now || now.state === 'paused';
    });
    if (gone.length > 0) throw new Withdrawn();
  }

  async #report(waitsFor: string): Promise<void> {
    for (const { id } of this.#taken.values()) await this.#options.requests.progressed(id, 0n, 0, waitsFor);
  }

  async #end(request: SnapshotRequest, error: TidemarkError): Promise<void> {
    this.#options.log.error(`the snapshot of ${request.table} ended`, errorFields(error));
    await this.#options.requests.failed(request.id, error);
    this.#forget(request);
  }

  #forget(request: SnapshotRequest): void {
    const { snapshots, topicOf } = this.#options;
    this.#taken.delete(request.id);
    this.#empty.delete(request.id);
    const topic = topicOf(request.table);
    if (snapshots.state(topic)?.id === request.id) snapshots.untrack(topic);
  }

  async #meanwhile(done: Promise<void>, signal: AbortSignal): Promise<void> {
    let stop: () => void = () => {};
    const stopped = new Promise<never>((_, reject) => {
      stop = () => reject(signal.reason);
      if (signal.aborted) stop();
      else signal.addEventListener('abort', stop, { once: true });
    });
    try {
      await Promise.race([done, stopped]);
    } finally {
      signal.removeEventListener('abort', stop);
    }
  }
}

const readingText = 'the end of one long read; the stream waits with it';

/** Behind what a table before it in the same hold has, if any. */
function after(
  { epoch, position }: HeldWriter,
  lsn: bigint,
): { epoch: number; lsn: bigint; ordinal: number } {
  const last = parsePosition(position);
  return { epoch, lsn, ordinal: last.lsn === lsn ? last.ordinal : 0 };
}
