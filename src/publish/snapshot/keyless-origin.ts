/**
 * The first Progress of an epoch with tables that have no key: their rows, as the slot's consistent point has them, are
 * published before anything is streamed, one long read of an exported snapshot. Nothing counts before the two Progress
 * records at the end, which are one Kafka transaction: an attempt that dies leaves records that lie below everybody's
 * start, and the next one begins with a new slot.
 */
import type { Message } from 'kafkajs';
import type { Client } from 'pg';
import { to as copyTo } from 'pg-copy-streams';
import { formatPosition, type Position } from '../../connector/position.ts';
import { tableName } from '../../connector/shape.ts';
import { TidemarkError } from '../../platform/errors.ts';
import { errorFields, type Logger } from '../../platform/log.ts';
import type { KafkaConfig, SourceConfig } from '../../platform/resolved-config.ts';
import type { CatalogueTable } from '../../replicate/catalogue.ts';
import { type Relation, Tuple } from '../../replicate/pgoutput.ts';
import { CopyParser } from '../../replicate/snapshot/copy-binary.ts';
import { describeTable, tableQuery } from '../../replicate/snapshot/table-scan.ts';
import { Batch } from '../batch.ts';
import type { TransactionContext } from '../envelope-frame.ts';
import type { Progress, SnapshotState } from '../progress.ts';
import { header, recordFormat } from '../record-format.ts';
import type { TableEncoder } from '../table-encoder.ts';
import { parksTable } from '../table-preparation.ts';
import type { TransactionalProducer } from '../transactional-producer.ts';
import { readsBinary } from '../types/reader-codecs.ts';
import type { SnapshotRequests } from './snapshot-requests.ts';

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
  const writer = new OriginWriter(options, origin, { lsn, epoch });
  const snapshots: Record<string, SnapshotState> = {};
  for (const table of tables) {
    const name = tableName(table);
    const request = open.find((each) => each.table === name);
    if (!request) continue;
    log.info(`${name} has no key: its rows are read in one transaction, and the stream waits for it`);
    await requests.started(request.id, null);
    try {
      const rows = await writer.copy(client, table);
      snapshots[topicOf(name)] = { id: request.id, cursor: null, read: true, rows: BigInt(rows), again: [] };
    } catch (error) {
      // The stream parks such a table at its first change; here nothing of it was written.
      if (!parksTable(error)) throw error;
      log.error(`the snapshot of ${name} ended`, errorFields(error));
      await requests.failed(request.id, error);
    }
  }
  await writer.flush(false);
  return { ...origin, kind: 'batch', position: writer.position, endOffsets: writer.endOffsets, snapshots };
}

/**
 * Just before the consistent point: commit records begin at multiples of eight, so none ever has this LSN, and all that
 * is streamed comes after it.
 */
export function originLsn(consistentPoint: bigint): bigint {
  return consistentPoint - 1n;
}

class OriginWriter {
  position: Position;
  readonly endOffsets: Record<string, bigint[]>;
  readonly #options: KeylessOriginOptions;
  readonly #epoch: number;
  readonly #transaction: TransactionContext;
  readonly #row = new Tuple();
  #batch = new Batch(Date.now());
  #ordinal = 0;

  constructor(options: KeylessOriginOptions, origin: Progress, at: { lsn: bigint; epoch: number }) {
    this.#options = options;
    this.position = origin.position;
    this.endOffsets = { ...origin.endOffsets };
    this.#epoch = at.epoch;
    const commitLsn = originLsn(at.lsn);
    this.#transaction = {
      commitLsn,
      commitTimeUs: origin.commitTimeUs,
      xid: 0,
      previousCommitLsn: commitLsn,
      serial: 0,
    };
  }

  /** @returns rows published. @throws TidemarkError TM208 before anything of the table is written; TM308 */
  async copy(client: Client, table: CatalogueTable): Promise<number> {
    const { source, prepare, kafka, signal } = this.#options;
    const { relation, text } = await describeTable(client, source, table, readsBinary);
    const encoder = await prepare(relation);
    const query = tableQuery({ table, relation, text });
    const parser = new CopyParser(relation.columns.length, Number.POSITIVE_INFINITY, text);
    let count = 0;
    const encode = () => {
      const rows = parser.takeRows();
      count += rows.count;
      for (let i = 0; i < rows.count; i++) {
        rows.read(i, this.#row);
        this.#add(encoder, tableName(table));
      }
    };
    for await (const piece of client.query(copyTo(`copy (${query}) to stdout (format binary)`))) {
      signal.throwIfAborted();
      parser.take(piece as Buffer);
      encode();
      if (this.#batch.bytes >= kafka.batchMaxBytes) await this.flush(true);
    }
    parser.end();
    encode();
    return count;
  }

  #add(encoder: TableEncoder, name: string): void {
    const { kafka } = this.#options;
    const batch = this.#batch;
    this.#ordinal++;
    const { commitLsn: lsn } = this.#transaction;
    this.position = formatPosition({ epoch: this.#epoch, lsn, ordinal: this.#ordinal });
    const value = encoder.encodeEnvelope(
      'r',
      null,
      this.#row,
      null,
      this.#transaction,
      batch.openedAtMs,
      batch.writer,
    );
    const headers: NonNullable<Message['headers']> = {
      [header.position]: this.position,
      [header.format]: recordFormat,
    };
    const { exact } = encoder.remarks;
    if (exact) headers[header.exact] = JSON.stringify(exact);
    const bytes = 80 + String(headers[header.exact] ?? '').length;
    if (value.length + bytes > kafka.rowMaxBytes) {
      throw new TidemarkError(
        'TM308',
        `a row of ${name} has ${value.length + bytes} bytes, row.max.bytes is ${kafka.rowMaxBytes}`,
      );
    }
    // Tables without a key are in one partition.
    batch.add(encoder.topic, 0, null, value, headers, bytes);
  }

  /** @param commit false: what follows belongs to the same Kafka transaction */
  async flush(commit: boolean): Promise<void> {
    const { producer } = this.#options;
    const batch = this.#batch;
    this.#batch = new Batch(Date.now());
    if (batch.records === 0) return;
    const batches = [...batch.topics].map(([topic, messages]) => ({ topic, messages }));
    for (const { topic, partition, endOffset } of await producer.send(batches)) {
      const ends = [...(this.endOffsets[topic] ?? [])];
      while (ends.length <= partition) ends.push(0n);
      ends[partition] = endOffset;
      this.endOffsets[topic] = ends;
    }
    if (commit) await producer.commit();
  }
}
