/** Kafka's Fetch, version 11 (Kafka protocol guide), for whoever reads committed: the record sets come as they are. */
import {
  type BrokerConnection,
  exchange,
  int16,
  int32,
  type TopicPartition,
  text,
} from '../kafka-cluster.ts';
import type { AbortedTransaction } from './record-set.ts';

export interface PartitionRequest extends TopicPartition {
  offset: number;
}

export interface PartitionAnswer extends TopicPartition {
  /** 0: none. */
  errorCode: number;
  /** Offset after the last record, of open transactions too. */
  end: number;
  /** Where whoever reads committed sees the partition end. */
  stableEnd: number;
  aborted: AbortedTransaction[];
  recordSet: Buffer;
}

export interface FetchLimits {
  /** How long the broker may wait for a first record. */
  maxWaitMs: number;
  /** Of the answer; a first batch that is larger comes whole. */
  maxBytes: number;
  partitionBytes: number;
}

const api = { apiKey: 1, apiName: 'Fetch', apiVersion: 11 };
const readCommitted = 1;

/** @param partitions each at most once @throws kafkajs' error */
export async function fetchPartitions(
  connection: BrokerConnection,
  partitions: readonly PartitionRequest[],
  limits: FetchLimits,
): Promise<{ errorCode: number; partitions: PartitionAnswer[] }> {
  const answer = await exchange(connection, api, (correlationId) => {
    const body = encode(connection.clientId, correlationId, partitions, limits);
    return [int32(body.length), body];
  });
  const reader = new AnswerReader(answer);
  connection.requestQueue.maybeThrottle(reader.int32());
  return decode(reader);
}

function encode(
  clientId: string,
  correlationId: number,
  partitions: readonly PartitionRequest[],
  { maxWaitMs, maxBytes, partitionBytes }: FetchLimits,
): Buffer {
  const topics = Map.groupBy(partitions, ({ topic }) => topic);
  const parts = [
    int16(api.apiKey),
    int16(api.apiVersion),
    int32(correlationId),
    text(clientId),
    int32(-1, maxWaitMs, 1, maxBytes), // replica: none; at least one byte
    Buffer.of(readCommitted),
    int32(0, -1), // no session
    int32(topics.size),
  ];
  for (const [topic, list] of topics) {
    parts.push(text(topic), int32(list.length));
    for (const { partition, offset } of list)
      parts.push(int32(partition, -1), int64(offset), int64(-1), int32(partitionBytes));
  }
  // Nothing to forget, no rack.
  parts.push(int32(0), text(''));
  return Buffer.concat(parts);
}

/** After the throttle time. */
function decode(reader: AnswerReader): { errorCode: number; partitions: PartitionAnswer[] } {
  const errorCode = reader.int16();
  reader.int32(); // session
  const partitions: PartitionAnswer[] = [];
  for (let topics = reader.int32(); topics > 0; topics--) {
    const topic = reader.text();
    for (let left = reader.int32(); left > 0; left--) {
      const partition = reader.int32();
      const error = reader.int16();
      const end = Number(reader.int64());
      const stableEnd = Number(reader.int64());
      reader.int64(); // start of the log
      const aborted: AbortedTransaction[] = [];
      for (let each = reader.int32(); each > 0; each--)
        aborted.push({ producerId: reader.int64(), firstOffset: Number(reader.int64()) });
      reader.int32(); // preferred replica: only where a rack was named
      const recordSet = reader.bytes();
      partitions.push({ topic, partition, errorCode: error, end, stableEnd, aborted, recordSet });
    }
  }
  return { errorCode, partitions };
}

class AnswerReader {
  #at = 0;
  readonly #bytes: Buffer;

  constructor(bytes: Buffer) {
    this.#bytes = bytes;
  }

  int16(): number {
    this.#at += 2;
    return this.#bytes.readInt16BE(this.#at - 2);
  }

  int32(): number {
    this.#at += 4;
    return this.#bytes.readInt32BE(this.#at - 4);
  }

  int64(): bigint {
    this.#at += 8;
    return this.#bytes.readBigInt64BE(this.#at - 8);
  }

  text(): string {
    const length = this.int16();
    this.#at += length;
    return this.#bytes.toString('utf8', this.#at - length, this.#at);
  }

  bytes(): Buffer {
    const length = Math.max(0, this.int32());
    this.#at += length;
    return this.#bytes.subarray(this.#at - length, this.#at);
  }
}

function int64(value: number): Buffer {
  const bytes = Buffer.alloc(8);
  bytes.writeBigInt64BE(BigInt(value));
  return bytes;
}
