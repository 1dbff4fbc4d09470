/**
 * The merge of one Window. Rows go into a stage, a table of the same structure, and from there become visible at once:
 *
 * - The usual way: the stage is made one part, which is moved into the visible table (MOVE PARTITION of one part is one
 *   rename, so a crash leaves all of it or nothing). The mark lies in that part too.
 * - Where the table's shape changes, or it is truncated, or it is new: the next generation of the table is made beside
 *   the visible one, and the view is exchanged for one that shows it.
 */
import { RowHash } from '../../../src/connector/row-hash.ts';
import { type TableShape, tableName } from '../../../src/connector/shape.ts';
import { madeAnew } from '../../../src/connector/shape-versions.ts';
import type { MergeWindow, Receipt, SinkContext } from '../../../src/connector/sink.ts';
import {
  cloneGeneration,
  createGeneration,
  evolve,
  keepRetired,
  type Maker,
  newLayout,
} from './generation.ts';
import { changesName, viewName } from './names.ts';
import { type Mark, markOf } from './progress.ts';
import { publish, refuseForeign } from './publish.ts';
import { Stage } from './stage.ts';
import type { Generation, Unit, Visible } from './unit.ts';
import { markVersion } from './version.ts';

export interface Session {
  token: bigint;
  visible: Visible | null;
  /** Of the visible table; empty between Windows. */
  stage: Stage | null;
}

export class MergeRun {
  readonly unit: Unit;
  readonly context: SinkContext;
  readonly window: MergeWindow;
  readonly maker: Maker;
  readonly rows = { upserted: 0, deleted: 0, appended: 0 };
  readonly hash = new RowHash();
  readonly #session: Session;
  readonly #history: boolean;
  /** What the rows of the Window go into: the visible table, or one that is not visible yet. */
  #target: Generation | null;
  #stage: Stage | null;

  constructor(
    unit: Unit,
    context: SinkContext,
    session: Session,
    window: MergeWindow,
    maker: Maker,
    history: boolean,
  ) {
    this.unit = unit;
    this.context = context;
    this.window = window;
    this.maker = maker;
    this.#session = session;
    this.#history = history;
    this.#target = session.visible;
    this.#stage = session.stage;
  }

  get target(): Generation {
    return this.#target!;
  }

  get stage(): Stage {
    return this.#stage!;
  }

  /** The table in this shape, emptied where it was truncated, with what the Window had before; a stage for what comes. */
  async begin(shape: TableShape, truncated: boolean): Promise<void> {
    const { maker, unit } = this;
    if (this.#target === null) {
      const layout = newLayout(unit, shape);
      await refuseForeign(unit, viewName(shape), layout);
      if (this.#history) await refuseForeign(unit, changesName(shape), layout);
      this.#target = await createGeneration(maker, layout);
    } else {
      const before = this.#target.layout.shape;
      const anew = madeAnew(before, shape);
      const changed = JSON.stringify(before) !== JSON.stringify(shape);
      if (changed || truncated) {
        await this.#settle();
        if (anew) this.#target = await createGeneration(maker, newLayout(unit, shape));
        else {
          if (truncated) this.#target = await keepRetired(maker, this.#target);
          if (changed) this.#target = await evolve(maker, this.#target, shape, this.window.from);
        }
        this.#stage = null;
      }
    }
    if (truncated) this.hash.add(['truncate', tableName(shape)]);
    this.#stage ??= await Stage.open(maker, this.#target.layout);
  }

  /** The table as it is, which no row of the Window changes the shape of; made where it is missing. */
  async beginSweep(shape: TableShape): Promise<void> {
    await this.begin(this.#target?.layout.shape ?? shape, false);
  }

  settle(): Promise<void> {
    return this.#stage?.settle() ?? Promise.resolve();
  }

  /** What was staged so far goes into a table that is not visible, from which the next is made. */
  async #settle(): Promise<void> {
    const stage = this.#stage;
    if (!stage?.dirty) return;
    await stage.flush();
    if (this.#target!.rows === this.#session.visible?.rows) {
      this.#target = await cloneGeneration(this.maker, this.#target!);
    }
    await stage.moveInto(this.#target!.rows);
  }

  /** Makes the Window visible. @throws TidemarkError */
  async commit(receipt: Receipt, failpoint: (name: string) => Promise<void>): Promise<Visible> {
    const { unit, window, maker } = this;
    const { visible } = this.#session;
    const target = this.#target!;
    const mark: Mark = markOf(window, receipt, target.layout);
    const progress = JSON.stringify(mark);
    const inPlace = target.rows === visible?.rows;
    const { layout } = target;
    // With the last of the rows: a small Window is one insert, which makes one part.
    if (layout.keyed) {
      this.stage.put(layout.markLine(markVersion(window.sequence, window.fencingToken), progress));
    } else {
      this.stage.put(layout.markLine(String(window.sequence), progress));
      if (inPlace) this.stage.put(layout.markLine(String(visible!.mark.sequence), '', -1));
    }
    await this.stage.flush();
    await failpoint('clickhouse-sink-staged');
    if (inPlace) {
      await this.stage.makeOnePart();
      await failpoint('clickhouse-sink-before-commit');
      await this.stage.moveInto(target.rows);
      this.#session.stage = this.stage;
      return { ...target, view: visible!.view, mark };
    }
    await this.stage.moveInto(target.rows);
    const view = await publish(unit, maker.token, target, visible, () =>
      failpoint('clickhouse-sink-before-commit'),
    );
    this.#session.stage = this.stage;
    return { ...target, view, mark };
  }
}
