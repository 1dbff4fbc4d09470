/**
 * Failures of the target, classed in one table by Kafka's name of the error. Of kafkajs' errors only names and messages
 * pass: they hold topics and codes, never a record.
 */
import { TidemarkError } from '../../../src/connector/failure.ts';
import { innermost } from '../../../src/connector/kafka.ts';

type Code = ConstructorParameters<typeof TidemarkError>[0];

interface FailureClass {
  code: Code;
  meaning: string;
  remedy?: string;
}

const classes: Record<string, FailureClass> = {
  TOPIC_AUTHORIZATION_FAILED: {
    code: 'TM402',
    meaning: 'the user may not write, read, describe or create a topic',
    remedy:
      'kafka-acls.sh --add --allow-principal User:… --operation Write --operation Describe --operation Create --topic … (README of connectors/sinks/kafka).',
  },
  CLUSTER_AUTHORIZATION_FAILED: {
    code: 'TM402',
    meaning: 'the user may not act on the cluster',
    remedy:
      'Grant IdempotentWrite on the cluster (brokers before 2.8), and Create where topics are to be made.',
  },
  TRANSACTIONAL_ID_AUTHORIZATION_FAILED: {
    code: 'TM402',
    meaning: 'the user may not use the transactional id',
    remedy:
      'kafka-acls.sh --add --allow-principal User:… --operation Write --operation Describe --transactional-id tidemark. --resource-pattern-type prefixed',
  },
  SASL_AUTHENTICATION_FAILED: {
    code: 'TM402',
    meaning: 'the credentials are refused',
    remedy: 'Set kafka.sasl.username and kafka.sasl.password to what the brokers know.',
  },
  UNSUPPORTED_SASL_MECHANISM: {
    code: 'TM402',
    meaning: 'the broker does not offer kafka.sasl.mechanism',
    remedy: 'Set kafka.sasl.mechanism to one that the broker offers.',
  },
  INVALID_TRANSACTION_TIMEOUT: {
    code: 'TM101',
    meaning: 'transaction.timeout is more than the broker allows',
    remedy: "Lower transaction.timeout, or raise the brokers' transaction.max.timeout.ms.",
  },
  INVALID_TOPIC_EXCEPTION: {
    code: 'TM405',
    meaning: 'a topic name is refused; names that differ in . and _ alone may not stand beside each other',
    remedy: 'Change topic.name.',
  },
  POLICY_VIOLATION: {
    code: 'TM303',
    meaning: "the cluster's policy refuses a topic",
    remedy: 'Set topic.partitions, topic.replication.factor and topic.config as the policy demands.',
  },
  INVALID_REPLICATION_FACTOR: {
    code: 'TM303',
    meaning: 'the cluster has fewer brokers than topic.replication.factor',
    remedy: 'Lower topic.replication.factor, or add brokers.',
  },
  INVALID_CONFIG: {
    code: 'TM303',
    meaning: 'a setting of topic.config is refused',
    remedy: 'Correct topic.config.',
  },
  INVALID_RECORD: {
    code: 'TM303',
    meaning: 'a compacted topic takes no records without a key',
    remedy:
      'kafka-configs.sh --alter --entity-type topics --entity-name … --add-config cleanup.policy=delete on the topic of the table without a key.',
  },
};

/** Somebody else initialized the transactional id; who may go on is decided by the fencing tokens. */
export class Fenced extends Error {
  constructor(cause: unknown) {
    super('the transactional id was taken over', { cause });
    this.name = 'Fenced';
  }
}

/** The broker's limit of a batch, met by one record alone. */
export class TooLarge extends Error {
  constructor(cause: unknown) {
    super('a record is larger than max.message.bytes of its topic', { cause });
    this.name = 'TooLarge';
  }
}

const fenced = [
  'PRODUCER_FENCED',
  'INVALID_PRODUCER_EPOCH',
  'INVALID_PRODUCER_ID_MAPPING',
  'UNKNOWN_PRODUCER_ID',
];
const tooLarge = ['MESSAGE_TOO_LARGE', 'RECORD_LIST_TOO_LARGE'];

/** @returns TidemarkError, Fenced or TooLarge */
export function kafkaFailure(error: unknown, what: string): Error {
  if (error instanceof TidemarkError || error instanceof Fenced || error instanceof TooLarge) return error;
  const root = error instanceof Error ? innermost(error) : new Error('unknown failure');
  const type = String((root as { type?: unknown }).type ?? '');
  if (fenced.includes(type)) return new Fenced(root);
  if (tooLarge.includes(type)) return new TooLarge(root);
  const name = root.name === 'KafkaJSSASLAuthenticationError' ? 'SASL_AUTHENTICATION_FAILED' : type;
  const found = classes[Object.hasOwn(classes, name) ? name : ''];
  if (found) {
    const { code, meaning, remedy } = found;
    return new TidemarkError(code, `cannot ${what}: ${meaning} (${name})`, {
      cause: root,
      ...(remedy === undefined ? {} : { remedy }),
    });
  }
  return new TidemarkError('TM401', `cannot ${what}: ${type || root.message}`, { cause: root });
}
