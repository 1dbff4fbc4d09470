/** Decoders by schema id, and the rows that they read. A reader is for one schema: a Window is read in parts of one each. */
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
  /** @param key without registry header, of a record with the Change's schema */
  readKey(key: Buffer, change: Pick<StoredChange, 'schemaId'>): Cell[];
}

/** Where rows' readers come from. */
export interface RowReaders {
  /** A reader of the Changes that have this schema. */
  reader(schemaId: number): Promise<RowReader>;
}

/** A Change's row. */
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

class SchemaRowReader implements RowReader {
  readonly shape: TableShape;
  readonly #schemaId: number;
  readonly #decoder: EnvelopeDecoder;
  readonly #keyDecoder: (key: Buffer) => Cell[];

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

  readKey(key: Buffer, change: Pick<StoredChange, 'schemaId'>): Cell[] {
    this.#expect(change);
    return this.#keyDecoder(Buffer.concat([keyHeader, key]));
  }

  #expect({ schemaId }: Pick<StoredChange, 'schemaId'>): void {
    if (schemaId !== this.#schemaId)
      throw new TidemarkError(
        'TM901',
        `a Change of schema ${schemaId} stands among those of ${this.#schemaId}`,
      );
  }
}
