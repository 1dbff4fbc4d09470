/** The tables of the stream by OID: how each was described last, and what else the stream told of it. */
import { type TableId, tableName } from '../connector/shape.ts';
import { laterNote, type ShapeNote } from '../replicate/column-origins.ts';
import { type Relation, type Tuple, valueKind } from '../replicate/pgoutput.ts';
import type { ParkedMessages } from './parked-messages.ts';
import type { TableEncoder } from './table-encoder.ts';

/** A table as the stream describes it. It is prepared at its first change: a partition's Relation comes without any. */
export type KnownTable =
  | { kind: 'described'; relation: Relation; raw: Buffer }
  | { kind: 'published'; relation: Relation; encoder: TableEncoder; parking: ParkedMessages; raw: Buffer }
  | { kind: 'parked'; name: string; columns: string[]; parking: ParkedMessages; raw: Buffer };

export class KnownTables {
  readonly #tables = new Map<number, KnownTable>();
  readonly #shapeNotes = new Map<number, ShapeNote>();
  readonly #formerNames = new Map<number, string>();
  /** By table, what it was while it was published; a changed Relation replaces the encoder. */
  readonly #moves = new Map<string, string[]>();

  get(oid: number): KnownTable | undefined {
    return this.#tables.get(oid);
  }

  /** Of the table as the stream has it at present, with its Relation; null where nothing of it was streamed. */
  encoderOf(table: TableId): { encoder: TableEncoder; columns: string[] } | null {
    const name = tableName(table);
    for (const known of this.#tables.values())
      if (known.kind === 'published' && tableName(known.relation) === name)
        return { encoder: known.encoder, columns: known.relation.columns.map((column) => column.name) };
    return null;
  }

  /** By a Relation message, which is copied. */
  describe(relation: Relation, raw: Buffer): void {
    const known = this.#tables.get(relation.oid);
    const formerName = known && nameOf(known);
    if (formerName !== undefined && formerName !== tableName(relation))
      this.#formerNames.set(relation.oid, formerName);
    this.#tables.set(relation.oid, { kind: 'described', relation, raw: Buffer.from(raw) });
  }

  publish(relation: Relation, parking: ParkedMessages, encoder: TableEncoder): void {
    const { raw } = this.#tables.get(relation.oid)!;
    this.#tables.set(relation.oid, { kind: 'published', relation, encoder, parking, raw });
    this.#moves.set(tableName(relation), movesOf(encoder));
  }

  /** @returns the Relation message that describes it */
  park(relation: Relation, parking: ParkedMessages): Buffer {
    const { raw } = this.#tables.get(relation.oid)!;
    const columns = relation.columns.map((column) => column.name);
    this.#tables.set(relation.oid, { kind: 'parked', name: tableName(relation), columns, parking, raw });
    return raw;
  }

  /** What the optional event trigger told; null: nothing. */
  noteOf(oid: number): ShapeNote | null {
    return this.#shapeNotes.get(oid) ?? null;
  }

  note(note: ShapeNote): void {
    this.#shapeNotes.set(note.oid, laterNote(this.#shapeNotes.get(note.oid), note));
  }

  /** Of a parked table: its notes come once more, in their order. */
  forgetNotes(parked: string): void {
    for (const [oid, known] of this.#tables)
      if (known.kind === 'parked' && known.name === parked) this.#shapeNotes.delete(oid);
  }

  /** The name that the table had in this stream before; null: none. */
  formerNameOf(oid: number): string | null {
    return this.#formerNames.get(oid) ?? null;
  }

  /** The columns whose change made an update a delete and a create; null where the table was never published here. */
  movesOf(name: string): string[] | null {
    return this.#moves.get(name) ?? null;
  }

  /** New labels come without a Relation message. */
  describeAgain(type: { schema: string; name: string }): void {
    for (const [oid, table] of this.#tables) {
      if (table.kind !== 'published') continue;
      const uses = table.encoder.shape.columns.some(
        ({ enum: used }) => used?.schema === type.schema && used.name === type.name,
      );
      const { relation, raw } = table;
      if (uses) this.#tables.set(oid, { kind: 'described', relation, raw });
    }
  }
}

export function nameOf(table: KnownTable): string {
  return table.kind === 'parked' ? table.name : tableName(table.relation);
}

/** None for a table without a key: there every update is both. */
function movesOf({ shape, keyless }: TableEncoder): string[] {
  if (keyless) return [];
  const columns = new Set(shape.keyColumns);
  if (shape.tenantColumn !== null) columns.add(shape.tenantColumn);
  return [...columns].map((column) => shape.columns[column]!.name);
}

/** Whether an update of a parked table changed one of the columns. @param moves empty: any update counts */
export function changesAny(
  { columns }: KnownTable & { kind: 'parked' },
  moves: readonly string[],
  before: Tuple,
  after: Tuple,
): boolean {
  if (moves.length === 0) return true;
  return columns.some((name, at) => {
    if (!moves.includes(name) || after.kinds[at] === valueKind.unchanged) return false;
    const oldBytes = before.bytes.subarray(before.starts[at], before.ends[at]);
    return !oldBytes.equals(after.bytes.subarray(after.starts[at], after.ends[at]));
  });
}
