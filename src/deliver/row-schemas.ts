/** Decoders by schema id, and rows of an older shape brought into the Window's shape. */
import type { TableShape } from '../connector/shape.ts';
import type { Cell, PartialRow, Row } from '../connector/sink.ts';
import { TidemarkError } from '../platform/errors.ts';
import {
  applyHeaders,
  compileEnvelopeDecoder,
  compileKeyDecoder,
  type DecodedChange,
  type EnvelopeDecoder,
} from '../publish/envelope-decoder.ts';
import type { StoredChange } from './stored-change.ts';

/** What of the registry client is needed here. */
export interface SchemaSource {
  schemaById(id: number): Promise<string>;
}

interface RowSchema {
  decoder: EnvelopeDecoder;
  keyDecoder: (key: Buffer) => Cell[];
}

/** Of one process; tables have few schemas over their life. */
export class RowSchemas {
  readonly #source: SchemaSource;
  readonly #schemas = new Map<number, RowSchema>();

  constructor(source: SchemaSource) {
    this.#source = source;
  }

  async shapeOf(schemaId: number): Promise<TableShape> {
    await this.#load(schemaId);
    return this.#schemas.get(schemaId)!.decoder.shape;
  }

  /** A reader of rows in the shape that `schemaId` has. */
  async reader(schemaId: number): Promise<RowReader> {
    return new RowReader(
      await this.shapeOf(schemaId),
      schemaId,
      (id) => this.#schemas.get(id),
      (id) => this.#load(id),
    );
  }

  async #load(schemaId: number): Promise<void> {
    if (this.#schemas.has(schemaId)) return;
    const schema = await this.#source.schemaById(schemaId);
    this.#schemas.set(schemaId, {
      decoder: compileEnvelopeDecoder(schema),
      keyDecoder: compileKeyDecoder(schema),
    });
  }
}

/** A Change's row as the Window's shape has it. */
export interface ShapedChange {
  op: DecodedChange['op'];
  commitTimeUs: bigint;
  before: Row | null;
  /** `undefined` where the Change left the column untouched. Of a delete: null. */
  after: PartialRow | null;
  /** The row that supplies what `after` lacks may not be in the destination yet. */
  pending: boolean;
}

const keyHeader = Buffer.alloc(5);

export class RowReader {
  readonly shape: TableShape;
  readonly #schemaId: number;
  readonly #schema: (id: number) => RowSchema | undefined;
  readonly #load: (id: number) => Promise<void>;
  /** Schema id to, per column of the shape, its index there or −1. */
  readonly #mappings = new Map<number, number[]>();

  constructor(
    shape: TableShape,
    schemaId: number,
    schema: (id: number) => RowSchema | undefined,
    load: (id: number) => Promise<void>,
  ) {
    this.shape = shape;
    this.#schemaId = schemaId;
    this.#schema = schema;
    this.#load = load;
  }

  /** Fetches the schemas of a batch, so that the rest runs without waiting. */
  async prepare(changes: readonly Pick<StoredChange, 'schemaId'>[]): Promise<void> {
    for (const { schemaId } of changes) if (!this.#schema(schemaId)) await this.#load(schemaId);
  }

  read(change: StoredChange): ShapedChange {
    const { decoder } = this.#schemaOf(change);
    const { value, unchanged, exact, pending = false } = change.load();
    const { op, before, after, commitTimeUs } = decoder.decode(value);
    // The headers speak of the row that the Change is about: of a delete that is the old one.
    const exactBefore =
      before && op === 'd' ? (applyHeaders(before, decoder.shape, null, exact) as Row) : before;
    const partial = after && applyHeaders(after, decoder.shape, unchanged, exact);
    return {
      op,
      commitTimeUs,
      before: exactBefore && (this.#reshape(exactBefore, change.schemaId, decoder.shape) as Row),
      after: partial && this.#reshape(partial, change.schemaId, decoder.shape),
      pending,
    };
  }

  /** @param key without registry header, of a record with the Change's schema */
  readKey(key: Buffer, change: Pick<StoredChange, 'schemaId'>): Cell[] {
    return this.#schemaOf(change).keyDecoder(Buffer.concat([keyHeader, key]));
  }

  #schemaOf({ schemaId }: Pick<StoredChange, 'schemaId'>): RowSchema {
    const schema = this.#schema(schemaId);
    if (!schema) throw new TidemarkError('TM901', `schema ${schemaId} was not prepared`);
    return schema;
  }

  /** Columns by name. One that the older shape lacks is null: its default never was in the stream. */
  #reshape(row: PartialRow, schemaId: number, shape: TableShape): PartialRow {
    if (schemaId === this.#schemaId) return row;
    let mapping = this.#mappings.get(schemaId);
    if (!mapping) {
      const index = new Map(shape.columns.map(({ name }, i) => [name, i]));
      mapping = this.shape.columns.map(({ name }) => index.get(name) ?? -1);
      this.#mappings.set(schemaId, mapping);
    }
    return mapping.map((i) => (i < 0 ? null : row[i]));
  }
}
