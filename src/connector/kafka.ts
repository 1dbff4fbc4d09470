/** For connectors to a Kafka cluster: the client that the pipeline itself uses, its reader and its partitioner. */
export { CommittedReader, type CommittedRecord, type TopicPartition } from '../platform/committed-records.ts';
export { createKafka, innermost, type KafkaEndpoint } from '../platform/kafka.ts';
export { partitionOf } from '../platform/partition.ts';
