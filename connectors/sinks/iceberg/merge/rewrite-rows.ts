import { readCells } from './cells.ts';
import type { Layout } from './layout.ts';
import { type MergeSpace, ownNames } from './merge-space.ts';
import type { NextLayout } from './next-layout.ts';
import { StagedRows } from './stage-rows.ts';

/** All rows of the table, in cells of another layout, as rows to be added. */
export async function rewriteRows(
  space: MergeSpace,
  before: Layout,
  layout: Layout,
  cells: Extract<NextLayout['rows'], { kind: 'rewritten' }>['cells'],
): Promise<void> {
  await space.adopt('true');
  const staged = new StagedRows(space.connection, layout, space.table('anew'));
  const old = space.table('old');
  await space.connection.run(`ALTER TABLE ${space.added} RENAME TO ${old}`);
  for await (const rows of readCells(space.connection, old, before)) {
    for (const { cells: held, position, retired } of rows) {
      const row = cells.map((source) => {
        if ('constant' in source) return source.constant;
        const cell = held[source.from]!;
        return cell === null ? null : source.cast(cell);
      });
      const waiting = staged.addWhole(row, position, retired);
      if (waiting) await waiting;
    }
  }
  await staged.end();
  await space.connection.run(
    `CREATE TEMP TABLE ${space.added} AS SELECT ${ownNames(layout).join(', ')} FROM ${staged.table}`,
  );
  await staged.drop();
  await space.connection.run(`DROP TABLE ${old}`);
}
