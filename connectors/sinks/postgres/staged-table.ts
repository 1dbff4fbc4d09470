/**
 * Many rows of one table with a key. Those that a step has to see together are copied into temporary tables. Whole rows
 * go the shortest way that is right:
 *
 * - straight into the target where that is empty;
 * - straight into the target, chunk by chunk behind a savepoint, for as long as no key is taken: its own index says so
 *   at no cost. A chunk that meets one is staged, and so is what comes after it;
 * - staged and upserted some megabytes at a time, while the next ones are encoded;
 * - staged and upserted at the end, the last of the steps, where their order counts.
 */
import type { RowState } from '../../../src/connector/sink.ts';
import type { Session } from './client.ts';
import { type Chunk, CopyTarget, RowCopy } from './copy-target.ts';
import { SessionError, sqlState } from './failures.ts';
import { type KeyedPlan, missingRetired, missingSource } from './keyed-plan.ts';
import type { MergeRun } from './merge-run.ts';
import { copyLine, createStage, type StageColumn } from './stage.ts';

/** Staged rows after which the planner's guess is not good enough. */
const analyzeRows = 1000;

/** Of whole rows that are upserted at once, where that need not wait for the end. */
const earlyBytes = 8 << 20;

/**
 * Raised out of the row streams: a partial row takes its values from another key's row, as that was before the Window, but
 * whole rows have been written. The merge starts over, in order.
 */
export class MissingOrder extends Error {
  readonly table: string;

  /** @param table quoted name */
  constructor(table: string) {
    super(`the rows of ${table} have to be written in order`);
    this.name = 'MissingOrder';
    this.table = table;
  }
}

type Stage = 'partial' | 'retired' | 'gone' | 'whole';

export class StagedTable {
  readonly #run: MergeRun;
  readonly #plan: KeyedPlan;
  readonly #truncated: boolean;
  /** The target is empty: deletes have nothing to do, partial rows no source. */
  readonly #direct: boolean;
  readonly #whole: RowCopy;
  /** Whole rows are written as they come. */
  #early: boolean;
  /** Some have been sent. */
  #sent = false;
  /** The target may take them straight. */
  #hopeful: boolean;
  #wholeStaged = false;
  #stagedBytes = 0;
  readonly #stages = new Map<Stage, CopyTarget>();
  #missing = 0;
  #missingRetired = 0;
  /** Partial rows whose source may be missing. */
  #optional = 0;

  private constructor(
    run: MergeRun,
    plan: KeyedPlan,
    way: { truncated: boolean; direct: boolean; early: boolean },
  ) {
    this.#run = run;
    this.#plan = plan;
    this.#truncated = way.truncated;
    this.#direct = way.direct;
    this.#early = way.early;
    this.#hopeful = way.early && run.newKeys.likely(plan.target);
    this.#whole = new RowCopy(
      run.pipe,
      way.direct ? this.#into() : (chunk, session) => this.#sendWhole(chunk, session),
      plan.binary,
      (row) => run.count('upsert', row),
    );
  }

  static async open(
    run: MergeRun,
    plan: KeyedPlan,
    { truncated, ordered }: { truncated: boolean; ordered: boolean },
  ): Promise<StagedTable> {
    // A mere TRUNCATE comes first, so that rows may go straight in; one that leaves rows is a step among the others.
    const emptied = truncated && !plan.keepsRows;
    if (emptied) run.batch.add(plan.shape, plan.truncate());
    await run.batch.flush();
    const direct = emptied || (!truncated && (await run.isEmpty(plan.shape)));
    const early = !direct && !truncated && !ordered && !plan.careful;
    return new StagedTable(run, plan, { truncated: truncated && !emptied, direct, early });
  }

  add(state: RowState): Promise<void> | undefined {
    const plan = this.#plan;
    if (state.op !== 'upsert') {
      const line = copyLine(state.key);
      this.#run.count(state.op, line);
      if (state.op === 'delete') {
        const nothing = this.#direct || (this.#truncated && !plan.house.retired);
        return nothing ? undefined : this.#toStage('gone', plan.keyColumns, line);
      }
      if (this.#direct) this.#missingRetired++;
      return this.#direct ? undefined : this.#toStage('retired', plan.keyColumns, line);
    }
    const { native } = state;
    if (native && !state.retired) {
      const width = plan.shape.columns.length;
      const sending = this.#whole.addNative(native, width, () => plan.wholeRow(state)!);
      this.#run.countNative(native);
      return this.#sending(sending);
    }
    const row = plan.wholeRow(state);
    if (row) return this.#sending(this.#whole.add(row));
    const line = copyLine(plan.partialRow(state));
    this.#run.count('upsert', line);
    if (this.#direct || (this.#truncated && !state.retired)) {
      if (!state.mayBeAbsent) this.#missing++;
      return undefined;
    }
    if (this.#early && plan.isMoved(state)) {
      if (this.#sent) throw new MissingOrder(plan.target);
      this.#early = false;
    }
    if (state.mayBeAbsent) this.#optional++;
    return this.#toStage('partial', plan.partialColumns, line);
  }

  #sending(sending: Promise<void> | undefined): Promise<void> | undefined {
    if (sending) this.#sent = true;
    return sending;
  }

  #into(): string {
    return `${this.#plan.target} (${this.#plan.columns.join(', ')})`;
  }

  async #sendWhole(chunk: Chunk, session: Session): Promise<void> {
    if (this.#early && this.#hopeful && (await this.#copyNew(chunk, session))) return;
    const { data, format } = chunk;
    const stage = this.#name('whole');
    const create = this.#wholeStaged ? [] : [createStage(stage, this.#plan.rowColumns)];
    this.#wholeStaged = true;
    this.#stagedBytes += data.length;
    const full = this.#early && this.#stagedBytes >= earlyBytes;
    if (full) this.#stagedBytes = 0;
    const merge = full ? [this.#plan.upsert(this.#stagedWhole()), `TRUNCATE ${stage}`] : [];
    await session.copyIn([...create, `COPY ${stage} FROM STDIN${format}`, ...merge], data);
  }

  /** @returns false where a key is taken; the target is then as it was */
  async #copyNew({ data, format }: Chunk, session: Session): Promise<boolean> {
    const { newKeys } = this.#run;
    const copy = `COPY ${this.#into()} FROM STDIN${format}`;
    try {
      await session.copyIn(['SAVEPOINT tidemark_new', copy, 'RELEASE SAVEPOINT tidemark_new'], data);
    } catch (error) {
      if (!(error instanceof SessionError) || sqlState(error.raw) !== '23505') throw error;
      await session.run('ROLLBACK TO SAVEPOINT tidemark_new', 'RELEASE SAVEPOINT tidemark_new');
      this.#hopeful = false;
      newKeys.taken(this.#plan.target);
      return false;
    }
    newKeys.wereNew(this.#plan.target);
    return true;
  }

  #toStage(stage: Stage, columns: readonly StageColumn[], line: string): Promise<void> | undefined {
    const target = this.#stages.get(stage);
    return target ? target.addLine(line) : this.#create(stage, columns, line);
  }

  async #create(stage: Stage, columns: readonly StageColumn[], line: string): Promise<void> {
    const name = this.#name(stage);
    const target = new CopyTarget(this.#run.pipe, name);
    this.#stages.set(stage, target);
    await this.#run.execute(this.#plan.shape, createStage(name, columns));
    await target.addLine(line);
  }

  #name(stage: Stage): string {
    return `pg_temp.tidemark_${stage}_${this.#run.tableNumber}`;
  }

  #stagedWhole(): string {
    return `SELECT ${this.#plan.rowColumns.map(({ name }) => name).join(', ')} FROM ${this.#name('whole')}`;
  }

  async finish(): Promise<void> {
    const { shape } = this.#plan;
    await this.#whole.flush();
    for (const stage of this.#stages.values()) await stage.flush();
    await this.#run.pipe.drain();
    if (this.#missing > 0) throw missingSource(shape, this.#missing);
    if (this.#missingRetired > 0) throw missingRetired(shape, this.#missingRetired);
    if (this.#direct) return;
    const partials = this.#analyze('partial', 'f');
    const retirements = this.#analyze('retired', 'k');
    const removed = this.#analyze('gone', 'k');
    this.#plan.steps(this.#run, {
      partial: partials === 0 ? null : `${this.#name('partial')} AS p`,
      partials,
      optional: this.#optional,
      retired: retirements === 0 ? null : `${this.#name('retired')} AS g`,
      retirements,
      truncated: this.#truncated,
      gone: removed === 0 ? null : `${this.#name('gone')} AS g`,
      kept: this.#keptKeys(partials),
      whole: this.#wholeStaged ? this.#stagedWhole() : null,
    });
    // Now rather than with the next tables: its temporary tables are hot in the buffers.
    await this.#run.batch.flush();
  }

  /** Rows of a stage; statistics for its key columns where it is joined and large. */
  #analyze(stage: Stage, prefix: string): number {
    const rows = this.#stages.get(stage)?.rows ?? 0;
    if (rows > analyzeRows) {
      const keys = this.#plan.keyColumns.map((_, k) => `${prefix}${k}`);
      this.#run.batch.add(this.#plan.shape, `ANALYZE ${this.#name(stage)} (${keys.join(', ')})`);
    }
    return rows;
  }

  #keptKeys(partials: number): string | null {
    const keys = this.#plan.shape.keyColumns.map((column, k) => `c${column} AS k${k}`).join(', ');
    const parts = [
      ...(this.#wholeStaged ? [`SELECT ${keys} FROM ${this.#name('whole')}`] : []),
      ...(partials > 0 ? [`SELECT ${keys} FROM ${this.#name('partial')}`] : []),
    ];
    return parts.length === 0 ? null : `(${parts.join(' UNION ALL ')}) AS u`;
  }
}
