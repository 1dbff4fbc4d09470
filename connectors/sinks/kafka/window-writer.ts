/**
 * Writes one Window: its rows to their topics, what they cannot say to the control topic, and the progress record, all in
 * one transaction. The broker aborts a transaction that is open for longer than transaction.timeout. A Window that takes
 * longer than half of it is cut: what is there is committed with a note of how far that is, and a retry goes on behind it.
 */
import { TidemarkError } from '../../../src/connector/failure.ts';
import type { Position } from '../../../src/connector/position.ts';
import { hashCells, RowHash } from '../../../src/connector/row-hash.ts';
import { type TableShape, tableName } from '../../../src/connector/shape.ts';
import type {
  AppendTable,
  AppendWindow,
  Receipt,
  RowEvent,
  SinkContext,
} from '../../../src/connector/sink.ts';
import type { ControlRecords } from './control-records.ts';
import { fieldsOf } from './fields.ts';
import { Outbox } from './outbox.ts';
import { type ProgressMessage, type TopicOwner, topicMessage } from './progress.ts';
import type { FormatCache } from './row-format.ts';
import type { Session } from './session.ts';
import type { KafkaSettings } from './settings.ts';
import { TableRecords } from './table-records.ts';
import { placeOf, topicOf } from './topic-name.ts';
import type { TopicPlan } from './topics.ts';

interface Part {
  table: AppendTable;
  topic: string;
  owner: TopicOwner;
  /** The topic's rows are of a table that was dropped, and this one was made under its name. */
  anew: boolean;
}

export class WindowWriter {
  readonly #window: AppendWindow;
  readonly #session: Session;
  readonly #context: SinkContext;
  readonly #settings: KafkaSettings;
  readonly #formats: FormatCache;
  readonly #control: ControlRecords;
  readonly #outbox: Outbox;
  readonly #hash = new RowHash();
  readonly #rows = { upserted: 0, deleted: 0, appended: 0 };
  /** Owners of topics as this Window leaves them. */
  readonly #owners = new Map<string, TopicOwner>();
  /** By topic: the last Change that an attempt before left there. */
  readonly #there: Readonly<Record<string, Position>>;
  /** By topic: the last Change that is written, in this transaction or one before. */
  readonly #reached: Record<string, Position>;
  #begunAt = 0;

  constructor(
    window: AppendWindow,
    session: Session,
    context: SinkContext,
    settings: KafkaSettings,
    formats: FormatCache,
    control: ControlRecords,
  ) {
    this.#window = window;
    this.#session = session;
    this.#context = context;
    this.#settings = settings;
    this.#formats = formats;
    this.#control = control;
    const { partial } = session.state.progress;
    this.#there = partial && (partial.to ?? window.to) === window.to ? partial.reached : {};
    this.#reached = { ...this.#there };
    this.#outbox = new Outbox((messages) => session.send(messages));
  }

  async write(): Promise<Receipt> {
    const { failpoint } = this.#context;
    const parts = this.#window.tables.map((table) => this.#plan(table));
    // Schemas and topics first: neither is part of the transaction, and both may wait.
    const records: TableRecords[] = [];
    for (const { table, topic, owner } of parts) {
      const fields = fieldsOf(table.shape, this.#settings.rows, owner.key);
      const format = await this.#formats.of(topic, fields);
      records.push(new TableRecords(fields, format, this.#settings.rows));
    }
    await this.#session.catalogue.ensure(this.#topicPlans(parts));
    await this.#begin();
    for (const [i, part] of parts.entries()) await this.#writePart(part, records[i]!);
    await this.#outbox.done();
    await failpoint('kafka-sink-sent');
    const receipt: Receipt = {
      position: this.#window.to,
      rows: this.#rows,
      bytes: this.#outbox.bytes,
      contentHash: this.#hash.hex,
      commitId: `${this.#settings.progressTopic}/${this.#window.sequence}`,
      alreadyHeld: false,
    };
    const progress = {
      position: this.#window.to,
      sequence: this.#window.sequence,
      fencingToken: this.#window.fencingToken,
      receipt,
      partial: null,
    };
    await this.#session.sendProgress([...this.#newOwners(), this.#session.state.progressMessage(progress)]);
    await failpoint('kafka-sink-before-commit');
    await this.#session.commit();
    this.#session.state.progress = progress;
    for (const [topic, owner] of this.#owners) this.#session.state.topics.set(topic, owner);
    await this.#session.seen();
    await failpoint('kafka-sink-committed');
    return receipt;
  }

  /** @throws TidemarkError TM405 where two tables would meet in one topic */
  #plan(table: AppendTable): Part {
    const { shape } = table;
    const { schema, name, oid } = shape;
    const topic = topicOf(this.#settings.topics.template, shape);
    const { progressTopic, controlTopic } = this.#settings;
    if (topic === progressTopic || topic === controlTopic) {
      throw new TidemarkError(
        'TM405',
        `${tableName(shape)} would be written to the sink's own topic ${topic}`,
        {
          remedy: 'Give the destination another topic.name, progress.topic or control.topic.',
        },
      );
    }
    const known = this.#owners.get(topic) ?? this.#session.state.topics.get(topic);
    if (known && (known.schema !== schema || known.name !== name)) {
      throw new TidemarkError(
        'TM405',
        `${tableName(known)} and ${tableName(shape)} would meet in the topic ${topic}`,
        {
          remedy: `Put both ${placeOf.schema} and ${placeOf.table} into topic.name, with a . between them, in a new destination.`,
        },
      );
    }
    const anew = known?.oid !== undefined && oid !== undefined && known.oid !== oid;
    const { key } = fieldsOf(shape, this.#settings.rows, anew ? null : (known?.key ?? null));
    const owner: TopicOwner = { schema, name, key: key && [...key], ...(oid === undefined ? {} : { oid }) };
    if (known && !anew && (known.key === null) !== (key === null)) this.#refuseKey(shape);
    this.#owners.set(topic, owner);
    return { table, topic, owner, anew };
  }

  #refuseKey(shape: TableShape): never {
    throw new TidemarkError(
      'TM405',
      `${tableName(shape)} got a key or lost it, and its topic has records of before`,
      {
        remedy: 'Give the table to a new destination with another topic.name.',
      },
    );
  }

  #topicPlans(parts: readonly Part[]): TopicPlan[] {
    const { topics, control, controlTopic } = this.#settings;
    const plans = new Map<string, TopicPlan>();
    for (const { topic, owner } of parts) {
      const cleanup = owner.key === null ? 'delete' : topics.cleanup;
      plans.set(topic, { topic, partitions: topics.partitions, cleanup, config: topics.config });
    }
    if (control) {
      const config = { 'retention.ms': '-1' };
      plans.set(controlTopic, { topic: controlTopic, partitions: 1, cleanup: 'delete', config });
    }
    return [...plans.values()];
  }

  async #begin(): Promise<void> {
    await this.#session.begin();
    this.#begunAt = performance.now();
  }

  /** With the Window's last transaction: a retry of one that was cut must see the topics as they were before it. */
  #newOwners(): ProgressMessage[] {
    const { topics } = this.#session.state;
    return [...this.#owners].flatMap(([topic, owner]) =>
      JSON.stringify(topics.get(topic)) === JSON.stringify(owner) ? [] : [topicMessage(topic, owner)],
    );
  }

  async #writePart(part: Part, records: TableRecords): Promise<void> {
    const { topic } = part;
    const before = this.#there[topic] ?? null;
    const there = (position: Position) => before !== null && position <= before;
    let last: Position | null = null;
    for await (const batch of part.table.events()) {
      for (const event of batch) {
        const { position } = event;
        if (last === null && part.anew)
          await this.#writeControl({ ...event, key: [] }, 't', part, there(position));
        // A key change is two Changes of one Position.
        else if (last !== null && last !== position && this.#isLong()) await this.#cut(topic);
        last = position;
        await this.#writeEvent(event, part, records, there(position));
        if (!there(position)) this.#reached[topic] = position;
      }
    }
  }

  async #writeEvent(event: RowEvent, part: Part, records: TableRecords, there: boolean): Promise<void> {
    const { op, position } = event;
    if (op === 't' || op === 's' || op === 'e') return this.#writeControl(event, op, part, there);
    this.#hash.addHash(hashCells([op, position, ...event.values]), 1);
    const known = this.#session.catalogue.get(part.topic);
    for (const record of records.of(event)) {
      if (!there)
        await this.#outbox.add(record, { table: part.table.shape, position, topic: part.topic }, known);
    }
    this.#rows.appended += 1;
  }

  async #writeControl(event: RowEvent, op: 't' | 's' | 'e', part: Part, there: boolean): Promise<void> {
    const { position } = event;
    const { shape } = part.table;
    this.#hash.addHash(hashCells([op, position, ...event.key]), 1);
    const message = this.#control.of(event, op, shape, part.topic);
    if (message === null || there) return;
    const topic = this.#settings.controlTopic;
    const record = { key: Buffer.from(message.key), value: Buffer.from(message.value), headers: {} };
    await this.#outbox.add(record, { table: shape, position, topic }, this.#session.catalogue.get(topic));
    this.#rows.appended += 1;
  }

  #isLong(): boolean {
    return performance.now() - this.#begunAt > this.#settings.transactionTimeoutMs / 2;
  }

  /** What is written is committed, with a note of how far that is in each topic, and a new transaction goes on. */
  async #cut(topic: string): Promise<void> {
    const { state } = this.#session;
    const { sequence, to, fencingToken } = this.#window;
    await this.#outbox.done();
    const partial = { sequence, to, reached: { ...this.#reached } };
    const progress = { ...state.progress, partial, fencingToken };
    await this.#session.sendProgress([state.progressMessage(progress)]);
    await this.#session.commit();
    state.progress = progress;
    await this.#session.seen();
    this.#context.log('warn', 'a Window takes long: consumers see it in several parts', { sequence, topic });
    await this.#begin();
  }
}
