/** A table's rows as Postgres prints them, read back from its files. */
import { randomUUID } from 'node:crypto';
import { mkdir, rm } from 'node:fs/promises';
import { join } from 'node:path';
import type { TableShape } from '../../../src/connector/shape.ts';
import { pairColumns } from '../../../src/connector/shape-versions.ts';
import type { Row, SinkContext } from '../../../src/connector/sink.ts';
import { openDatabase } from './files/database.ts';
import type { Lake } from './lake.ts';
import { BaseRows, filesAtOnce, layoutColumns } from './merge/base-rows.ts';
import { readCells } from './merge/cells.ts';
import { Layout } from './merge/layout.ts';
import { identifierOf } from './names.ts';
import type { IcebergSettings } from './options.ts';
import { TableCache } from './plan/table-cache.ts';
import { propertyNames } from './progress/properties.ts';

/** @param retired takes the rows that the source let go of; null: they are among the others */
export async function* readRows(
  lake: Lake,
  context: SinkContext,
  settings: IcebergSettings,
  shape: TableShape,
  retired: ((rows: Row[]) => void) | null,
): AsyncGenerator<Row[]> {
  const table = await lake.load(identifierOf(settings.namespace, shape));
  const stored = table?.metadata.properties[propertyNames.layout];
  // A table without a Change so far was not made yet, or is empty: it has no rows.
  if (!table || stored === undefined) return;
  const layout = Layout.parse(stored);
  const folder = join(context.scratchDirectory, `read-${randomUUID()}`);
  await mkdir(folder, { recursive: true });
  const database = await openDatabase(folder, settings.memoryBytes);
  try {
    const known = await lake.known(table, layout.keyIds);
    const base = new BaseRows(
      database.connection,
      table,
      known,
      new TableCache(join(folder, 'files'), 0),
      'deleted',
    );
    const { kept } = pairColumns(layout.shape, shape);
    const from = kept.map(([held]) => layout.shape.columns.indexOf(held));
    const to = kept.map(([, column]) => shape.columns.indexOf(column));
    const missing: Row = shape.columns.map((column) => column.missing ?? null);
    const files = [...base.live.dataFiles()];
    for (let start = 0; start < files.length; start += filesAtOnce) {
      const group = files.slice(start, start + filesAtOnce);
      const scan = await base.scan(group, layoutColumns(layout));
      const deleted = await base.deletedIn(group);
      const live = `(SELECT * FROM (${scan}) AS b WHERE NOT EXISTS
        (SELECT 1 FROM ${deleted} AS d WHERE d.file_path = b.file_path AND d.pos = b.pos))`;
      for await (const rows of readCells(database.connection, live, layout)) {
        const current: Row[] = [];
        const letGo: Row[] = [];
        for (const { cells, retired: isRetired } of rows) {
          const row = missing.slice();
          for (const [i, place] of to.entries()) row[place] = cells[from[i]!]!;
          (retired && isRetired ? letGo : current).push(row);
        }
        if (letGo.length > 0) retired!(letGo);
        yield current;
      }
      await base.trim();
    }
  } finally {
    database.close();
    await rm(folder, { recursive: true, force: true });
  }
}
