/** Records of one table as publish writes them, made by hand, and the state that a destination must arrive at. */
import avsc from 'avsc';
import type { Message } from 'kafkajs';
import type { Position } from '../../src/connector/position.ts';
import type { TableShape } from '../../src/connector/shape.ts';
import type { Cell, PartialRow, Row } from '../../src/connector/sink.ts';
import { partitionOf as tenantPartition } from '../../src/platform/partition.ts';
import { keySchema, valueSchema } from '../../src/publish/avro-schema.ts';
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
  | { op: 't' }
  /** An eviction, which is told in the table's control topic. */
  | { op: 'e'; row: Row };

/** What of the registry is needed: an id per schema. */
export type Register = (subject: string, schema: string) => Promise<number>;

export class TableRecords {
  readonly topic: string;
  readonly partitions: number;
  shape!: TableShape;
  /** JSON of the key cell to the row: what a destination must hold. */
  readonly rows = new Map<string, Row>();
  /** Keys, as in `rows`, of those that the source let go of. */
  readonly retired = new Set<string>();
  /** Of a table without a key: JSON of the row to its number. */
  readonly copies = new Map<string, number>();
  readonly #prefix: string;
  readonly #register: Register;
  #key: avsc.Type | null = null;
  #value!: avsc.Type;
  #keyId = 0;
  #valueId = 0;

  constructor(prefix: string, shape: TableShape, partitions: number, register: Register) {
    this.#prefix = prefix;
    this.topic = topicNames(prefix).table(shape);
    this.partitions = partitions;
    this.#register = register;
  }

  /** Also for a later shape, with columns added at the end. */
  async setShape(shape: TableShape): Promise<void> {
    const width = shape.columns.length;
    for (const [key, row] of this.rows)
      this.rows.set(key, [...row, ...new Array(width - row.length).fill(null)]);
    const valueText = valueSchema(shape, this.topic);
    const keyText = keySchema(shape, this.topic);
    this.shape = shape;
    this.#value = avsc.Type.forSchema(JSON.parse(valueText));
    this.#valueId = await this.#register(`${this.topic}-value`, valueText);
    if (keyText === null) return;
    this.#key = avsc.Type.forSchema(JSON.parse(keyText));
    this.#keyId = await this.#register(`${this.topic}-key`, keyText);
  }

  dump(): string[] {
    return this.shape.keyColumns.length > 0
      ? [...this.rows.values()].map((row) => JSON.stringify(row)).sort()
      : [...this.copies].flatMap(([image, count]) => new Array<string>(count).fill(image)).sort();
  }

  /** @param next gives the Position of the next Change */
  records(change: Change, timeUs: bigint, next: () => Position): Message[] {
    const keyed = this.#key !== null;
    const keyOf = (cell: Cell) => JSON.stringify([cell]);
    const record = (
      op: string,
      before: PartialRow | null,
      after: PartialRow | null,
      extra: Message['headers'] = {},
    ) => {
      const position = next();
      const headers: NonNullable<Message['headers']> = {
        [header.position]: position,
        [header.format]: recordFormat,
        ...extra,
      };
      const unchanged =
        after?.flatMap((cell, i) => (cell === undefined ? [this.shape.columns[i]!.name] : [])) ?? [];
      if (unchanged.length > 0) headers[header.unchanged] = JSON.stringify(unchanged);
      const row = after ?? before;
      return {
        position,
        message: {
          key: keyed && row ? this.#keyBytes(row[0]!) : null,
          value: this.#valueBytes(op, timeUs, before, after),
          headers,
          // As the reader sends the rows of a tenant to one partition.
          ...(this.shape.tenantColumn === null || !row
            ? {}
            : {
                partition: tenantPartition(Buffer.from(row[this.shape.tenantColumn] ?? ''), this.partitions),
              }),
        } as Message,
      };
    };
    const nothing = (message: Message): Message => ({
      ...message,
      value: null,
    });
    const merge = (old: Row | undefined, row: PartialRow): Row =>
      row.map((cell, i) => (cell === undefined ? old![i]! : cell));
    const result: Message[] = [];
    const count = (row: Row, delta: number) => {
      const image = JSON.stringify(row);
      const copies = (this.copies.get(image) ?? 0) + delta;
      if (copies === 0) this.copies.delete(image);
      else this.copies.set(image, copies);
    };
    if (change.op === 'c') {
      result.push(record('c', null, change.row).message);
      if (keyed) {
        this.rows.set(keyOf(change.row[0]!), change.row);
        this.retired.delete(keyOf(change.row[0]!));
      } else count(change.row, 1);
    } else if (change.op === 'u') {
      result.push(record('u', change.before ?? null, change.row).message);
      if (keyed) {
        const key = keyOf(change.row[0]!);
        this.rows.set(key, merge(this.rows.get(key), change.row));
      } else {
        count(change.before!, -1);
        count(merge(change.before, change.row), 1);
      }
    } else if (change.op === 'd') {
      const { message } = record('d', change.row, null);
      result.push(message);
      if (keyed) {
        result.push(nothing(message));
        this.rows.delete(keyOf(change.row[0]!));
      } else count(change.row, -1);
    } else if (change.op === 'k') {
      const old = this.rows.get(keyOf(change.oldKey))!;
      const oldKey = this.#keyBytes(change.oldKey);
      const deleted = record(
        'd',
        [change.oldKey, ...new Array(this.shape.columns.length - 1).fill(null)],
        null,
        {
          [header.newKey]: this.#keyBytes(change.row[0]!),
        },
      );
      result.push(deleted.message, nothing(deleted.message));
      result.push(record('c', null, change.row, { [header.oldKey]: oldKey }).message);
      this.rows.delete(keyOf(change.oldKey));
      this.rows.set(keyOf(change.row[0]!), merge(old, change.row));
    } else if (change.op === 'e') {
      result.push(record('e', change.row, null, { [header.eviction]: '1' }).message);
      this.retired.add(keyOf(change.row[0]!));
    } else {
      const { message } = record('t', null, null);
      for (let partition = 0; partition < this.partitions; partition++)
        result.push({ ...message, partition });
      for (const key of this.rows.keys()) if (!this.retired.has(key)) this.rows.delete(key);
      this.copies.clear();
    }
    return result.map((message) => ({
      ...message,
      partition: message.partition ?? partitionOf(message.key as Buffer | null, this.partitions),
    }));
  }

  #keyBytes(cell: Cell | undefined): Buffer {
    return framed(this.#keyId, this.#key!.toBuffer({ [this.shape.columns[0]!.name]: Number(cell) }));
  }

  #valueBytes(op: string, timeUs: bigint, before: PartialRow | null, after: PartialRow | null): Buffer {
    const row = (cells: PartialRow | null) =>
      cells &&
      Object.fromEntries(
        this.shape.columns.map(({ name, key }, i) => [
          name,
          cells[i] === undefined ? unavailableValue : key ? Number(cells[i]) : cells[i],
        ]),
      );
    const timeMs = Number(timeUs / 1000n);
    return framed(
      this.#valueId,
      this.#value.toBuffer({
        before: row(before),
        after: row(after),
        source: {
          version: 'test',
          connector: 'postgresql',
          name: this.#prefix,
          ts_ms: timeMs,
          snapshot: 'false',
          db: 'app',
          sequence: null,
          ts_us: Number(timeUs),
          ts_ns: null,
          schema: this.shape.schema,
          table: this.shape.name,
          txId: null,
          lsn: 1,
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
