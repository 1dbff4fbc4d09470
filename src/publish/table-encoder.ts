/**
 * encodeChange for one table: pgoutput tuple to Avro key and Debezium envelope, without intermediate objects.
 * Compiled once per shape; the constant parts of the envelope are bytes to copy.
 */
import { type ColumnShape, type TableShape, tableName } from '../connector/shape.ts';
import { TidemarkError } from '../platform/errors.ts';
import { partitionOf } from '../platform/partition.ts';
import { type ColumnProtector, protectionLabel } from '../replicate/column-protection.ts';
import { type Tuple, valueKind } from '../replicate/pgoutput.ts';
import { columnCodecs, formerFields } from './avro-schema.ts';
import { ByteMemo } from './byte-memo.ts';
import type { ByteWriter } from './byte-writer.ts';
import {
  constantBytes,
  type EncoderIdentity,
  EnvelopeFrame,
  type EnvelopeOp,
  registryHead,
  type TransactionContext,
} from './envelope-frame.ts';
import { readWithheld } from './parked-messages.ts';
import { protectedCodec, type RowTenant } from './protected-codec.ts';
import { unavailableValue } from './record-format.ts';
import type { Codec } from './types/codec.ts';

/** What a row left to its headers. Reused by the next row. */
export interface RowRemarks {
  unchanged: string[];
  exact: Record<string, string> | null;
}

export class TableEncoder {
  readonly shape: TableShape;
  readonly topic: string;
  /** Id in the registry. */
  readonly valueSchemaId: number;
  readonly remarks: RowRemarks = { unchanged: [], exact: null };
  readonly #codecs: Codec[];
  /** Per column, where its values go out hashed or masked: the label that a parked message gives such a value. */
  readonly #labels: (string | null)[];
  /** Set before a row is encoded: hashes are salted with it. */
  readonly #rowTenant: RowTenant = { tenant: null };
  readonly #hashed: boolean;
  /** For each column of the shape its index in the relation's tuples. */
  readonly #tupleIndex: number[];
  readonly #nullable: boolean[];
  /** The null branch of each field that a column carried as text had before. */
  readonly #former: Buffer;
  /** What stands for an unchanged TOAST value, union branch included; null: the null branch. */
  readonly #placeholder: (Buffer | null)[];
  readonly #keyHead: Buffer;
  readonly #tenantPartitions = new ByteMemo();
  readonly #frame: EnvelopeFrame;

  constructor(options: {
    shape: TableShape;
    topic: string;
    tupleIndex: number[];
    keySchemaId: number | null;
    valueSchemaId: number;
    identity: EncoderIdentity;
    /** With the binary forms that only the reader knows; absent: those of the shape alone. */
    codecs?: Codec[];
    /** Where a column is hashed or masked: the shape's columns as Postgres has them, and what protects them. */
    protection?: { sourceColumns: ColumnShape[]; protector: ColumnProtector };
  }) {
    const { shape, identity, protection } = options;
    this.shape = shape;
    this.topic = options.topic;
    this.valueSchemaId = options.valueSchemaId;
    const own =
      options.codecs ?? columnCodecs(protection ? { ...shape, columns: protection.sourceColumns } : shape);
    this.#codecs = shape.columns.map((column, i) =>
      column.protection
        ? protectedCodec(own[i]!, column.protection.policy, protection!.protector, this.#rowTenant)
        : own[i]!,
    );
    this.#labels = shape.columns.map(({ protection }) => (protection ? protectionLabel(protection) : null));
    this.#hashed = shape.columns.some(({ protection }) => protection?.policy === 'hash');
    this.#tupleIndex = options.tupleIndex;
    this.#nullable = shape.columns.map((column) => column.nullable);
    this.#former = Buffer.alloc(formerFields(shape).length);
    this.#placeholder = this.#codecs.map(placeholderFor);
    this.#keyHead = registryHead(options.keySchemaId ?? 0);
    this.#frame = new EnvelopeFrame(shape, options.valueSchemaId, identity);
  }

  get keyless(): boolean {
    return this.shape.keyColumns.length === 0;
  }

  /** As writeKey; the bytes stay valid as long as the caller keeps them. */
  encodeKey(tuple: Tuple, fallback: Tuple | null, out: ByteWriter): Buffer {
    out.mark();
    this.writeKey(tuple, fallback, out);
    return out.take();
  }

  /** The record key; `fallback` supplies key columns that `tuple` does not carry. */
  writeKey(tuple: Tuple, fallback: Tuple | null, out: ByteWriter): void {
    this.#enterRow(tuple, fallback);
    out.raw(this.#keyHead);
    for (const column of this.shape.keyColumns) {
      const at = this.#tupleIndex[column]!;
      const from = carrierOf(tuple, fallback, at);
      const kind = from.kinds[at];
      if (kind === valueKind.withheld) {
        out.text(this.#withheldText(column, from.bytes, from.starts[at]!, from.ends[at]!));
        continue;
      }
      if (kind !== valueKind.binary && kind !== valueKind.text) {
        throw new TidemarkError(
          'TM206',
          `a change of ${this.#label} carries no value for key column ${this.#name(column)}`,
        );
      }
      this.#keyValue(column, kind, from.bytes, from.starts[at]!, from.ends[at]!, out);
    }
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
      const from = carrierOf(tuple, fallback, at);
      if (from.kinds[at] === valueKind.text)
        return from.bytes.toString('utf8', from.starts[at]!, from.ends[at]!);
      return this.#codecs[column]!.text(from.bytes, from.starts[at]!, from.ends[at]!);
    });
  }

  /** The tenant column's text, for the partitioner; null where the tuple has no value for it. */
  tenant(tuple: Tuple, fallback: Tuple | null): string | null {
    const column = this.shape.tenantColumn;
    if (column === null) return null;
    const at = this.#tupleIndex[column]!;
    const from = carrierOf(tuple, fallback, at);
    if (from.kinds[at] === valueKind.text)
      return from.bytes.toString('utf8', from.starts[at]!, from.ends[at]!);
    if (from.kinds[at] !== valueKind.binary) return null;
    return this.#codecs[column]!.text(from.bytes, from.starts[at]!, from.ends[at]!);
  }

  /**
   * Kafka's default partition of the tenant's text, of so many; -1 where the tuple has no value for it. Tenants repeat:
   * what was found for the same bytes is kept.
   */
  tenantPartition(tuple: Tuple, fallback: Tuple | null, partitions: number): number {
    const column = this.shape.tenantColumn;
    if (column === null) return -1;
    const at = this.#tupleIndex[column]!;
    const from = carrierOf(tuple, fallback, at);
    if (from.kinds[at] !== valueKind.binary) {
      const text = this.tenant(tuple, fallback);
      return text === null ? -1 : partitionOf(Buffer.from(text, 'utf8'), partitions);
    }
    const { bytes } = from;
    const start = from.starts[at]!;
    const end = from.ends[at]!;
    const known = this.#tenantPartitions.get(bytes, start, end);
    if (known >= 0) return known;
    const text = this.#codecs[column]!.text(bytes, start, end);
    const partition = partitionOf(Buffer.from(text, 'utf8'), partitions);
    this.#tenantPartitions.set(bytes, start, end, partition);
    return partition;
  }

  /** As writeEnvelope; the bytes stay valid as long as the caller keeps them. */
  encodeEnvelope(...args: Parameters<TableEncoder['writeEnvelope']>): Buffer {
    const out = args[6];
    out.mark();
    this.writeEnvelope(...args);
    return out.take();
  }

  /**
   * The envelope.
   * @param before old row or null; `beforeIsFull` when it has every column
   * @param fill old full row that supplies unchanged TOAST values of `after`, or null
   */
  writeEnvelope(
    op: EnvelopeOp,
    before: Tuple | null,
    after: Tuple | null,
    fill: Tuple | null,
    transaction: TransactionContext,
    nowMs: number,
    out: ByteWriter,
  ): void {
    this.remarks.unchanged.length = 0;
    this.remarks.exact = null;
    this.#frame.begin(out);
    if (before) {
      out.byte(2);
      this.#row(before, null, out, op === 'd');
    } else out.byte(0);
    if (after) {
      out.byte(2);
      this.#row(after, fill, out, true);
    } else out.byte(0);
    this.#frame.end(op, transaction, nowMs, out);
  }

  /** @param remark whether this row's inexact and unchanged values go to the headers */
  #row(tuple: Tuple, fill: Tuple | null, out: ByteWriter, remark: boolean): void {
    const { bytes, kinds, starts, ends } = tuple;
    const codecs = this.#codecs;
    const tupleIndex = this.#tupleIndex;
    const nullable = this.#nullable;
    this.#enterRow(tuple, fill);
    for (let column = 0; column < codecs.length; column++) {
      const at = tupleIndex[column]!;
      const kind = kinds[at]!;
      if (kind === valueKind.binary && nullable[column]) {
        // As #value: most values of most rows, without the call.
        const savepoint = out.written;
        out.byte(2);
        const encoded = codecs[column]!.encode(bytes, starts[at]!, ends[at]!, out);
        if (encoded && !out.inexact) continue;
        if (!encoded) this.#nullAt(savepoint, out);
        this.#inexact(column, kind, bytes, starts[at]!, ends[at]!, out, remark);
      } else if (kind === valueKind.binary || kind === valueKind.text) {
        this.#value(column, kind, bytes, starts[at]!, ends[at]!, out, remark);
      } else if (kind === valueKind.null) {
        if (!this.#nullable[column]) {
          throw new TidemarkError(
            'TM206',
            `a change of ${this.#label} has NULL in key column ${this.#name(column)}`,
          );
        }
        out.byte(0);
      } else if (kind === valueKind.withheld) this.#withheld(column, tuple, at, out);
      else {
        const filled = fill?.kinds[at];
        if (filled === valueKind.binary || filled === valueKind.text) {
          this.#value(column, filled, fill!.bytes, fill!.starts[at]!, fill!.ends[at]!, out, remark);
          continue;
        }
        if (fill && fill.kinds[at] === valueKind.withheld) {
          this.#withheld(column, fill, at, out);
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
      }
    }
    if (this.#former.length > 0) out.raw(this.#former);
  }

  /** Hashes of the row that comes are salted with its tenant. */
  #enterRow(tuple: Tuple, fallback: Tuple | null): void {
    if (this.#hashed) this.#rowTenant.tenant = this.tenant(tuple, fallback);
  }

  /**
   * A row that changes its tenant gets other hashes. Of a TOASTed value that the update left untouched, and that no
   * whole old row supplies, only the hash under the old tenant is known.
   * @throws TidemarkError TM208
   */
  requireHashable(before: Tuple, after: Tuple): void {
    if (!this.#hashed || this.tenant(before, null) === this.tenant(after, before)) return;
    this.shape.columns.forEach(({ name, protection }, column) => {
      if (protection?.policy !== 'hash') return;
      if (after.kinds[this.#tupleIndex[column]!] !== valueKind.unchanged) return;
      throw new TidemarkError(
        'TM208',
        `a row of ${this.#label} changed its tenant and left hashed column ${name} untouched in TOAST: its new hash cannot be known`,
        { remedy: `alter table ${this.#label} replica identity full; -- then rebuild the table` },
      );
    });
  }

  #withheld(column: number, { bytes, starts, ends }: Tuple, at: number, out: ByteWriter): void {
    const text = this.#withheldText(column, bytes, starts[at]!, ends[at]!);
    if (this.#nullable[column]) out.byte(2);
    out.text(text);
  }

  /** What a parked message let out in place of a value. @throws TidemarkError TM208 under another policy than now */
  #withheldText(column: number, bytes: Buffer, start: number, end: number): string {
    const { label, text } = readWithheld(bytes, start, end);
    if (label === this.#labels[column] && text !== null) return text;
    throw new TidemarkError(
      'TM208',
      `${this.#label}.${this.#name(column)} was withheld while the table was parked (${label}), and its policy now is ${this.#labels[column] ?? 'keep'}`,
    );
  }

  #value(
    column: number,
    kind: number,
    bytes: Buffer,
    start: number,
    end: number,
    out: ByteWriter,
    remark: boolean,
  ): void {
    if (!this.#nullable[column]) {
      this.#keyValue(column, kind, bytes, start, end, out);
      return;
    }
    const codec = this.#codecs[column]!;
    const binary = kind === valueKind.binary;
    const savepoint = out.written;
    out.byte(2);
    const encoded = binary ? codec.encode(bytes, start, end, out) : codec.encodeText(bytes, start, end, out);
    if (encoded && !out.inexact) return;
    if (!encoded) this.#nullAt(savepoint, out);
    this.#inexact(column, kind, bytes, start, end, out, remark);
  }

  #nullAt(savepoint: number, out: ByteWriter): void {
    out.truncate(savepoint);
    out.byte(0);
  }

  /** What Avro does not hold of the value is left to the headers. */
  #inexact(
    column: number,
    kind: number,
    bytes: Buffer,
    start: number,
    end: number,
    out: ByteWriter,
    remark: boolean,
  ): void {
    out.inexact = false;
    if (!remark) return;
    // Without a prototype, a column may be called __proto__.
    this.remarks.exact ??= Object.create(null) as Record<string, string>;
    this.remarks.exact[this.#name(column)] =
      kind === valueKind.binary
        ? this.#codecs[column]!.text(bytes, start, end)
        : bytes.toString('utf8', start, end);
  }

  /** Keys must be exact: a header says nothing of a key. */
  #keyValue(column: number, kind: number, bytes: Buffer, start: number, end: number, out: ByteWriter): void {
    const codec = this.#codecs[column]!;
    const encoded =
      kind === valueKind.binary
        ? codec.encode(bytes, start, end, out)
        : codec.encodeText(bytes, start, end, out);
    if (encoded && !out.inexact) return;
    out.inexact = false;
    throw new TidemarkError(
      'TM208',
      `a key value in ${this.#label}.${this.#name(column)} has no exact Avro form`,
    );
  }

  get #label(): string {
    return tableName(this.shape);
  }

  #name(column: number): string {
    return this.shape.columns[column]!.name;
  }
}

/** The tuple that has the value: an update carries none of what it left in TOAST. */
function carrierOf(tuple: Tuple, fallback: Tuple | null, at: number): Tuple {
  return tuple.kinds[at] === valueKind.unchanged && fallback ? fallback : tuple;
}

/** Debezium puts its placeholder into text and bytes, and into arrays of text; other types are null here. */
function placeholderFor(codec: Codec): Buffer | null {
  const schema = codec.schema;
  const base = (type: unknown) =>
    typeof type === 'object' && type !== null ? (type as { type: unknown }).type : type;
  const kind = base(schema);
  if (kind === 'string' || (kind === 'bytes' && schema === 'bytes')) {
    return constantBytes((out) => {
      out.byte(2);
      out.text(unavailableValue);
    });
  }
  if (kind === 'array') {
    const items = (schema as unknown as { items: unknown[] }).items[1];
    if (base(items) !== 'string') return null;
    return constantBytes((out) => {
      out.byte(2);
      out.long(1);
      out.byte(2);
      out.text(unavailableValue);
      out.byte(0);
    });
  }
  return null;
}
