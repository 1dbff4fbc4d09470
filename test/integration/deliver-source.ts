/**
 * A stand-in for replicate and publish: writes change topics and Progress by hand, in Kafka transactions, and keeps
 * the state that a destination must arrive at.
 */
import { randomUUID } from 'node:crypto';
import avsc from 'avsc';
import type { Admin, Kafka, Message, Producer } from 'kafkajs';
import { formatPosition, type Position } from '../../src/connector/position.ts';
import type { TableShape } from '../../src/connector/shape.ts';
import { tableName } from '../../src/connector/shape.ts';
import type { Cell, PartialRow, Row } from '../../src/connector/sink.ts';
import type { RegistryClient } from '../../src/platform/registry.ts';
import { keySchema, valueSchema } from '../../src/publish/avro-schema.ts';
import { encodeProgress, type Progress, progressSchema } from '../../src/publish/progress.ts';
import { header, recordFormat, topicNames, unavailableValue } from '../../src/publish/record-format.ts';

/** Columns are bigint (keys) and text; enough for what is tested here. */
export function shape(name: string, columns: string[], keyed = true): TableShape {
  return {
    schema: 'app',
    name,
    columns: columns.map((column, i) => ({
      name: column,
      type: i === 0 && keyed ? 'bigint' : 'text',
      key: i === 0 && keyed,
      nullable: !(i === 0 && keyed),
    })),
    keyColumns: keyed ? [0] : [],
    tenantColumn: null,
  };
}

export type Change =
  | { op: 'c'; row: Row }
  | { op: 'u'; row: PartialRow; before?: Row }
  | { op: 'd'; row: Row }
  /** A key change: `row` is the new row, `undefined` where a TOASTed value stayed. */
  | { op: 'k'; oldKey: Cell; row: PartialRow }
  | { op: 't' };

interface Table {
  shape: TableShape;
  topic: string;
  partitions: number;
  key: avsc.Type | null;
  value: avsc.Type;
  keyId: number;
  valueId: number;
  ends: bigint[];
  /** JSON of the key cells (or of the row and a number) to the row: what a destination must hold. */
  rows: Map<string, Row>;
  copies: Map<string, number>;
}

export class FakeSource {
  readonly prefix: string;
  readonly sourceId: string;
  readonly #kafka: Kafka;
  readonly #registry: RegistryClient;
  #admin!: Admin;
  #producer!: Producer;
  readonly tables = new Map<string, Table>();
  #progressId = 0;
  epoch = 1;
  lsn = 1000n;
  nowUs = 1_700_000_000_000_000n;
  position: Position = formatPosition({ epoch: 1, lsn: 1000n, ordinal: 0 });

  constructor(kafka: Kafka, registry: RegistryClient, name = `t${randomUUID().slice(0, 8)}`) {
    this.#kafka = kafka;
    this.#registry = registry;
    this.prefix = name;
    this.sourceId = name;
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
    const topic = topicNames(this.prefix).table(shape);
    await this.#admin.createTopics({ waitForLeaders: true, topics: [{ topic, numPartitions: partitions }] });
    this.tables.set(shape.name, {
      topic,
      partitions,
      ends: new Array(partitions).fill(0n),
      rows: new Map(),
      copies: new Map(),
      ...(await this.#schemas(shape, topic)),
    });
  }

  async changeShape(shape: TableShape): Promise<void> {
    const table = this.tables.get(shape.name)!;
    const width = shape.columns.length;
    for (const [key, row] of table.rows)
      table.rows.set(key, [...row, ...new Array(width - row.length).fill(null)]);
    Object.assign(table, await this.#schemas(shape, table.topic));
  }

  async #schemas(shape: TableShape, topic: string) {
    const valueText = valueSchema(shape, topic);
    const keyText = keySchema(shape, topic);
    return {
      shape,
      key: keyText === null ? null : avsc.Type.forSchema(JSON.parse(keyText)),
      value: avsc.Type.forSchema(JSON.parse(valueText)),
      valueId: await this.#registry.register(`${topic}-value`, valueText),
      keyId: keyText === null ? 0 : await this.#registry.register(`${topic}-key`, keyText),
    };
  }

  /** One source transaction. `boundary: false` leaves it open: the next call goes on with it. */
  async commit(
    changes: { table: string; change: Change }[],
    options: { boundary?: boolean; elapsedMs?: number; open?: boolean } = {},
  ): Promise<Position> {
    if (!this.#open) {
      this.lsn += 64n;
      this.#ordinal = 0;
      this.nowUs += BigInt(options.elapsedMs ?? 10) * 1000n;
    }
    const messages: { table: Table; message: Message }[] = [];
    for (const { table: name, change } of changes) {
      const table = this.tables.get(name);
      if (!table) throw new Error(`no table ${name}`);
      messages.push(...this.#records(table, change));
    }
    this.#open = options.boundary === false;
    await this.#send(messages, { kind: 'batch', boundary: !this.#open });
    return this.position;
  }

  #ordinal = 0;
  #open = false;

  #next(): Position {
    return formatPosition({ epoch: this.epoch, lsn: this.lsn, ordinal: ++this.#ordinal });
  }

  async heartbeat(elapsedMs: number): Promise<void> {
    this.nowUs += BigInt(elapsedMs) * 1000n;
    await this.#send([], { kind: 'heartbeat', boundary: true });
  }

  async newEpoch(): Promise<void> {
    this.epoch++;
    this.#ordinal = 0;
    await this.#send([], { kind: 'origin', boundary: true });
  }

  /** Data that a transaction takes back: read_committed must never show it. */
  async aborted(name: string, rows: Row[]): Promise<void> {
    const table = this.tables.get(name)!;
    const transaction = await this.#producer.transaction();
    const before = new Map(table.rows);
    for (const row of rows) {
      const [record] = this.#records(table, { op: 'c', row });
      await transaction.send({ topic: table.topic, messages: [record!.message] });
    }
    table.rows.clear();
    for (const [key, row] of before) table.rows.set(key, row);
    await transaction.abort();
  }

  #records(table: Table, change: Change): { table: Table; message: Message }[] {
    const keyed = table.key !== null;
    const keyOf = (cell: Cell) => JSON.stringify([cell]);
    const record = (
      op: string,
      before: PartialRow | null,
      after: PartialRow | null,
      extra: Message['headers'] = {},
    ) => {
      const position = this.#next();
      const headers: NonNullable<Message['headers']> = {
        [header.position]: position,
        [header.format]: recordFormat,
        ...extra,
      };
      const unchanged =
        after?.flatMap((cell, i) => (cell === undefined ? [table.shape.columns[i]!.name] : [])) ?? [];
      if (unchanged.length > 0) headers[header.unchanged] = JSON.stringify(unchanged);
      const row = after ?? before;
      return {
        position,
        message: {
          key: keyed && row ? this.#key(table, row[0]!) : null,
          value: this.#value(table, op, before, after),
          headers,
        } as Message,
      };
    };
    const nothing = (message: Message): Message => ({
      key: message.key!,
      value: null,
      headers: message.headers!,
    });
    const merge = (old: Row | undefined, row: PartialRow): Row =>
      row.map((cell, i) => (cell === undefined ? old![i]! : cell));
    const result: Message[] = [];
    const count = (row: Row, delta: number) => {
      const image = JSON.stringify(row);
      const copies = (table.copies.get(image) ?? 0) + delta;
      if (copies === 0) table.copies.delete(image);
      else table.copies.set(image, copies);
    };
    if (change.op === 'c') {
      result.push(record('c', null, change.row).message);
      if (keyed) table.rows.set(keyOf(change.row[0]!), change.row);
      else count(change.row, 1);
    } else if (change.op === 'u') {
      result.push(record('u', change.before ?? null, change.row).message);
      if (keyed) {
        const key = keyOf(change.row[0]!);
        table.rows.set(key, merge(table.rows.get(key), change.row));
      } else {
        count(change.before!, -1);
        count(merge(change.before, change.row), 1);
      }
    } else if (change.op === 'd') {
      const { message } = record('d', change.row, null);
      result.push(message);
      if (keyed) {
        result.push(nothing(message));
        table.rows.delete(keyOf(change.row[0]!));
      } else count(change.row, -1);
    } else if (change.op === 'k') {
      const old = table.rows.get(keyOf(change.oldKey))!;
      const oldKey = this.#key(table, change.oldKey);
      const deleted = record(
        'd',
        [change.oldKey, ...new Array(table.shape.columns.length - 1).fill(null)],
        null,
        {
          [header.newKey]: this.#key(table, change.row[0]!),
        },
      );
      result.push(deleted.message, nothing(deleted.message));
      result.push(record('c', null, change.row, { [header.oldKey]: oldKey }).message);
      table.rows.delete(keyOf(change.oldKey));
      table.rows.set(keyOf(change.row[0]!), merge(old, change.row));
    } else {
      const { message } = record('t', null, null);
      for (let partition = 0; partition < table.partitions; partition++)
        result.push({ ...message, partition });
      table.rows.clear();
      table.copies.clear();
    }
    return result.map((message) => ({ table, message }));
  }

  #key(table: Table, cell: Cell | undefined): Buffer {
    return framed(table.keyId, table.key!.toBuffer({ [table.shape.columns[0]!.name]: Number(cell) }));
  }

  #value(table: Table, op: string, before: PartialRow | null, after: PartialRow | null): Buffer {
    const row = (cells: PartialRow | null) =>
      cells &&
      Object.fromEntries(
        table.shape.columns.map(({ name, key }, i) => [
          name,
          cells[i] === undefined ? unavailableValue : key ? Number(cells[i]) : cells[i],
        ]),
      );
    const timeMs = Number(this.nowUs / 1000n);
    return framed(
      table.valueId,
      table.value.toBuffer({
        before: row(before),
        after: row(after),
        source: {
          version: 'test',
          connector: 'postgresql',
          name: this.prefix,
          ts_ms: timeMs,
          snapshot: 'false',
          db: 'app',
          sequence: null,
          ts_us: Number(this.nowUs),
          ts_ns: null,
          schema: table.shape.schema,
          table: table.shape.name,
          txId: null,
          lsn: Number(this.lsn),
          xmin: null,
        },
        transaction: null,
        op,
        ts_ms: timeMs,
        ts_us: null,
        ts_ns: null,
      }),
    );
  }

  async #send(
    messages: { table: Table; message: Message }[],
    { kind, boundary }: Pick<Progress, 'kind' | 'boundary'>,
  ): Promise<void> {
    const transaction = await this.#producer.transaction();
    const perTable = new Map<Table, Message[]>();
    for (const { table, message } of messages) {
      const list = perTable.get(table) ?? [];
      list.push(message);
      perTable.set(table, list);
    }
    for (const [table, list] of perTable) {
      for (let start = 0; start < list.length; start += 5000) {
        const part = list.slice(start, start + 5000).map((message) => ({
          ...message,
          partition: message.partition ?? partitionOf(message.key as Buffer | null, table.partitions),
        }));
        const sent = await transaction.send({ topic: table.topic, messages: part, compression: 0 });
        for (const { partition, baseOffset } of sent) {
          const count = part.filter((message) => message.partition === partition).length;
          table.ends[partition] = BigInt(baseOffset!) + BigInt(count);
        }
      }
    }
    this.position = formatPosition({ epoch: this.epoch, lsn: this.lsn, ordinal: this.#ordinal });
    const progress: Progress = {
      kind,
      boundary,
      sourceId: this.sourceId,
      position: this.position,
      ackLsn: this.lsn,
      commitTimeUs: this.nowUs,
      writtenAtUs: this.nowUs,
      systemIdentifier: '1',
      timeline: 1,
      writer: 'test',
      endOffsets: Object.fromEntries([...this.tables.values()].map(({ topic, ends }) => [topic, [...ends]])),
      parked: {},
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
      [...this.tables.values()].map(({ shape, rows, copies }) => [
        tableName(shape),
        shape.keyColumns.length > 0
          ? [...rows.values()].map((row) => JSON.stringify(row)).sort()
          : [...copies].flatMap(([image, count]) => new Array(count).fill(image)).sort(),
      ]),
    );
  }

  async deleteRecords(name: string, offset: number): Promise<void> {
    const table = this.tables.get(name)!;
    await this.#admin.deleteTopicRecords({
      topic: table.topic,
      partitions: table.ends.map((_, partition) => ({ partition, offset: String(offset) })),
    });
  }

  async close(): Promise<void> {
    await this.#producer.disconnect();
    await this.#admin.disconnect();
  }
}

function framed(id: number, body: Buffer): Buffer {
  const bytes = Buffer.alloc(5 + body.length);
  bytes.writeUInt32BE(id, 1);
  body.copy(bytes, 5);
  return bytes;
}

function partitionOf(key: Buffer | null, partitions: number): number {
  if (key === null) return 0;
  let hash = 7;
  for (const byte of key) hash = (hash * 31 + byte) >>> 0;
  return hash % partitions;
}
