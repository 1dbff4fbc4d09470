/** A table's rows as its Changes leave them, as of a Position: read back from the files by the views of object logs. */
import { randomUUID } from 'node:crypto';
import { mkdir, rm } from 'node:fs/promises';
import { join } from 'node:path';
import type { Position } from '../../../../src/connector/position.ts';
import type { TableShape } from '../../../../src/connector/shape.ts';
import type { Row, SinkContext } from '../../../../src/connector/sink.ts';
import { dictionaryLimit } from '../../../object-log/dictionary-limit.ts';
import { duckdbFailure } from '../../../object-log/duckdb-failure.ts';
import { assignFields, metadataColumns, storedColumns } from '../../../object-log/fields.ts';
import { heldFields } from '../../../object-log/latest-view.ts';
import { latestRows, leastReadBytes, parquetRelation } from '../../../object-log/read-back.ts';
import { quoteName, quoteText } from '../../../object-log/sql-text.ts';
import { storageOf } from '../../../object-log/storage.ts';
import { unsupported } from '../failures.ts';
import { openDatabase } from '../files/database.ts';
import type { Lake, OpenTable } from '../lake.ts';
import { BaseRows, filesAtOnce } from '../merge/base-rows.ts';
import { identifierOf } from '../names.ts';
import { type IcebergSettings, memoryKey } from '../options.ts';
import { columnName } from '../plan/read-columns.ts';
import { TableCache } from '../plan/table-cache.ts';
import { currentSchema } from '../spec/table-metadata.ts';
import type { ChangeLayout } from './change-layout.ts';
import { changeLayoutOf } from './changes-table.ts';

/** @param retired takes the rows that the source let go of; null: they are among the others */
export async function* readLatest(
  lake: Lake,
  context: SinkContext,
  settings: IcebergSettings,
  shape: TableShape,
  at: Position,
  retired: ((rows: Row[]) => void) | null,
): AsyncGenerator<Row[]> {
  const table = await lake.load(identifierOf(settings.namespace, shape));
  const layout = table && changeLayoutOf(table);
  // A table without a Change so far has no rows.
  if (!table || !layout) return;
  const memoryBytes = Math.max(settings.memoryBytes, leastReadBytes(shape));
  const folder = join(context.scratchDirectory, `read-${randomUUID()}`);
  await mkdir(folder, { recursive: true });
  const database = await openDatabase(folder, memoryBytes);
  const { connection } = database;
  try {
    const known = await lake.known(table, []);
    const cache = new TableCache(join(folder, 'files'), 0);
    const base = new BaseRows(connection, table, known, cache, 'deleted');
    const columns = storedColumns(shape, assignFields(shape, layout.fields), storageOf);
    const held = new Map(heldFields(columns).map(({ field, storage }) => [field, storage.duckdbType]));
    const names = [...metadataColumns, ...held].map(([field, type]) => ({ field: field as string, type }));
    const sources = names.map((each) => sourceOf(table, layout, each));
    const wanted = sources.flatMap(({ field }) => field ?? []);
    const selected = sources.map(({ sql }) => sql).join(', ');
    const paths: string[] = [];
    const files = [...base.live.dataFiles()];
    if (files.length === 0) return;
    for (let start = 0; start < files.length; start += filesAtOnce) {
      const group = files.slice(start, start + filesAtOnce);
      const scan = await base.scan(group, wanted);
      const deleted = await base.deletedIn(group);
      const path = join(folder, `copied-${start}.parquet`);
      await connection.run(`COPY (SELECT ${selected} FROM (${scan}) AS b WHERE NOT EXISTS
          (SELECT 1 FROM ${deleted} AS d WHERE d.file_path = b.file_path AND d.pos = b.pos))
        TO ${quoteText(path)} (FORMAT parquet, COMPRESSION lz4_raw, ROW_GROUP_SIZE_BYTES '16MB',
          ${dictionaryLimit(sources.length, memoryBytes)})`);
      paths.push(path);
      await base.trim();
    }
    const { keyColumns } = shape;
    const view = { columns, keyColumns, reshaped: layout.reshaped };
    const source = parquetRelation(paths);
    yield* latestRows(connection, { table: view, source, paths, at, memoryBytes }, retired);
  } catch (error) {
    throw duckdbFailure(error, `read ${shape.schema}.${shape.name} back`, memoryKey);
  } finally {
    database.close();
    await rm(folder, { recursive: true, force: true });
  }
}

/**
 * SQL of a column, and the field that it reads; null of a column that is newer than the last Window.
 * @throws TidemarkError TM405 where somebody else dropped it
 */
function sourceOf(
  { identifier, metadata }: OpenTable,
  { ids }: ChangeLayout,
  { field: name, type }: { field: string; type: string },
) {
  const id = ids[name];
  if (id === undefined) return { field: null, sql: `CAST(NULL AS ${type}) AS ${quoteName(name)}` };
  const field = currentSchema(metadata).fields.find((each) => each.id === id);
  if (field) return { field, sql: `b.${columnName(id)} AS ${quoteName(name)}` };
  throw unsupported(
    `table ${identifier.name}: its column ${JSON.stringify(name)} was dropped by somebody else`,
    'Roll the table back to a schema that has it, or give the table to a new destination.',
  );
}
