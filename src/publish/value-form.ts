/**
 * Whether the stream is read with binary values or with text. Text costs more on both sides and is the same to every
 * consumer; it is read where a column has a type whose binary form nobody here knows.
 */
import type { ClientBase } from 'pg';
import { tableName } from '../connector/shape.ts';
import type { CheckFinding } from '../connector/sink.ts';
import { TidemarkError } from '../platform/errors.ts';
import type { SourceConfig } from '../platform/resolved-config.ts';
import {
  type CatalogueTable,
  columnPolicy,
  type DescribedRelation,
  trackedTables,
} from '../replicate/catalogue.ts';
import { connectSource, sourceError } from '../replicate/source.ts';
import { readSourceTypes } from '../replicate/source-types.ts';
import { readsBinary } from './types/reader-codecs.ts';

export interface TextColumn {
  table: string;
  column: string;
  type: string;
}

/** The tracked columns that can only be read as text. */
export async function textColumns(
  client: ClientBase,
  source: SourceConfig,
  tables: readonly CatalogueTable[],
): Promise<TextColumn[]> {
  const columns = tables.flatMap((table) =>
    table.columns
      .filter((column) => columnPolicy(source, table, column) !== 'drop')
      .map((column) => ({ table, column })),
  );
  const types = await readSourceTypes(
    client,
    columns.map(({ column }) => column.typeOid),
  );
  return columns
    .filter(({ column }) => !readsBinary(types, column.typeOid))
    .map(({ table, column }) => ({ table: tableName(table), column: column.name, type: column.type }));
}

/**
 * A relation of the binary stream.
 * @throws TidemarkError TM210, on which the reader starts over with text values; TM208 where the configuration wants
 *   binary values whatever comes
 */
export function requireReadable(
  { shape, types, typeOids }: DescribedRelation,
  wanted: SourceConfig['values'],
): void {
  const unread = shape.columns.filter((_, i) => !readsBinary(types, typeOids[i]!));
  if (unread.length === 0) return;
  const what = unread.map(({ name, type }) => `${tableName(shape)}.${name} (${type})`).join(', ');
  if (wanted === 'binary') {
    throw new TidemarkError('TM208', `the binary form of ${what} is not known`, {
      remedy: 'Set source.values: auto, so that values are read as text, then resume the table.',
    });
  }
  throw new TidemarkError(
    'TM210',
    `the binary form of ${what} is not known: values are read as text from now on`,
  );
}

/** What `check` says of types that are carried as text. */
export async function checkValueForm(source: SourceConfig): Promise<CheckFinding[]> {
  // A source that does not answer is a finding already.
  const client = await connectSource(source, 'tidemark/check').catch(() => null);
  if (!client) return [];
  try {
    const columns = await textColumns(client, source, await trackedTables(client, source));
    return columns.map(({ table, column, type }) => ({
      level: 'warn',
      what: `${table}.${column} has type ${type}, whose binary form Tidemark does not know: ${
        source.values === 'binary'
          ? 'the table will be parked, because source.values is binary'
          : 'it is carried as text, and the whole stream is read with text values'
      }`,
      remedy:
        source.values === 'binary'
          ? 'Set source.values: auto.'
          : `Nothing is lost. To read binary values again, drop the column from the stream (columns: { ${column}: drop }) or change its type.`,
    }));
  } catch (error) {
    if (error instanceof TidemarkError) return [];
    throw sourceError(error);
  } finally {
    await client.end().catch(() => {});
  }
}
