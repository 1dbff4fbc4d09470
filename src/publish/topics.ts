/** Change topics, the progress, parked and quarantine topics: created here, and compared by `check`. */
import kafkajs, { type Admin } from 'kafkajs';
import type { TableId } from '../connector/shape.ts';
import type { CheckFinding } from '../connector/sink.ts';
import { TidemarkError } from '../platform/errors.ts';
import type { KafkaConfig } from '../platform/resolved-config.ts';
import { topicNames } from './record-format.ts';

interface TopicPlan {
  topic: string;
  partitions: number;
  config: Record<string, string>;
}

/** Room for keys, headers and batch framing beside the row. */
const batchOverheadBytes = 1 << 20;

/** The topics a source needs. Progress outlives every change topic by a day. */
export function plannedTopics(config: KafkaConfig, tables: readonly TableId[]): TopicPlan[] {
  const names = topicNames(config.topicPrefix);
  const shared = {
    'cleanup.policy': 'delete',
    'min.insync.replicas': String(config.minInsyncReplicas),
    'max.message.bytes': String(config.rowMaxBytes + batchOverheadBytes),
  };
  const change = { ...shared, 'retention.ms': String(config.retentionMs) };
  const day = 86400000;
  const progress = {
    ...shared,
    'retention.ms': String(config.retentionMs < 0 ? -1 : config.retentionMs + day),
  };
  return [
    ...tables.map((table) => ({ topic: names.table(table), partitions: config.partitions, config: change })),
    { topic: names.progress, partitions: 1, config: progress },
    { topic: names.parked, partitions: 1, config: progress },
    // Dead letters wait for somebody, however long that takes.
    { topic: names.quarantine, partitions: 1, config: { ...shared, 'retention.ms': '-1' } },
  ];
}

/**
 * Tells a source's own topics and subjects. A prefix may have dots: what a source with `shop.eu` has is not that of `shop`,
 * and is known by the three topics that each source has.
 * @param topics all of the cluster
 */
export function ownedBy(prefix: string, topics: readonly string[]): (name: string) => boolean {
  const there = new Set(topics);
  const others = topics
    .filter((topic) => topic.startsWith(`${prefix}.`) && topic.endsWith('.progress'))
    .map((topic) => topicNames(topic.slice(0, -'.progress'.length)))
    .filter(({ progress, parked, quarantine }) =>
      [parked, quarantine].every((topic) => there.has(topic) && progress !== topicNames(prefix).progress),
    )
    .map(({ progress }) => progress.slice(0, -'progress'.length));
  return (name) => name.startsWith(`${prefix}.`) && !others.some((other) => name.startsWith(other));
}

/**
 * Creates what is missing.
 * @returns the names created
 * @throws TidemarkError TM303 when Kafka refuses
 */
export async function ensureTopics(
  admin: Admin,
  config: KafkaConfig,
  tables: readonly TableId[],
): Promise<string[]> {
  return createMissing(admin, config, plannedTopics(config, tables));
}

/**
 * The topic of a snapshot that is for one destination: as the table's own.
 * @throws TidemarkError TM303 when Kafka refuses
 */
export async function ensureSideTopic(
  admin: Admin,
  config: KafkaConfig,
  table: TableId,
  destination: string,
): Promise<string> {
  const [plan] = plannedTopics(config, [table]);
  const topic = topicNames(config.topicPrefix).side(table, destination);
  await createMissing(admin, config, [{ ...plan!, topic }]);
  return topic;
}

/**
 * A table's control topic: partitioned as the table's own, and kept as long.
 * @throws TidemarkError TM303 when Kafka refuses
 */
export async function ensureEvictionsTopic(
  admin: Admin,
  config: KafkaConfig,
  table: TableId,
): Promise<string> {
  const [plan] = plannedTopics(config, [table]);
  const topic = topicNames(config.topicPrefix).evictions(table);
  await createMissing(admin, config, [{ ...plan!, topic }]);
  return topic;
}

async function createMissing(
  admin: Admin,
  config: KafkaConfig,
  plans: readonly TopicPlan[],
): Promise<string[]> {
  const existing = new Set(await admin.listTopics());
  const missing = plans.filter(({ topic }) => !existing.has(topic));
  if (missing.length === 0) return [];
  try {
    await admin.createTopics({
      waitForLeaders: true,
      timeout: 30000,
      topics: missing.map((plan) => ({
        topic: plan.topic,
        numPartitions: plan.partitions,
        replicationFactor: config.replicationFactor,
        configEntries: Object.entries(plan.config).map(([name, value]) => ({ name, value })),
      })),
    });
  } catch (error) {
    const type =
      (error as { errors?: { type?: string }[]; type?: string }).errors?.[0]?.type ??
      (error as { type?: string }).type;
    if (type === undefined) throw error;
    throw new TidemarkError('TM303', `Kafka refused to create topics (${type})`, {
      cause: error,
      remedy:
        type === 'INVALID_REPLICATION_FACTOR'
          ? 'Set kafka.topic.replication.factor (and kafka.topic.min.insync.replicas) to what the cluster has brokers for.'
          : 'Grant CREATE on the topics to this user, or create them by hand: `tidemark check --json` lists them with their settings.',
    });
  }
  return missing.map(({ topic }) => topic);
}

/** Differences between the topics as they are and as they must be. */
export async function compareTopics(
  admin: Admin,
  config: KafkaConfig,
  tables: readonly TableId[],
): Promise<CheckFinding[]> {
  const existing = new Set(await admin.listTopics());
  const plans = plannedTopics(config, tables);
  const present = plans.filter(({ topic }) => existing.has(topic));
  const shared = plans.filter(({ topic }, i) => plans.findIndex((plan) => plan.topic === topic) !== i);
  const findings: CheckFinding[] = plans
    .filter(({ topic }) => !existing.has(topic))
    .map(({ topic }) => ({
      level: 'ok',
      what: `topic ${topic} does not exist yet; run creates it`,
      remedy: null,
    }));
  for (const { topic } of shared) {
    findings.push({
      level: 'error',
      what: `two tables would share topic ${topic}: their names differ only in characters that topics do not have`,
      remedy: 'Track only one of them, or rename one.',
    });
  }
  if (present.length === 0) return findings;
  const { topics } = await admin.fetchTopicMetadata({ topics: present.map(({ topic }) => topic) });
  const { resources } = await admin.describeConfigs({
    includeSynonyms: false,
    resources: present.map(({ topic }) => ({ type: kafkajs.ConfigResourceTypes.TOPIC, name: topic })),
  });
  for (const plan of present) {
    const partitions = topics.find(({ name }) => name === plan.topic)?.partitions.length ?? 0;
    if (partitions !== plan.partitions) {
      findings.push({
        level: 'error',
        what: `topic ${plan.topic} has ${partitions} partitions, the configuration says ${plan.partitions}`,
        remedy: `set kafka.topic.partitions: ${partitions}; the partition count of a topic never changes`,
      });
    }
    const entries = resources.find(({ resourceName }) => resourceName === plan.topic)?.configEntries ?? [];
    for (const [name, wanted] of Object.entries(plan.config)) {
      const actual = entries.find((entry) => entry.configName === name)?.configValue;
      if (actual === undefined || fits(name, actual, wanted)) continue;
      findings.push({
        level: name === 'cleanup.policy' || name === 'max.message.bytes' ? 'error' : 'warn',
        what: `topic ${plan.topic} has ${name}=${actual}, the configuration needs ${wanted}`,
        remedy: `kafka-configs.sh --bootstrap-server ${config.brokers[0]} --alter --topic ${plan.topic} --add-config ${name}=${wanted}`,
      });
    }
  }
  return findings;
}

/** Longer retention and larger limits than asked for do no harm. */
function fits(name: string, actual: string, wanted: string): boolean {
  if (name === 'cleanup.policy') return actual === wanted;
  if (name === 'retention.ms' && actual === '-1') return true;
  if (name === 'retention.ms' && wanted === '-1') return false;
  return Number(actual) >= Number(wanted);
}
