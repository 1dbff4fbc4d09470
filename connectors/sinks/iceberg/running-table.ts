/** A table as a Window meets it, and its merge. */
import type { DuckDBConnection } from '@duckdb/node-api';
import { TidemarkError } from '../../../src/connector/failure.ts';
import { type TableShape, tableName } from '../../../src/connector/shape.ts';
import type { MergeWindow, SinkContext } from '../../../src/connector/sink.ts';
import { unsupported } from './failures.ts';
import type { Lake, OpenTable } from './lake.ts';
import { BaseRows } from './merge/base-rows.ts';
import { Layout } from './merge/layout.ts';
import { newTable } from './merge/new-table.ts';
import { type NextLayout, nextLayout } from './merge/next-layout.ts';
import { specUpdates } from './merge/next-spec.ts';
import { TableMerge } from './merge/table-merge.ts';
import { identifierOf } from './names.ts';
import type { IcebergSettings } from './options.ts';
import type { TableCache } from './plan/table-cache.ts';
import type { ProgressTable } from './progress/progress-table.ts';
import { propertyNames, readMark } from './progress/properties.ts';
import { checkHistory } from './progress/table-history.ts';
import { currentSchema, type TableMetadata } from './spec/table-metadata.ts';
import type { TableUpdate } from './spec/updates.ts';

export interface Surroundings {
  context: SinkContext;
  settings: IcebergSettings;
  lake: Lake;
  progressTable: ProgressTable;
  cache: TableCache;
}

export interface RunningTable {
  table: OpenTable;
  /** Null where the table holds the Window already. */
  merge: TableMerge | null;
  /** As of the last shape. */
  definition: TableUpdate[];
  /** Fields of columns that go on in another field, by the field that the table has them in. */
  moved: ReadonlyMap<number, number>;
  metadata: TableMetadata;
  hadRetired: boolean;
}

/** Made where it is missing. @param prefix before the names of its tables in DuckDB */
export async function openTable(
  at: Surroundings,
  window: MergeWindow,
  connection: DuckDBConnection,
  prefix: string,
  shape: TableShape,
): Promise<RunningTable> {
  const identifier = identifierOf(at.settings.namespace, shape);
  const { lake, settings, context, cache } = at;
  const table = await lake.ensure(identifier, () => newTable(shape, window, settings));
  const { metadata } = table;
  const mark = readMark(metadata.properties, context, `table ${identifier.name}`);
  checkHistory(table);
  if (metadata.properties[propertyNames.changes] !== undefined) {
    throw unsupported(
      `table ${identifier.name} keeps every Change, and iceberg.mode is merge`,
      'Give the destination another namespace (iceberg.namespace), or set iceberg.mode to append.',
    );
  }
  const stored = metadata.properties[propertyNames.layout];
  const before = stored === undefined ? null : Layout.parse(stored);
  if (before && tableName(before.shape) !== tableName(shape)) {
    throw new TidemarkError(
      'TM405',
      `${tableName(shape)} and ${tableName(before.shape)} would be one table, ${identifier.name}`,
      { remedy: 'Put {schema} into iceberg.namespace.' },
    );
  }
  const next = nextLayout(
    before,
    currentSchema(metadata),
    metadata['last-column-id'],
    before?.shape ?? shape,
    metadata,
  );
  const known = await lake.known(table, next.layout.keyIds);
  const base = new BaseRows(connection, table, known, cache, `${prefix}_deleted`);
  const hadRetired = metadata.properties[propertyNames.retired] === 'true';
  const holds = mark !== null && mark.sequence >= window.sequence;
  return {
    table,
    merge: holds
      ? null
      : await TableMerge.begin(connection, prefix, {
          rows: base,
          layout: next.layout,
          mayHaveRetired: hadRetired,
        }),
    definition: definitionOf(metadata, next),
    moved: new Map(),
    metadata,
    hadRetired,
  };
}

/**
 * The updates that give a table its next schema.
 * @param moved fields of columns that go on in another field, by the field that they have in `metadata`
 */
export function definitionOf(
  metadata: TableMetadata,
  { schema, schemaChanged, lastColumnId }: Pick<NextLayout, 'schema' | 'schemaChanged' | 'lastColumnId'>,
  moved: ReadonlyMap<number, number> = new Map(),
): TableUpdate[] {
  if (!schemaChanged) return [];
  const { before, behind } = specUpdates(metadata, schema, moved);
  return [
    ...before,
    { action: 'add-schema', schema, 'last-column-id': lastColumnId },
    { action: 'set-current-schema', 'schema-id': -1 },
    ...behind,
  ];
}
