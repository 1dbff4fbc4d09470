/**
 * encodeChange for one table: pgoutput tuple to Avro key and Debezium envelope, without intermediate objects.
 * Compiled once per shape; the constant parts of the envelope are bytes to copy.
 */
import type { TableShape } from '../connector/shape.ts';
import { TidemarkError } from '../platform/errors.ts';
import { type Tuple, valueKind } from '../replicate/pgoutput.ts';
import { columnCodecs } from './avro-schema.ts';
import { ByteWriter } from './byte-writer.ts';
import { unavailableValue } from './record-format.ts';
import type { Codec } from './types/codec.ts';

export interface TransactionContext {
  commitLsn: bigint;
  commitTimeUs: bigint;
  xid: number;
  /** Commit LSN of the Transaction before, for Debezium's `sequence`. */
  previousCommitLsn: bigint;
  /** Distinguishes transactions cheaply, to cache the source block. */
  serial: number;
}

export interface EncoderIdentity {
  /** Debezium's logical name: the topic prefix. */
  serverName: string;
  database: string;
  version: string;
}

/** What a row left to its headers. Reused by the next row. */
export interface RowRemarks {
  unchanged: string[];
  exact: Record<string, string> | null;
}

const opBytes = { c: 0x63, u: 0x75, d: 0x64, t: 0x74, r: 0x72 } as const;

export class TableEncoder {
  readonly shape: TableShape;
  readonly topic: string;
  readonly remarks: RowRemarks = { unchanged: [], exact: null };
  readonly #codecs: Codec[];
  /** For each column of the shape its index in the relation's tuples. */
  readonly #tupleIndex: number[];
  readonly #nullable: boolean[];
  /** What stands for an unchanged TOAST value, union branch included; null: the null branch. */
  readonly #placeholder: (Buffer | null)[];
  readonly #keyHead: Buffer;
  readonly #valueHead: Buffer;
  readonly #sourceHead: Buffer;
  readonly #sourceTable: Buffer;
  readonly #sourceName: Buffer;
  readonly #snapshotName: Buffer;
  #source: Buffer = Buffer.alloc(0);
  #sourceSerial = -1;
  #processedAt: Buffer = Buffer.alloc(0);
  #processedAtMs = -1;

  constructor(options: {
    shape: TableShape;
    topic: string;
    tupleIndex: number[];
    keySchemaId: number | null;
    valueSchemaId: number;
    identity: EncoderIdentity;
  }) {
    const { shape, identity } = options;
    this.shape = shape;
    this.topic = options.topic;
    this.#codecs = columnCodecs(shape);
    this.#tupleIndex = options.tupleIndex;
    this.#nullable = shape.columns.map((column) => column.nullable);
    this.#placeholder = this.#codecs.map(placeholderFor);
    this.#keyHead = registryHead(options.keySchemaId ?? 0);
    this.#valueHead = registryHead(options.valueSchemaId);
    this.#sourceHead = constant((out) => {
      out.text(identity.version);
      out.text('postgresql');
      out.text(identity.serverName);
    });
    const sourceName = (snapshot: string) =>
      constant((out) => {
        out.byte(0); // snapshot: the union's string branch
        out.text(snapshot);
        out.text(identity.database);
      });
    this.#sourceName = sourceName('false');
    this.#snapshotName = sourceName('incremental');
    this.#sourceTable = constant((out) => {
      out.text(shape.schema);
      out.text(shape.name);
    });
  }

  get keyless(): boolean {
    return this.shape.keyColumns.length === 0;
  }

  /** The record key; `fallback` supplies key columns that `tuple` does not carry. */
  encodeKey(tuple: Tuple, fallback: Tuple | null, out: ByteWriter): Buffer {
    out.mark();
    out.raw(this.#keyHead);
    for (const column of this.shape.keyColumns) {
      const at = this.#tupleIndex[column]!;
      const from = tuple.kinds[at] === valueKind.unchanged && fallback ? fallback : tuple;
      const kind = from.kinds[at];
      if (kind !== valueKind.binary && kind !== valueKind.text) {
        throw new TidemarkError(
          'TM206',
          `a change of ${this.#label} carries no value for key column ${this.#name(column)}`,
        );
      }
      this.#requireBinary(kind, column);
      if (!this.#codecs[column]!.encode(from.bytes, from.starts[at]!, from.ends[at]!, out)) {
        throw new TidemarkError(
          'TM208',
          `a key value in ${this.#label}.${this.#name(column)} has no exact Avro form`,
        );
      }
    }
    return out.take();
  }

  /** Whether some column of the row was left untouched and `fill` has no value for it. */
  leavesUnknown(tuple: Tuple, fill: Tuple | null): boolean {
    for (let column = 0; column < this.#nullable.length; column++) {
      const at = this.#tupleIndex[column]!;
      if (
        tuple.kinds[at] === valueKind.unchanged &&
        this.#nullable[column] &&
        fill?.kinds[at] !== valueKind.binary
      )
        return true;
    }
    return false;
  }

  /** Postgres' own text of the key columns. */
  keyTexts(tuple: Tuple, fallback: Tuple | null): string[] {
    return this.shape.keyColumns.map((column) => {
      const at = this.#tupleIndex[column]!;
      const from = tuple.kinds[at] === valueKind.unchanged && fallback ? fallback : tuple;
      return this.#codecs[column]!.text(from.bytes, from.starts[at]!, from.ends[at]!);
    });
  }

  /** The tenant column's text, for the partitioner; null where the tuple has no value for it. */
  tenant(tuple: Tuple, fallback: Tuple | null): string | null {
    const column = this.shape.tenantColumn;
    if (column === null) return null;
    const at = this.#tupleIndex[column]!;
    const from = tuple.kinds[at] === valueKind.unchanged && fallback ? fallback : tuple;
    if (from.kinds[at] !== valueKind.binary) return null;
    return this.#codecs[column]!.text(from.bytes, from.starts[at]!, from.ends[at]!);
  }

  /**
   * The envelope.
   * @param before old row or null; `beforeIsFull` when it has every column
   * @param fill old full row that supplies unchanged TOAST values of `after`, or null
   */
  encodeEnvelope(
    op: keyof typeof opBytes,
    before: Tuple | null,
    after: Tuple | null,
    fill: Tuple | null,
    transaction: TransactionContext,
    nowMs: number,
    out: ByteWriter,
  ): Buffer {
    this.remarks.unchanged.length = 0;
    this.remarks.exact = null;
    out.mark();
    out.raw(this.#valueHead);
    if (before) {
      out.byte(2);
      this.#row(before, null, out, op === 'd');
    } else out.byte(0);
    if (after) {
      out.byte(2);
      this.#row(after, fill, out, true);
    } else out.byte(0);
    // A Transaction has changes or a chunk's rows, never both: one source block serves it.
    if (this.#sourceSerial !== transaction.serial) this.#encodeSource(transaction, op === 'r');
    out.raw(this.#source);
    out.byte(0); // transaction: null
    out.byte(2); // op: one character
    out.byte(opBytes[op]);
    if (nowMs !== this.#processedAtMs) this.#encodeProcessedAt(nowMs);
    out.raw(this.#processedAt);
    return out.take();
  }

  /** The outer ts_ms, ts_us and ts_ns: one instant per batch. */
  #encodeProcessedAt(nowMs: number): void {
    this.#processedAt = constant((out) => {
      out.byte(2);
      out.long(nowMs);
      out.byte(2);
      out.long(nowMs * 1000);
      out.byte(2);
      out.bigLong(BigInt(nowMs) * 1000000n);
    });
    this.#processedAtMs = nowMs;
  }

  /** @param remark whether this row's inexact and unchanged values go to the headers */
  #row(tuple: Tuple, fill: Tuple | null, out: ByteWriter, remark: boolean): void {
    const { bytes, kinds, starts, ends } = tuple;
    for (let column = 0; column < this.#codecs.length; column++) {
      const at = this.#tupleIndex[column]!;
      const kind = kinds[at]!;
      if (kind === valueKind.binary) {
        this.#value(column, bytes, starts[at]!, ends[at]!, out, remark);
      } else if (kind === valueKind.null) {
        if (!this.#nullable[column]) {
          throw new TidemarkError(
            'TM206',
            `a change of ${this.#label} has NULL in key column ${this.#name(column)}`,
          );
        }
        out.byte(0);
      } else if (kind === valueKind.unchanged) {
        if (fill && fill.kinds[at] === valueKind.binary) {
          this.#value(column, fill.bytes, fill.starts[at]!, fill.ends[at]!, out, remark);
          continue;
        }
        if (!this.#nullable[column]) {
          throw new TidemarkError(
            'TM206',
            `a change of ${this.#label} lacks key column ${this.#name(column)}`,
          );
        }
        const placeholder = this.#placeholder[column];
        if (placeholder) out.raw(placeholder);
        else out.byte(0);
        if (remark) this.remarks.unchanged.push(this.#name(column));
      } else this.#requireBinary(kind, column);
    }
  }

  #value(column: number, bytes: Buffer, start: number, end: number, out: ByteWriter, remark: boolean): void {
    const codec = this.#codecs[column]!;
    if (!this.#nullable[column]) {
      if (!codec.encode(bytes, start, end, out)) {
        throw new TidemarkError(
          'TM208',
          `a key value in ${this.#label}.${this.#name(column)} has no exact Avro form`,
        );
      }
      return;
    }
    const savepoint = out.written;
    out.byte(2);
    if (codec.encode(bytes, start, end, out)) return;
    out.truncate(savepoint);
    out.byte(0);
    if (!remark) return;
    // Without a prototype, a column may be called __proto__.
    this.remarks.exact ??= Object.create(null) as Record<string, string>;
    this.remarks.exact[this.#name(column)] = codec.text(bytes, start, end);
  }

  #encodeSource(transaction: TransactionContext, snapshot: boolean): void {
    const { commitTimeUs, commitLsn, previousCommitLsn, xid } = transaction;
    this.#source = constant((out) => {
      out.raw(this.#sourceHead);
      out.bigLong(commitTimeUs / 1000n);
      out.raw(snapshot ? this.#snapshotName : this.#sourceName);
      out.byte(2);
      out.ascii(`["${previousCommitLsn}","${commitLsn}"]`);
      out.byte(2);
      out.bigLong(commitTimeUs);
      out.byte(2);
      out.bigLong(commitTimeUs * 1000n);
      out.raw(this.#sourceTable);
      out.byte(2);
      out.long(xid);
      out.byte(2);
      out.bigLong(commitLsn);
      out.byte(0); // xmin
    });
    this.#sourceSerial = transaction.serial;
  }

  /** Every built-in type has a binary form; text means a type without a send function. */
  #requireBinary(kind: number, column: number): void {
    if (kind === valueKind.binary) return;
    throw new TidemarkError(
      'TM208',
      `column ${this.#label}.${this.#name(column)} came as text: its type has no binary form`,
    );
  }

  get #label(): string {
    return `${this.shape.schema}.${this.shape.name}`;
  }

  #name(column: number): string {
    return this.shape.columns[column]!.name;
  }
}

function registryHead(schemaId: number): Buffer {
  const head = Buffer.alloc(5);
  head.writeUInt32BE(schemaId, 1);
  return head;
}

function constant(write: (out: ByteWriter) => void): Buffer {
  const out = new ByteWriter(512);
  write(out);
  return out.take();
}

/** Debezium puts its placeholder into text and bytes, and into arrays of text; other types are null here. */
function placeholderFor(codec: Codec): Buffer | null {
  const schema = codec.schema;
  const base = (type: unknown) =>
    typeof type === 'object' && type !== null ? (type as { type: unknown }).type : type;
  const kind = base(schema);
  if (kind === 'string' || (kind === 'bytes' && schema === 'bytes')) {
    return constant((out) => {
      out.byte(2);
      out.text(unavailableValue);
    });
  }
  if (kind === 'array') {
    const items = (schema as unknown as { items: unknown[] }).items[1];
    if (base(items) !== 'string') return null;
    return constant((out) => {
      out.byte(2);
      out.long(1);
      out.byte(2);
      out.text(unavailableValue);
      out.byte(0);
    });
  }
  return null;
}
