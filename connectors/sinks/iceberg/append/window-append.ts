/** One Window in append mode: every Change of it a row, committed with what the destination then holds. */
import { randomUUID } from 'node:crypto';
import { mkdir, rm } from 'node:fs/promises';
import { join } from 'node:path';
import type { AppendWindow, Receipt } from '../../../../src/connector/sink.ts';
import type { ChangeRows } from '../../../object-log/change-row.ts';
import type { WindowTable } from '../commit-window.ts';
import { type Database, openDatabase } from '../files/database.ts';
import { finishWindow, prepareAppend } from '../finish-window.ts';
import type { OpenTable } from '../lake.ts';
import { identifierOf } from '../names.ts';
import { Attempt } from '../progress/attempt.ts';
import { propertyNames } from '../progress/properties.ts';
import { definitionOf, type Surroundings } from '../running-table.ts';
import { writeScript } from './latest-script.ts';
import { TableAppends, writeSettingsIn } from './table-appends.ts';

/**
 * @param scripts what this process wrote of each table's script: one that a crash left out is made up for
 * @throws TidemarkError; StaleMerge where it has to be made again
 */
export async function appendWindow(
  at: Surroundings,
  window: AppendWindow,
  progress: OpenTable,
  scripts: Map<string, string>,
): Promise<Receipt> {
  const { context, settings } = at;
  const folder = join(context.scratchDirectory, `window-${randomUUID()}`);
  await mkdir(folder, { recursive: true });
  const attempt = new Attempt(progress, window.sequence, window.fencingToken);
  let database: Database | null = null;
  try {
    database = await openDatabase(folder, settings.memoryBytes);
    const writing = { connection: database.connection, settings: writeSettingsIn(folder, settings) };
    const tables = new Map<string, TableAppends>();
    let last: TableAppends | null = null;
    let rows: ChangeRows | null = null;
    for (const part of window.tables) {
      const key = JSON.stringify(identifierOf(settings.namespace, part.shape));
      const table: TableAppends =
        tables.get(key) ?? (await TableAppends.open(at, window, part.shape, writing));
      tables.set(key, table);
      if (last !== table) await last?.end();
      last = table;
      rows = await table.add(part, rows);
    }
    await last?.end();
    const prepared: WindowTable[] = [];
    for (const { table, held, files, layout, changed } of tables.values()) {
      if (held) continue;
      const definition = changed ? definitionOf(table.metadata, changed) : [];
      const properties = { [propertyNames.changes]: JSON.stringify(layout) };
      prepared.push(await prepareAppend(at, window, attempt, table, { files, definition, properties }));
    }
    await context.failpoint('iceberg-sink-staged');
    const appended = rows ? Object.values(rows.counts).reduce((sum, count) => sum + count, 0) : 0;
    const receipt = await finishWindow(at, window, progress, attempt, prepared, {
      rows: { upserted: 0, deleted: 0, appended },
      contentHash: rows?.contentHash ?? '0'.repeat(32),
    });
    for (const { table, layout } of tables.values()) await writeScript(table, layout, scripts, context.log);
    database.giveBack();
    return receipt;
  } catch (error) {
    await attempt.abandon().catch(() => undefined);
    throw error;
  } finally {
    database?.close();
    await rm(folder, { recursive: true, force: true });
  }
}
