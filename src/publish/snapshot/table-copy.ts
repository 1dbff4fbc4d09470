/**
 * Whole tables, read in one transaction on an exported snapshot, as records under one Position: the rows of the first
 * table, of the next, and so on, as one Transaction of the source would have written them.
 */
import type { Client } from 'pg';
import { to as copyTo } from 'pg-copy-streams';
import { ordinalText, type Position, positionPrefix } from '../../connector/position.ts';
import type { KafkaConfig, SourceConfig } from '../../platform/resolved-config.ts';
import type { CatalogueTable } from '../../replicate/catalogue.ts';
import { type Relation, Tuple } from '../../replicate/pgoutput.ts';
import { CopyParser, CopyRows } from '../../replicate/snapshot/copy-binary.ts';
import { describeTable, tableQuery } from '../../replicate/snapshot/table-scan.ts';
import { Batch } from '../batch.ts';
import type { TransactionContext } from '../envelope-frame.ts';
import { PlaceHeaders, type RecordPlace, RecordWriter } from '../record-writer.ts';
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

/** Nothing is open of the table that is read: this is all of it. */
const noSnapshots = { incomplete: () => null };

export class TableCopy {
  readonly #options: TableCopyOptions;
  readonly #records: RecordWriter;
  readonly #row = new Tuple();
  readonly #images = { before: null, after: this.#row, fallback: null, fill: null };
  readonly #prefix: string;
  readonly #place: RecordPlace & { ordinal: number };
  #batch = new Batch(Date.now());

  constructor(options: TableCopyOptions) {
    this.#options = options;
    const { at, commitTimeUs, kafka } = options;
    this.#records = new RecordWriter({ kafka, snapshots: noSnapshots });
    const transaction: TransactionContext = {
      commitLsn: at.lsn,
      commitTimeUs,
      xid: 0,
      previousCommitLsn: at.lsn,
      serial: 0,
    };
    this.#prefix = positionPrefix(at.epoch, at.lsn);
    this.#place = {
      ordinal: at.ordinal,
      transaction,
      headers: new PlaceHeaders(),
    };
    this.#place.headers.begin(this.#prefix);
  }

  /** Of the last record. */
  get position(): Position {
    return (this.#prefix + ordinalText(this.#place.ordinal)) as Position;
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
    if (truncated) {
      this.#place.ordinal++;
      this.#records.truncate(this.#batch, this.#place, encoder);
    }
    const query = tableQuery({ table, relation, text });
    const rows = new CopyRows(relation.columns.length, text);
    const parser = new CopyParser(rows, Number.POSITIVE_INFINITY);
    let count = 0;
    const encode = () => {
      count += rows.count;
      for (let i = 0; i < rows.count; i++) {
        rows.read(i, this.#row);
        this.#place.ordinal++;
        this.#records.row(this.#batch, this.#place, encoder, 'r', null, this.#images, null);
      }
      rows.clear();
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
}
