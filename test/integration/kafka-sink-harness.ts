/** What the kafka sink's tests share: a target cluster, Windows made by hand, and a consumer that knows nothing of the sink. */
import { chmod, mkdir, mkdtemp, rm } from 'node:fs/promises';
import { join, resolve } from 'node:path';
import type { Kafka, KafkaMessage } from 'kafkajs';
import { type PartName, type Stack, startStack } from '../../compose/local-stack.ts';
import { kafkaSink } from '../../connectors/sinks/kafka/index.ts';
import { createKafka } from '../../src/connector/kafka.ts';
import { beforeEverything, formatPosition, type Position } from '../../src/connector/position.ts';
import type { ColumnShape, TableShape } from '../../src/connector/shape.ts';
import type {
  AppendSink,
  AppendWindow,
  OptionValues,
  RowEvent,
  SinkContext,
} from '../../src/connector/sink.ts';
import { readTopics } from '../fixtures/read-topics.ts';

const root = resolve(import.meta.dirname, '..', '..', '.tidemark');
const place = { sourceId: 'test', destination: 'mirror' };

export class Target {
  readonly stack: Stack;
  readonly kafka: Kafka;
  readonly brokers: string[];
  readonly directory: string;
  #names = 0;

  private constructor(stack: Stack, directory: string) {
    this.stack = stack;
    this.directory = directory;
    this.brokers = [stack.environment.TIDEMARK_KAFKA_BROKERS!];
    const log = { debug: () => {} };
    this.kafka = createKafka({ brokers: this.brokers, clientId: 'test', tls: false, sasl: null }, log);
  }

  static async start(parts: readonly PartName[] = ['kafka', 'registry']): Promise<Target> {
    await mkdir(root, { recursive: true });
    const directory = await mkdtemp(join(root, 'kafka-sink-'));
    // When root runs the tests, Postgres is another user.
    await chmod(directory, 0o755);
    return new Target(await startStack({ directory: join(directory, 'stack'), parts }), directory);
  }

  async stop(): Promise<void> {
    await this.stack.stop();
    await rm(this.directory, { recursive: true, force: true });
  }

  /** Options of a destination of its own, and its prefix. */
  options(own: OptionValues = {}): { prefix: string; options: OptionValues } {
    this.#names += 1;
    const prefix = `t${this.#names}`;
    const options = optionValues({
      'kafka.brokers': this.brokers,
      'topic.name': `${prefix}.${'$'}{schema}.${'$'}{table}`,
      'progress.topic': `${prefix}.progress`,
      'control.topic': `${prefix}.control`,
      'topic.partitions': 3,
      ...(own.format === 'avro' ? { 'registry.url': this.stack.environment.TIDEMARK_REGISTRY_URL! } : {}),
      ...own,
    });
    return { prefix, options };
  }

  /** By kafkajs' own consumer, read_committed. In order within a partition. */
  async consume(...topics: string[]): Promise<(KafkaMessage & { topic: string; partition: number })[]> {
    const found: (KafkaMessage & { topic: string; partition: number })[] = [];
    await readTopics(this.kafka, topics, (topic, partition, record) =>
      found.push({ ...record, topic, partition }),
    );
    return found;
  }

  async topics(): Promise<string[]> {
    const admin = this.kafka.admin();
    await admin.connect();
    try {
      return await admin.listTopics();
    } finally {
      await admin.disconnect();
    }
  }
}

/** The option defaults, and what the instance file would add. */
function optionValues(own: OptionValues): OptionValues {
  const values: OptionValues = {};
  for (const [key, field] of Object.entries(kafkaSink.options)) {
    if (field.default !== undefined) values[key] = field.default;
  }
  return { ...values, ...own };
}

export interface Opened {
  sink: AppendSink;
  logs: string[];
}

export async function openSink(
  options: OptionValues,
  failpoint: (name: string) => Promise<void> = async () => {},
): Promise<Opened> {
  const logs: string[] = [];
  const context: SinkContext = {
    ...place,
    scratchDirectory: root,
    log: (level, message, fields) => logs.push(JSON.stringify({ level, message, ...fields })),
    failpoint,
  };
  return { sink: (await kafkaSink.open(context, options)) as AppendSink, logs };
}

export function column(name: string, type: string, number: number, key = false): ColumnShape {
  return { name, type, number, key, nullable: !key };
}

export function shapeOf(name: string, columns: ColumnShape[], more: Partial<TableShape> = {}): TableShape {
  const keyColumns = columns.flatMap(({ key }, index) => (key ? [index] : []));
  return { schema: 'app', name, columns, keyColumns, tenantColumn: null, oid: 1000, ...more };
}

export const users = shapeOf('users', [
  column('id', 'integer', 1, true),
  column('name', 'text', 2),
  column('bio', 'text', 3),
]);

export function at(lsn: number, ordinal = 1): Position {
  return formatPosition({ epoch: 1, lsn: BigInt(lsn), ordinal });
}

export function event(op: RowEvent['op'], position: Position, more: Partial<RowEvent> = {}): RowEvent {
  const commitTimeUs = 1_700_000_000_000_001n;
  return { op, position, commitTimeUs, key: [], values: [], previousKey: null, before: null, ...more };
}

export interface WindowPart {
  shape: TableShape;
  events: readonly RowEvent[] | (() => AsyncIterable<RowEvent[]>);
}

export function windowOf(
  sequence: number,
  parts: readonly WindowPart[],
  more: Partial<AppendWindow> = {},
): AppendWindow {
  return {
    ...place,
    unit: '*',
    sequence,
    from: sequence === 1 ? beforeEverything : at((sequence - 1) * 1000, 999_999),
    to: at(sequence * 1000, 999_999),
    fencingToken: 1n,
    commitTimeUs: 1_700_000_000_000_001n,
    tables: parts.map(({ shape, events }) => ({
      shape,
      events: typeof events === 'function' ? events : () => inOne(events),
    })),
    ...more,
  };
}

async function* inOne(events: readonly RowEvent[]): AsyncIterable<RowEvent[]> {
  yield [...events];
}
