/** Iceberg tables as libraries that are not ours read them. */
import type { Cell } from '../../src/connector/sink.ts';

/** How a reader finds the catalog and the files of its tables. */
export interface ReaderCatalog {
  /** Of a REST catalog, without `/v1`. */
  uri: string;
  warehouse?: string;
  /** Client credentials, for a catalog that wants a token. */
  oauth2?: { tokenUrl: string; clientId: string; clientSecret: string };
  s3?: { endpoint: string; region: string; accessKeyId: string; secretAccessKey: string };
}

export interface TableName {
  namespace: readonly string[];
  name: string;
}

export interface TableRows {
  columns: string[];
  /** Text as Postgres prints it; in no particular order. */
  rows: Cell[][];
}

export interface IcebergReader {
  readonly name: ReaderName;
  /** The table as it is now in the catalog, or as of one of its snapshots. @throws Error with the library's own words */
  readTable(catalog: ReaderCatalog, table: TableName, snapshotId?: string): Promise<TableRows>;
}

/** Spark knows no `time` before 4.1: it refuses a table with such a column whole. */
export const readerNames = ['pyiceberg', 'duckdb', 'spark'] as const;
export type ReaderName = (typeof readerNames)[number];
