/** What a transaction's coordinator answers while it is busy passes: it is asked again. */
import { setTimeout as sleep } from 'node:timers/promises';
import type { Kafka } from 'kafkajs';
import { innermost, isKafkaError } from './kafka.ts';
import { type Broker, KafkaCluster, type TopicPartition } from './kafka-cluster.ts';

/** Errors of the coordinator that pass in milliseconds. */
const passing = [
  'CONCURRENT_TRANSACTIONS',
  'GROUP_LOAD_IN_PROGRESS',
  'GROUP_COORDINATOR_NOT_AVAILABLE',
  'NOT_COORDINATOR_FOR_GROUP',
];
const passingDelayMs = 4;
const passingLimitMs = 20_000;
/** Until a coordinator that went away is looked for again. */
const awayDelayMs = 100;

/** @throws what `run` does, where it does not pass within 20 s */
export async function whilePassing<T>(run: () => Promise<T>): Promise<T> {
  const giveUpAt = Date.now() + passingLimitMs;
  for (;;) {
    try {
      return await run();
    } catch (error) {
      if (!isPassing(error) || Date.now() > giveUpAt) throw error;
      await sleep(passingDelayMs);
    }
  }
}

export type Decision = 'commit' | 'abort';

/**
 * Transactions without records: their markers decide what an earlier transaction of the same producer id left open in a
 * partition, because its marker never got there.
 */
export class EmptyTransactions {
  readonly producerId: string;
  readonly #cluster: KafkaCluster;
  readonly #identity: { transactionalId: string; producerId: string; producerEpoch: number };
  readonly #timeoutMs: number;
  #coordinator: Broker;

  private constructor(
    cluster: KafkaCluster,
    coordinator: Broker,
    identity: { transactionalId: string; producerId: string; producerEpoch: number },
    timeoutMs: number,
  ) {
    this.#cluster = cluster;
    this.#coordinator = coordinator;
    this.#identity = identity;
    this.#timeoutMs = timeoutMs;
    this.producerId = identity.producerId;
  }

  /**
   * Takes the transactional id: whoever had it is fenced.
   * @param timeoutMs as a transaction's, and how long `end` asks for its decision
   * @throws kafkajs' error
   */
  static async takeOver(
    cluster: KafkaCluster,
    transactionalId: string,
    timeoutMs: number,
  ): Promise<EmptyTransactions> {
    return whilePassing(async () => {
      const coordinator = await cluster.transactionCoordinator(transactionalId);
      const { producerId, producerEpoch } = await coordinator.initProducerId({
        transactionalId,
        transactionTimeout: timeoutMs,
      });
      const identity = { transactionalId, producerId, producerEpoch };
      return new EmptyTransactions(cluster, coordinator, identity, timeoutMs);
    });
  }

  /** @throws kafkajs' error */
  async end(partitions: readonly TopicPartition[], decision: Decision): Promise<void> {
    const topics = [...Map.groupBy(partitions, ({ topic }) => topic)].map(([topic, list]) => ({
      topic,
      partitions: list.map(({ partition }) => partition),
    }));
    for (const giveUpAt = Date.now() + this.#timeoutMs; ; ) {
      // Both at once: a transaction that has the partitions and stays without its decision would be aborted by the next
      // who takes the id, and with it what was committed there. So an end without an answer is asked for again, too.
      const [added, ended] = await Promise.allSettled([
        this.#coordinator.addPartitionsToTxn({ ...this.#identity, topics }),
        this.#coordinator.endTxn({ ...this.#identity, transactionResult: decision === 'commit' }),
      ]);
      const failed = [added, ended].find(({ status }) => status === 'rejected');
      if (!failed) return;
      const { reason } = failed as PromiseRejectedResult;
      if (!(isPassing(reason) || isAway(reason)) || Date.now() > giveUpAt) throw reason;
      await sleep(isAway(reason) ? awayDelayMs : passingDelayMs);
      await this.#findCoordinator();
    }
  }

  async #findCoordinator(): Promise<void> {
    try {
      this.#coordinator = await this.#cluster.transactionCoordinator(this.#identity.transactionalId);
    } catch (error) {
      if (!isAway(error)) throw error;
    }
  }
}

/**
 * Once more what a transaction was answered to be, in partitions that do not show it. Whoever has the transactional id is
 * fenced.
 * @throws kafkajs' error
 */
export async function decideAgain(
  kafka: Kafka,
  { transactionalId, timeoutMs }: { transactionalId: string; timeoutMs: number },
  partitions: readonly TopicPartition[],
  decision: Decision,
): Promise<void> {
  const cluster = new KafkaCluster(kafka);
  try {
    const owner = await EmptyTransactions.takeOver(cluster, transactionalId, timeoutMs);
    await owner.end(partitions, decision);
  } finally {
    await cluster.close();
  }
}

function isPassing(error: unknown): boolean {
  return passing.includes((error as { type?: string }).type ?? '');
}

/** Nobody answered. */
function isAway(error: unknown): boolean {
  return isKafkaError(error) && (innermost(error as Error) as { type?: unknown }).type === undefined;
}
