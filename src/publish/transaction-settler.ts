/**
 * Transactions of earlier lives whose markers Kafka left out in some partitions, decided as the coordinator did. To be
 * done before this life writes anything: its markers would decide them, whichever they are.
 *
 * A marker is left out where the partition has no leader while the coordinator writes them: it takes the partition for
 * deleted. A single broker that comes back has such a moment for every partition.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import type { Kafka } from 'kafkajs';
import { TidemarkError } from '../platform/errors.ts';
import { KafkaCluster, type TopicPartition } from '../platform/kafka-cluster.ts';
import { CommittedReader } from '../platform/kafka-fetch/committed-records.ts';
import type { Logger } from '../platform/log.ts';
import { fetchStored, type PartitionEnds, partitionName, readEnds } from '../platform/partition-ends.ts';
import type { KafkaConfig } from '../platform/resolved-config.ts';
import { type Decision, EmptyTransactions } from '../platform/transaction-coordinator.ts';
import { readHidden, readTraces } from './hidden-progress.ts';
import type { Progress } from './progress.ts';
import { newestProgress } from './progress-log.ts';
import { judgeHidden, judgePartition } from './settlement-rules.ts';
import { kafkajsError } from './transactional-producer.ts';

/** Markers may merely be late. */
const lateMs = 5000;
const everyMs = 50;

interface Open extends TopicPartition {
  ends: PartitionEnds;
}

interface Judged extends Open {
  decision: Decision;
}

export class TransactionSettler {
  readonly #cluster: KafkaCluster;
  readonly #config: KafkaConfig;
  readonly #transactionalId: string;
  readonly #log: Logger;

  constructor(kafka: Kafka, config: KafkaConfig, transactionalId: string, log: Logger) {
    this.#cluster = new KafkaCluster(kafka);
    this.#config = config;
    this.#transactionalId = transactionalId;
    this.#log = log;
  }

  /**
   * Call with the transactional id taken: the coordinator has ended what was open then.
   * @returns whether something was settled, and the id has to be taken again
   * @throws TidemarkError TM309 where what is open is not this reader's
   */
  settleProgress(topic: string): Promise<boolean> {
    return guard(async () => {
      const cluster = this.#cluster;
      const [open] = await this.#findOpen(new Set([topic]));
      if (!open) return false;
      const hidden = await readHidden(cluster, open, open.ends);
      const before = hidden.length > 0 ? await newestProgress(new CommittedReader(cluster), open) : null;
      const traces = { commits: 0, aborts: 0, short: 0 };
      for (const one of hidden) {
        const found = await readTraces(cluster, one, before);
        traces.commits += found.commits;
        traces.aborts += found.aborts;
        traces.short += found.short;
      }
      const { decision, doubtful } = judgeHidden(traces);
      if (doubtful) {
        this.#log.warn(
          'markers contradict each other: what is committed of this transaction may be seen twice',
          traces,
        );
      }
      await this.#settle([{ ...open, decision }], { progress: hidden.length, ...traces });
      return true;
    });
  }

  /**
   * Once Progress is known.
   * @param last null: nothing was ever committed
   * @param topics also those that Progress does not name yet
   * @returns and throws as settleProgress
   */
  settleTables(last: Progress | null, topics: readonly string[]): Promise<boolean> {
    return guard(async () => {
      const named = last?.endOffsets ?? {};
      const open = await this.#findOpen(new Set([...Object.keys(named), ...topics]));
      const judged: Judged[] = [];
      const beyond: string[] = [];
      for (const one of open) {
        const found = judgePartition(one.ends, named[one.topic]?.[one.partition] ?? null);
        if (!found) continue;
        judged.push({ ...one, decision: found.decision });
        if (found.beyond) beyond.push(partitionName(one));
      }
      if (judged.length === 0) return false;
      await this.#settle(judged, {});
      if (beyond.length > 0) {
        this.#log.warn('records behind what Progress says are committed too: they may be seen twice', {
          partitions: beyond,
        });
      }
      return true;
    });
  }

  close(): Promise<void> {
    return this.#cluster.close();
  }

  async #findOpen(topics: ReadonlySet<string>): Promise<Open[]> {
    return this.#waitOpen(await this.#cluster.partitionsOf(topics));
  }

  /** Those that stay open. */
  async #waitOpen(partitions: readonly TopicPartition[]): Promise<Open[]> {
    let open = partitions;
    for (const giveUpAt = Date.now() + lateMs; ; await sleep(everyMs)) {
      const ends = await readEnds(this.#cluster, open);
      const found = open
        .map(({ topic, partition }) => ({ topic, partition, ends: ends.get(`${topic}/${partition}`)! }))
        .filter(({ ends: { stable, high } }) => stable < high);
      if (found.length === 0 || Date.now() > giveUpAt) return found;
      open = found;
    }
  }

  async #settle(judged: readonly Judged[], traces: object): Promise<void> {
    const { transactionTimeoutMs } = this.#config;
    const owner = await EmptyTransactions.takeOver(
      this.#cluster,
      this.#transactionalId,
      transactionTimeoutMs,
    );
    for (const one of judged) {
      const [record] = await fetchStored(this.#cluster, one, one.ends.stable);
      if (record?.batchContext.producerId !== owner.producerId) throw this.#foreign(one);
    }
    // Commits first: of the two, a commit that is not done is the one that costs something.
    for (const decision of ['commit', 'abort'] as const) {
      const partitions = judged.filter((one) => one.decision === decision);
      if (partitions.length === 0) continue;
      await owner.end(partitions, decision);
      this.#log.warn('an earlier transaction was open in partitions that its marker never reached: decided', {
        decision,
        count: partitions.length,
        partitions: partitions.map(partitionName),
        ...traces,
      });
    }
    const [left] = await this.#waitOpen(judged);
    if (left) throw this.#foreign(left);
  }

  #foreign({ topic, partition }: TopicPartition): TidemarkError {
    const tool = `kafka-transactions.sh --bootstrap-server ${this.#config.brokers[0]}`;
    const where = `--topic ${topic} --partition ${partition}`;
    return new TidemarkError(
      'TM309',
      `${topic} partition ${partition} has an open transaction that is not, or no longer, under ${this.#transactionalId}`,
      {
        remedy: `If another producer writes there, stop it. Else see who began it (\`${tool} find-hanging --topic ${topic}\`, \`${tool} describe-producers ${where}\`), end it (\`${tool} abort ${where} --start-offset <offset>\`), and run \`tidemark verify\`: it may have been committed. The reader goes on by itself then.`,
      },
    );
  }
}

async function guard<T>(run: () => Promise<T>): Promise<T> {
  try {
    return await run();
  } catch (error) {
    throw kafkajsError('settle earlier transactions', error);
  }
}
