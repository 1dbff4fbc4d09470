/** For connectors to a Kafka cluster: the client that the pipeline itself uses, and its partitioner. */
export { createKafka, innermost, type KafkaEndpoint } from '../platform/kafka.ts';
export { murmur2, partitionOf } from '../platform/partition.ts';
