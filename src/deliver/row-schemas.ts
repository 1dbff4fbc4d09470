/** Decoders by schema id, and the rows that they read. A reader is for one schema: a Window is read in parts of one each. */
import type { CellReceiver, NativeRow } from '../connector/native-row.ts';
import type { TableShape } from '../connector/shape.ts';
import type { Cell, PartialRow, Row } from '../connector/sink.ts';
import { TidemarkError } from '../platform/errors.ts';
import {
  applyHeaders,
  compileEnvelopeDecoder,
  compileKeyDecoder,
  type EnvelopeDecoder,
  type EnvelopeFrame,
  type EnvelopeOp,
  type KeyDecoder,
} from '../publish/envelope-decoder.ts';
import type { StoredChange } from './stored-change.ts';

/** What of the registry client is needed here. */
export interface SchemaSource {
  schemaById(id: number): Promise<string>;
}

interface RowSchema {
  decoder: EnvelopeDecoder;
  keyDecoder: KeyDecoder;
}

/** Of one process; tables have few schemas over their life. */
export class RowSchemas implements RowReaders {
  readonly #source: SchemaSource;
  readonly #schemas = new Map<number, RowSchema>();

  constructor(source: SchemaSource) {
    this.#source = source;
  }

  /** A reader of rows in the shape that `schemaId` has. */
  async reader(schemaId: number): Promise<RowReader> {
    let found = this.#schemas.get(schemaId);
    if (!found) {
      const schema = await this.#source.schemaById(schemaId);
      found = { decoder: compileEnvelopeDecoder(schema), keyDecoder: compileKeyDecoder(schema) };
      this.#schemas.set(schemaId, found);
    }
    return new SchemaRowReader(schemaId, found);
  }
}

/** Reads rows of one shape. */
export interface RowReader {
  readonly shape: TableShape;
  read(change: StoredChange): ShapedChange;
  /** What is known of a Change without reading its rows; null where its headers say more than its value. */
  peek(change: StoredChange): PeekedChange | null;
  /** The row after a Change, unread: null for a delete and an eviction; undefined where headers say more than its value. */
  after(change: StoredChange): UnreadRow | null | undefined;
  /** @param key without registry header, of a record with the Change's schema */
  readKey(key: Buffer, change: Pick<StoredChange, 'schemaId'>): Cell[];
}

/** A row that is read when it is asked for. */
export interface UnreadRow extends NativeRow {
  cells(): Row;
}

export interface PeekedChange extends Pick<EnvelopeFrame, 'op' | 'commitTimeUs'> {
  before: UnreadRow | null;
  after: UnreadRow | null;
}

/** Where rows' readers come from. */
export interface RowReaders {
  /** A reader of the Changes that have this schema. */
  reader(schemaId: number): Promise<RowReader>;
}

/** A Change's row. */
export interface ShapedChange {
  op: EnvelopeOp;
  commitTimeUs: bigint;
  before: Row | null;
  /** `undefined` where the Change left the column untouched. Of a delete and an eviction: null. */
  after: PartialRow | null;
  /** The row that supplies what `after` lacks may not be in the destination yet. */
  pending: boolean;
}

class SchemaRowReader implements RowReader {
  readonly shape: TableShape;
  readonly #schemaId: number;
  readonly #decoder: EnvelopeDecoder;
  readonly #keyDecoder: KeyDecoder;

  constructor(schemaId: number, { decoder, keyDecoder }: RowSchema) {
    this.shape = decoder.shape;
    this.#schemaId = schemaId;
    this.#decoder = decoder;
    this.#keyDecoder = keyDecoder;
  }

  read(change: StoredChange): ShapedChange {
    this.#expect(change);
    const { value, unchanged, exact, pending = false } = change.load();
    const { op, before, after, commitTimeUs } = this.#decoder.decode(value);
    // The headers speak of the row that the Change is about: of a delete that is the old one.
    const exactBefore =
      before && op === 'd' ? (applyHeaders(before, this.shape, null, exact) as Row) : before;
    return {
      op,
      commitTimeUs,
      before: exactBefore,
      after: after && applyHeaders(after, this.shape, unchanged, exact),
      pending,
    };
  }

  peek(change: StoredChange): PeekedChange | null {
    this.#expect(change);
    const view = change.view();
    if (!view) return null;
    const frame = this.#decoder.frame(view.bytes, view.start, view.end);
    const row = (at: number, end: number) =>
      at < 0 ? null : new EncodedRow(this.#decoder, view.bytes, at, end);
    return {
      op: frame.op,
      commitTimeUs: frame.commitTimeUs,
      before: row(frame.beforeAt, frame.beforeEnd),
      after: row(frame.afterAt, frame.afterEnd),
    };
  }

  after(change: StoredChange): UnreadRow | null | undefined {
    this.#expect(change);
    const view = change.view();
    if (!view) return undefined;
    const at = this.#decoder.afterAt(view.bytes, view.start, view.end);
    if (at >= 0) return new EncodedRow(this.#decoder, view.bytes, at);
    // Whatever else may be without a row is none of our ops, and is refused there.
    this.#decoder.frame(view.bytes, view.start, view.end);
    return null;
  }

  readKey(key: Buffer, change: Pick<StoredChange, 'schemaId'>): Cell[] {
    this.#expect(change);
    return this.#keyDecoder(key, 0);
  }

  #expect({ schemaId }: Pick<StoredChange, 'schemaId'>): void {
    if (schemaId !== this.#schemaId)
      throw new TidemarkError(
        'TM901',
        `a Change of schema ${schemaId} stands among those of ${this.#schemaId}`,
      );
  }
}

class EncodedRow implements UnreadRow {
  readonly #decoder: EnvelopeDecoder;
  readonly #value: Buffer;
  readonly #at: number;
  #end: number;

  /** @param end behind it; -1 where that is not known yet */
  constructor(decoder: EnvelopeDecoder, value: Buffer, at: number, end = -1) {
    this.#decoder = decoder;
    this.#value = value;
    this.#at = at;
    this.#end = end;
  }

  cells(): Row {
    return this.#decoder.row(this.#value, this.#at);
  }

  pass(to: readonly (CellReceiver | null)[]): void {
    const end = this.#decoder.pass(this.#value, this.#at, to);
    if (end >= 0) this.#end = end;
  }

  get bytes(): Buffer {
    if (this.#end < 0) this.#end = this.#decoder.rowEnd(this.#value, this.#at);
    return this.#value.subarray(this.#at, this.#end);
  }
}
