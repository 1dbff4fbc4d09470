/** The instance file's keys of the kafka sink. */
import type { OptionField } from '../../../src/connector/sink.ts';
import { placeOf } from './topic-name.ts';

const tlsModes = ['disable', 'require', 'verify-ca', 'verify-full'] as const;

function tlsOptions<Prefix extends string>(prefix: Prefix, unset: string) {
  return {
    [`${prefix}.tls.mode`]: {
      type: 'string',
      description: `How the connection is secured; as kafka.tls.mode of tidemark.yaml. Unset: ${unset}.`,
      default: null,
      oneOf: tlsModes,
    },
    [`${prefix}.tls.ca`]: {
      type: 'string',
      description: 'Path of the authorities to trust (PEM); unset: those that Node brings.',
      default: null,
    },
    [`${prefix}.tls.cert`]: {
      type: 'string',
      description: 'Path of the client certificate (PEM), for mutual TLS.',
      default: null,
    },
    [`${prefix}.tls.key`]: {
      type: 'string',
      description: 'Path of the client key (PEM).',
      default: null,
    },
    [`${prefix}.tls.key.passphrase`]: {
      type: 'secret',
      description: 'Passphrase of the client key.',
      default: null,
    },
    [`${prefix}.tls.server.name`]: {
      type: 'string',
      description: "Name to expect in the server's certificate; unset: the host connected to.",
      default: null,
    },
  } satisfies Record<string, OptionField>;
}

export const metadataFields = [
  'op',
  'position',
  'commit_time',
  'deleted',
  'schema',
  'table',
  'unchanged',
] as const;
export type MetadataField = (typeof metadataFields)[number];

export const optionFields: Record<string, OptionField> = {
  'kafka.brokers': {
    type: 'list',
    description: 'host:port of some brokers of the target cluster, separated by commas.',
  },
  'kafka.client.id': {
    type: 'string',
    description: 'Client id, for quotas and broker logs.',
    default: 'tidemark',
  },
  ...tlsOptions('kafka', 'disable where all brokers are on this machine, else verify-full'),
  'kafka.sasl.mechanism': {
    type: 'string',
    description: 'SASL mechanism; unset for none.',
    default: null,
    oneOf: ['plain', 'scram-sha-256', 'scram-sha-512'],
  },
  'kafka.sasl.username': { type: 'string', description: 'SASL user.', default: null },
  'kafka.sasl.password': { type: 'secret', description: 'SASL password.', default: null },
  'registry.url': {
    type: 'string',
    description: "URL of the target's Schema Registry (Confluent's API); required for format: avro.",
    default: null,
  },
  'registry.username': { type: 'string', description: 'User of the registry.', default: null },
  'registry.password': { type: 'secret', description: 'Password of the registry.', default: null },
  ...tlsOptions('registry', 'verify-full for https, else disable'),
  format: {
    type: 'string',
    description: 'Of keys and values. `avro` is in the wire format of the registry.',
    default: 'json',
    oneOf: ['json', 'avro'],
  },
  'schemas.enable': {
    type: 'boolean',
    description:
      "JSON alone: wrap key and value in Kafka Connect's schema and payload, as JsonConverter expects with its own schemas.enable.",
    default: false,
  },
  'topic.name': {
    type: 'string',
    description: `Topic of a table: a template with ${placeOf.schema} and ${placeOf.table}, which in an instance file are written $${placeOf.schema} and $${placeOf.table}.`,
    default: `mirror.${placeOf.schema}.${placeOf.table}`,
  },
  'topic.create': {
    type: 'boolean',
    description: 'Make topics that do not exist; if not, delivery waits and names the command.',
    default: true,
  },
  'topic.partitions': {
    type: 'integer',
    description: 'Partitions of topics that are made; unset: as the broker is set (num.partitions).',
    default: null,
  },
  'topic.replication.factor': {
    type: 'integer',
    description: 'Copies of topics that are made; unset: as the broker is set.',
    default: null,
  },
  'topic.cleanup.policy': {
    type: 'string',
    description:
      'Of topics that are made. Tables without a key always get `delete`: their records have no key to compact by.',
    default: 'compact',
    oneOf: ['compact', 'delete', 'compact,delete'],
  },
  'topic.config': {
    type: 'list',
    description: 'Further settings of topics that are made, as name=value.',
    default: [],
  },
  'progress.topic': {
    type: 'string',
    description:
      'Where the sink keeps what it has written, in the same transactions: one topic for each destination. Unset: tidemark.<source id>.<destination>.progress.',
    default: null,
  },
  'control.topic': {
    type: 'string',
    description:
      'Where truncates, ends of snapshots and, if asked for, evictions are told. Unset: tidemark.<source id>.<destination>.control.',
    default: null,
  },
  'control.records': {
    type: 'boolean',
    description:
      'Write control records. Without them a truncate leaves no trace, and consumers keep its rows.',
    default: true,
  },
  'control.evictions': {
    type: 'boolean',
    description: 'Write a control record also where the source let go of a row, which stays in its topic.',
    default: false,
  },
  'delete.mode': {
    type: 'string',
    description:
      'A deleted row is a null record (`tombstone`), a record with the deleted field set (`rewrite`), or the one after the other (`both`).',
    default: 'tombstone',
    oneOf: ['tombstone', 'rewrite', 'both'],
  },
  unchanged: {
    type: 'string',
    description:
      "A TOASTed value that the change left untouched: leave its field out (`omit`, JSON without schemas alone) or write Debezium's placeholder. Unset: omit where that is possible.",
    default: null,
    oneOf: ['omit', 'placeholder'],
  },
  'metadata.fields': {
    type: 'list',
    description: `Fields beside the columns: ${metadataFields.join(', ')}. \`deleted\` is always there where delete.mode writes records for deletes, and with \`op\` in tables without a key.`,
    default: ['op', 'position', 'commit_time'],
  },
  'metadata.prefix': {
    type: 'string',
    description: 'In front of the names of these fields. A table with a column of such a name is refused.',
    default: '__',
  },
  timestamps: {
    type: 'string',
    description:
      "`exact`: Connect's Timestamp (milliseconds) for timestamp(0) to timestamp(3), Postgres' text for the others. `millis`: Timestamp for all, microseconds cut off.",
    default: 'exact',
    oneOf: ['exact', 'millis'],
  },
  'compression.type': {
    type: 'string',
    description: 'Compression of record batches.',
    default: 'zstd',
    oneOf: ['none', 'gzip', 'zstd'],
  },
  'transaction.timeout': {
    type: 'duration',
    description:
      "transaction.timeout.ms of the producer, at most the broker's transaction.max.timeout.ms. A Window that takes longer than half of it is seen in several parts.",
    default: 900_000,
  },
};
