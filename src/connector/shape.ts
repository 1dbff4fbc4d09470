/**
 * The shape of a tracked table at some moment, as the sinks see it. It travels inside the Avro value schema (see
 * publish/avro-schema.ts), so a consumer needs nothing but the Schema Registry to rebuild it.
 */
export interface TableId {
  schema: string;
  name: string;
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

export interface ColumnShape extends TypeParts {
  /** The column's own name in Postgres, unmangled. */
  name: string;
  /** Type as Postgres' format_type prints it with the search path empty: `numeric(12,2)`, `text[]`, `app.severity`. */
  type: string;
  /** The type without its domains, where it has any; text for types that name objects of the source (regclass). */
  base?: string;
  /** `text`: the value is Postgres' own text in a string, whatever the type. */
  form?: 'text';
  /** True for the columns of the primary key or replica identity index. */
  key: boolean;
  /** False only where the column is part of the key. */
  nullable: boolean;
}

export interface TableShape extends TableId {
  columns: ColumnShape[];
  /** Indexes into columns, in key order; empty for a table without a key. */
  keyColumns: number[];
  /** Index of the tenant column, where the table has one in its replica identity. */
  tenantColumn: number | null;
}

/** `schema.name`, the way messages name a table. */
export function tableName({ schema, name }: TableId): string {
  return `${schema}.${name}`;
}

/** The Unit of a table by itself, and its topic without the prefix: characters that Kafka does not allow become `_`. */
export function unitName({ schema, name }: TableId): string {
  return `${schema.replace(notInTopics, '_')}.${name.replace(notInTopics, '_')}`;
}

const notInTopics = /[^A-Za-z0-9._-]/g;
