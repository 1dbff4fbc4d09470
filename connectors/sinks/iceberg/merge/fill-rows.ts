/** Rows that left columns unchanged, completed from those that the table has. */

import { columnName } from '../plan/read-columns.ts';
import { layoutColumns } from './base-rows.ts';
import { exactOf } from './cells.ts';
import { type MergeSpace, ownNames } from './merge-space.ts';
import { fromName, rowKinds, type StagedRows } from './stage-rows.ts';

const partial = `kind IN (${rowKinds.partial}, ${rowKinds.retire})`;

/** Completes rows from those that supply their unchanged columns, as they are before anything else is done. */
export async function fillRows(space: MergeSpace, staged: StagedRows, truncated: boolean): Promise<string> {
  const { layout } = space;
  const rows = staged.table;
  const retired = columnName(layout.house.retired);
  // After a truncate there is no row that an update could be of, but for those that were let go of.
  const lost = truncated ? `kind = ${rowKinds.partial} AND ${retired} IS NOT TRUE` : 'false';
  await space.expect(
    `SELECT count(*) FROM ${rows} WHERE ${lost} AND NOT optional`,
    'rows are updated that a truncate removed',
  );
  const wanted = space.table('wanted');
  const from = layout.matched.map(({ fieldId }) => `${fromName(fieldId)} AS ${columnName(fieldId)}`);
  await space.connection.run(`CREATE TEMP TABLE ${wanted} AS SELECT rid, ${from.join(', ')}, from_exact AS ${columnName(layout.house.exact)}
    FROM ${rows} WHERE ${partial} AND NOT (${lost})`);
  const sources = space.table('sources');
  const names = ownNames(layout);
  await space.connection.run(`CREATE TEMP TABLE ${sources} AS SELECT w.rid, ${names.map((name) => `b.${name}`).join(', ')}
    FROM ${space.added} AS b JOIN ${wanted} AS w ON ${space.match('w', 'b')}`);
  const found = await space.find(wanted);
  if (found !== null) {
    const paths = await space.connection.runAndReadAll(`SELECT DISTINCT file_path FROM ${found}`);
    const files = paths.getRows().map(([path]) => space.base.live.dataFile(path as string)!);
    await space.eachGroup(files, async (group) => {
      const scan = await space.base.scan(group, layoutColumns(layout));
      await space.connection.run(`INSERT INTO ${sources} SELECT f.rid, ${names.map((name) => `b.${name}`).join(', ')}
        FROM (${scan}) AS b JOIN ${found} AS f ON f.file_path = b.file_path AND f.pos = b.pos`);
    });
    await space.connection.run(`DROP TABLE ${found}`);
  }
  await space.expect(
    `SELECT count(*) FROM ${rows} WHERE ${partial} AND NOT (${lost}) AND NOT optional AND rid NOT IN (SELECT rid FROM ${sources})`,
    'rows are updated that the destination does not have',
  );
  const filled = space.table('filled');
  const choice = (fieldId: number, p: string, s: string) =>
    `CASE WHEN list_contains(p.unchanged, ${fieldId}) THEN ${s} ELSE ${p} END`;
  const columns = layout.columns.map(({ fieldId }) => {
    const name = columnName(fieldId);
    return `${choice(fieldId, `p.${name}`, `s.${name}`)} AS ${name}`;
  });
  const exact = layout.lossy.map(
    (each) =>
      `'${each.fieldId}', ${choice(each.fieldId, exactOf('p', layout, each), exactOf('s', layout, each))}`,
  );
  const merged =
    exact.length === 0
      ? 'CAST(NULL AS VARCHAR)'
      : `nullif(CAST(json_merge_patch('{}', json_object(${exact.join(', ')})) AS VARCHAR), '{}')`;
  await space.connection.run(`CREATE TEMP TABLE ${filled} AS SELECT ${columns.join(', ')},
    p.${columnName(layout.house.position)} AS ${columnName(layout.house.position)}, p.${retired} AS ${retired},
    ${merged} AS ${columnName(layout.house.exact)}
    FROM ${rows} AS p JOIN ${sources} AS s ON p.rid = s.rid`);
  // A row that could not be completed says nothing of what is there.
  await space.connection.run(
    `DELETE FROM ${staged.texts} WHERE ${partial} AND rid NOT IN (SELECT rid FROM ${sources})`,
  );
  for (const table of [wanted, sources]) await space.connection.run(`DROP TABLE ${table}`);
  return filled;
}
