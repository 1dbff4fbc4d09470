/**
 * One table in one Window: what is added to it, and which of its rows go. Nothing of it is visible, and nothing leaves this
 * machine, before it is all there; the base is the snapshot that it was begun on.
 */
import type { DuckDBConnection } from '@duckdb/node-api';
import type { Position } from '../../../../src/connector/position.ts';
import { quoteText } from '../../../object-log/sql-text.ts';
import { duckdbType } from '../files/duckdb-type.ts';
import type { LiveFile } from '../plan/live-file.ts';
import type { LiveChange } from '../plan/live-files.ts';
import { columnName } from '../plan/read-columns.ts';
import { fileContent } from '../spec/data-file.ts';
import { type BaseRows, layoutColumns } from './base-rows.ts';
import { fillRows } from './fill-rows.ts';
import type { Layout } from './layout.ts';
import { mergeCounts } from './merge-counts.ts';
import { isLive, type MergeBase, MergeSpace, matchColumns, ownNames } from './merge-space.ts';
import type { NextLayout } from './next-layout.ts';
import { rewriteRows } from './rewrite-rows.ts';
import { rowKinds, StagedRows } from './stage-rows.ts';
import { truncate } from './truncate.ts';

export class TableMerge {
  readonly #space: MergeSpace;

  private constructor(space: MergeSpace) {
    this.#space = space;
  }

  /** @param prefix before the names of all its tables */
  static async begin(connection: DuckDBConnection, prefix: string, base: MergeBase): Promise<TableMerge> {
    const space = new MergeSpace(connection, prefix, base);
    await space.begin();
    return new TableMerge(space);
  }

  get layout(): Layout {
    return this.#space.layout;
  }

  /** The table of rows to be added, under staged names. */
  get added(): string {
    return this.#space.added;
  }

  /** The table of positions of the base's rows that go. */
  get gone(): string {
    return this.#space.gone;
  }

  get emptied(): boolean {
    return this.#space.emptied;
  }

  get base(): BaseRows {
    return this.#space.base;
  }

  /**
   * The same deletes on the snapshot that the base has gone to: rows of the keys may have been moved or added by others.
   * @returns false where it takes a merge from the beginning
   */
  async replan({ added, removed }: LiveChange): Promise<boolean> {
    const space = this.#space;
    const isData = ({ content }: LiveFile) => content === fileContent.data;
    const [fresh, lost] = [added.filter(isData), removed.filter(isData)];
    // Where somebody took deletes back, rows are there again that were deleted when they were looked for, in whatever file.
    const undeleted = !space.emptied && removed.some((each) => !isData(each));
    if (fresh.length + lost.length === 0 && !undeleted) return true;
    if (space.emptied || !space.replannable) return false;
    const paths = lost.map(({ path }) => quoteText(path));
    if (paths.length > 0)
      await space.connection.run(`DELETE FROM ${space.gone} WHERE file_path IN (${paths.join(', ')})`);
    await this.#loseFound(await space.find(space.keys, undeleted ? undefined : new Set(fresh)));
    return true;
  }

  async #loseFound(found: string | null): Promise<void> {
    if (found === null) return;
    const { connection, gone } = this.#space;
    await connection.run(`INSERT INTO ${gone} SELECT DISTINCT file_path, pos FROM ${found}`);
    await connection.run(`DROP TABLE ${found}`);
  }

  /** Takes the rows to another layout: those that were staged, and where that takes writing them anew, the base's. */
  async evolve({ layout, rows }: NextLayout): Promise<void> {
    const space = this.#space;
    const before = space.layout;
    space.parts += 1;
    const matched = (each: Layout) => JSON.stringify(matchColumns(each));
    if (matched(before) !== matched(layout)) space.replannable = false;
    if (rows.kind === 'rewritten') await rewriteRows(space, before, layout, rows.cells);
    else {
      const held = new Set(before.columns.map(({ fieldId }) => fieldId));
      const { house } = layout;
      const selected = [
        ...layout.columns.map(({ fieldId, type }) => {
          const from = held.has(fieldId) ? columnName(fieldId) : 'NULL';
          return `CAST(${from} AS ${duckdbType(type)}) AS ${columnName(fieldId)}`;
        }),
        ...[house.position, house.retired, house.exact].map(columnName),
      ];
      const old = space.table('old');
      await space.connection.run(`ALTER TABLE ${space.added} RENAME TO ${old}`);
      await space.connection.run(
        `CREATE TEMP TABLE ${space.added} AS SELECT ${selected.join(', ')} FROM ${old}${rows.kind === 'gone' ? ' WHERE false' : ''}`,
      );
      await space.connection.run(`DROP TABLE ${old}`);
      if (rows.kind === 'gone') await space.empty();
    }
    space.layout = layout;
  }

  /** Of the layout as it is now. */
  stage(): StagedRows {
    const space = this.#space;
    space.parts += 1;
    return new StagedRows(space.connection, space.layout, space.table('rows'));
  }

  /** Merges the last states of keys. */
  async mergeStates(staged: StagedRows, truncated: boolean): Promise<void> {
    const space = this.#space;
    const rows = staged.table;
    const filled = staged.partial > 0 ? await fillRows(space, staged, truncated) : null;
    if (truncated) await truncate(space);
    await this.#remove(rows);
    const names = ownNames(space.layout).join(', ');
    await space.connection.run(
      `INSERT INTO ${space.added} (${names}) SELECT ${names} FROM ${rows} WHERE kind = ${rowKinds.whole}`,
    );
    if (filled !== null) {
      await space.connection.run(`INSERT INTO ${space.added} (${names}) SELECT ${names} FROM ${filled}`);
      await space.connection.run(`DROP TABLE ${filled}`);
    }
    await staged.drop();
  }

  /** Whatever is there of the rows' keys goes. */
  async #remove(rows: string): Promise<void> {
    const space = this.#space;
    const match = space.match('w', 'b');
    const keys = matchColumns(space.layout).map(({ id }) => columnName(id));
    if (space.replannable)
      await space.connection.run(`INSERT INTO ${space.keys} SELECT rid, ${keys.join(', ')} FROM ${rows}`);
    await space.connection.run(
      `DELETE FROM ${space.added} WHERE rowid IN (SELECT b.rowid FROM ${space.added} AS b JOIN ${rows} AS w ON ${match})`,
    );
    await this.#loseFound(await space.find(rows));
  }

  /** Merges numbers of copies of row images. */
  mergeCounts(staged: StagedRows, truncated: boolean): Promise<void> {
    return mergeCounts(this.#space, staged, truncated);
  }

  /** Removes rows that are no newer, but for those that the source let go of. @returns how many */
  async sweep(since: Position): Promise<number> {
    const space = this.#space;
    const { layout } = space;
    const [position, retired] = [columnName(layout.house.position), columnName(layout.house.retired)];
    // Rows without a Position are somebody else's, who cannot know of the source.
    const old = `(b.${position} IS NULL OR b.${position} <= '${since}') AND b.${retired} IS NOT TRUE`;
    space.replannable = false;
    let removed = await space.count(`SELECT count(*) FROM ${space.added} AS b WHERE ${old}`);
    await space.connection.run(
      `DELETE FROM ${space.added} WHERE rowid IN (SELECT b.rowid FROM ${space.added} AS b WHERE ${old})`,
    );
    if (space.emptied) return removed;
    const ids = [layout.house.position, layout.house.retired];
    const columns = layoutColumns(layout).filter(({ id }) => ids.includes(id));
    const before = await space.count(`SELECT count(*) FROM ${space.gone}`);
    await space.eachGroup([...space.base.live.dataFiles()], async (files) => {
      const scan = await space.base.scan(files, columns);
      const deleted = await space.base.deletedIn(files);
      await space.connection.run(`INSERT INTO ${space.gone} SELECT b.file_path, b.pos FROM (${scan}) AS b
        WHERE ${old} AND ${isLive('b', deleted, space.gone)}`);
    });
    removed += (await space.count(`SELECT count(*) FROM ${space.gone}`)) - before;
    return removed;
  }

  /** Whether rows are added that the source let go of. */
  async addsRetired(): Promise<boolean> {
    const space = this.#space;
    const retired = columnName(space.layout.house.retired);
    return (await space.count(`SELECT count(*) FROM ${space.added} WHERE ${retired} IS TRUE`)) > 0;
  }
}
