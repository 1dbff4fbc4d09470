/** The readers for a test file: those of the run, which test/warm-up.ts serves. */
import { inject } from 'vitest';
import { cellText, type Raw } from './raw-cell.ts';
import type { IcebergReader, ReaderCatalog, ReaderName, TableName } from './reader.ts';
import { catalogProperties, readRequest } from './reader-requests.ts';

declare module 'vitest' {
  interface ProvidedContext {
    icebergReaders: string;
  }
}

interface RawRows {
  columns: string[];
  kinds: string[];
  rows: Raw[][];
}

export function icebergReader(name: ReaderName): IcebergReader {
  return {
    name,
    async readTable(catalog, table, snapshotId) {
      const { columns, kinds, rows } = await ask<RawRows>(
        name,
        readRequest(name, catalog, table, snapshotId),
      );
      return { columns, rows: rows.map((row) => row.map((raw, i) => cellText(raw, kinds[i]!))) };
    },
  };
}

/** A table for pyiceberg to write. */
export interface WrittenTable extends TableName {
  /** Iceberg's schema in JSON. */
  schema: unknown;
  location?: string;
  tableProperties?: Record<string, string>;
  rows: Raw[][];
}

/** Creates the table where it is missing and appends the rows. @returns the id of the new snapshot */
export async function writeWithPyiceberg(
  catalog: ReaderCatalog,
  { name: table, ...rest }: WrittenTable,
): Promise<string> {
  const properties = catalogProperties('pyiceberg', catalog);
  const request = { operation: 'write', properties, table, ...rest };
  return (await ask<{ snapshot: string }>('pyiceberg', request)).snapshot;
}

/**
 * Rows of a table into other files, as a compaction or an overwrite of somebody else's does it.
 * @param filter pyiceberg's, of the rows; all without one
 * @throws Error where others committed meanwhile
 */
export async function rewriteWithPyiceberg(
  catalog: ReaderCatalog,
  { namespace, name: table }: TableName,
  filter?: string,
): Promise<void> {
  const properties = catalogProperties('pyiceberg', catalog);
  await ask('pyiceberg', { operation: 'rewrite', properties, namespace, table, filter });
}

/** SQL in Spark, in which `{catalog}` stands for the catalog. @returns the rows of the last statement */
export async function runInSpark(catalog: ReaderCatalog, statements: readonly string[]): Promise<string[]> {
  const properties = catalogProperties('spark', catalog);
  return (await ask<{ rows: string[] }>('spark', { properties, statements })).rows;
}

/**
 * The metadata that updates make of other metadata, or of none.
 * @throws Error where a requirement does not hold
 */
export async function updateWithPyiceberg(request: {
  /** JSON; null for a new table. */
  metadata: string | null;
  metadataLocation?: string;
  requirements: readonly unknown[];
  updates: readonly unknown[];
}): Promise<string> {
  return (await ask<{ metadata: string }>('pyiceberg', { operation: 'update', ...request })).metadata;
}

async function ask<Answer>(name: ReaderName, request: unknown): Promise<Answer> {
  const url = `${inject('icebergReaders')}/${name}`;
  const response = await fetch(url, { method: 'POST', body: JSON.stringify(request) });
  const answer = (await response.json()) as Answer & { error?: string };
  if (answer.error !== undefined) throw new Error(`${name}: ${answer.error}`);
  return answer;
}
