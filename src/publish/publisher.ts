/**
 * publishBatch: batches become Kafka transactions, and each transaction carries the Progress that covers it. While
 * one is being committed the next batch fills; when that is full too, reading pauses.
 */
import { randomUUID } from 'node:crypto';
import type { Position } from '../connector/position.ts';
import type { TableId } from '../connector/shape.ts';
import { TidemarkError } from '../platform/errors.ts';
import { failpoint } from '../platform/failpoint.ts';
import type { Logger } from '../platform/log.ts';
import type { KafkaConfig } from '../platform/resolved-config.ts';
import type { Relation } from '../replicate/pgoutput.ts';
import { Batch } from './batch.ts';
import { ChangeEncoder } from './change-encoder.ts';
import type { ParkedMessages } from './parked-messages.ts';
import type { Resuming } from './parking.ts';
import { type Progress, progressRecord } from './progress.ts';
import { header, recordFormat, type TopicNames } from './record-format.ts';
import { RecordRun } from './record-run.ts';
import type { SeenProducer } from './seen-producer.ts';
import { TableSnapshots } from './snapshot/table-snapshots.ts';
import { StreamGate } from './stream-gate.ts';
import type { TableEncoder } from './table-encoder.ts';
import { parksTable, type StreamNotes } from './table-preparation.ts';
import { noteEnds } from './transactional-producer.ts';

/** What may be encoded while a batch is being committed, in batches: commits take 10 ms, and now and then 200. */
const batchesAhead = 6;

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
  producer: SeenProducer;
  progressSchemaId: number;
  /** Everything up to here is in Kafka already. */
  resume: Progress;
  /** Random id of this process. */
  writer: string;
  source: SourceControl;
  /**
   * Makes the encoder of a table, its topic included; `endOffsets` gives a new topic's current ends.
   * @throws TidemarkError TM208 or TM231 when the table must be parked
   */
  prepareTable(relation: Relation, notes: StreamNotes): Promise<PreparedTable>;
  /** Makes a table's control topic; `endOffsets` as of prepareTable. */
  prepareEvictions(table: TableId): Promise<{ topic: string; endOffsets: bigint[] | null }>;
  /** Makes the encoder of a table that nothing is streamed of, in the shape registered last; null: there is none. */
  prepareErasures(table: TableId): Promise<PreparedTable | null>;
  /** What the table's messages may carry while it is parked. */
  prepareParking(relation: Relation): Promise<ParkedMessages>;
  /** A parked table's raw messages from a Position to a mark in the topic. */
  readParked(table: string, from: string, endMark: string): AsyncIterable<Buffer>;
  /** What is read beside the stream; nothing where absent. */
  snapshots?: TableSnapshots;
  unmatchedDeletes?: 'stop' | 'delete' | undefined;
  log: Logger;
  nowMs(): number;
  onProgress?(progress: Progress, stats: PublisherStats): void;
}

export interface PreparedTable {
  encoder: TableEncoder;
  /** Current ends of a topic that Progress does not know. */
  endOffsets: bigint[] | null;
}

/** What is written while the stream is held, inside one Kafka transaction. */
export interface HeldWriter {
  readonly epoch: number;
  /** Running maximum, microseconds since 1970 UTC. */
  readonly commitTimeUs: bigint;
  /** Of the last record in Kafka. */
  readonly position: Position;
  /** @throws TidemarkError with which the whole reader starts over */
  send(batch: Batch): Promise<void>;
  /** What was sent so far counts, also if `write` throws later; no Window ends there. @param position of its last record */
  commitPart(position: Position): Promise<void>;
}

export interface PublisherStats {
  changes: number;
  transactions: number;
  records: number;
  bytes: number;
  batches: number;
}

export class Publisher {
  /** Rejects when a batch could not be published; the reader then starts over from Progress. */
  readonly failed: Promise<never>;
  readonly #options: PublisherOptions;
  readonly #encoder: ChangeEncoder;
  readonly #snapshots: TableSnapshots;
  #endOffsets: Record<string, bigint[]>;
  #fail: (error: unknown) => void = () => {};
  #flushing: Promise<void> | null = null;
  #flushScheduled = false;
  #closed = false;
  /** Messages that came while a table's schema is being registered. */
  #waiting: Buffer[] | null = null;
  readonly #gate = new StreamGate();
  /** What waits, waits at the gate. */
  #gated = false;
  #keepalive: { lsn: bigint; timeUs: bigint } | null = null;
  /** The last Progress ended inside a Transaction: its end is worth a Progress even without a record. */
  #endedInside: boolean;
  /** The last resume that was met. */
  #resumed: Resuming | null = null;
  #records = 0;
  #bytes = 0;
  #batches = 0;

  constructor(options: PublisherOptions) {
    this.#options = options;
    this.#endOffsets = { ...options.resume.endOffsets };
    this.#endedInside = !options.resume.boundary;
    this.#snapshots = options.snapshots ?? new TableSnapshots(options.resume.sourceId);
    this.#encoder = new ChangeEncoder(
      { ...options, snapshots: this.#snapshots, onCommit: () => this.#scheduleFlush() },
      new Batch(options.nowMs()),
    );
    this.failed = new Promise((_, reject) => {
      this.#fail = reject;
    });
    this.failed.catch(() => {});
  }

  /** Of the last Change that was encoded, or the end of the last Transaction without any. */
  get position(): Position {
    return this.#encoder.place.position;
  }

  get stats(): PublisherStats {
    const { changes, transactions } = this.#encoder.place;
    return { changes, transactions, records: this.#records, bytes: this.#bytes, batches: this.#batches };
  }

  /** One pgoutput message; the bytes may be reused by the caller afterwards. */
  receive(bytes: Buffer): void {
    this.#keepalive = null;
    if (this.#waiting) {
      this.#waiting.push(Buffer.from(bytes));
      return;
    }
    if (this.#gate.stops(bytes)) {
      this.#waitAtGate([Buffer.from(bytes)]);
      return;
    }
    const unprepared = this.#encoder.encode(bytes);
    if (unprepared) {
      this.#prepare(unprepared, [Buffer.from(bytes)]);
      return;
    }
    if (this.#encoder.unprepared) {
      this.#prepareFurther([]);
      return;
    }
    if (this.#startsResume(bytes)) {
      this.#resume([]);
      return;
    }
    this.#betweenTransactions();
    if (!this.#full) return;
    if (this.#flushing && this.#overfull) this.#options.source.pause();
    this.#scheduleFlush();
  }

  /** Everything the source had to say up to `lsn` was received before this. */
  keepalive(lsn: bigint, serverTimeUs: bigint): void {
    if (this.#encoder.place.inTransaction || this.#waiting) return;
    this.#keepalive = { lsn, timeUs: serverTimeUs };
    this.#gate.passed(lsn);
  }

  /**
   * Holds the stream: nothing that commits at or beyond `lsn` gets through any more, until `release`. Reading stops with
   * the first such Transaction; the source goes on getting its statuses.
   * @param lsn 0: nothing at all, once the Transaction that is being read has ended
   * @returns settles when what commits before has been received, on an idle source with the next keepalive
   */
  hold(lsn = 0n): Promise<void> {
    const arrived = this.#gate.close(lsn);
    this.#passGate();
    this.#betweenTransactions();
    return arrived;
  }

  release(): void {
    this.#gate.open();
    this.#passGate();
  }

  /**
   * While the stream is held: what `write` sends is one Kafka transaction, after all that was received and with the
   * boundary Progress that covers it; or none of it ever was, where `write` throws.
   * @param ackLsn where the stream is held
   * @param write returns the Position of its last record, greater than that of everything received
   */
  async publishHeld(ackLsn: bigint, write: (writer: HeldWriter) => Promise<Position>): Promise<void> {
    await this.#drain();
    const writing = this.#writeHeld(ackLsn, write);
    this.#flushing = writing
      .catch(() => {})
      .finally(() => {
        this.#flushing = null;
      });
    await writing;
    await this.#flushing;
  }

  /** Only for a topic that is new to Progress: its high watermark would count markers of what we wrote. */
  learnEnds({ encoder, endOffsets }: PreparedTable): void {
    if (endOffsets) this.#endOffsets[encoder.topic] ??= endOffsets;
  }

  /** As learnEnds, of a topic beside a table's own. */
  learnTopic(topic: string, endOffsets: bigint[]): void {
    this.#endOffsets[topic] ??= endOffsets;
  }

  /** Writes a heartbeat Progress where nothing else moves it. Call on a timer. */
  heartbeat(): void {
    const encoder = this.#encoder;
    if (this.#closed || this.#flushing || encoder.batch.records > 0 || !this.#keepalive) return;
    // A keepalive may be beyond the place where the stream is to be held, and what is written there comes before it.
    if (this.#gate.closed) return;
    const { lsn, timeUs } = this.#keepalive;
    this.#keepalive = null;
    encoder.place.advance(lsn, timeUs);
    // Its boundary, of Transactions without records, lies before this Progress, and would come after it.
    encoder.batch = new Batch(this.#options.nowMs());
    this.#flushing = this.#publish(null, this.#progress('heartbeat', true));
  }

  /** Something failed, or it was closed: the reader's next life goes on. */
  get closed(): boolean {
    return this.#closed;
  }

  /** What commits before this was received, and is encoded. */
  get ackLsn(): bigint {
    return this.#encoder.place.ackLsn;
  }

  isParked(table: string): boolean {
    return this.#encoder.parking.holds(table);
  }

  /** Waits for what is in flight; what was not sent yet is sent again after the next start. */
  async close(): Promise<void> {
    this.#closed = true;
    await this.#flushing?.catch(() => {});
  }

  #waitAtGate(messages: Buffer[]): void {
    this.#waiting = messages;
    this.#gated = true;
    this.#options.source.pause();
  }

  #passGate(): void {
    if (!this.#gated) return;
    this.#gated = false;
    this.#continue();
  }

  /** After each message: the gate at 0 only waits for the end of a Transaction, another one for what a keepalive says. */
  #betweenTransactions(): void {
    if (!this.#encoder.place.inTransaction && !this.#waiting) this.#gate.passed(this.#keepalive?.lsn ?? 0n);
  }

  /** Until all that was received is in Kafka. Call between Transactions. */
  async #drain(): Promise<void> {
    for (;;) {
      while (this.#flushing) await this.#flushing;
      if (this.#closed) throw new TidemarkError('TM301', 'the reader is stopping');
      if (this.#encoder.batch.records === 0) return;
      this.#flushNext();
      if (!this.#flushing) throw new TidemarkError('TM901', 'a batch between Transactions has no boundary');
    }
  }

  async #writeHeld(ackLsn: bigint, write: (writer: HeldWriter) => Promise<Position>): Promise<void> {
    const { producer, source, nowMs } = this.#options;
    const encoder = this.#encoder;
    let ends = { ...this.#endOffsets };
    const { epoch, commitTimeUs, position: before } = encoder.place;
    // What Kafka refused, or may have done, is for the next life to find out.
    const kafka = async <T>(work: Promise<T>): Promise<T> => {
      try {
        return await work;
      } catch (error) {
        this.#closed = true;
        this.#fail(error);
        throw error;
      }
    };
    const commit = async (position: Position, boundary: boolean) => {
      encoder.place.position = position;
      this.#endedInside = !boundary;
      const progress = this.#progress('batch', boundary);
      await kafka(this.#commitProgress(progress));
      ends = { ...this.#endOffsets };
      source.confirm(progress.ackLsn);
      this.#batches++;
      this.#options.onProgress?.(progress, this.stats);
    };
    const send = async (batch: Batch) => {
      noteEnds(this.#endOffsets, await kafka(producer.send(batch.runs)));
      this.#records += batch.records;
      this.#bytes += batch.bytes;
    };
    // Its boundary, of Transactions without records, lies before all this.
    encoder.batch = new Batch(nowMs());
    let position: Position;
    try {
      const commitPart = (last: Position) => commit(last, false);
      position = await write({ epoch, commitTimeUs, position: before, send, commitPart });
    } catch (error) {
      this.#endOffsets = ends;
      if (!this.#closed) await kafka(producer.abort());
      throw error;
    }
    if (ackLsn > encoder.place.ackLsn) encoder.place.ackLsn = ackLsn;
    await commit(position, true);
  }

  get #full(): boolean {
    return this.#encoder.batch.bytes >= this.#options.kafka.batchMaxBytes;
  }

  /** Reading goes on while Kafka is busy with the batch before, up to here. */
  get #overfull(): boolean {
    return this.#encoder.batch.bytes >= this.#options.kafka.batchMaxBytes * batchesAhead;
  }

  /** Messages wait, and reading pauses, until the table has its topic and schemas. */
  #prepare(relation: Relation, messages: Buffer[]): void {
    this.#waiting = messages;
    this.#options.source.pause();
    void this.#prepareRelation(relation)
      .then(() => this.#continue())
      .catch((error: unknown) => this.#fail(error));
  }

  async #prepareRelation(relation: Relation): Promise<void> {
    const parking = await this.#options.prepareParking(relation);
    if (this.#encoder.isParked(relation)) {
      this.#encoder.park(relation, parking, null);
      return;
    }
    try {
      const notes = this.#encoder.notesOf(relation);
      const prepared = await this.#options.prepareTable(relation, notes);
      this.learnEnds(prepared);
      this.#encoder.publish(relation, parking, prepared.encoder);
    } catch (error) {
      if (!parksTable(error)) throw error;
      this.#encoder.park(relation, parking, error);
    }
  }

  /** Messages wait, and reading pauses, until what a Tombstone's table needs is there. */
  #prepareFurther(messages: Buffer[]): void {
    this.#waiting = messages;
    this.#options.source.pause();
    void this.#prepareUnprepared()
      .then(() => this.#continue())
      .catch((error: unknown) => this.#fail(error));
  }

  async #prepareUnprepared(): Promise<void> {
    const unprepared = this.#encoder.unprepared;
    if (!unprepared) return;
    const { table } = unprepared;
    if (unprepared.for === 'erasures') {
      const prepared = await this.#options.prepareErasures(table);
      if (prepared) this.learnEnds(prepared);
      this.#encoder.erases(table, prepared?.encoder ?? null);
      return;
    }
    const { topic, endOffsets } = await this.#options.prepareEvictions(table);
    if (endOffsets) this.learnTopic(topic, endOffsets);
    this.#encoder.controls(topic);
  }

  /** A logical message (M) may ask for a parked table. */
  #startsResume(bytes: Buffer): boolean {
    if (bytes[0] !== 0x4d || this.#encoder.parking.resuming === this.#resumed) return false;
    this.#resumed = this.#encoder.parking.resuming;
    return this.#resumed !== null;
  }

  /** Messages wait, and reading pauses, until what was parked of the table is encoded. */
  #resume(messages: Buffer[]): void {
    this.#waiting = messages;
    this.#options.source.pause();
    void this.#encodeParked(this.#encoder.parking.resuming!)
      .then(() => this.#continue())
      .catch((error: unknown) => this.#fail(error));
  }

  async #encodeParked({ table, parked }: Resuming): Promise<void> {
    const { producer, topics, readParked } = this.#options;
    // Everything parked so far must be in Kafka before it is read.
    await this.#flushAll();
    const endMark = randomUUID();
    const headers = [[header.format, recordFormat] as const, [header.resume, endMark] as const];
    const mark = new RecordRun(topics.parked, 0);
    mark.add(Buffer.from(table), Buffer.from(endMark), headers);
    const ends = await producer.send([mark]);
    await producer.commit();
    noteEnds(this.#endOffsets, ends);
    // Else the mark would be waited for without end.
    await producer.seen();
    for await (const raw of readParked(table, parked.position, endMark)) {
      for (let relation = this.#encoder.replay(raw); relation; relation = this.#encoder.replay(raw))
        await this.#prepareRelation(relation);
      await this.#prepareUnprepared();
      while (this.#full && !this.#closed) await this.#flushed();
      if (this.#closed) return;
    }
  }

  /** Sends what the batch holds, also of a Transaction that goes on. */
  async #flushAll(): Promise<void> {
    while (this.#flushing) await this.#flushing;
    this.#flushNext();
    while (this.#flushing) await this.#flushing;
    const { batch } = this.#encoder;
    if (this.#closed || batch.records === 0) return;
    this.#encoder.batch = new Batch(this.#options.nowMs());
    this.#endedInside = true;
    this.#flushing = this.#publish(batch, this.#progress('batch', false));
    while (this.#flushing) await this.#flushing;
  }

  async #flushed(): Promise<void> {
    if (!this.#flushing) this.#flushNext();
    await this.#flushing;
  }

  #continue(): void {
    const waiting = this.#waiting ?? [];
    this.#waiting = null;
    for (let i = 0; i < waiting.length; i++) {
      if (this.#gate.stops(waiting[i]!)) {
        this.#waitAtGate(waiting.slice(i));
        this.#scheduleFlush();
        return;
      }
      const unprepared = this.#encoder.encode(waiting[i]!);
      if (unprepared) {
        this.#prepare(unprepared, waiting.slice(i));
        return;
      }
      if (this.#encoder.unprepared) {
        this.#prepareFurther(waiting.slice(i + 1));
        return;
      }
      if (this.#startsResume(waiting[i]!)) {
        this.#resume(waiting.slice(i + 1));
        return;
      }
    }
    this.#betweenTransactions();
    if (!this.#overfull) this.#options.source.resume();
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
    const encoder = this.#encoder;
    const { batch } = encoder;
    const nowMs = this.#options.nowMs();
    if (batch.boundary && (batch.boundaryRecords > 0 || this.#endedInside || this.#snapshots.moved)) {
      const [whole, rest] = batch.splitAtBoundary(nowMs);
      encoder.batch = rest;
      this.#endedInside = false;
      const progress = { ...this.#progress('batch', true), ...batch.boundary };
      const parked = this.#encoder.parking.at(progress.position);
      this.#flushing = this.#publish(whole, { ...progress, parked });
    } else if (this.#full) {
      encoder.batch = new Batch(nowMs);
      this.#endedInside = true;
      this.#flushing = this.#publish(batch, this.#progress('batch', false));
    }
  }

  #progress(kind: 'batch' | 'heartbeat', boundary: boolean): Progress {
    const { resume, writer, nowMs } = this.#options;
    const { position, ackLsn, commitTimeUs } = this.#encoder.place;
    return {
      kind,
      sourceId: resume.sourceId,
      position,
      boundary,
      ackLsn,
      commitTimeUs,
      writtenAtUs: BigInt(nowMs()) * 1000n,
      systemIdentifier: resume.systemIdentifier,
      timeline: resume.timeline,
      writer,
      endOffsets: this.#endOffsets,
      parked: this.#encoder.parking.at(position),
      // A cursor moves at a commit alone, so it never is ahead of the batch's boundary.
      snapshots: this.#snapshots.states(),
    };
  }

  async #commitProgress(progress: Progress): Promise<void> {
    const { producer, topics, progressSchemaId } = this.#options;
    const record = progressRecord(topics.progress, progress, progressSchemaId);
    await producer.send([record]);
    await producer.commit();
    record.release();
  }

  /** publishBatch: the records and their Progress in one Kafka transaction, then the slot may move. */
  async #publish(batch: Batch | null, progress: Progress): Promise<void> {
    const { producer, source } = this.#options;
    try {
      if (batch && batch.records > 0) {
        noteEnds(this.#endOffsets, await producer.send(batch.runs));
        await failpoint('after-produce');
        if (batch.hasChunk) await failpoint('before-chunk-commit');
      }
      await this.#commitProgress({ ...progress, endOffsets: this.#endOffsets });
      batch?.release();
      await failpoint('after-kafka-commit');
      if (batch?.hasChunk) await failpoint('after-chunk-commit');
      source.confirm(progress.ackLsn);
      this.#batches++;
      this.#records += batch?.records ?? 0;
      this.#bytes += batch?.bytes ?? 0;
      this.#options.onProgress?.({ ...progress, endOffsets: this.#endOffsets }, this.stats);
    } catch (error) {
      this.#closed = true;
      this.#options.log.debug('a batch could not be published', { kind: progress.kind });
      this.#fail(error);
      return;
    } finally {
      this.#flushing = null;
    }
    if (!this.#closed) {
      this.#flushNext();
      if (!this.#waiting && !this.#overfull) source.resume();
    }
  }
}
