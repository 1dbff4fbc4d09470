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
import { describeCause, TidemarkError } from '../platform/errors.ts';
import type { KafkaConfig } from '../platform/resolved-config.ts';
import { encodeRecordBatch } from './record-batch.ts';
import type { RecordRun } from './record-run.ts';
import { type PartitionEnd, producerError, type TransactionalProducer } from './transactional-producer.ts';

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
/** Of one request: brokers limit it. */
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

  async send(runs: readonly RecordRun[]): Promise<PartitionEnd[]> {
    return this.#guard('produce', async () => {
      const written = runs.filter(({ count }) => count > 0);
      const partitions = new Map<string, RecordRun>();
      for (const run of written) partitions.set(nameOf(run), run);
      const [leaders] = await Promise.all([this.#leadersOf(written), this.#addPartitions(partitions)]);
      const ends = new Map<string, PartitionEnd>();
      const timestampMs = Date.now();
      const sending: Promise<PartitionEnd[]>[] = [];
      // A connection's requests are answered in order: none has to wait for the one before.
      for (const { connection, runs } of requests(written, leaders)) {
        const encoded: EncodedRun[] = [];
        for (const run of runs) {
          const identity = {
            producerId: this.#producerId,
            producerEpoch: this.#epoch,
            baseSequence: this.#takeSequence(run),
            timestampMs,
          };
          encoded.push({ run, records: await encodeRecordBatch(run, identity, this.#config.compression) });
        }
        const produced = this.#produce(connection, encoded);
        // Awaited below; one that fails meanwhile must not end the process.
        produced.catch(() => {});
        sending.push(produced);
      }
      for (const produced of sending) for (const end of await produced) ends.set(nameOf(end), end);
      return [...ends.values()];
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

  async #produce(connection: Connection, encoded: readonly EncodedRun[]): Promise<PartitionEnd[]> {
    const topics = new Map<string, EncodedRun[]>();
    for (const entry of encoded) {
      const list = topics.get(entry.run.topic);
      if (list) list.push(entry);
      else topics.set(entry.run.topic, [entry]);
    }
    const request = () =>
      Writer.create()
        .appendString(this.#transactionalId)
        .appendInt16(-1) // acks: all in-sync replicas
        .appendInt32(requestTimeoutMs)
        .appendArray([...topics], (topicWriter, [topic, entries]) => {
          topicWriter.appendString(topic).appendArray(entries, (writer, { run, records }) => {
            writer
              .appendInt32(run.partition)
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
        const { run } = topics.get(name)!.find(({ run }) => run.partition === index)!;
        return { topic: name, partition: index, endOffset: baseOffset + BigInt(run.count) };
      }),
    );
  }

  async #addPartitions(partitions: ReadonlyMap<string, RecordRun>): Promise<void> {
    const topics = new Map<string, number[]>();
    for (const [name, { topic, partition }] of partitions) {
      if (this.#inTransaction.has(name)) continue;
      const list = topics.get(topic);
      if (list) list.push(partition);
      else topics.set(topic, [partition]);
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
    for (const name of partitions.keys()) this.#inTransaction.add(name);
  }

  async #leadersOf(runs: readonly RecordRun[]): Promise<Connection[]> {
    const unknown = [...new Set(runs.map(({ topic }) => topic))].filter((topic) => !this.#leaders.has(topic));
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
      runs.map(({ topic, partition }) => {
        const leader = this.#leaders.get(topic)?.[partition];
        if (!leader) throw new TidemarkError('TM301', `${topic} has no partition ${partition}`);
        return leader;
      }),
    );
  }

  #takeSequence(run: RecordRun): number {
    const name = nameOf(run);
    const sequence = this.#sequences.get(name) ?? 0;
    this.#sequences.set(name, (sequence + run.count) % sequenceLimit);
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

interface EncodedRun {
  run: RecordRun;
  records: Buffer;
}

function nameOf({ topic, partition }: Pick<RecordRun, 'topic' | 'partition'>): string {
  return `${topic}/${partition}`;
}

/** By leader, in order: a request has at most one run of a partition, and a bounded number of bytes unless one is larger. */
function requests(
  runs: readonly RecordRun[],
  leaders: readonly Connection[],
): { connection: Connection; runs: RecordRun[] }[] {
  const open = new Map<Connection, { runs: RecordRun[]; bytes: number; names: Set<string> }>();
  const closed: { connection: Connection; runs: RecordRun[] }[] = [];
  runs.forEach((run, i) => {
    const connection = leaders[i]!;
    let request = open.get(connection);
    if (request && (request.names.has(nameOf(run)) || request.bytes + run.bytes > requestBytes)) {
      closed.push({ connection, runs: request.runs });
      request = undefined;
    }
    if (!request) {
      request = { runs: [], bytes: 0, names: new Set() };
      open.set(connection, request);
    }
    request.runs.push(run);
    request.bytes += run.bytes;
    request.names.add(nameOf(run));
  });
  for (const [connection, { runs }] of open) closed.push({ connection, runs });
  return closed;
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
