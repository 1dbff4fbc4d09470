/**
 * The shape of a tracked table at some moment, as the sinks see it. It travels inside the Avro value schema (see
 * publish/avro-schema.ts), so a consumer needs nothing but the Schema Registry to rebuild it.
 */
import type { ProtectingPolicy } from '../platform/column-policy.ts';
import type { TableId } from '../platform/table-name.ts';

export { type TableId, tableName } from '../platform/table-name.ts';

/** How a column's values were made unreadable on their way out of Postgres. */
export interface ColumnProtection {
  policy: ProtectingPolicy;
  /** The column's type in Postgres; here it is text. */
  of: string;
  /** For hash: id of the key. */
  key?: string;
}

export interface EnumType {
  schema: string;
  name: string;
  /** Labels in their sort order. */
  labels: string[];
}

export interface ExtensionType {
  /** As in CREATE EXTENSION. */
  name: string;
  schema: string;
  type: string;
}

export interface CompositeType {
  schema: string;
  name: string;
  /** Types as `base ?? type` of a column. */
  attributes: ({ name: string; type: string } & TypeParts)[];
}

/** A range type that somebody created. */
export interface RangeType {
  schema: string;
  name: string;
  subtype: string;
  multirange: string;
}

/** What a type is made of, where that is not built in; of an array, its elements. At most one is set. */
export interface TypeParts {
  enum?: EnumType;
  extension?: ExtensionType;
  composite?: CompositeType;
  range?: RangeType;
}

/** A column whose type changed in a way that its Avro field cannot follow (`on.incompatible.change: text`). */
export interface CarriedText {
  /** Its Avro field, where that of its own name is known under another type. */
  field?: string;
  /** Its field from before and the type in it. It stays, always null, so that older records can still be read whole. */
  former?: { field: string } & Pick<ColumnShape, 'type' | 'base' | 'form'> & TypeParts;
}

export interface ColumnShape extends TypeParts {
  /** The column's own name in Postgres, unmangled. */
  name: string;
  /** Type as Postgres' format_type prints it with the search path empty: `numeric(12,2)`, `text[]`, `app.severity`. */
  type: string;
  /** The type without its domains, where it has any; text for types that name objects of the source (regclass). */
  base?: string;
  /** `text`: the value is Postgres' own text in a string, whatever the type. */
  form?: 'text';
  /** Set from the change of its type on, until it is dropped; `form` is `text` then. */
  carried?: CarriedText;
  /** True for the columns of the primary key or replica identity index. */
  key: boolean;
  /** Set where the column leaves Postgres hashed or masked: its type is text then. */
  protection?: ColumnProtection;
  /** False only where the column is part of the key. */
  nullable: boolean;
  /**
   * The column's number in its table (pg_attribute.attnum), which no other column of that table ever gets: what tells
   * a rename from a drop and an add. Absent where the source's catalogue could not say.
   */
  number?: number;
  /** What rows from before the column have in it (ADD COLUMN … DEFAULT writes no row); absent: NULL. */
  missing?: string;
}

export interface TableShape extends TableId {
  columns: ColumnShape[];
  /** Indexes into columns, in key order; empty for a table without a key. */
  keyColumns: number[];
  /** Index of the tenant column, where the table has one in its replica identity. */
  tenantColumn: number | null;
  /** pg_class.oid, where known: a table that was dropped and made anew under its name has another. */
  oid?: number;
}

/** The Unit of a table by itself, and its topic without the prefix: characters that Kafka does not allow become `_`. */
export function unitName({ schema, name }: TableId): string {
  return `${schema.replace(notInTopics, '_')}.${name.replace(notInTopics, '_')}`;
}

const notInTopics = /[^A-Za-z0-9._-]/g;
