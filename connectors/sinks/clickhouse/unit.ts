/**
 * One Unit at the destination: which table its view shows, what that holds, and who may write it.
 *
 * A token is raised before anything else is done, then everything with which an earlier owner could still make rows
 * visible is dropped: its stage (moved into the visible table) and its view (put in the visible one's place). What an
 * owner makes for itself it makes first and then looks at the token. So either the new owner sees and drops it, or the
 * old one sees the new token; and what was committed before that is what the new owner finds.
 */
import { TidemarkError } from '../../../src/connector/failure.ts';
import { type TableShape, tableName } from '../../../src/connector/shape.ts';
import type { Server } from './client.ts';
import { Layout, parseMark } from './layout.ts';
import { fencesTable, quoteName, quoteText, type UnitNames } from './names.ts';
import { checkFormat, type Mark } from './progress.ts';
import { unescapeField } from './tab-separated.ts';

export interface Generation {
  /** Name of the table behind the view. */
  rows: string;
  layout: Layout;
}

/** What a reader sees. */
export interface Visible extends Generation {
  view: string;
  mark: Mark;
}

export class Unit {
  readonly server: Server;
  readonly names: UnitNames;
  readonly name: string;
  readonly #lowCardinality: ReadonlySet<string>;

  constructor(server: Server, names: UnitNames, name: string, lowCardinality: ReadonlySet<string>) {
    this.server = server;
    this.names = names;
    this.name = name;
    this.#lowCardinality = lowCardinality;
  }

  /** Null where this Unit was never merged. @throws TidemarkError */
  async visible(): Promise<Visible | null> {
    const { server, name } = this;
    for (let tries = 0; ; tries++) {
      const found = await this.#view();
      if (found === null) return null;
      const { view, rows } = found;
      const marks = await server.selectIfThere(
        `SELECT _progress FROM ${server.table(rows)} FINAL WHERE _kind = 1 AND _progress != ''`,
        name,
      );
      if (marks && marks.length > 0) {
        const mark = marks
          .map(([field]) => parseMark(field!) as Mark)
          .reduce((last, each) => (each.sequence > last.sequence ? each : last));
        checkFormat(mark);
        return { view, rows, mark, layout: new Layout(mark.shape, mark.ids, mark.nextId, mark.few) };
      }
      // Another owner may have put a new one in its place just now.
      if (tries === 2) {
        throw new TidemarkError('TM404', `${name}: the table behind the view is gone or was emptied`);
      }
    }
  }

  /** Whether the instance file says of the column that it has few different values. */
  hasFew(shape: TableShape, column: string): boolean {
    return this.#lowCardinality.has(`${tableName(shape)}.${column}`);
  }

  /** The largest token that was here. */
  async token(): Promise<bigint> {
    const rows = await this.server.selectIfThere(
      `SELECT max(token) FROM ${this.server.table(fencesTable)} WHERE unit = ${quoteText(this.names.id)}`,
      this.name,
    );
    return BigInt(rows?.[0]?.[0] ?? 0);
  }

  /** @throws TidemarkError TM403 where a larger token was here */
  async checkToken(token: bigint): Promise<bigint> {
    const seen = await this.token();
    if (seen > token) {
      throw new TidemarkError(
        'TM403',
        `${this.name}: the destination has seen token ${seen}, this worker has ${token}`,
      );
    }
    return seen;
  }

  /**
   * From here on no smaller token makes anything visible.
   * @returns how many generations there are that this owner may drop, the visible one among them
   * @throws TidemarkError TM403
   */
  async takeOver(token: bigint): Promise<number> {
    const { server, name, names } = this;
    if ((await this.checkToken(token)) < token) {
      await this.#ensureFences();
      await server.run(
        `INSERT INTO ${server.table(fencesTable)} (unit, token, name) VALUES (${quoteText(names.id)}, ${token}, ${quoteText(name)})`,
        name,
      );
      await this.checkToken(token);
    }
    const ours = await this.#tables();
    const before = (kind: string) =>
      ours.filter((table) => table.startsWith(names.prefix + kind) && names.tokenOf(table)! <= token);
    // What makes rows visible first: after that, what the view shows stays so.
    for (const table of [...before('view'), ...before('stage'), ...before('fill')]) await this.drop(table);
    return before('rows').length;
  }

  async drop(table: string): Promise<void> {
    await this.server.run(`DROP TABLE IF EXISTS ${this.server.table(table)} SYNC`, this.name);
  }

  /** Generations but the visible one; those of a newer owner are its own. */
  async dropOthers(token: bigint, visible: string | null): Promise<void> {
    for (const table of await this.#tables()) {
      if (!table.startsWith(`${this.names.prefix}rows`) || table === visible) continue;
      if (this.names.tokenOf(table)! <= token) await this.drop(table);
    }
  }

  async ensureDatabase(): Promise<void> {
    const { server } = this;
    const found = await server.select(
      `SELECT count() FROM system.databases WHERE name = ${quoteText(server.database)}`,
      this.name,
    );
    if (found[0]![0] === '0')
      await server.run(`CREATE DATABASE IF NOT EXISTS ${quoteName(server.database)}`, this.name);
  }

  /** The view that readers know, and the table that its comment names. */
  async #view(): Promise<{ view: string; rows: string } | null> {
    const { server, names } = this;
    // A view that is not in its place yet, or not any more, has such a comment too.
    const found = await server.select(
      `SELECT name, comment FROM system.tables WHERE database = ${quoteText(server.database)}
AND startsWith(comment, ${quoteText(`tidemark ${names.id} `)}) AND NOT startsWith(name, ${quoteText(names.prefix)})`,
      this.name,
    );
    if (found.length === 0) return null;
    const [view, comment] = found[0]!;
    return { view: unescapeField(view!)!, rows: comment!.split(' ')[2]! };
  }

  async #tables(): Promise<string[]> {
    const { server, names } = this;
    const found = await server.select(
      `SELECT name FROM system.tables WHERE database = ${quoteText(server.database)} AND startsWith(name, ${quoteText(names.prefix)})`,
      this.name,
    );
    return found.map(([table]) => table!);
  }

  async #ensureFences(): Promise<void> {
    const { server } = this;
    await server.run(
      `CREATE TABLE IF NOT EXISTS ${server.table(fencesTable)} (unit String, token UInt64, name String)
ENGINE = ReplacingMergeTree(token) ORDER BY unit SETTINGS fsync_after_insert = 1, fsync_part_directory = 1`,
      this.name,
    );
  }
}
