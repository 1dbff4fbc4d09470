/** A transactional producer that has the transactional id, and what the target holds. After any failure it is closed. */
import { setTimeout as sleep } from 'node:timers/promises';
import kafkajs, { type Kafka, type Producer, type TopicMessages, type Transaction } from 'kafkajs';
import { TidemarkError } from '../../../src/connector/failure.ts';
import {
  CommittedReader,
  createKafka,
  decideAgain,
  type TopicPartition,
} from '../../../src/connector/kafka.ts';
import type { SinkContext } from '../../../src/connector/sink.ts';
import { kafkaFailure } from './failures.ts';
import { claimMessage, KnownState, type Progress, type ProgressMessage } from './progress.ts';
import { readProgress } from './read-progress.ts';
import type { KafkaSettings } from './settings.ts';
import { ensureTopics, TopicCatalogue } from './topics.ts';

const compressionTypes = {
  none: kafkajs.CompressionTypes.None,
  gzip: kafkajs.CompressionTypes.GZIP,
  zstd: kafkajs.CompressionTypes.ZSTD,
};

/**
 * After a commit the coordinator answers CONCURRENT_TRANSACTIONS for some ms, so kafkajs asks again soon; what is down
 * is reported within seconds, and the pipeline has a patience of its own.
 */
const retry = { initialRetryTime: 5, factor: 0.2, multiplier: 2, maxRetryTime: 1000, retries: 11 };

const seenWithinMs = 10_000;
const seenEveryMs = 3;

/** Where a transaction has its last record in a partition. */
export interface WrittenPartition extends TopicPartition {
  /** Behind that record. */
  end: bigint;
}

export class Session {
  readonly state: KnownState;
  readonly catalogue: TopicCatalogue;
  readonly #producer: Producer;
  readonly #reader: CommittedReader;
  readonly #settings: KafkaSettings;
  #transaction: Transaction | null = null;
  /** Of the open transaction, by `topic/partition`. */
  readonly #written = new Map<string, WrittenPartition>();
  /** Of those that Kafka answered to be committed, by `topic/partition`. */
  readonly #unseen = new Map<string, WrittenPartition>();

  private constructor(kafka: Kafka, context: SinkContext, settings: KafkaSettings) {
    this.#settings = settings;
    this.state = new KnownState(context);
    this.catalogue = new TopicCatalogue(kafka, settings.topics);
    this.#reader = new CommittedReader(kafka);
    this.#producer = kafka.producer({
      transactionalId: settings.transactionalId,
      idempotent: true,
      maxInFlightRequests: 1,
      transactionTimeout: settings.transactionTimeoutMs,
      allowAutoTopicCreation: false,
      createPartitioner: kafkajs.Partitioners.DefaultPartitioner,
      retry,
    });
  }

  /**
   * Takes the transactional id: whoever had it is fenced, and its open transaction aborted. Then the progress topic is
   * read to its end: nobody else can write to it any more.
   * @param fencingToken null where it is not known yet
   * @param unseen what an earlier session of this process left unseen
   * @throws TidemarkError, Fenced
   */
  static async takeOver(
    context: SinkContext,
    settings: KafkaSettings,
    fencingToken: bigint | null,
    unseen: readonly WrittenPartition[],
  ): Promise<Session> {
    const log = { debug: () => {} };
    const kafka = createKafka(settings.endpoint, log, {
      retry: { initialRetryTime: 100, maxRetryTime: 1000, retries: 4 },
    });
    const session = new Session(kafka, context, settings);
    try {
      await ensureTopics(kafka, settings.topics, [
        {
          topic: settings.progressTopic,
          partitions: 1,
          cleanup: 'compact',
          // Small segments, so that the cleaner gets at what is read at every start.
          config: { 'segment.bytes': String(8 << 20), 'min.cleanable.dirty.ratio': '0.2' },
        },
      ]);
      // Before anything is written there: its marker would decide what came before, whichever it is.
      const open = await session.#stillUnseen(await stillThere(kafka, unseen));
      if (open.length > 0) {
        const { transactionalId, transactionTimeoutMs: timeoutMs } = settings;
        await decideAgain(kafka, { transactionalId, timeoutMs }, open, 'commit');
        const partitions = open.map(({ topic, partition }) => `${topic}/${partition}`);
        context.log('warn', 'what was committed did not show in some partitions: committed again', {
          partitions,
        });
      }
      await session.begin('take over the transactional id');
      await session.sendProgress([claimMessage(fencingToken)]);
      await session.commit();
      await readProgress(session.#reader, settings.progressTopic, session.state);
      return session;
    } catch (error) {
      await session.close(false);
      throw kafkaFailure(error, 'take over the transactional id');
    }
  }

  begin(what = 'begin a transaction'): Promise<void> {
    return guard(what, async () => {
      // kafkajs initializes the id with the first one.
      if (this.#transaction === null) await this.#producer.connect();
      this.#transaction = await this.#producer.transaction();
    });
  }

  send(topicMessages: TopicMessages[]): Promise<void> {
    return guard('write', async () => {
      const compression = compressionTypes[this.#settings.compression];
      const answers = await this.#transaction!.sendBatch({ topicMessages, acks: -1, compression });
      for (const { topicName: topic, partition, baseOffset } of answers) {
        const list = topicMessages.find((each) => each.topic === topic)!.messages;
        const count = list.filter((message) => message.partition === partition).length;
        this.#written.set(`${topic}/${partition}`, {
          topic,
          partition,
          end: BigInt(baseOffset!) + BigInt(count),
        });
      }
    });
  }

  sendProgress(messages: readonly ProgressMessage[]): Promise<void> {
    const topic = this.#settings.progressTopic;
    return this.send([{ topic, messages: messages.map((message) => ({ ...message, partition: 0 })) }]);
  }

  commit(): Promise<void> {
    return guard('commit', async () => {
      await this.#transaction!.commit();
      for (const [name, written] of this.#written) this.#unseen.set(name, written);
      this.#written.clear();
    });
  }

  /** Committed, and not known to show: for the session after this one. */
  get unseen(): WrittenPartition[] {
    return [...this.#unseen.values()];
  }

  /**
   * After a commit the coordinator has decided, and then writes markers into the partitions. One that has no leader at
   * that moment is taken for deleted, and its records stay unseen. So nothing is acknowledged that consumers do not see;
   * the next session commits it again. It takes no time: the next transaction has to wait for the markers.
   * @throws TidemarkError TM401
   */
  async seen(): Promise<void> {
    await guard('see what was committed', async () => {
      for (const giveUpAt = Date.now() + seenWithinMs; ; await sleep(seenEveryMs)) {
        const [unseen] = await this.#stillUnseen(this.unseen);
        if (!unseen) break;
        if (Date.now() > giveUpAt) throw hanging(unseen, this.#settings);
      }
      this.#unseen.clear();
    });
  }

  async #stillUnseen(written: readonly WrittenPartition[]): Promise<WrittenPartition[]> {
    if (written.length === 0) return [];
    const ends = await this.#reader.ends(written);
    return written.filter(({ topic, partition, end }) => (ends.get(`${topic}/${partition}`) ?? 0n) < end);
  }

  /** A transaction of its own. */
  async save(progress: Progress): Promise<void> {
    await this.begin();
    await this.sendProgress([this.state.progressMessage(progress)]);
    await this.commit();
    this.state.progress = progress;
  }

  /**
   * @param abort the open transaction; else the next owner's take-over does, or the broker when it is too old. Of use
   * where the cluster answers
   */
  async close(abort: boolean): Promise<void> {
    if (abort && this.#transaction?.isActive()) await this.#transaction.abort().catch(() => {});
    await this.#producer.disconnect().catch(() => {});
    await this.#reader.close().catch(() => {});
  }
}

/** Without those of topics that were deleted meanwhile. */
async function stillThere(kafka: Kafka, written: readonly WrittenPartition[]): Promise<WrittenPartition[]> {
  if (written.length === 0) return [];
  const admin = kafka.admin();
  try {
    await admin.connect();
    const topics = new Set(await admin.listTopics());
    return written.filter(({ topic }) => topics.has(topic));
  } finally {
    await admin.disconnect().catch(() => {});
  }
}

function hanging({ topic, partition }: TopicPartition, { endpoint }: KafkaSettings): TidemarkError {
  const where = `--topic ${topic} --partition ${partition}`;
  return new TidemarkError(
    'TM401',
    `committed, but a transaction is open in ${topic}, partition ${partition}: consumers do not see it`,
    {
      remedy: `Tidemark commits it again by itself. If this stays, another producer may be writing there. A transaction that nobody will end: kafka-transactions.sh --bootstrap-server ${endpoint.brokers[0]} describe-producers ${where}.`,
    },
  );
}

async function guard<T>(what: string, run: () => Promise<T>): Promise<T> {
  try {
    return await run();
  } catch (error) {
    throw kafkaFailure(error, what);
  }
}
