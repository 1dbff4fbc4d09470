/** What a merge of one table works in: tables of DuckDB's, the base that it looks rows up in, and what all its steps ask. */
import type { DuckDBConnection } from '@duckdb/node-api';
import { TidemarkError } from '../../../../src/connector/failure.ts';
import { tableName } from '../../../../src/connector/shape.ts';
import { duckdbType } from '../files/duckdb-type.ts';
import type { LiveFile } from '../plan/live-file.ts';
import { columnName, type FieldColumn } from '../plan/read-columns.ts';
import { type BaseRows, filesAtOnce, layoutColumns } from './base-rows.ts';
import { exactOf } from './cells.ts';
import type { Layout } from './layout.ts';

export interface MergeBase {
  rows: BaseRows;
  /** Read with this layout at first. */
  layout: Layout;
  mayHaveRetired: boolean;
}

export class MergeSpace {
  readonly connection: DuckDBConnection;
  /** Before the names of all its tables. */
  readonly #prefix: string;
  readonly base: BaseRows;
  readonly mayHaveRetired: boolean;
  layout: Layout;
  /** None of the base's rows stays where it is. */
  emptied = false;
  /** What goes is told by the keys alone. */
  replannable = true;
  /** Tells the tables of one part of the Window from those of the next. */
  parts = 0;

  constructor(connection: DuckDBConnection, prefix: string, base: MergeBase) {
    this.connection = connection;
    this.#prefix = prefix;
    this.base = base.rows;
    this.layout = base.layout;
    this.mayHaveRetired = base.mayHaveRetired;
  }

  async begin(): Promise<void> {
    for (const definition of [
      `${this.added} (${definitionOf(layoutColumns(this.layout))})`,
      `${this.gone} (file_path VARCHAR, pos BIGINT)`,
      `${this.keys} (rid INTEGER, ${definitionOf(matchColumns(this.layout))})`,
    ])
      await this.connection.run(`CREATE TEMP TABLE ${definition}`);
  }

  /** Rows to be added, under staged names. */
  get added(): string {
    return `${this.#prefix}_added`;
  }

  /** Positions of the base's rows that go. */
  get gone(): string {
    return `${this.#prefix}_gone`;
  }

  /** Keys of all rows that go or are replaced. */
  get keys(): string {
    return `${this.#prefix}_keys`;
  }

  table(what: string): string {
    return `${this.#prefix}_${this.parts}_${what}`;
  }

  async count(sql: string): Promise<number> {
    return Number((await this.connection.runAndReadAll(sql)).getRows()[0]![0] ?? 0);
  }

  /** Makes the base's rows for which `which` holds rows to be added, and takes all files out of the table. */
  async adopt(which: string): Promise<void> {
    if (this.emptied) return;
    const { layout } = this;
    await this.eachGroup([...this.base.live.dataFiles()], async (files) => {
      const scan = await this.base.scan(files, layoutColumns(layout));
      const deleted = await this.base.deletedIn(files);
      await this.connection.run(`INSERT INTO ${this.added} (${ownNames(layout).join(', ')})
        SELECT ${ownNames(layout).join(', ')} FROM (${scan}) AS b
        WHERE (${which}) AND ${isLive('b', deleted, this.gone)}`);
    });
    await this.empty();
  }

  async empty(): Promise<void> {
    this.emptied = true;
    await this.connection.run(`DELETE FROM ${this.gone}`);
  }

  async eachGroup(files: readonly LiveFile[], work: (files: LiveFile[]) => Promise<void>): Promise<void> {
    for (let start = 0; start < files.length; start += filesAtOnce) {
      await work(files.slice(start, start + filesAtOnce));
      await this.base.trim();
    }
  }

  /**
   * Where the base has rows that match: a table of `rid`, `file_path` and `pos`, without those that are deleted; null where
   * there is no file to look into.
   */
  async find(wanted: string, only?: ReadonlySet<LiveFile>): Promise<string | null> {
    if (this.emptied) return null;
    const { layout, connection } = this;
    const found = this.table('found');
    if (layout.keyed) {
      const rows = await this.base.find(layout, wanted, only);
      if (rows.count === 0) return null;
      await rows.toTable(connection, found);
      await connection.run(`DELETE FROM ${found} AS b WHERE NOT ${isAbsent('b', this.gone)}`);
      return found;
    }
    const all = await this.base.candidates(layout, wanted);
    const files = only ? all.filter((file) => only.has(file)) : all;
    if (files.length === 0) return null;
    await connection.run(`CREATE TEMP TABLE ${found} (rid INTEGER, file_path VARCHAR, pos BIGINT)`);
    await this.eachGroup(files, async (group) => {
      const scan = await this.base.scan(group, matchColumns(layout));
      const deleted = await this.base.deletedIn(group);
      await connection.run(`INSERT INTO ${found} SELECT w.rid, b.file_path, b.pos FROM (${scan}) AS b
        JOIN ${wanted} AS w ON ${this.match('w', 'b')} WHERE ${isLive('b', deleted, this.gone)}`);
    });
    return found;
  }

  match(left: string, right: string): string {
    return this.layout.matched
      .map((column) => {
        const name = columnName(column.fieldId);
        const same = `${left}.${name} IS NOT DISTINCT FROM ${right}.${name}`;
        if (!column.lossy) return same;
        const [one, other] = [exactOf(left, this.layout, column), exactOf(right, this.layout, column)];
        return `${same} AND ${one} IS NOT DISTINCT FROM ${other}`;
      })
      .join(' AND ');
  }

  async expect(count: string, what: string): Promise<void> {
    const missing = await this.count(count);
    if (missing > 0) throw new TidemarkError('TM407', `${tableName(this.layout.shape)}: ${missing} ${what}`);
  }
}

export function ownNames({ columns, house }: Layout): string[] {
  return [...columns.map(({ fieldId }) => fieldId), house.position, house.retired, house.exact].map(
    columnName,
  );
}

/** What rows are found by. */
export function matchColumns(layout: Layout): FieldColumn[] {
  const ids = new Set(layout.matched.map(({ fieldId }) => fieldId));
  if (layout.matched.some(({ lossy }) => lossy)) ids.add(layout.house.exact);
  return layoutColumns(layout).filter(({ id }) => ids.has(id));
}

function definitionOf(columns: readonly FieldColumn[]): string {
  return columns.map(({ id, type }) => `${columnName(id)} ${duckdbType(type)}`).join(', ');
}

/** SQL of whether a row is in neither of two tables of positions. */
export function isLive(row: string, deleted: string, gone: string): string {
  return `${isAbsent(row, deleted)} AND ${isAbsent(row, gone)}`;
}

function isAbsent(row: string, positions: string): string {
  return `NOT EXISTS (SELECT 1 FROM ${positions} AS d WHERE d.file_path = ${row}.file_path AND d.pos = ${row}.pos)`;
}
