/**
 * encodeChange → publishBatch: decoded Changes become records, records become Kafka transactions, and each
 * transaction carries the Progress that covers it. While one is being committed the next batch fills; when that is
 * full too, reading pauses.
 */
import type { IHeaders } from 'kafkajs';
import {
  formatPosition,
  ordinalText,
  type Position,
  parsePosition,
  positionPrefix,
} from '../connector/position.ts';
import { tableName } from '../connector/shape.ts';
import { TidemarkError } from '../platform/errors.ts';
import { failpoint } from '../platform/failpoint.ts';
import type { Logger } from '../platform/log.ts';
import type { KafkaConfig } from '../platform/resolved-config.ts';
import {
  changedRelations,
  decodeMessage,
  type PgoutputHandler,
  type Relation,
  type TransactionStart,
  type Tuple,
} from '../replicate/pgoutput.ts';
import { Batch } from './batch.ts';
import { partitionOf, TenantPartitions } from './partition.ts';
import { encodeProgress, type ParkedTable, type Progress } from './progress.ts';
import { header, recordFormat, type TopicNames } from './record-format.ts';
import type { TableEncoder, TransactionContext } from './table-encoder.ts';
import type { TransactionalProducer } from './transactional-producer.ts';

/** What the publisher needs of the open slot. */
export interface SourceControl {
  pause(): void;
  resume(): void;
  /** The WAL before `lsn` is covered by committed Progress. */
  confirm(lsn: bigint): void;
}

export interface PublisherOptions {
  kafka: KafkaConfig;
  topics: TopicNames;
  producer: TransactionalProducer;
  progressSchemaId: number;
  /** Everything up to here is in Kafka already. */
  resume: Progress;
  /** Random id of this process. */
  writer: string;
  source: SourceControl;
  /**
   * Makes the encoder of a table, its topic included; `endOffsets` gives a new topic's current ends.
   * @throws TidemarkError TM208 when the table must be parked
   */
  prepareTable(relation: Relation): Promise<{ encoder: TableEncoder; endOffsets: bigint[] | null }>;
  log: Logger;
  nowMs(): number;
  onProgress?(progress: Progress, stats: PublisherStats): void;
}

export interface PublisherStats {
  changes: number;
  transactions: number;
  records: number;
  bytes: number;
  batches: number;
}

/** A table as the stream describes it. It is prepared at its first change: a partition's Relation comes without any. */
type PublishedTable =
  | { kind: 'described'; relation: Relation; raw: Buffer }
  | { kind: 'published'; encoder: TableEncoder; raw: Buffer }
  | { kind: 'parked'; name: string; raw: Buffer };

/** The tuples of one record. */
interface RowImages {
  before: Tuple | null;
  after: Tuple | null;
  /** Supplies key columns that the row does not carry. */
  fallback: Tuple | null;
  /** Supplies unchanged TOAST values: a whole old row. */
  fill: Tuple | null;
}

interface KeyLink {
  name: string;
  key: Buffer;
}

const formatHeader = Buffer.from(recordFormat);

export class Publisher implements PgoutputHandler {
  readonly stats: PublisherStats = { changes: 0, transactions: 0, records: 0, bytes: 0, batches: 0 };
  /** Rejects when a batch could not be published; the reader then starts over from Progress. */
  readonly failed: Promise<never>;
  readonly #options: PublisherOptions;
  readonly #tables = new Map<number, PublishedTable>();
  readonly #tenants: TenantPartitions;
  readonly #resume: { lsn: bigint; ordinal: number };
  readonly #epoch: number;
  readonly #endOffsets: Record<string, bigint[]>;
  readonly #parked: Record<string, ParkedTable>;
  #fail: (error: unknown) => void = () => {};
  #batch: Batch;
  #flushing: Promise<void> | null = null;
  #flushScheduled = false;
  #closed = false;
  /** Messages that came while a table's schema is being registered. */
  #waiting: Buffer[] | null = null;
  #transaction: TransactionContext | null = null;
  #prefix = '';
  #ordinal = 0;
  /** Changes of this Transaction up to this ordinal are in Kafka already. */
  #skipThrough = 0;
  #lastCommitLsn: bigint;
  #serial = 0;
  #position: Position;
  #commitTimeUs: bigint;
  #ackLsn: bigint;
  #keepalive: { lsn: bigint; timeUs: bigint } | null = null;

  constructor(options: PublisherOptions) {
    this.#options = options;
    const { epoch, lsn, ordinal } = parsePosition(options.resume.position);
    this.#epoch = epoch;
    this.#resume = { lsn, ordinal };
    this.#position = options.resume.position;
    this.#lastCommitLsn = lsn;
    this.#commitTimeUs = options.resume.commitTimeUs;
    this.#ackLsn = options.resume.ackLsn;
    this.#endOffsets = { ...options.resume.endOffsets };
    this.#parked = { ...options.resume.parked };
    this.#tenants = new TenantPartitions(options.kafka.partitions);
    this.#batch = new Batch(options.nowMs());
    this.failed = new Promise((_, reject) => {
      this.#fail = reject;
    });
    this.failed.catch(() => {});
  }

  /** One pgoutput message; the bytes may be reused by the caller afterwards. */
  receive(bytes: Buffer): void {
    if (this.#waiting) {
      this.#waiting.push(Buffer.from(bytes));
      return;
    }
    this.#process(bytes);
    if (this.#batch.bytes >= this.#options.kafka.batchMaxBytes) {
      if (this.#flushing) this.#options.source.pause();
      this.#scheduleFlush();
    }
  }

  #process(bytes: Buffer): void {
    for (const oid of changedRelations(bytes)) {
      const table = this.#tables.get(oid);
      if (table?.kind !== 'described') continue;
      this.#waiting = [Buffer.from(bytes)];
      this.#prepare(table);
      return;
    }
    decodeMessage(bytes, this);
  }

  /** Everything the source had to say up to `lsn` was received before this. */
  keepalive(lsn: bigint, serverTimeUs: bigint): void {
    if (this.#transaction || this.#waiting) return;
    this.#keepalive = { lsn, timeUs: serverTimeUs };
  }

  /** Writes a heartbeat Progress where nothing else moves it. Call on a timer. */
  heartbeat(): void {
    if (this.#closed || this.#flushing || this.#batch.records > 0 || this.#transaction || !this.#keepalive)
      return;
    const { lsn, timeUs } = this.#keepalive;
    this.#keepalive = null;
    const position = formatPosition({ epoch: this.#epoch, lsn, ordinal: 0 });
    if (position > this.#position) this.#position = position;
    if (lsn > this.#ackLsn) this.#ackLsn = lsn;
    if (timeUs > this.#commitTimeUs) this.#commitTimeUs = timeUs;
    this.#flushing = this.#publish(null, 'heartbeat', this.#progress('heartbeat', true));
  }

  /** Waits for what is in flight; what was not sent yet is sent again after the next start. */
  async close(): Promise<void> {
    this.#closed = true;
    await this.#flushing?.catch(() => {});
  }

  begin(start: TransactionStart): void {
    this.#serial++;
    this.#transaction = { ...start, previousCommitLsn: this.#lastCommitLsn, serial: this.#serial };
    this.#prefix = positionPrefix(this.#epoch, start.commitLsn);
    this.#ordinal = 0;
    const { lsn, ordinal } = this.#resume;
    this.#skipThrough =
      start.commitLsn < lsn ? Number.MAX_SAFE_INTEGER : start.commitLsn === lsn ? ordinal : 0;
    this.#keepalive = null;
  }

  commit(commitLsn: bigint, endLsn: bigint): void {
    const { commitTimeUs } = this.#open();
    this.#transaction = null;
    this.#lastCommitLsn = commitLsn;
    if (commitTimeUs > this.#commitTimeUs) this.#commitTimeUs = commitTimeUs;
    if (endLsn > this.#ackLsn) this.#ackLsn = endLsn;
    const position = formatPosition({ epoch: this.#epoch, lsn: commitLsn, ordinal: this.#ordinal });
    if (position > this.#position) this.#position = position;
    this.stats.transactions++;
    this.#batch.markBoundary(this.#position, this.#ackLsn, this.#commitTimeUs);
    this.#scheduleFlush();
  }

  relation(relation: Relation, raw: Buffer): void {
    if (this.#tables.get(relation.oid)?.raw.equals(raw)) return;
    this.#tables.set(relation.oid, { kind: 'described', relation, raw: Buffer.from(raw) });
  }

  #prepare({ relation, raw }: PublishedTable & { kind: 'described' }): void {
    const name = tableName(relation);
    if (this.#parked[name]) {
      this.#parkTable(name, relation.oid, raw);
      this.#continue();
      return;
    }
    this.#options.source.pause();
    void this.#options
      .prepareTable(relation)
      .then(
        ({ encoder, endOffsets }) => {
          if (endOffsets) this.#endOffsets[encoder.topic] = endOffsets;
          this.#tables.set(relation.oid, { kind: 'published', encoder, raw });
        },
        (error: unknown) => {
          if (!(error instanceof TidemarkError) || error.code !== 'TM208') throw error;
          this.#startParking(name, error);
          this.#parkTable(name, relation.oid, raw);
        },
      )
      .then(() => this.#continue())
      .catch((error: unknown) => this.#fail(error));
  }

  insert(oid: number, after: Tuple, raw: Buffer): void {
    this.#change(oid, raw, (encoder) =>
      this.#write(encoder, 'c', { before: null, after, fallback: null, fill: null }),
    );
  }

  update(oid: number, before: Tuple | null, beforeIsFull: boolean, after: Tuple, raw: Buffer): void {
    const fill = beforeIsFull ? before : null;
    this.#change(oid, raw, (encoder) => {
      const moved = before && this.#moved(encoder, before, after);
      if (moved) {
        // A row that changes its key or its tenant leaves its partition: delete there, create here.
        const { oldKey, newKey } = moved;
        const newLink = newKey ? { name: header.newKey, key: newKey } : null;
        const oldLink = oldKey ? { name: header.oldKey, key: oldKey } : null;
        this.#write(encoder, 'd', { before, after: null, fallback: null, fill: null }, newLink);
        this.#write(encoder, 'c', { before: null, after, fallback: before, fill }, oldLink);
      } else this.#write(encoder, 'u', { before: fill, after, fallback: before, fill });
    });
  }

  delete(oid: number, before: Tuple, _beforeIsFull: boolean, raw: Buffer): void {
    this.#change(oid, raw, (encoder) =>
      this.#write(encoder, 'd', { before, after: null, fallback: null, fill: null }),
    );
  }

  truncate(oids: number[], raw: Buffer): void {
    for (const oid of oids) {
      this.#change(oid, raw, (encoder) => {
        if (!this.#nextPosition()) return;
        const { kafka, nowMs } = this.#options;
        const value = encoder.encodeEnvelope(
          't',
          null,
          null,
          null,
          this.#open(),
          nowMs(),
          this.#batch.writer,
        );
        const { headers, bytes } = this.#headers(null);
        for (let partition = 0; partition < kafka.partitions; partition++) {
          this.#batch.add(encoder.topic, partition, null, value, headers, bytes);
        }
      });
    }
  }

  message(): void {
    // Logical messages are not rows of a tracked table; snapshots will read the marks they carry.
  }

  /** Both keys where the row's key or tenant differ, else null. */
  #moved(
    encoder: TableEncoder,
    before: Tuple,
    after: Tuple,
  ): { oldKey: Buffer | null; newKey: Buffer | null } | null {
    const { writer } = this.#batch;
    const tenantMoved = encoder.tenant(before, null) !== encoder.tenant(after, before);
    if (encoder.keyless) return tenantMoved ? { oldKey: null, newKey: null } : null;
    const oldKey = encoder.encodeKey(before, null, writer);
    const newKey = encoder.encodeKey(after, before, writer);
    return tenantMoved || !oldKey.equals(newKey) ? { oldKey, newKey } : null;
  }

  #write(encoder: TableEncoder, op: 'c' | 'u' | 'd', row: RowImages, link: KeyLink | null = null): void {
    if (!this.#nextPosition()) return;
    const { writer } = this.#batch;
    const image = (row.after ?? row.before)!;
    const key = encoder.keyless ? null : encoder.encodeKey(image, row.fallback, writer);
    const value = encoder.encodeEnvelope(
      op,
      row.before,
      row.after,
      row.fill,
      this.#open(),
      this.#options.nowMs(),
      writer,
    );
    const { rowMaxBytes } = this.#options.kafka;
    if (value.length > rowMaxBytes) {
      const name = tableName(encoder.shape);
      throw new TidemarkError(
        'TM308',
        `a row of ${name} has ${value.length} bytes, row.max.bytes is ${rowMaxBytes}`,
      );
    }
    const { headers, bytes } = this.#headers(link);
    let headerBytes = bytes;
    const { unchanged, exact } = encoder.remarks;
    if (unchanged.length > 0) {
      const text = JSON.stringify(unchanged);
      headers[header.unchanged] = text;
      headerBytes += text.length + 20;
    }
    if (exact) {
      const text = JSON.stringify(exact);
      headers[header.exact] = text;
      headerBytes += text.length + 20;
    }
    const partition = this.#partition(encoder, image, row.fallback, key);
    this.#batch.add(encoder.topic, partition, key, value, headers, headerBytes);
    if (op === 'd' && key)
      this.#batch.add(encoder.topic, partition, key, null, this.#headers(null).headers, bytes);
  }

  /** Parks the table where its change cannot be represented; nothing of that change stays in the batch. */
  #change(oid: number, raw: Buffer, write: (encoder: TableEncoder) => void): void {
    const table = this.#tables.get(oid);
    if (!table)
      throw new TidemarkError('TM206', `pgoutput sent a change of relation ${oid} without describing it`);
    if (table.kind === 'parked') {
      this.#parkChange(table.name, raw);
      return;
    }
    if (table.kind === 'described')
      throw new TidemarkError('TM901', 'a table was not prepared before its change');
    const ordinal = this.#ordinal;
    const savepoint = this.#batch.savepoint(table.encoder.topic);
    try {
      write(table.encoder);
    } catch (error) {
      if (!(error instanceof TidemarkError) || error.code !== 'TM208') throw error;
      this.#batch.rollback(table.encoder.topic, savepoint);
      this.#ordinal = ordinal;
      const name = tableName(table.encoder.shape);
      this.#startParking(name, error);
      this.#parkTable(name, oid, table.raw);
      this.#parkChange(name, raw);
    }
  }

  #startParking(name: string, error: TidemarkError): void {
    const position = (
      this.#transaction ? this.#prefix + ordinalText(this.#ordinal + 1) : this.#position
    ) as Position;
    this.#parked[name] = { position, code: error.code, reason: error.message };
    this.#options.log.error(
      `table ${name} is parked: its changes go to ${this.#options.topics.parked}, everything else goes on`,
      {
        code: error.code,
        reason: error.message,
        remedy: error.remedy,
        position,
      },
    );
  }

  #parkTable(name: string, oid: number, relation: Buffer): void {
    this.#tables.set(oid, { kind: 'parked', name, raw: relation });
    // A Relation is not a Change: it has no Position of its own.
    this.#park(name, relation, { [header.format]: formatHeader });
  }

  #parkChange(name: string, raw: Buffer): void {
    if (this.#nextPosition()) this.#park(name, Buffer.from(raw), this.#headers(null).headers);
  }

  /** A raw pgoutput message under its table's name: what a resume re-encodes. */
  #park(name: string, raw: Buffer, headers: IHeaders): void {
    this.#batch.add(this.#options.topics.parked, 0, Buffer.from(name), raw, headers, 80);
  }

  /** @returns false where Kafka has this Change already */
  #nextPosition(): boolean {
    this.#ordinal++;
    if (this.#ordinal <= this.#skipThrough) return false;
    this.#position = (this.#prefix + ordinalText(this.#ordinal)) as Position;
    this.#batch.changes++;
    this.stats.changes++;
    return true;
  }

  #headers(link: KeyLink | null): { headers: IHeaders; bytes: number } {
    const headers: IHeaders = {
      [header.position]: Buffer.from(this.#position, 'latin1'),
      [header.format]: formatHeader,
    };
    if (!link) return { headers, bytes: 80 };
    headers[link.name] = link.key;
    return { headers, bytes: 100 + link.key.length };
  }

  #partition(encoder: TableEncoder, row: Tuple, fallback: Tuple | null, key: Buffer | null): number {
    const tenant = encoder.tenant(row, fallback);
    if (tenant !== null) return this.#tenants.of(tenant);
    return key ? partitionOf(key, this.#options.kafka.partitions) : 0;
  }

  #open(): TransactionContext {
    if (!this.#transaction) throw new TidemarkError('TM206', 'pgoutput sent a change outside a transaction');
    return this.#transaction;
  }

  #continue(): void {
    const waiting = this.#waiting ?? [];
    this.#waiting = null;
    for (let i = 0; i < waiting.length; i++) {
      this.#process(waiting[i]!);
      // Another table among them has to be prepared first: it takes over the rest.
      if (this.#waiting) {
        (this.#waiting as Buffer[]).push(...waiting.slice(i + 1));
        return;
      }
    }
    if (this.#batch.bytes < this.#options.kafka.batchMaxBytes) this.#options.source.resume();
    this.#scheduleFlush();
  }

  /** After the messages of this turn: a batch ends at the last boundary in it, or is full inside a Transaction. */
  #scheduleFlush(): void {
    if (this.#flushScheduled || this.#flushing || this.#closed) return;
    this.#flushScheduled = true;
    setImmediate(() => {
      this.#flushScheduled = false;
      if (!this.#flushing && !this.#closed) this.#flushNext();
    });
  }

  #flushNext(): void {
    const full = this.#batch.bytes >= this.#options.kafka.batchMaxBytes;
    if (this.#batch.boundaryRecords > 0) {
      const [whole, rest] = this.#batch.splitAtBoundary(this.#options.nowMs());
      this.#batch = rest;
      const { position, ackLsn, commitTimeUs } = whole.boundary!;
      this.#flushing = this.#publish(whole, 'batch', {
        ...this.#progress('batch', true),
        position,
        ackLsn,
        commitTimeUs,
      });
    } else if (full) {
      const part = this.#batch;
      this.#batch = new Batch(this.#options.nowMs());
      this.#flushing = this.#publish(part, 'batch', this.#progress('batch', false));
    }
  }

  #progress(kind: 'batch' | 'heartbeat', boundary: boolean): Progress {
    const { resume, writer } = this.#options;
    return {
      kind,
      sourceId: resume.sourceId,
      position: this.#position,
      boundary,
      ackLsn: this.#ackLsn,
      commitTimeUs: this.#commitTimeUs,
      writtenAtUs: BigInt(this.#options.nowMs()) * 1000n,
      systemIdentifier: resume.systemIdentifier,
      timeline: resume.timeline,
      writer,
      endOffsets: this.#endOffsets,
      parked: { ...this.#parked },
    };
  }

  /** publishBatch: the records and their Progress in one Kafka transaction, then the slot may move. */
  async #publish(batch: Batch | null, kind: string, progress: Progress): Promise<void> {
    const { producer, topics, progressSchemaId, source } = this.#options;
    try {
      if (batch && batch.records > 0) {
        const batches = [...batch.topics].map(([topic, messages]) => ({ topic, messages }));
        for (const { topic, partition, endOffset } of await producer.send(batches)) {
          const ends = [...(this.#endOffsets[topic] ?? [])];
          while (ends.length <= partition) ends.push(0n);
          ends[partition] = endOffset;
          this.#endOffsets[topic] = ends;
        }
        await failpoint('after-produce');
      }
      const value = encodeProgress({ ...progress, endOffsets: this.#endOffsets }, progressSchemaId);
      await producer.send([
        { topic: topics.progress, messages: [{ partition: 0, key: progress.sourceId, value }] },
      ]);
      await producer.commit();
      await failpoint('after-kafka-commit');
      source.confirm(progress.ackLsn);
      this.stats.batches++;
      this.stats.records += batch?.records ?? 0;
      this.stats.bytes += batch?.bytes ?? 0;
      this.#options.onProgress?.({ ...progress, endOffsets: this.#endOffsets }, this.stats);
    } catch (error) {
      this.#closed = true;
      this.#options.log.debug('a batch could not be published', { kind });
      this.#fail(error);
      return;
    } finally {
      this.#flushing = null;
    }
    if (!this.#closed) {
      this.#flushNext();
      if (!this.#waiting && this.#batch.bytes < this.#options.kafka.batchMaxBytes) source.resume();
    }
  }
}
