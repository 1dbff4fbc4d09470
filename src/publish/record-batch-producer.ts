/**
 * The default producer: record batches encoded here, sent over @platformatic/kafka's connections. Protocol versions
 * from Kafka 2.8 on: Produce 9, AddPartitionsToTxn 3, EndTxn 3, InitProducerId 4, FindCoordinator 4, Metadata 12.
 *
 * Leaders are looked up once per life: when one moves, the send fails, and the reader starts over with a new producer.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import {
  addPartitionsToTxnV3,
  Connection,
  type ConnectionOptions,
  endTxnV3,
  findCoordinatorV4,
  findErrorBy,
  initProducerIdV4,
  metadataV12,
  produceV9,
  type SASLMechanismValue,
  Writer,
} from '@platformatic/kafka';
import type { Message } from 'kafkajs';
import { describeCause, TidemarkError } from '../platform/errors.ts';
import type { KafkaConfig } from '../platform/resolved-config.ts';
import { encodeRecordBatch } from './record-batch.ts';
import {
  type PartitionEnd,
  portions,
  producerError,
  type TopicBatch,
  type TransactionalProducer,
} from './transactional-producer.ts';

interface Leader {
  connection: Connection;
}

/** Errors of the coordinator that pass in milliseconds. */
const passing = [
  'CONCURRENT_TRANSACTIONS',
  'COORDINATOR_LOAD_IN_PROGRESS',
  'COORDINATOR_NOT_AVAILABLE',
  'NOT_COORDINATOR',
];
const passingDelayMs = 4;
const passingLimitMs = 20000;
const requestTimeoutMs = 30000;
/** A partition's records of one request are one record batch, which topics limit in size; a larger row goes alone. */
const requestBytes = 8 << 20;
/** A partition's sequence numbers wrap here. */
const sequenceLimit = 0x80000000;

export class RecordBatchProducer implements TransactionalProducer {
  readonly #config: KafkaConfig;
  readonly #transactionalId: string;
  readonly #connections = new Map<string, Promise<Connection>>();
  readonly #leaders = new Map<string, Promise<Connection>[]>();
  readonly #sequences = new Map<string, number>();
  /** `topic/partition` that the open transaction knows. */
  readonly #inTransaction = new Set<string>();
  #coordinator: Connection | null = null;
  #producerId = -1n;
  #epoch = -1;

  constructor(config: KafkaConfig, transactionalId: string) {
    this.#config = config;
    this.#transactionalId = transactionalId;
  }

  async fence(): Promise<void> {
    await this.#guard('take over the transactional id', async () => {
      const found = await this.#passing(async () =>
        findCoordinatorV4.api.async(await this.#anyBroker(), 1, [this.#transactionalId]),
      );
      const { host, port } = found.coordinators[0]!;
      const coordinator = await this.#connect(host, port);
      const { producerId, producerEpoch } = await this.#passing(() =>
        initProducerIdV4.api.async(
          coordinator,
          this.#transactionalId,
          this.#config.transactionTimeoutMs,
          -1n,
          -1,
        ),
      );
      this.#coordinator = coordinator;
      this.#producerId = producerId;
      this.#epoch = producerEpoch;
    });
  }

  async send(batches: TopicBatch[]): Promise<PartitionEnd[]> {
    const ends = new Map<string, PartitionEnd>();
    for (const part of portions(batches, Number.MAX_SAFE_INTEGER, requestBytes)) {
      for (const end of await this.#sendPortion(part)) ends.set(`${end.topic}/${end.partition}`, end);
    }
    return [...ends.values()];
  }

  #sendPortion(batches: TopicBatch[]): Promise<PartitionEnd[]> {
    return this.#guard('produce', async () => {
      const groups = byPartition(batches);
      const [leaders] = await Promise.all([this.#leadersOf(groups), this.#addPartitions(groups)]);
      const byLeader = new Map<Connection, { group: PartitionGroup; records: Buffer }[]>();
      const timestampMs = Date.now();
      for (const [i, group] of groups.entries()) {
        const identity = {
          producerId: this.#producerId,
          producerEpoch: this.#epoch,
          baseSequence: this.#takeSequence(group),
          timestampMs,
        };
        const records = await encodeRecordBatch(group.messages, identity, this.#config.compression);
        const connection = leaders[i]!.connection;
        const list = byLeader.get(connection) ?? [];
        list.push({ group, records });
        byLeader.set(connection, list);
      }
      const ends = await Promise.all(
        [...byLeader].map(([connection, list]) => this.#produce(connection, list)),
      );
      return ends.flat();
    });
  }

  commit(): Promise<void> {
    return this.#end('commit', true);
  }

  abort(): Promise<void> {
    return this.#end('abort', false);
  }

  async #end(what: string, committed: boolean): Promise<void> {
    if (this.#inTransaction.size === 0) return;
    await this.#guard(what, async () => {
      await this.#passing(() =>
        endTxnV3.api.async(
          this.#coordinator!,
          this.#transactionalId,
          this.#producerId,
          this.#epoch,
          committed,
        ),
      );
      this.#inTransaction.clear();
    });
  }

  async close(): Promise<void> {
    for (const connecting of this.#connections.values()) {
      await connecting.then((connection) => connection.close()).catch(() => {});
    }
    this.#connections.clear();
  }

  async #produce(
    connection: Connection,
    list: { group: PartitionGroup; records: Buffer }[],
  ): Promise<PartitionEnd[]> {
    const topics = new Map<string, { group: PartitionGroup; records: Buffer }[]>();
    for (const entry of list)
      topics.set(entry.group.topic, [...(topics.get(entry.group.topic) ?? []), entry]);
    const request = () =>
      Writer.create()
        .appendString(this.#transactionalId)
        .appendInt16(-1) // acks: all in-sync replicas
        .appendInt32(requestTimeoutMs)
        .appendArray([...topics], (topicWriter, [topic, entries]) => {
          topicWriter.appendString(topic).appendArray(entries, (writer, { group, records }) => {
            writer
              .appendInt32(group.partition)
              .appendUnsignedVarInt(records.length + 1)
              .append(records);
          });
        })
        .appendTaggedFields();
    const response = await new Promise<ReturnType<typeof produceV9.parseResponse>>((resolve, reject) => {
      connection.send(0, 9, request, produceV9.parseResponse, true, true, (error, answer) => {
        if (error) reject(error);
        else resolve(answer!);
      });
    });
    return response.responses.flatMap(({ name, partitionResponses }) =>
      partitionResponses.map(({ index, baseOffset }) => {
        const { group } = list.find(
          (entry) => entry.group.topic === name && entry.group.partition === index,
        )!;
        return { topic: name, partition: index, endOffset: baseOffset + BigInt(group.messages.length) };
      }),
    );
  }

  async #addPartitions(groups: readonly PartitionGroup[]): Promise<void> {
    const topics = new Map<string, number[]>();
    for (const { name, topic, partition } of groups) {
      if (this.#inTransaction.has(name)) continue;
      topics.set(topic, [...(topics.get(topic) ?? []), partition]);
    }
    if (topics.size === 0) return;
    const transaction = {
      transactionalId: this.#transactionalId,
      producerId: this.#producerId,
      producerEpoch: this.#epoch,
      verifyOnly: false,
      topics: [...topics].map(([name, partitions]) => ({ name, partitions })),
    };
    // Right after a commit the coordinator still writes markers and asks for patience.
    await this.#passing(() => addPartitionsToTxnV3.api.async(this.#coordinator!, [transaction]));
    for (const { name } of groups) this.#inTransaction.add(name);
  }

  async #leadersOf(groups: readonly PartitionGroup[]): Promise<Leader[]> {
    const unknown = [...new Set(groups.map(({ topic }) => topic))].filter(
      (topic) => !this.#leaders.has(topic),
    );
    if (unknown.length > 0) {
      const metadata = await metadataV12.api.async(await this.#anyBroker(), unknown, false, false);
      for (const { name, partitions } of metadata.topics) {
        const leaders: Promise<Connection>[] = [];
        for (const { partitionIndex, leaderId } of partitions) {
          const broker = metadata.brokers.find(({ nodeId }) => nodeId === leaderId);
          if (!broker) throw new TidemarkError('TM301', `${name} partition ${partitionIndex} has no leader`);
          leaders[partitionIndex] = this.#connect(broker.host, broker.port);
        }
        this.#leaders.set(name!, leaders);
      }
    }
    return Promise.all(
      groups.map(async ({ topic, partition }) => {
        const leader = this.#leaders.get(topic)?.[partition];
        if (!leader) throw new TidemarkError('TM301', `${topic} has no partition ${partition}`);
        return { connection: await leader };
      }),
    );
  }

  #takeSequence({ name, messages }: PartitionGroup): number {
    const sequence = this.#sequences.get(name) ?? 0;
    this.#sequences.set(name, (sequence + messages.length) % sequenceLimit);
    return sequence;
  }

  async #anyBroker(): Promise<Connection> {
    let failure: unknown = null;
    for (const broker of this.#config.brokers) {
      const at = broker.lastIndexOf(':');
      try {
        return await this.#connect(broker.slice(0, at), Number(broker.slice(at + 1)));
      } catch (error) {
        failure = error;
      }
    }
    throw failure;
  }

  #connect(host: string, port: number): Promise<Connection> {
    const name = `${host}:${port}`;
    let connecting = this.#connections.get(name);
    if (!connecting) {
      const connection = new Connection(this.#config.clientId, connectionOptions(this.#config));
      // Requests in flight fail by themselves; an event without a listener would end the process.
      connection.on('error', () => {});
      connecting = Promise.resolve(connection.connect(host, port) as Promise<void>).then(() => connection);
      connecting.catch(() => this.#connections.delete(name));
      this.#connections.set(name, connecting);
    }
    return connecting;
  }

  async #passing<T>(run: () => Promise<T>): Promise<T> {
    const giveUpAt = Date.now() + passingLimitMs;
    for (;;) {
      try {
        return await run();
      } catch (error) {
        const type = errorType(error);
        if (type === null || !passing.includes(type) || Date.now() > giveUpAt) throw error;
        await sleep(passingDelayMs);
      }
    }
  }

  async #guard<T>(what: string, run: () => Promise<T>): Promise<T> {
    try {
      return await run();
    } catch (error) {
      if (error instanceof TidemarkError) throw error;
      throw producerError(what, errorType(error), describeCause(error), error);
    }
  }
}

interface PartitionGroup {
  /** `topic/partition`. */
  name: string;
  topic: string;
  partition: number;
  messages: Message[];
}

function byPartition(batches: readonly TopicBatch[]): PartitionGroup[] {
  const groups: PartitionGroup[] = [];
  for (const { topic, messages } of batches) {
    const ofTopic: (PartitionGroup | undefined)[] = [];
    for (const message of messages) {
      const partition = message.partition!;
      let group = ofTopic[partition];
      if (!group) {
        group = { name: `${topic}/${partition}`, topic, partition, messages: [] };
        ofTopic[partition] = group;
        groups.push(group);
      }
      group.messages.push(message);
    }
  }
  return groups;
}

function connectionOptions(config: KafkaConfig): ConnectionOptions {
  const { sasl, tls } = config;
  return {
    connectTimeout: 5000,
    requestTimeout: requestTimeoutMs + 5000,
    maxInflights: 5,
    ...(tls === false ? {} : { tls, tlsServerName: true }),
    ...(sasl === null
      ? {}
      : {
          sasl: {
            mechanism: sasl.mechanism.toUpperCase() as SASLMechanismValue,
            username: sasl.username,
            password: sasl.password,
          },
        }),
  };
}

/** Kafka's name of the first protocol error within. */
function errorType(error: unknown): string | null {
  if (!(error instanceof Error)) return null;
  const protocol = findErrorBy(error, 'code', 'PLT_KFK_PROTOCOL') as { apiId?: string } | null;
  return protocol?.apiId ?? null;
}
