/** Kind `kafka`, in Avro: topics of its own for each case, in one cluster with one registry. */
import { randomBytes } from 'node:crypto';
import type { Admin, Kafka } from 'kafkajs';
import { type Stack, startStack } from '../../compose/local-stack.ts';
import { kafkaSink } from '../../connectors/sinks/kafka/index.ts';
import { parseTemplate, topicOf } from '../../connectors/sinks/kafka/topic-name.ts';
import { CommittedReader, createKafka } from '../../src/connector/kafka.ts';
import type { TableShape } from '../../src/connector/shape.ts';
import { shapeOf } from './example-tables.ts';
import { Decoder } from './kafka-decode.ts';
import { changesOf, foldedRows, type MirrorTopics, seenEvents } from './kafka-reader.ts';
import { optionValues } from './option-values.ts';
import type { Place, Subject, SubjectServer } from './subject.ts';

/** Its topic is there before, and takes less than this. */
const picky = shapeOf('picky', ['id integer key', 'note text']);
const pickyBytes = 4000;

const schemaAndTable = '$' + '{schema}.$' + '{table}';

export const kafkaSubject: Subject = {
  kind: kafkaSink,
  mode: 'append',
  refuses: {
    // Records of one topic have one key all along.
    'key-definition-change': 'TM405',
    // What is in Kafka is read by consumers.
    'read-back': 'TM408',
  },
  // The broker of the tests asks nobody for a password; under a quota it answers late, and with a full disk it ends.
  unproven: {
    'refused credentials': 'SASL and ACLs (the broker asks nobody)',
    throttling: 'quotas',
    'no room': 'full disks',
  },
  failpoints: [
    'kafka-sink-taken-over',
    'kafka-sink-sent',
    'kafka-sink-before-commit',
    'kafka-sink-committed',
  ],
  refusedRow: { shape: picky, values: ['1', randomBytes(pickyBytes).toString('hex')] },
  async start(folder) {
    return Server.start(await startStack({ directory: `${folder}/stack`, parts: ['kafka', 'registry'] }));
  },
};

class Server implements SubjectServer {
  readonly #stack: Stack;
  readonly #kafka: Kafka;
  readonly #registry: string;
  readonly #brokers: string[];
  #reader: CommittedReader;
  #connected: Promise<Admin> | null = null;
  #places = 0;

  private constructor(stack: Stack, kafka: Kafka, reader: CommittedReader) {
    this.#stack = stack;
    this.#kafka = kafka;
    this.#reader = reader;
    this.#brokers = [stack.environment.TIDEMARK_KAFKA_BROKERS!];
    this.#registry = stack.environment.TIDEMARK_REGISTRY_URL!;
  }

  static async start(stack: Stack): Promise<Server> {
    const brokers = [stack.environment.TIDEMARK_KAFKA_BROKERS!];
    const kafka = createKafka(
      { brokers, clientId: 'conformance', tls: false, sasl: null },
      { debug: () => {} },
    );
    return new Server(stack, kafka, new CommittedReader(kafka));
  }

  async place(): Promise<Place> {
    this.#places += 1;
    const prefix = `case-${this.#places}`;
    const template = `${prefix}.${schemaAndTable}`;
    const control = `${prefix}.control`;
    const topics = (shape: TableShape): MirrorTopics => ({
      rows: topicOf(parseTemplate(template), shape),
      control,
    });
    await this.#admin(async (admin) => {
      const configEntries = [{ name: 'max.message.bytes', value: String(pickyBytes) }];
      const topic = { topic: topics(picky).rows, numPartitions: 2, configEntries };
      await admin.createTopics({ waitForLeaders: false, topics: [topic] });
    });
    const decoder = new Decoder(this.#registry);
    const changes = async (shape: TableShape) => {
      const there = await this.#admin((admin) => admin.listTopics());
      const found = topics(shape);
      return there.includes(found.rows) && there.includes(control)
        ? changesOf(this.#reader, decoder, found)
        : [];
    };
    return {
      options: optionValues(kafkaSink, {
        'kafka.brokers': this.#brokers,
        'registry.url': this.#registry,
        format: 'avro',
        'topic.name': template,
        'topic.partitions': 2,
        'progress.topic': `${prefix}.progress`,
        'control.topic': control,
        'control.evictions': true,
      }),
      rows: async (shape) => foldedRows(await changes(shape), shape),
      events: async (shape) => seenEvents(await changes(shape), shape),
    };
  }

  async whileDown(work: () => Promise<void>): Promise<void> {
    await this.#stack.stopPart('kafka', { signal: 'SIGKILL' });
    try {
      await work();
    } finally {
      await this.#stack.startPart('kafka');
      await this.#disconnect();
      this.#reader = new CommittedReader(this.#kafka);
    }
  }

  async stop(): Promise<void> {
    await this.#disconnect();
    await this.#stack.stop();
  }

  /** One connection for all; a new one where the server was away. */
  async #admin<T>(work: (admin: Admin) => Promise<T>): Promise<T> {
    this.#connected ??= this.#connect();
    return work(await this.#connected);
  }

  async #connect(): Promise<Admin> {
    const admin = this.#kafka.admin();
    await admin.connect();
    return admin;
  }

  async #disconnect(): Promise<void> {
    const admin = await this.#connected;
    this.#connected = null;
    await admin?.disconnect().catch(() => {});
    await this.#reader.close().catch(() => {});
  }
}
