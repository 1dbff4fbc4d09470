/**
 * The shape of a tracked table at some moment, as the sinks see it. It travels inside the Avro value schema (see
 * publish/avro-schema.ts), so a consumer needs nothing but the Schema Registry to rebuild it.
 */
import type { ProtectingPolicy } from '../platform/column-policy.ts';

export interface TableId {
  schema: string;
  name: string;
}

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

export interface ColumnShape {
  /** The column's own name in Postgres, unmangled. */
  name: string;
  /** Type as Postgres' format_type prints it with the search path empty: `numeric(12,2)`, `text[]`, `app.severity`. */
  type: string;
  /** Set where the type (or the array's element type) is an enum. */
  enum?: EnumType;
  /** True for the columns of the primary key or replica identity index. */
  key: boolean;
  /** Set where the column leaves Postgres hashed or masked: its type is text then. */
  protection?: ColumnProtection;
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

/** `schema.name`, the way units, metrics and the ledger name a table. */
export function tableName({ schema, name }: TableId): string {
  return `${schema}.${name}`;
}
