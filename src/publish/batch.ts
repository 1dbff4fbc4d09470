/** What one Kafka transaction will hold: records by topic, and how far they reach. */
import type { IHeaders, Message } from 'kafkajs';
import type { Position } from '../connector/position.ts';
import { ByteWriter } from './byte-writer.ts';

export class Batch {
  readonly writer = new ByteWriter();
  readonly topics = new Map<string, Message[]>();
  records = 0;
  changes = 0;
  /** Encoded bytes, headers included. */
  bytes = 0;
  /** Position of the last Change, whether it was published or not. */
  position: Position | null = null;
  /** True when `position` ends a Transaction. */
  boundary = false;
  /** End LSN of the last whole Transaction in here. */
  ackLsn: bigint | null = null;
  commitTimeUs = 0n;
  /** Wall clock when the first record came in, milliseconds. */
  readonly openedAtMs: number;

  constructor(nowMs: number) {
    this.openedAtMs = nowMs;
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
}
