/**
 * A stand-in for replicate and publish: writes change topics and Progress by hand, in Kafka transactions, and keeps
 * the state that a destination must arrive at.
 */
import { randomUUID } from 'node:crypto';
import type { Admin, Kafka, Message, Producer } from 'kafkajs';
import { formatPosition, type Position } from '../../src/connector/position.ts';
import { type TableShape, tableName } from '../../src/connector/shape.ts';
import type { Row } from '../../src/connector/sink.ts';
import type { RegistryClient } from '../../src/platform/registry.ts';
import { encodeProgress, type Progress, progressSchema } from '../../src/publish/progress.ts';
import { topicNames } from '../../src/publish/record-format.ts';
import { type Change, TableRecords } from './deliver-records.ts';

interface SourceTable {
  records: TableRecords;
  ends: bigint[];
}

export interface TableChange {
  table: string;
  change: Change;
}

export class FakeSource {
  readonly prefix: string;
  readonly sourceId: string;
  readonly tables = new Map<string, SourceTable>();
  readonly #kafka: Kafka;
  readonly #registry: RegistryClient;
  #admin!: Admin;
  #producer!: Producer;
  #progressId = 0;
  #epoch = 1;
  #lsn = 1000n;
  #ordinal = 0;
  #open = false;
  /** Some hours back: not so old that retention takes the records, and tests may let hours pass. */
  nowUs = BigInt(Date.now() - 12 * 3_600_000) * 1000n;
  /** Of the last Progress. */
  position: Position = formatPosition({ epoch: 1, lsn: 1000n, ordinal: 0 });

  constructor(kafka: Kafka, registry: RegistryClient) {
    this.#kafka = kafka;
    this.#registry = registry;
    this.prefix = `t${randomUUID().slice(0, 8)}`;
    this.sourceId = this.prefix;
  }

  async open(shapes: TableShape[], partitions = 2): Promise<void> {
    this.#admin = this.#kafka.admin();
    await this.#admin.connect();
    await this.#admin.createTopics({
      waitForLeaders: true,
      topics: [{ topic: topicNames(this.prefix).progress, numPartitions: 1 }],
    });
    this.#progressId = await this.#registry.register(`${this.prefix}.progress-value`, progressSchema);
    for (const each of shapes) await this.addTable(each, partitions);
    this.#producer = this.#kafka.producer({
      transactionalId: `${this.prefix}-writer`,
      idempotent: true,
      maxInFlightRequests: 1,
      retry: { initialRetryTime: 5, factor: 0.2, multiplier: 2, maxRetryTime: 1000, retries: 20 },
    });
    await this.#producer.connect();
    await this.#send([], { kind: 'origin', boundary: true });
  }

  async addTable(shape: TableShape, partitions = 2): Promise<void> {
    const records = new TableRecords(this.prefix, shape, partitions, (subject, schema) =>
      this.#registry.register(subject, schema),
    );
    await this.#admin.createTopics({
      waitForLeaders: true,
      topics: [{ topic: records.topic, numPartitions: partitions }],
    });
    await records.setShape(shape);
    this.tables.set(shape.name, { records, ends: new Array(partitions).fill(0n) });
  }

  /** One source transaction, or (`boundary: false`) the first part of one: the next call goes on with it. */
  async commit(
    changes: Iterable<TableChange>,
    options: { boundary?: boolean; elapsedMs?: number } = {},
  ): Promise<Position> {
    if (!this.#open) {
      this.#lsn += 64n;
      this.#ordinal = 0;
      this.nowUs += BigInt(options.elapsedMs ?? 10) * 1000n;
    }
    const messages = new Map<SourceTable, Message[]>();
    for (const { table: name, change } of changes) {
      const table = this.tables.get(name)!;
      const list = messages.get(table) ?? [];
      messages.set(table, list);
      list.push(...table.records.records(change, this.nowUs, () => this.#next()));
    }
    this.#open = options.boundary === false;
    await this.#send(messages, { kind: 'batch', boundary: !this.#open });
    return this.position;
  }

  async heartbeat(elapsedMs: number): Promise<void> {
    this.nowUs += BigInt(elapsedMs) * 1000n;
    await this.#send([], { kind: 'heartbeat', boundary: true });
  }

  /** The slot was recreated: what lies between is lost. */
  async newEpoch(): Promise<void> {
    this.#epoch++;
    this.#ordinal = 0;
    await this.#send([], { kind: 'origin', boundary: true });
  }

  /** Records of a Kafka transaction that is taken back: read_committed must never show them. */
  async aborted(name: string, rows: Row[]): Promise<void> {
    const { records } = this.tables.get(name)!;
    const before = new Map(records.rows);
    const transaction = await this.#producer.transaction();
    const messages = rows.flatMap((row) => records.records({ op: 'c', row }, this.nowUs, () => this.#next()));
    await transaction.send({ topic: records.topic, messages });
    await transaction.abort();
    records.rows.clear();
    for (const [key, row] of before) records.rows.set(key, row);
  }

  #next(): Position {
    return formatPosition({ epoch: this.#epoch, lsn: this.#lsn, ordinal: ++this.#ordinal });
  }

  async #send(
    messages: Iterable<[SourceTable, Message[]]>,
    { kind, boundary }: Pick<Progress, 'kind' | 'boundary'>,
  ): Promise<void> {
    const transaction = await this.#producer.transaction();
    for (const [table, list] of messages) {
      for (let start = 0; start < list.length; start += 5000) {
        const part = list.slice(start, start + 5000);
        const sent = await transaction.send({ topic: table.records.topic, messages: part });
        for (const { partition, baseOffset } of sent) {
          const count = part.filter((message) => message.partition === partition).length;
          table.ends[partition] = BigInt(baseOffset!) + BigInt(count);
        }
      }
    }
    this.position = formatPosition({ epoch: this.#epoch, lsn: this.#lsn, ordinal: this.#ordinal });
    const progress: Progress = {
      kind,
      boundary,
      sourceId: this.sourceId,
      position: this.position,
      ackLsn: this.#lsn,
      commitTimeUs: this.nowUs,
      writtenAtUs: this.nowUs,
      systemIdentifier: '1',
      timeline: 1,
      writer: 'test',
      endOffsets: Object.fromEntries(
        [...this.tables.values()].map(({ records, ends }) => [records.topic, [...ends]]),
      ),
      parked: {},
      snapshots: {},
    };
    await transaction.send({
      topic: topicNames(this.prefix).progress,
      messages: [
        { value: encodeProgress(progress, this.#progressId), timestamp: String(this.nowUs / 1000n) },
      ],
    });
    await transaction.commit();
  }

  /** What a destination must hold, in the form of MemoryStore.dump. */
  expected(): Record<string, string[]> {
    return Object.fromEntries(
      [...this.tables.values()].map(({ records }) => [tableName(records.shape), records.dump()]),
    );
  }

  /** As retention does, with everything that is there. */
  async expire(name: string): Promise<void> {
    const { records, ends } = this.tables.get(name)!;
    for (;;) {
      const offsets = await this.#admin.fetchTopicOffsets(records.topic);
      // The commit's marker is written after the commit is answered, and the last stable offset waits for it.
      if (offsets.some(({ partition, high }) => ends[partition]! > 0n && BigInt(high) <= ends[partition]!))
        continue;
      await this.#admin.deleteTopicRecords({
        topic: records.topic,
        partitions: offsets
          .filter(({ high }) => high !== '0')
          .map(({ partition, high }) => ({ partition, offset: high })),
      });
      return;
    }
  }

  async close(): Promise<void> {
    await this.#producer.disconnect();
    await this.#admin.disconnect();
  }
}
