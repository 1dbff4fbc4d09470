/** What one Kafka transaction will hold: records by topic, and how far they reach. */
import type { IHeaders, Message } from 'kafkajs';
import type { Position } from '../connector/position.ts';
import { ByteWriter } from './byte-writer.ts';

/** How far the whole Transactions in a batch reach. */
export interface Boundary {
  position: Position;
  /** End LSN of the last whole Transaction. */
  ackLsn: bigint;
  /** Running maximum, microseconds since 1970 UTC. */
  commitTimeUs: bigint;
}

export class Batch {
  readonly writer: ByteWriter;
  readonly topics = new Map<string, Message[]>();
  records = 0;
  changes = 0;
  /** Encoded bytes, headers included. */
  bytes = 0;
  boundary: Boundary | null = null;
  /** Rows of a snapshot's chunk are among the records. */
  hasChunk = false;
  /** Records up to the boundary. */
  boundaryRecords = 0;
  /** Wall clock when the batch was opened, milliseconds. */
  readonly openedAtMs: number;
  /** Messages by topic up to the boundary. */
  #boundaryLengths = new Map<string, number>();
  #boundaryBytes = 0;

  constructor(nowMs: number, writer = new ByteWriter()) {
    this.openedAtMs = nowMs;
    this.writer = writer;
  }

  add(
    topic: string,
    partition: number,
    key: Buffer | null,
    value: Buffer | null,
    headers: IHeaders,
    headerBytes: number,
  ): void {
    let messages = this.topics.get(topic);
    if (!messages) {
      messages = [];
      this.topics.set(topic, messages);
    }
    messages.push({ partition, key, value, headers });
    this.records++;
    this.bytes += (key?.length ?? 0) + (value?.length ?? 0) + headerBytes + 16;
  }

  markBoundary(position: Position, ackLsn: bigint, commitTimeUs: bigint): void {
    this.boundary = { position, ackLsn, commitTimeUs };
    if (this.boundaryRecords === this.records) return;
    this.boundaryRecords = this.records;
    this.#boundaryBytes = this.bytes;
    for (const [topic, messages] of this.topics) this.#boundaryLengths.set(topic, messages.length);
  }

  /** @returns this batch cut at its boundary, and a batch with the part of a Transaction that came after it */
  splitAtBoundary(nowMs: number): [Batch, Batch] {
    if (this.boundaryRecords === this.records) return [this, new Batch(nowMs)];
    // The rest's records lie in this arena; it goes on in it, so that none has to move.
    const rest = new Batch(nowMs, this.writer);
    for (const [topic, messages] of this.topics) {
      const length = this.#boundaryLengths.get(topic) ?? 0;
      if (messages.length === length) continue;
      rest.topics.set(topic, messages.splice(length));
      if (length === 0) this.topics.delete(topic);
    }
    rest.records = this.records - this.boundaryRecords;
    rest.bytes = this.bytes - this.#boundaryBytes;
    this.records = this.boundaryRecords;
    this.bytes = this.#boundaryBytes;
    return [this, rest];
  }

  savepoint(topic: string): { messages: number; records: number; bytes: number; changes: number } {
    const messages = this.topics.get(topic)?.length ?? 0;
    return { messages, records: this.records, bytes: this.bytes, changes: this.changes };
  }

  rollback(
    topic: string,
    savepoint: { messages: number; records: number; bytes: number; changes: number },
  ): void {
    this.topics.get(topic)?.splice(savepoint.messages);
    if (savepoint.messages === 0) this.topics.delete(topic);
    this.records = savepoint.records;
    this.bytes = savepoint.bytes;
    this.changes = savepoint.changes;
  }
}
