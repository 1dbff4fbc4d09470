/** The table that a Window's rows go into before they are visible, and the one for rows that are not whole. */
import { TidemarkError } from '../../../src/connector/failure.ts';
import { tableName } from '../../../src/connector/shape.ts';
import { Blocks } from './blocks.ts';
import type { Maker } from './generation.ts';
import type { Layout } from './layout.ts';
import { quoteText } from './names.ts';

export class Stage {
  readonly table: string;
  readonly layout: Layout;
  #maker: Maker;
  #blocks: Blocks;
  #bytes = 0;
  /** Statements that wrote to it since it was empty: each makes a part at least. */
  #writes = 0;
  #batches = 0;
  #hasFill = false;

  private constructor(maker: Maker, layout: Layout) {
    this.table = maker.unit.names.stage(maker.token);
    this.layout = layout;
    this.#maker = maker;
    this.#blocks = this.#newBlocks();
  }

  /** An empty one in place of whatever this owner had. @throws TidemarkError TM403 where a newer owner was here */
  static async open(maker: Maker, layout: Layout): Promise<Stage> {
    const { unit, token } = maker;
    const stage = new Stage(maker, layout);
    await unit.drop(stage.table);
    await unit.drop(unit.names.fill(token));
    await unit.server.run(layout.create(unit.server.table(stage.table)), unit.name);
    // A newer owner that came before the table was there does not drop it.
    await unit.checkToken(token);
    return stage;
  }

  /** For the next Window. */
  reuse(maker: Maker): void {
    this.#maker = maker;
    this.#bytes = 0;
    this.#writes = 0;
    this.#blocks = this.#newBlocks();
  }

  /** Bytes sent for this Window. */
  get bytes(): number {
    return this.#bytes + this.#blocks.bytes;
  }

  get dirty(): boolean {
    return this.#writes + this.#blocks.count > 0 || this.#blocks.pending;
  }

  put(line: string): Promise<void> | undefined {
    return this.#blocks.add(line);
  }

  flush(): Promise<void> {
    return this.#blocks.flush();
  }

  settle(): Promise<void> {
    return this.#blocks.settle();
  }

  /** @param select gives `columns` */
  async insertSelect(columns: readonly string[], select: string): Promise<void> {
    const { server, name } = this.#maker.unit;
    this.#writes++;
    await server.run(`INSERT INTO ${server.table(this.table)} (${columns.join(', ')}) ${select}`, name);
  }

  /** Lines of rows that are not whole, with what `columns` defines beside the stage's own: their batch's number. */
  async insertFill(columns: readonly string[], lines: string): Promise<number> {
    const { unit, token, attempt } = this.#maker;
    const table = unit.names.fill(token);
    const names = columns.map((definition) => definition.split(' ')[0]!);
    if (!this.#hasFill) {
      const definitions = [...this.layout.definitions(), ...columns, '_batch UInt64 DEFAULT 0'];
      await unit.server.run(
        `CREATE TABLE ${unit.server.table(table)} (${definitions.join(', ')}) ENGINE = MergeTree ORDER BY _batch SETTINGS non_replicated_deduplication_window = 1000`,
        unit.name,
      );
      this.#hasFill = true;
    } else await unit.server.run(`TRUNCATE TABLE ${unit.server.table(table)}`, unit.name);
    const batch = ++this.#batches;
    this.#bytes += await unit.server.insert(
      table,
      [...this.layout.names, ...names],
      lines,
      `${attempt}/fill/${this.table}/${batch}`,
      unit.name,
    );
    return batch;
  }

  get fillTable(): string {
    const { unit, token } = this.#maker;
    return unit.server.table(unit.names.fill(token));
  }

  /** What is moved by one rename is there whole or not at all, whatever happens. @throws TidemarkError TM401 */
  async makeOnePart(): Promise<void> {
    const { server, name } = this.#maker.unit;
    if (this.#writes + this.#blocks.count <= 1 && this.#blocks.bytes < smallBytes) return;
    for (let tries = 0; ; tries++) {
      const parts = await server.select(
        `SELECT count() FROM system.parts WHERE active AND database = ${quoteText(server.database)} AND table = ${quoteText(this.table)}`,
        name,
      );
      if (Number(parts[0]![0]) <= 1) return;
      if (tries === 3) {
        throw new TidemarkError(
          'TM401',
          `${tableName(this.layout.shape)}: the server does not merge the Window’s parts`,
          {
            remedy:
              'Make room on the server’s disks, and look for SYSTEM STOP MERGES; delivery goes on by itself.',
          },
        );
      }
      await server.run(`OPTIMIZE TABLE ${server.table(this.table)} FINAL`, name);
    }
  }

  /** @throws TidemarkError TM403, or TM401 where the table is not there for another reason */
  async moveInto(rows: string): Promise<void> {
    const { unit, token } = this.#maker;
    const { server } = unit;
    const moved = await server.runIfThere(
      `ALTER TABLE ${server.table(this.table)} MOVE PARTITION tuple() TO TABLE ${server.table(rows)}`,
      unit.name,
    );
    if (!moved) {
      await unit.checkToken(token);
      throw new TidemarkError('TM401', `${unit.name}: a table of the merge is gone`);
    }
    this.#bytes += this.#blocks.bytes;
    this.#writes = 0;
    this.#blocks = this.#newBlocks();
  }

  #newBlocks(): Blocks {
    const { unit, attempt, blockBytes, next } = this.#maker;
    return new Blocks({
      server: unit.server,
      table: this.table,
      columns: this.layout.names,
      blockBytes,
      token: `${attempt}/${this.table}/${next()}`,
      about: unit.name,
    });
  }
}

/** One insert of no more than this is one part; a larger one may be cut by the server. */
const smallBytes = 16 << 20;
