/** The target's topics: which are there, with how many partitions, and those that are made. */
import { setTimeout as sleep } from 'node:timers/promises';
import kafkajs, { type Admin, type Kafka } from 'kafkajs';
import { TidemarkError } from '../../../src/connector/failure.ts';
import { innermost } from '../../../src/connector/kafka.ts';
import { kafkaFailure } from './failures.ts';
import type { TopicSettings } from './settings.ts';

export interface TopicPlan {
  topic: string;
  partitions: number;
  cleanup: string;
  config: Readonly<Record<string, string>>;
}

export interface KnownTopic {
  partitions: number;
  /** max.message.bytes, as far as the user may see it. */
  largestBatch: number;
}

/** A broker's, where nothing else is set. */
const usualLargestBatch = 1_048_588;
const leadersWithinMs = 10_000;
const passing = ['UNKNOWN_TOPIC_OR_PARTITION', 'LEADER_NOT_AVAILABLE'];

/** kafka-topics.sh, as the plan needs it. */
export function createCommand(plan: TopicPlan, { replicationFactor }: TopicSettings): string {
  const parts = ['kafka-topics.sh --bootstrap-server … --create --topic', plan.topic];
  if (plan.partitions > 0) parts.push(`--partitions ${plan.partitions}`);
  if (replicationFactor > 0) parts.push(`--replication-factor ${replicationFactor}`);
  for (const [name, value] of Object.entries({ 'cleanup.policy': plan.cleanup, ...plan.config })) {
    parts.push(`--config ${name}=${value}`);
  }
  return parts.join(' ');
}

/**
 * @returns what is there afterwards
 * @throws TidemarkError TM303 with the command where a topic is missing and may not be made
 */
export async function ensureTopics(
  kafka: Kafka,
  settings: TopicSettings,
  plans: readonly TopicPlan[],
): Promise<Map<string, KnownTopic>> {
  const admin = kafka.admin();
  try {
    await admin.connect();
    const there = new Set(await admin.listTopics());
    const missing = plans.filter(({ topic }) => !there.has(topic));
    if (missing.length > 0) await createTopics(admin, settings, missing);
    return await lookAt(
      admin,
      plans.map(({ topic }) => topic),
    );
  } catch (error) {
    throw kafkaFailure(error, 'prepare the topics');
  } finally {
    await admin.disconnect().catch(() => {});
  }
}

async function createTopics(
  admin: Admin,
  settings: TopicSettings,
  plans: readonly TopicPlan[],
): Promise<void> {
  if (!settings.create) {
    const names = plans.map(({ topic }) => topic);
    throw new TidemarkError('TM303', `missing at the target: ${names.join(', ')}`, {
      remedy: `topic.create is false. Run: ${plans.map((plan) => createCommand(plan, settings)).join('; ')}`,
    });
  }
  try {
    await admin.createTopics({
      // kafkajs gives up where a broker has not heard of the topic yet; lookAt does not.
      waitForLeaders: false,
      topics: plans.map(({ topic, partitions, cleanup, config }) => ({
        topic,
        numPartitions: partitions,
        replicationFactor: settings.replicationFactor,
        configEntries: Object.entries({ 'cleanup.policy': cleanup, ...config }).map(([name, value]) => ({
          name,
          value,
        })),
      })),
    });
  } catch (error) {
    // Somebody else may have been faster.
    if (!causes(error).every((type) => type === 'TOPIC_ALREADY_EXISTS')) throw firstCause(error);
  }
}

/** kafkajs gathers what went wrong with each topic. */
function causes(error: unknown): string[] {
  const { errors } = error as { errors?: { type?: string }[] };
  const all = errors ?? [innermost(error as Error) as { type?: string }];
  return all.map(({ type }) => type ?? '');
}

function firstCause(error: unknown): unknown {
  const { errors } = error as { errors?: { type?: string }[] };
  return errors?.find(({ type }) => type !== 'TOPIC_ALREADY_EXISTS') ?? error;
}

/** Brokers hear of a new topic, and its partitions get leaders, within moments. */
async function partitionCounts(admin: Admin, topics: string[]): Promise<Map<string, number>> {
  for (const giveUpAt = Date.now() + leadersWithinMs; ; ) {
    try {
      const { topics: found } = await admin.fetchTopicMetadata({ topics });
      const led = found.every(
        ({ partitions }) => partitions.length > 0 && partitions.every(({ leader }) => leader >= 0),
      );
      if (led || Date.now() > giveUpAt)
        return new Map(found.map(({ name, partitions }) => [name, partitions.length]));
    } catch (error) {
      const { type = '' } = innermost(error as Error) as { type?: string };
      if (!passing.includes(type) || Date.now() > giveUpAt) throw error;
    }
    await sleep(30);
  }
}

async function lookAt(admin: Admin, topics: string[]): Promise<Map<string, KnownTopic>> {
  const known = new Map<string, KnownTopic>();
  for (const [name, partitions] of await partitionCounts(admin, topics)) {
    known.set(name, { partitions, largestBatch: usualLargestBatch });
  }
  const { resources } = await admin
    .describeConfigs({
      includeSynonyms: false,
      resources: topics.map((name) => ({
        type: kafkajs.ConfigResourceTypes.TOPIC,
        name,
        configNames: ['max.message.bytes'],
      })),
    })
    // A right that only spares a round trip.
    .catch(() => ({ resources: [] }));
  for (const { resourceName, configEntries } of resources) {
    const value = configEntries.find(({ configName }) => configName === 'max.message.bytes')?.configValue;
    const topic = known.get(resourceName);
    if (topic && value !== undefined) topic.largestBatch = Number(value);
  }
  return known;
}

/** What a session knows of the topics that it writes to. */
export class TopicCatalogue {
  readonly #kafka: Kafka;
  readonly #settings: TopicSettings;
  readonly #known = new Map<string, KnownTopic>();

  constructor(kafka: Kafka, settings: TopicSettings) {
    this.#kafka = kafka;
    this.#settings = settings;
  }

  /** @throws TidemarkError */
  async ensure(plans: readonly TopicPlan[]): Promise<void> {
    const fresh = plans.filter(({ topic }) => !this.#known.has(topic));
    if (fresh.length === 0) return;
    for (const [topic, known] of await ensureTopics(this.#kafka, this.#settings, fresh))
      this.#known.set(topic, known);
  }

  get(topic: string): KnownTopic {
    return this.#known.get(topic)!;
  }
}
