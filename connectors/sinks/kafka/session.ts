/** A transactional producer that has the transactional id, and what the target holds. After any failure it is closed. */
import kafkajs, { type Kafka, type Producer, type TopicMessages, type Transaction } from 'kafkajs';
import { createKafka } from '../../../src/connector/kafka.ts';
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

export class Session {
  readonly state: KnownState;
  readonly catalogue: TopicCatalogue;
  readonly #producer: Producer;
  readonly #settings: KafkaSettings;
  #transaction: Transaction | null = null;

  private constructor(kafka: Kafka, context: SinkContext, settings: KafkaSettings) {
    this.#settings = settings;
    this.state = new KnownState(context);
    this.catalogue = new TopicCatalogue(kafka, settings.topics);
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
   * @throws TidemarkError, Fenced
   */
  static async takeOver(
    context: SinkContext,
    settings: KafkaSettings,
    fencingToken: bigint | null,
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
      await session.begin('take over the transactional id');
      await session.sendProgress([claimMessage(fencingToken)]);
      await session.commit();
      await readProgress(kafka, settings.progressTopic, session.state);
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
      await this.#transaction!.sendBatch({ topicMessages, acks: -1, compression });
    });
  }

  sendProgress(messages: readonly ProgressMessage[]): Promise<void> {
    const topic = this.#settings.progressTopic;
    return this.send([{ topic, messages: messages.map((message) => ({ ...message, partition: 0 })) }]);
  }

  commit(): Promise<void> {
    return guard('commit', () => this.#transaction!.commit());
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
  }
}

async function guard<T>(what: string, run: () => Promise<T>): Promise<T> {
  try {
    return await run();
  } catch (error) {
    throw kafkaFailure(error, what);
  }
}
