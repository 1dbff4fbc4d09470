/**
 * Whole tables, read in one transaction on an exported snapshot, as records under one Position: the rows of the first
 * table, of the next, and so on, as one Transaction of the source would have written them.
 */
import type { IHeaders } from 'kafkajs';
import type { Client } from 'pg';
import { to as copyTo } from 'pg-copy-streams';
import { formatPosition, type Position } from '../../connector/position.ts';
import { tableName } from '../../connector/shape.ts';
import { TidemarkError } from '../../platform/errors.ts';
import type { KafkaConfig, SourceConfig } from '../../platform/resolved-config.ts';
import type { CatalogueTable } from '../../replicate/catalogue.ts';
import { type Relation, Tuple } from '../../replicate/pgoutput.ts';
import { CopyParser } from '../../replicate/snapshot/copy-binary.ts';
import { describeTable, tableQuery } from '../../replicate/snapshot/table-scan.ts';
import { Batch } from '../batch.ts';
import type { TransactionContext } from '../envelope-frame.ts';
import { TenantPartitions } from '../partition.ts';
import { header, recordFormat } from '../record-format.ts';
import type { TableEncoder } from '../table-encoder.ts';
import { readsBinary } from '../types/reader-codecs.ts';

export interface TableCopyOptions {
  source: SourceConfig;
  kafka: KafkaConfig;
  prepare(relation: Relation): Promise<TableEncoder>;
  /** The Position after which the records come. */
  at: { epoch: number; lsn: bigint; ordinal: number };
  commitTimeUs: bigint;
  /** Takes a batch that is full, and may end the copy by throwing. */
  full(batch: Batch, rows: number): Promise<void>;
}

export class TableCopy {
  /** Of the last record. */
  position: Position;
  readonly #options: TableCopyOptions;
  readonly #transaction: TransactionContext;
  readonly #row = new Tuple();
  readonly #tenants: TenantPartitions;
  #batch = new Batch(Date.now());
  #ordinal: number;

  constructor(options: TableCopyOptions) {
    this.#options = options;
    const { at, commitTimeUs, kafka } = options;
    this.#tenants = new TenantPartitions(kafka.partitions);
    this.position = formatPosition(at);
    this.#ordinal = at.ordinal;
    this.#transaction = {
      commitLsn: at.lsn,
      commitTimeUs,
      xid: 0,
      previousCommitLsn: at.lsn,
      serial: 0,
    };
  }

  /**
   * @param truncated whether a truncate comes before the rows
   * @returns rows published
   * @throws TidemarkError TM208 or TM231 before anything of the table is written; TM308
   */
  async rows(client: Client, table: CatalogueTable, truncated = false): Promise<number> {
    const { source, prepare, kafka, full } = this.#options;
    const { relation, text } = await describeTable(client, source, table, readsBinary);
    const encoder = await prepare(relation);
    if (truncated) this.#truncate(encoder);
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
      parser.take(piece as Buffer);
      encode();
      if (this.#batch.bytes >= kafka.batchMaxBytes) await full(this.takeBatch(), count);
    }
    parser.end();
    encode();
    return count;
  }

  /** What was not handed over yet. */
  takeBatch(): Batch {
    const batch = this.#batch;
    this.#batch = new Batch(Date.now());
    return batch;
  }

  #truncate(encoder: TableEncoder): void {
    const headers = this.#nextHeaders();
    const { writer, openedAtMs } = this.#batch;
    const value = encoder.encodeEnvelope('t', null, null, null, this.#transaction, openedAtMs, writer);
    for (let partition = 0; partition < this.#options.kafka.partitions; partition++)
      this.#batch.add(encoder.topic, partition, null, value, headers, 80);
  }

  #add(encoder: TableEncoder, name: string): void {
    const { kafka } = this.#options;
    const batch = this.#batch;
    const headers = this.#nextHeaders();
    const value = encoder.encodeEnvelope(
      'r',
      null,
      this.#row,
      null,
      this.#transaction,
      batch.openedAtMs,
      batch.writer,
    );
    const { exact } = encoder.remarks;
    if (exact) headers[header.exact] = JSON.stringify(exact);
    const bytes = 80 + String(headers[header.exact] ?? '').length;
    if (value.length + bytes > kafka.rowMaxBytes) {
      throw new TidemarkError(
        'TM308',
        `a row of ${name} has ${value.length + bytes} bytes, row.max.bytes is ${kafka.rowMaxBytes}`,
      );
    }
    const tenant = encoder.tenant(this.#row, null);
    batch.add(encoder.topic, tenant === null ? 0 : this.#tenants.of(tenant), null, value, headers, bytes);
  }

  #nextHeaders(): IHeaders {
    const { epoch, lsn } = this.#options.at;
    this.#ordinal++;
    this.position = formatPosition({ epoch, lsn, ordinal: this.#ordinal });
    return { [header.position]: this.position, [header.format]: recordFormat };
  }
}
