/** `tidemark check` for this sink: what the target lets us do, without taking anything over from a running worker. */
import { asTidemarkError } from '../../../src/connector/failure.ts';
import { createKafka } from '../../../src/connector/kafka.ts';
import type { CheckFinding, SinkContext } from '../../../src/connector/sink.ts';
import { kafkaFailure } from './failures.ts';
import { RegistryClient } from './registry-client.ts';
import type { KafkaSettings } from './settings.ts';
import { createCommand } from './topics.ts';

export async function checkTarget(_context: SinkContext, settings: KafkaSettings): Promise<CheckFinding[]> {
  const findings = await checkBrokers(settings);
  if (settings.registry) findings.push(await checkRegistry(new RegistryClient(settings.registry)));
  return findings;
}

async function checkBrokers(settings: KafkaSettings): Promise<CheckFinding[]> {
  const kafka = createKafka(settings.endpoint, { debug: () => {} }, { retry: { retries: 2 } });
  const admin = kafka.admin();
  try {
    await admin.connect();
    const { brokers } = await admin.describeCluster();
    const there = await admin.listTopics();
    const findings: CheckFinding[] = [
      { level: 'ok', what: `the target cluster answers (${brokers.length} brokers)`, remedy: null },
    ];
    const { progressTopic, topics } = settings;
    if (there.includes(progressTopic)) findings.push(await checkProgressTopic(admin, progressTopic));
    else if (!topics.create) {
      const plan = { topic: progressTopic, partitions: 1, cleanup: 'compact', config: {} };
      findings.push({
        level: 'error',
        what: `the progress topic ${progressTopic} is missing, and topic.create is false`,
        remedy: createCommand(plan, topics),
      });
    }
    return findings;
  } catch (error) {
    const { message, remedy } = asTidemarkError(kafkaFailure(error, 'reach the target cluster'));
    return [{ level: 'error', what: message, remedy }];
  } finally {
    await admin.disconnect().catch(() => {});
  }
}

type Admin = ReturnType<ReturnType<typeof createKafka>['admin']>;

const topicResource = 2;

/** Retention would delete the progress of a destination that is idle for longer. */
async function checkProgressTopic(admin: Admin, topic: string): Promise<CheckFinding> {
  const described = await admin
    .describeConfigs({
      includeSynonyms: false,
      resources: [{ type: topicResource, name: topic, configNames: ['cleanup.policy'] }],
    })
    .catch(() => null);
  if (described === null) {
    return {
      level: 'warn',
      what: `the settings of ${topic} cannot be read`,
      remedy: `Grant DescribeConfigs on the topics, and see that cleanup.policy of ${topic} is compact.`,
    };
  }
  const { resources } = described;
  const policy = resources[0]?.configEntries.find(
    ({ configName }) => configName === 'cleanup.policy',
  )?.configValue;
  if (policy === 'compact')
    return { level: 'ok', what: `the progress topic ${topic} is compacted`, remedy: null };
  return {
    level: 'error',
    what: `the progress topic ${topic} has cleanup.policy=${policy}`,
    remedy: `kafka-configs.sh --bootstrap-server … --alter --entity-type topics --entity-name ${topic} --add-config cleanup.policy=compact`,
  };
}

async function checkRegistry(registry: RegistryClient): Promise<CheckFinding> {
  try {
    await registry.ping();
    return { level: 'ok', what: "the target's Schema Registry answers", remedy: null };
  } catch (error) {
    const { message, remedy } = asTidemarkError(error);
    return { level: 'error', what: message, remedy };
  } finally {
    registry.close();
  }
}
