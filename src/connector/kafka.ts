/** For connectors to a Kafka cluster: the client that the pipeline itself uses, its reader and its partitioner. */
export { createKafka, innermost, type KafkaEndpoint } from '../platform/kafka.ts';
export type { TopicPartition } from '../platform/kafka-cluster.ts';
export { CommittedReader } from '../platform/kafka-fetch/committed-records.ts';
export { type FetchedRecord, headerOf } from '../platform/kafka-fetch/record-set.ts';
export { partitionOf } from '../platform/partition.ts';
export { decideAgain } from '../platform/transaction-coordinator.ts';
