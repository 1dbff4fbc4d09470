/**
 * The first Progress of an epoch with tables that have no key: their rows, as the slot's consistent point has them, are
 * published before anything is streamed, one long read of an exported snapshot. Nothing counts before the two Progress
 * records at the end, which are one Kafka transaction: an attempt that dies leaves records that lie below everybody's
 * start, and the next one begins with a new slot.
 */
import type { Client } from 'pg';
import { tableName } from '../../connector/shape.ts';
import { errorFields, type Logger } from '../../platform/log.ts';
import type { KafkaConfig, SourceConfig } from '../../platform/resolved-config.ts';
import type { CatalogueTable } from '../../replicate/catalogue.ts';
import type { Relation } from '../../replicate/pgoutput.ts';
import type { Batch } from '../batch.ts';
import { newSnapshot, type Progress, type SnapshotState } from '../progress.ts';
import type { TableEncoder } from '../table-encoder.ts';
import { parksTable } from '../table-preparation.ts';
import { noteEnds, type TransactionalProducer } from '../transactional-producer.ts';
import type { SnapshotRequests } from './snapshot-requests.ts';
import { TableCopy } from './table-copy.ts';

export interface KeylessOriginOptions {
  source: SourceConfig;
  kafka: KafkaConfig;
  producer: TransactionalProducer;
  requests: SnapshotRequests;
  topicOf(table: string): string;
  prepare(relation: Relation): Promise<TableEncoder>;
  log: Logger;
  signal: AbortSignal;
}

/**
 * Publishes the rows; the last of them are in the open Kafka transaction.
 * @param origin with the ends before it
 * @param client on the snapshot of the slot's consistent point
 * @returns the Progress after them, which has the snapshots as complete
 */
export async function publishKeyless(
  options: KeylessOriginOptions,
  origin: Progress,
  { client, lsn, epoch }: { client: Client; lsn: bigint; epoch: number },
  tables: readonly CatalogueTable[],
): Promise<Progress> {
  const { requests, topicOf, log } = options;
  await requests.requestInitial(epoch, tables.map(tableName));
  const open = await requests.open();
  const { source, kafka, producer, prepare, signal } = options;
  const endOffsets = { ...origin.endOffsets };
  const send = async (batch: Batch, commit: boolean) => {
    noteEnds(endOffsets, await producer.send(batch.runs));
    if (commit) await producer.commit();
  };
  const copy = new TableCopy({
    source,
    kafka,
    prepare,
    at: { epoch, lsn: originLsn(lsn), ordinal: 0 },
    commitTimeUs: origin.commitTimeUs,
    full: async (batch) => {
      signal.throwIfAborted();
      await send(batch, true);
    },
  });
  const snapshots: Record<string, SnapshotState> = {};
  for (const table of tables) {
    const name = tableName(table);
    const request = open.find((each) => each.table === name);
    if (!request) continue;
    log.info(`${name} has no key: its rows are read in one transaction, and the stream waits for it`);
    await requests.started(request.id, null);
    try {
      const rows = await copy.rows(client, table);
      const state = newSnapshot(request.id, { since: null, destination: null });
      snapshots[topicOf(name)] = { ...state, read: true, rows: BigInt(rows) };
    } catch (error) {
      // The stream parks such a table at its first change; here nothing of it was written.
      if (!parksTable(error)) throw error;
      log.error(`the snapshot of ${name} ended`, errorFields(error));
      await requests.failed(request.id, error);
    }
  }
  await send(copy.takeBatch(), false);
  return { ...origin, kind: 'batch', position: copy.position, endOffsets, snapshots };
}

/**
 * Just before the consistent point: commit records begin at multiples of eight, so none ever has this LSN, and all that
 * is streamed comes after it.
 */
export function originLsn(consistentPoint: bigint): bigint {
  return consistentPoint - 1n;
}
