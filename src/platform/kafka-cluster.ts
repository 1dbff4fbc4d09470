/**
 * kafkajs' connections, for requests that it has no function for. Its producer encodes records one by one; bytes that
 * are record batches already need no more than a leader, an authenticated connection, and an answer. kafkajs has these
 * (metadata, retries, TLS, SASL and its renewal) but no public way to them: they are reached by name, in this one file.
 */
import { createRequire } from 'node:module';
import type { Socket } from 'node:net';
import type { Kafka } from 'kafkajs';
import { TidemarkError } from './errors.ts';
import { innermost } from './kafka.ts';

const require = createRequire(import.meta.url);
const { TRANSACTION } = require('kafkajs/src/protocol/coordinatorTypes') as { TRANSACTION: number };
const { createErrorFromCode } = require('kafkajs/src/protocol/error') as {
  createErrorFromCode(code: number): Error;
};
const produceResponse = require('kafkajs/src/protocol/requests/produce/v7/response') as {
  decode(payload: Buffer): Promise<{ clientSideThrottleTime?: number | null }>;
  /** @throws KafkaJSProtocolError the first partition's that failed */
  parse(decoded: unknown): Promise<ProduceAnswer>;
};

interface ProduceAnswer {
  topics: { topicName: string; partitions: { partition: number; baseOffset: string }[] }[];
}

interface ProducerIdentity {
  transactionalId: string;
  producerId: string;
  producerEpoch: number;
}

/** A broker, and what is asked of it. They throw kafkajs' errors. */
export interface Broker {
  initProducerId(request: {
    transactionalId: string;
    transactionTimeout: number;
  }): Promise<Omit<ProducerIdentity, 'transactionalId'>>;
  addPartitionsToTxn(
    request: ProducerIdentity & { topics: { topic: string; partitions: number[] }[] },
  ): Promise<unknown>;
  endTxn(request: ProducerIdentity & { transactionResult: boolean }): Promise<unknown>;
  listOffsets(request: {
    replicaId: number;
    isolationLevel: number;
    topics: { topic: string; partitions: { partition: number; timestamp: string }[] }[];
  }): Promise<{ responses: { topic: string; partitions: { partition: number; offset: string }[] }[] }>;
  fetch(request: {
    replicaId: number;
    isolationLevel: number;
    maxWaitTime: number;
    minBytes: number;
    maxBytes: number;
    topics: {
      topic: string;
      partitions: { partition: number; fetchOffset: string; maxBytes: number }[];
    }[];
  }): Promise<{ responses: { partitions: { messages: StoredRecord[] }[] }[] }>;
  connectionPool: { pool: BrokerConnection[]; getConnection(index?: number): Promise<BrokerConnection> };
}

/** A record as it is stored; a marker is one too. */
export interface StoredRecord {
  offset: string;
  key: Buffer | null;
  value: Buffer | null;
  isControlRecord: boolean;
  batchContext: { producerId: string };
}

export interface TopicPartition {
  topic: string;
  partition: number;
}

/** To a broker; only for `exchange`. */
export interface BrokerConnection {
  clientId: string;
  socket: Socket | null;
  isAuthenticated(): boolean;
  authenticate(): Promise<void>;
  nextCorrelationId(): number;
  failIfNotConnected(): void;
  requestQueue: {
    push(request: {
      entry: {
        apiKey: number;
        apiName: string;
        apiVersion: number;
        correlationId: number;
        resolve(answer: { payload: Buffer }): void;
        reject(error: unknown): void;
      };
      expectResponse: boolean;
      sendRequest(): void;
    }): void;
    maybeThrottle(ms: number | null | undefined): void;
    rejectAll(error: Error): void;
  };
}

interface Cluster {
  targetTopics: Set<string>;
  connect(): Promise<void>;
  disconnect(): Promise<void>;
  addMultipleTargetTopics(topics: string[]): Promise<void>;
  findLeaderForPartitions(topic: string, partitions: number[]): Record<string, number[]>;
  findTopicPartitionMetadata(topic: string): { partitionId: number }[];
  findBroker(which: { nodeId: string }): Promise<Broker>;
  findGroupCoordinator(which: { groupId: string; coordinatorType: number }): Promise<Broker>;
  brokerPool: { seedBroker?: Broker; brokers: Record<string, Broker> };
}

/** Requests of a connection that are not answered yet: more would put an idempotent producer's order at risk. */
const requestsInFlight = 5;

const produceApi = { apiKey: 0, apiName: 'Produce', apiVersion: 7 };
const produceTimeoutMs = 30_000;

/** Records of one partition, as a record batch. */
export interface PartitionRecords extends TopicPartition {
  records: Buffer;
}

/** What a broker answered with an error code, as kafkajs throws it. */
export function brokerError(code: number): Error {
  return createErrorFromCode(code);
}

/** kafkajs' own view of a cluster, not connected yet. @throws TidemarkError TM901 in another version of it */
export function createCluster<T>(kafka: Kafka, options: object): T {
  const name = 'private:Kafka:createCluster';
  const symbol = Object.getOwnPropertySymbols(kafka).find(({ description }) => description === name);
  if (!symbol) throw new TidemarkError('TM901', 'this kafkajs has another inside than 2.2.4');
  return (kafka as unknown as Record<symbol, (options: object) => T>)[symbol]!(options);
}

export class KafkaCluster {
  readonly #cluster: Cluster;

  /** Not connected yet. */
  constructor(kafka: Kafka) {
    this.#cluster = createCluster<Cluster>(kafka, {
      metadataMaxAge: 300_000,
      allowAutoTopicCreation: false,
      maxInFlightRequests: requestsInFlight,
    });
  }

  async transactionCoordinator(transactionalId: string): Promise<Broker> {
    await this.#cluster.connect();
    await this.#cluster.addMultipleTargetTopics([]);
    return this.#cluster.findGroupCoordinator({ groupId: transactionalId, coordinatorType: TRANSACTION });
  }

  /**
   * The connections to the partitions' leaders. Call while nothing is in flight.
   * @throws kafkajs' error where a topic does not exist or a leader cannot be reached
   */
  async leaders(partitions: readonly TopicPartition[]): Promise<BrokerConnection[]> {
    await this.#cluster.addMultipleTargetTopics([...new Set(partitions.map(({ topic }) => topic))]);
    const found = new Map<string, Promise<BrokerConnection>>();
    return Promise.all(
      partitions.map(({ topic, partition }) => {
        const nodeId = this.#leaderOf(topic, partition);
        if (nodeId === null)
          throw new TidemarkError('TM301', `${topic} partition ${partition} has no leader`);
        let leader = found.get(nodeId);
        if (!leader) {
          leader = this.connectionTo(nodeId);
          found.set(nodeId, leader);
        }
        return leader;
      }),
    );
  }

  /**
   * Leaders by `topic/partition`, and why some have none. Looked up anew: leaders move.
   * @throws kafkajs' error where no broker answers
   */
  async findLeaders(
    partitions: readonly TopicPartition[],
  ): Promise<{ leaders: Map<string, string>; failures: Map<string, unknown> }> {
    const lost = await this.#lookUp(new Set(partitions.map(({ topic }) => topic)));
    const leaders = new Map<string, string>();
    const failures = new Map<string, unknown>();
    for (const { topic, partition } of partitions) {
      const name = `${topic}/${partition}`;
      if (lost.has(topic)) {
        failures.set(name, lost.get(topic));
        continue;
      }
      const nodeId = this.#leaderOf(topic, partition);
      if (nodeId === null) failures.set(name, new TidemarkError('TM301', `${name} has no leader`));
      else leaders.set(name, nodeId);
    }
    return { leaders, failures };
  }

  /**
   * All partitions of those of the topics that exist, looked up anew.
   * @throws kafkajs' error where no broker answers or a partition has no leader
   */
  async partitionsOf(topics: ReadonlySet<string>): Promise<TopicPartition[]> {
    const lost = await this.#lookUp(topics);
    for (const error of lost.values()) {
      const { type } = innermost(error as Error) as { type?: unknown };
      if (type !== 'UNKNOWN_TOPIC_OR_PARTITION') throw error;
    }
    return [...topics]
      .filter((topic) => !lost.has(topic))
      .flatMap((topic) =>
        this.#cluster
          .findTopicPartitionMetadata(topic)
          .map(({ partitionId }) => ({ topic, partition: partitionId })),
      );
  }

  /**
   * Partitions by leader, as they were looked up last.
   * @throws kafkajs' error where a topic does not exist; TidemarkError TM301 where a partition has no leader
   */
  async brokersOf<T extends TopicPartition>(partitions: readonly T[]): Promise<Map<Broker, T[]>> {
    await this.#cluster.connect();
    await this.#cluster.addMultipleTargetTopics([...new Set(partitions.map(({ topic }) => topic))]);
    const byNode = Map.groupBy(partitions, ({ topic, partition }) => {
      const nodeId = this.#leaderOf(topic, partition);
      if (nodeId === null) throw new TidemarkError('TM301', `${topic} partition ${partition} has no leader`);
      return nodeId;
    });
    const found = new Map<Broker, T[]>();
    for (const [nodeId, list] of byNode) found.set(await this.#cluster.findBroker({ nodeId }), list);
    return found;
  }

  /** Topics anew. @returns why some cannot be looked up @throws kafkajs' error where no broker answers */
  async #lookUp(topics: ReadonlySet<string>): Promise<Map<string, unknown>> {
    const lost = new Map<string, unknown>();
    // One that is gone would spoil every later look at the others.
    this.#cluster.targetTopics.clear();
    await this.#cluster.connect();
    await this.#cluster.addMultipleTargetTopics([...topics]).catch(async () => {
      for (const topic of topics) {
        await this.#cluster.addMultipleTargetTopics([topic]).catch((error) => {
          // Without a type it is no answer of a broker.
          if (typeof (innermost(error) as { type?: unknown }).type !== 'string') throw error;
          this.#cluster.targetTopics.delete(topic);
          lost.set(topic, error);
        });
      }
    });
    return lost;
  }

  /** By what was looked up last; null: it has none. */
  #leaderOf(topic: string, partition: number): string | null {
    const [nodeId] = Object.keys(this.#cluster.findLeaderForPartitions(topic, [partition]));
    return nodeId === undefined || Number(nodeId) < 0 ? null : nodeId;
  }

  /**
   * Connects where needed.
   * @param lane which of the two that there are: a broker answers what comes by one of them one after the other
   * @throws kafkajs' error
   */
  async connectionTo(nodeId: string, lane: 0 | 1 = 0): Promise<BrokerConnection> {
    const { connectionPool } = await this.#cluster.findBroker({ nodeId });
    const connection = await connectionPool.getConnection(lane);
    // An answer to a request in flight would be taken for one to this.
    if (!connection.isAuthenticated()) await connection.authenticate();
    return connection;
  }

  /** Without waiting for those in flight, whose answers are not wanted any more. */
  async close(): Promise<void> {
    const { seedBroker, brokers } = this.#cluster.brokerPool;
    const all = new Set([...(seedBroker ? [seedBroker] : []), ...Object.values(brokers)]);
    const connections = [...all].flatMap(({ connectionPool }) => connectionPool.pool);
    const closed = new TidemarkError('TM301', 'the connection was closed');
    for (const { requestQueue } of connections) requestQueue.rejectAll(closed);
    await this.#cluster.disconnect().catch(() => {});
    for (const { socket } of connections) socket?.destroy();
  }
}

/**
 * Sends record batches as they are: their bytes must not change until the answer is there. Requests to one leader are
 * sent in the order of the calls.
 * @returns the offset that each partition's first record got
 * @throws kafkajs' error
 */
export async function produce(
  connection: BrokerConnection,
  transactionalId: string,
  batches: readonly PartitionRecords[],
): Promise<{ topic: string; partition: number; baseOffset: bigint }[]> {
  const payload = await exchange(connection, produceApi, (correlationId) =>
    produceRequest(connection.clientId, correlationId, transactionalId, batches),
  );
  const decoded = await produceResponse.decode(payload);
  connection.requestQueue.maybeThrottle(decoded.clientSideThrottleTime);
  const { topics } = await produceResponse.parse(decoded);
  return topics.flatMap(({ topicName, partitions }) =>
    partitions.map(({ partition, baseOffset }) => ({
      topic: topicName,
      partition,
      baseOffset: BigInt(baseOffset),
    })),
  );
}

/** Sends a request and waits for its answer. @returns the answer's body @throws kafkajs' error */
export async function exchange(
  connection: BrokerConnection,
  api: { apiKey: number; apiName: string; apiVersion: number },
  request: (correlationId: number) => Buffer[],
): Promise<Buffer> {
  const { payload } = await new Promise<{ payload: Buffer }>((resolve, reject) => {
    connection.failIfNotConnected();
    const correlationId = connection.nextCorrelationId();
    const parts = request(correlationId);
    const sendRequest = () => {
      const socket = connection.socket!;
      socket.cork();
      for (const part of parts) socket.write(part);
      socket.uncork();
    };
    const entry = { ...api, correlationId, resolve, reject };
    connection.requestQueue.push({ entry, expectResponse: true, sendRequest });
  });
  return payload;
}

/** Produce, version 7 (Kafka protocol guide): the batches' own bytes, and what stands between them. */
function produceRequest(
  clientId: string,
  correlationId: number,
  transactionalId: string,
  batches: readonly PartitionRecords[],
): Buffer[] {
  const topics = Map.groupBy(batches, ({ topic }) => topic);
  const parts: Buffer[] = [
    Buffer.concat([
      int16(produceApi.apiKey),
      int16(produceApi.apiVersion),
      int32(correlationId),
      text(clientId),
      text(transactionalId),
      int16(-1), // acks: all in-sync replicas
      int32(produceTimeoutMs),
      int32(topics.size),
    ]),
  ];
  for (const [topic, entries] of topics) {
    parts.push(Buffer.concat([text(topic), int32(entries.length)]));
    for (const { partition, records } of entries) parts.push(int32(partition, records.length), records);
  }
  return [int32(parts.reduce((sum, { length }) => sum + length, 0)), ...parts];
}

export function int16(value: number): Buffer {
  const bytes = Buffer.alloc(2);
  bytes.writeInt16BE(value);
  return bytes;
}

export function int32(...values: number[]): Buffer {
  const bytes = Buffer.alloc(values.length * 4);
  for (const [i, value] of values.entries()) bytes.writeInt32BE(value, i * 4);
  return bytes;
}

export function text(value: string): Buffer {
  const bytes = Buffer.from(value);
  return Buffer.concat([int16(bytes.length), bytes]);
}
