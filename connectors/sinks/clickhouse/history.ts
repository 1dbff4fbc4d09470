/**
 * Every Change, append-only. Cells are Postgres' own text in maps, so that a table's history outlives each of its shapes.
 * Rows are sorted by Position, of which no two Changes share one, so what is written twice is there once; and the view
 * ends at the Position of the table's mark, so rows of a Window that is not committed do not show.
 */

import { TidemarkError } from '../../../src/connector/failure.ts';
import { type TableShape, tableName } from '../../../src/connector/shape.ts';
import type { MergeTable, MergeWindow, RowEvent } from '../../../src/connector/sink.ts';
import { Blocks } from './blocks.ts';
import type { Maker } from './generation.ts';
import { changesName, quoteText } from './names.ts';
import { quoteItem } from './tab-separated.ts';
import type { Generation, Unit } from './unit.ts';

const columns = ['op', 'position', 'commit_time', 'key', 'values', 'unchanged', 'previous_key', 'before'];
const cells = 'Map(LowCardinality(String), Nullable(String))';

export async function ensureHistory(unit: Unit): Promise<void> {
  const { server, names, name } = unit;
  await server.run(
    `CREATE TABLE IF NOT EXISTS ${server.table(names.changes)} (
  op LowCardinality(String), position FixedString(42), commit_time DateTime64(6, 'UTC'),
  key ${cells}, values ${cells}, unchanged Array(LowCardinality(String)), previous_key ${cells}, before ${cells}
) ENGINE = ReplacingMergeTree ORDER BY position
SETTINGS non_replicated_deduplication_window = 10000, fsync_after_insert = 1, fsync_part_directory = 1`,
    name,
  );
}

/** Before the rows it tells of are visible; it does not show either until then. */
export async function writeHistory(
  maker: Maker,
  window: MergeWindow,
  tables: readonly MergeTable[],
): Promise<number> {
  const { unit } = maker;
  let bytes = 0;
  for (const [i, table] of tables.entries()) {
    // The same Window in another attempt has the same blocks: those that arrived are not written again.
    const blocks = new Blocks({
      server: unit.server,
      table: unit.names.changes,
      columns,
      blockBytes: maker.blockBytes,
      token: `${unit.names.id}/${window.sequence}/${window.to}/${i}/${maker.blockBytes}`,
      about: unit.name,
    });
    try {
      for await (const events of table.events()) {
        for (const event of events) {
          const sending = blocks.add(line(table.shape, event));
          if (sending) await sending;
        }
      }
      await blocks.flush();
    } finally {
      await blocks.settle();
    }
    bytes += blocks.bytes;
  }
  return bytes;
}

/**
 * After the rows are visible: the history shows up to the mark of the table that it names.
 * @throws TidemarkError TM405 where something else has the view's name
 */
export async function showHistory(unit: Unit, { rows, layout }: Generation): Promise<void> {
  const { server, names, name } = unit;
  const view = changesName(layout.shape);
  const found = await server.select(
    `SELECT comment FROM system.tables WHERE database = ${quoteText(server.database)} AND name = ${quoteText(view)}`,
    name,
  );
  const comment = `tidemark-changes ${names.id} ${rows}`;
  if (found[0]?.[0] === comment) return;
  // A table of the source may be called so; its view says what it holds, and must not be replaced.
  if (found.length > 0 && !found[0]![0]!.startsWith(`tidemark-changes ${names.id} `)) {
    throw new TidemarkError(
      'TM405',
      `${tableName(layout.shape)}: its history would be ${server.table(view)}, which is something else`,
      { remedy: 'Set history to false, or rename one of the two tables.' },
    );
  }
  await server.run(
    `CREATE OR REPLACE VIEW ${server.table(view)} AS SELECT ${columns.join(', ')} FROM ${server.table(names.changes)} FINAL
WHERE position <= (SELECT max(JSONExtractString(_progress, 'position')) FROM ${server.table(rows)} FINAL WHERE _kind = 1)
COMMENT ${quoteText(comment)}`,
    name,
  );
}

function line(shape: TableShape, event: RowEvent): string {
  const names = shape.columns.map(({ name }) => quoteItem(name));
  const keys = shape.keyColumns.map((i) => names[i]!);
  const map = (of: readonly string[], row: readonly (string | null | undefined)[] | null) => {
    const entries = (row ?? []).flatMap((cell, i) =>
      cell === undefined ? [] : `${of[i]}:${cell === null ? 'NULL' : quoteItem(cell)}`,
    );
    return `{${entries.join(',')}}`;
  };
  const unchanged = event.values.flatMap((cell, i) => (cell === undefined ? names[i]! : []));
  const { commitTimeUs } = event;
  const seconds = commitTimeUs / 1_000_000n;
  const micros = String(commitTimeUs % 1_000_000n).padStart(6, '0');
  return `${[
    event.op,
    event.position,
    `${seconds}.${micros}`,
    map(keys, event.key),
    map(names, event.values),
    `[${unchanged.join(',')}]`,
    map(keys, event.previousKey),
    map(names, event.before),
  ].join('\t')}\n`;
}
