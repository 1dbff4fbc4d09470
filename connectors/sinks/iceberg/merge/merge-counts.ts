/** Numbers of copies of row images: tables without a key. */
import { type MergeSpace, ownNames } from './merge-space.ts';
import type { StagedRows } from './stage-rows.ts';
import { truncate } from './truncate.ts';

/** Merges numbers of copies of row images. */
export async function mergeCounts(space: MergeSpace, staged: StagedRows, truncated: boolean): Promise<void> {
  const rows = staged.table;
  if (truncated) {
    await truncate(space);
    await space.expect(
      `SELECT CAST(sum(greatest(0, -n - absent)) AS DOUBLE) FROM ${rows} WHERE n < 0`,
      'rows were removed, but the destination does not have them',
    );
  } else await removeCopies(space, rows);
  const names = ownNames(space.layout);
  await space.connection.run(`INSERT INTO ${space.added} (${names.join(', ')})
    SELECT ${names.map((name) => `r.${name}`).join(', ')} FROM ${rows} AS r, LATERAL (SELECT unnest(range(r.n))) WHERE r.n > 0`);
  await staged.drop();
}

async function removeCopies(space: MergeSpace, rows: string): Promise<void> {
  const wanted = space.table('fewer');
  await space.connection.run(`CREATE TEMP TABLE ${wanted} AS SELECT * FROM ${rows} WHERE n < 0`);
  const [[fewer]] = (await space.connection.runAndReadAll(`SELECT count(*) FROM ${wanted}`)).getRows() as [
    [bigint],
  ];
  if (fewer > 0n) {
    space.replannable = false;
    const copies = space.table('copies');
    await space.connection.run(`CREATE TEMP TABLE ${copies} AS SELECT w.rid, CAST(NULL AS VARCHAR) AS file_path, b.rowid AS pos
      FROM ${space.added} AS b JOIN ${wanted} AS w ON ${space.match('w', 'b')}`);
    const found = await space.find(wanted);
    if (found !== null) {
      await space.connection.run(`INSERT INTO ${copies} SELECT * FROM ${found}`);
      await space.connection.run(`DROP TABLE ${found}`);
    }
    await space.expect(
      `SELECT CAST(sum(greatest(0, -w.n - w.absent - coalesce(c.n, 0))) AS DOUBLE) FROM ${wanted} AS w
        LEFT JOIN (SELECT rid, count(*) AS n FROM ${copies} GROUP BY rid) AS c ON c.rid = w.rid`,
      'rows were removed, but the destination does not have them',
    );
    const chosen = space.table('chosen');
    // Of the copies of an image any will do.
    await space.connection.run(`CREATE TEMP TABLE ${chosen} AS SELECT file_path, pos FROM (
      SELECT c.file_path, c.pos, w.n, row_number() OVER (PARTITION BY c.rid ORDER BY c.file_path NULLS FIRST, c.pos) AS copy
      FROM ${copies} AS c JOIN ${wanted} AS w ON w.rid = c.rid) WHERE copy <= -n`);
    await space.connection.run(
      `DELETE FROM ${space.added} WHERE rowid IN (SELECT pos FROM ${chosen} WHERE file_path IS NULL)`,
    );
    await space.connection.run(
      `INSERT INTO ${space.gone} SELECT file_path, pos FROM ${chosen} WHERE file_path IS NOT NULL`,
    );
    for (const table of [copies, chosen]) await space.connection.run(`DROP TABLE ${table}`);
  }
  await space.connection.run(`DROP TABLE ${wanted}`);
}
