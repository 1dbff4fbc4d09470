/** Iceberg tables as the benchmark needs them: rows that were there before, and what writing rows takes at the least. */
import { mkdir, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { quoteName, quoteText } from '../../../connectors/object-log/sql-text.ts';
import type { TableCommit, TableIdentifier } from '../../../connectors/sinks/iceberg/catalog/catalog.ts';
import { openDatabase } from '../../../connectors/sinks/iceberg/files/database.ts';
import { writeDataFiles } from '../../../connectors/sinks/iceberg/files/write-data-files.ts';
import { icebergSink } from '../../../connectors/sinks/iceberg/index.ts';
import { Lake, type OpenTable } from '../../../connectors/sinks/iceberg/lake.ts';
import { resolveSettings } from '../../../connectors/sinks/iceberg/options.ts';
import { optionValues } from '../../conformance/option-values.ts';
import { LocalTable } from '../../iceberg/local-table.ts';
import { cpuMicros } from '../process-cost.ts';
import type { Measured } from '../race-table.ts';
import type { Destination } from './delivery-run.ts';

const rowsOfCommit = 1_000_000;

async function inTable<T>(
  { options }: Destination,
  identifier: TableIdentifier,
  work: (lake: Lake, table: OpenTable) => Promise<T>,
): Promise<T> {
  const { 'connector.class': _, ...own } = options;
  const lake = await Lake.open(resolveSettings(optionValues(icebergSink, own)));
  try {
    const table = await lake.load(identifier);
    if (table === null) throw new Error(`there is no table ${identifier.name}`);
    return await work(lake, table);
  } finally {
    await lake.close();
  }
}

/**
 * Appends rows of the sink's own making to a table of its, as a long history would have left them.
 * @param select SQL of columns by name, from `n`: one to `rows`
 */
export async function appendRows(
  destination: Destination,
  identifier: TableIdentifier,
  key: string,
  rows: number,
  select: string,
): Promise<void> {
  await inTable(destination, identifier, async (lake, { metadata, store }) => {
    const local = await LocalTable.create({
      place: { store, location: metadata.location },
      fields: [],
      key: [key],
      targetFileBytes: 64 << 20,
      catalog: {
        metadata,
        async commit(attempt) {
          await lake.catalog.commit([{ identifier, ...attempt } as unknown as TableCommit]);
          return (await lake.load(identifier))!.metadata;
        },
      },
    });
    try {
      const { connection } = local.database;
      for (let from = 1; from <= rows; from += rowsOfCommit) {
        const to = Math.min(rows, from + rowsOfCommit - 1);
        const part = `(SELECT ${select} FROM range(${from}, ${to + 1}) AS r(n))`;
        const columns = await connection.runAndReadAll(`DESCRIBE SELECT * FROM ${part}`);
        const names = new Set(columns.getRows().map(([name]) => String(name)));
        await local.commit(
          await writeDataFiles(connection, part, local.dataFileTable(), local.settings(), ({ name }) =>
            names.has(name) ? quoteName(name) : null,
          ),
        );
      }
    } finally {
      await local.remove();
    }
  });
}

/** The floor: the rows of the table's own files, by DuckDB alone, sorted by key and compressed as they are. */
export async function rewriteFiles(
  destination: Destination,
  identifier: TableIdentifier,
  key: string,
  folder: string,
): Promise<Measured> {
  return inTable(destination, identifier, async (lake, table) => {
    const live = await lake.live(table);
    const files = [...live.dataFiles()];
    const rows = files.reduce((sum, { records }) => sum + records, 0);
    await mkdir(folder, { recursive: true });
    const database = await openDatabase(folder, 512 << 20);
    const paths = files.map(({ path }) => quoteText(fileURLToPath(path)));
    const startedAt = performance.now();
    const cpuBefore = await cpuMicros(process.pid);
    await database.connection.run(
      `COPY (SELECT * FROM read_parquet([${paths.join(', ')}], hive_partitioning = false) ORDER BY ${key})
         TO ${quoteText(join(folder, 'floor.parquet'))} (FORMAT parquet, COMPRESSION zstd, ROW_GROUP_SIZE 20000)`,
    );
    const seconds = (performance.now() - startedAt) / 1000;
    const cpu = (await cpuMicros(process.pid)) - cpuBefore;
    database.close();
    await rm(folder, { recursive: true });
    return { rowsPerSecond: rows / seconds, cpuMicrosPerRow: cpu / rows, peakMiB: 0 };
  });
}
