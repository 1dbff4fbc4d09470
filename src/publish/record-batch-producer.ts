/**
 * The default producer: record batches encoded here, sent over kafkajs' connections.
 *
 * Any failure, of a leader that moved as well, ends it: the reader starts over with a new producer. What only takes a
 * moment (a coordinator that still writes the markers of the transaction before) is asked for again.
 */
import type { Kafka } from 'kafkajs';
import {
  type Broker,
  type BrokerConnection,
  KafkaCluster,
  type PartitionRecords,
  produce,
} from '../platform/kafka-cluster.ts';
import type { KafkaConfig } from '../platform/resolved-config.ts';
import { whilePassing } from '../platform/transaction-coordinator.ts';
import { encodeRecordBatch } from './record-batch.ts';
import type { RecordRun } from './record-run.ts';
import { kafkajsError, type PartitionEnd, type TransactionalProducer } from './transactional-producer.ts';

/** Of one request: brokers limit it. */
const requestBytes = 8 << 20;
/** A partition's sequence numbers wrap here. */
const sequenceLimit = 0x80000000;

export class RecordBatchProducer implements TransactionalProducer {
  readonly #config: KafkaConfig;
  readonly #cluster: KafkaCluster;
  readonly #transactionalId: string;
  readonly #progressTopic: string;
  readonly #sequences = new Map<string, number>();
  /** `topic/partition` that the open transaction knows. */
  readonly #inTransaction = new Set<string>();
  #coordinator: Broker | null = null;
  #producerId = '-1';
  #producerEpoch = -1;

  /** @param progressTopic every transaction ends with a record in its only partition */
  constructor(kafka: Kafka, config: KafkaConfig, transactionalId: string, progressTopic: string) {
    this.#progressTopic = progressTopic;
    this.#config = config;
    this.#cluster = new KafkaCluster(kafka);
    this.#transactionalId = transactionalId;
  }

  async fence(): Promise<void> {
    await this.#guard('take over the transactional id', async () => {
      const transactionalId = this.#transactionalId;
      const transactionTimeout = this.#config.transactionTimeoutMs;
      const { producerId, producerEpoch } = await whilePassing(async () => {
        this.#coordinator = await this.#cluster.transactionCoordinator(transactionalId);
        return this.#coordinator.initProducerId({ transactionalId, transactionTimeout });
      });
      this.#producerId = producerId;
      this.#producerEpoch = producerEpoch;
      this.#sequences.clear();
      this.#inTransaction.clear();
    });
  }

  async send(runs: readonly RecordRun[]): Promise<PartitionEnd[]> {
    return this.#guard('produce', async () => {
      const written = runs.filter(({ count }) => count > 0);
      const [leaders] = await Promise.all([
        this.#cluster.leaders(written),
        // The Progress comes last: to tell the coordinator now saves a round trip then.
        this.#addPartitions([...written, { topic: this.#progressTopic, partition: 0 }]),
      ]);
      const timestampMs = Date.now();
      const sending: Promise<PartitionEnd[]>[] = [];
      // A connection's requests are answered in order: none has to wait for the one before.
      for (const { leader, runs } of requests(written, leaders)) {
        const batches: PartitionRecords[] = [];
        for (const run of runs) {
          const identity = {
            producerId: BigInt(this.#producerId),
            producerEpoch: this.#producerEpoch,
            baseSequence: this.#takeSequence(run),
            timestampMs,
          };
          const records = await encodeRecordBatch(run, identity, this.#config.compression);
          batches.push({ topic: run.topic, partition: run.partition, records });
        }
        const produced = this.#produce(leader, runs, batches);
        // Awaited below; one that fails meanwhile must not end the process.
        produced.catch(() => {});
        sending.push(produced);
      }
      const ends = new Map<string, PartitionEnd>();
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

  async #end(what: string, transactionResult: boolean): Promise<void> {
    if (this.#inTransaction.size === 0) return;
    await this.#guard(what, async () => {
      await whilePassing(() => this.#coordinator!.endTxn({ ...this.#identity, transactionResult }));
      this.#inTransaction.clear();
    });
  }

  close(): Promise<void> {
    return this.#cluster.close();
  }

  get #identity() {
    return {
      transactionalId: this.#transactionalId,
      producerId: this.#producerId,
      producerEpoch: this.#producerEpoch,
    };
  }

  async #produce(
    leader: BrokerConnection,
    runs: readonly RecordRun[],
    batches: readonly PartitionRecords[],
  ): Promise<PartitionEnd[]> {
    const answers = await produce(leader, this.#transactionalId, batches);
    return answers.map(({ topic, partition, baseOffset }) => {
      const run = runs.find((one) => one.topic === topic && one.partition === partition)!;
      return { topic, partition, endOffset: baseOffset + BigInt(run.count) };
    });
  }

  async #addPartitions(partitions: readonly TopicPartition[]): Promise<void> {
    const fresh = new Map<string, TopicPartition>();
    for (const one of partitions) if (!this.#inTransaction.has(nameOf(one))) fresh.set(nameOf(one), one);
    if (fresh.size === 0) return;
    const topics = Map.groupBy(fresh.values(), ({ topic }) => topic);
    const transaction = {
      ...this.#identity,
      topics: [...topics].map(([topic, list]) => ({
        topic,
        partitions: list.map(({ partition }) => partition),
      })),
    };
    // Right after a commit the coordinator still writes markers and asks for patience.
    await whilePassing(() => this.#coordinator!.addPartitionsToTxn(transaction));
    for (const name of fresh.keys()) this.#inTransaction.add(name);
  }

  #takeSequence(run: RecordRun): number {
    const name = nameOf(run);
    const sequence = this.#sequences.get(name) ?? 0;
    this.#sequences.set(name, (sequence + run.count) % sequenceLimit);
    return sequence;
  }

  async #guard<T>(what: string, run: () => Promise<T>): Promise<T> {
    try {
      return await run();
    } catch (error) {
      throw kafkajsError(what, error);
    }
  }
}

type TopicPartition = Pick<RecordRun, 'topic' | 'partition'>;

function nameOf({ topic, partition }: TopicPartition): string {
  return `${topic}/${partition}`;
}

/** By leader, in order: a request has at most one run of a partition, and a bounded number of bytes unless one is larger. */
function requests(
  runs: readonly RecordRun[],
  leaders: readonly BrokerConnection[],
): { leader: BrokerConnection; runs: RecordRun[] }[] {
  const open = new Map<BrokerConnection, { runs: RecordRun[]; bytes: number; names: Set<string> }>();
  const closed: { leader: BrokerConnection; runs: RecordRun[] }[] = [];
  runs.forEach((run, i) => {
    const leader = leaders[i]!;
    let request = open.get(leader);
    if (request && (request.names.has(nameOf(run)) || request.bytes + run.bytes > requestBytes)) {
      closed.push({ leader, runs: request.runs });
      request = undefined;
    }
    if (!request) {
      request = { runs: [], bytes: 0, names: new Set() };
      open.set(leader, request);
    }
    request.runs.push(run);
    request.bytes += run.bytes;
    request.names.add(nameOf(run));
  });
  for (const [leader, { runs }] of open) closed.push({ leader, runs });
  return closed;
}
