/** Merges Windows on one connection, and remembers of the destination what need not be asked each time. */
import { type RefusedRow, RefusedRows, TidemarkError } from '../../../src/connector/failure.ts';
import type { TableShape } from '../../../src/connector/shape.ts';
import type { MergeTable, MergeWindow, Receipt, SinkContext } from '../../../src/connector/sink.ts';
import { durableCommit, type Session } from './client.ts';
import { asCommitFailure, asRowFailure, RefusedStatement } from './failures.ts';
import { RefusalSearch } from './find-refused.ts';
import { appendHistory, ensureHistories } from './history.ts';
import { type HouseColumns, MissingMark } from './house-columns.ts';
import { addLabels, enumTypes, MissingLabels, watchLabels } from './labels.ts';
import { mergeKeyed } from './merge-keyed.ts';
import { mergeKeyless } from './merge-keyless.ts';
import { MergeRun } from './merge-run.ts';
import { NewKeys } from './new-keys.ts';
import type { PostgresSettings } from './options.ts';
import { firstShapes, keySchemas, type PlacedWindow, placeWindow } from './placed-window.ts';
import { decideMerge, lockProgress, raiseToken, saveProgress } from './progress.ts';
import { quoteName, quoteTable } from './quote.ts';
import { MissingOrder } from './staged-table.ts';
import { ensureNotes, noteSnapshots, sweepTable } from './sweep.ts';
import { ensureTables, heldShape, shapeFingerprint, type TableFacts } from './tables.ts';

/** A table that stands in the destination as its rows need it. */
interface ReadyTable {
  /** Its shape is what the destination has. */
  table: MergeTable;
  placed: MergeTable;
  house: HouseColumns;
  facts: TableFacts;
}

/** What a merge did to the tables, to be remembered once it is committed. */
interface Seen {
  /** The fingerprint of the shape that each table has by now, by quoted name. */
  shapes: Map<string, string>;
  notes: string[];
}

export class WindowMerger {
  readonly #context: SinkContext;
  readonly #settings: PostgresSettings;
  /** Tables seen by a committed merge, by quoted name (`a.b` has two readings unquoted), with the fingerprint of the shape that was checked. */
  readonly #known = new Map<string, string>();
  readonly #facts = new Map<string, TableFacts>();
  readonly #filled = new Set<string>();
  readonly #newKeys = new NewKeys();
  /** Snapshots that the destination has notes of, by table and id. */
  readonly #noted = new Set<string>();
  /** Labels that rows brought and no shape has, by quoted type. */
  readonly #labels = new Map<string, Set<string>>();
  /** Tables whose rows were let go of. */
  readonly #marks = new Set<string>();
  /** Tables whose Windows had to be written in order. */
  readonly #ordered = new Set<string>();

  constructor(context: SinkContext, settings: PostgresSettings) {
    this.#context = context;
    this.#settings = settings;
  }

  /** After a failure: what was believed about the tables may be why. */
  forget(): void {
    this.#known.clear();
    this.#filled.clear();
    this.#noted.clear();
  }

  /** @throws TidemarkError, RefusedRows, SessionError */
  async merge(session: Session, window: MergeWindow): Promise<Receipt> {
    const placed = placeWindow(window, this.#settings.placement);
    const unseen = placed.tables.map(({ shape }) => shape).filter((shape) => !this.#isKnown(shape));
    await this.#addLabels(session, enumTypes(unseen));
    let ordered = false;
    let refused: RefusedStatement | null = null;
    for (;;) {
      try {
        if (refused) throw await this.#refusedRows(session, placed, refused);
        return await this.#merge(session, placed, ordered);
      } catch (error) {
        const again =
          error instanceof MissingLabels ||
          error instanceof MissingMark ||
          error instanceof MissingOrder ||
          (error instanceof RefusedStatement && refused === null);
        if (!again) throw error;
        await session.rollback();
        this.forget();
        if (error instanceof MissingLabels) await this.#learnLabels(session, error);
        else if (error instanceof MissingMark) this.#marks.add(error.table);
        else if (error instanceof MissingOrder) this.#ordered.add(error.table);
        else if (error.ordered && !ordered) ordered = true;
        else refused = error;
      }
    }
  }

  async #addLabels(session: Session, types: Parameters<typeof addLabels>[1]): Promise<void> {
    for (const type of await addLabels(session, types))
      this.#context.log('info', 'added labels to an enum', { type });
  }

  async #learnLabels(session: Session, { type, labels }: MissingLabels): Promise<void> {
    const known = this.#labels.get(quoteTable(type)) ?? new Set();
    this.#labels.set(quoteTable(type), new Set([...known, ...labels]));
    // Their place among the others is not known: behind them.
    await this.#addLabels(session, [{ ...type, labels: [...type.labels, ...known, ...labels] }]);
  }

  /** Behind the progress lock; null where the Window has to be merged. */
  async #lock(session: Session, { window, tables }: PlacedWindow) {
    const begin = session.begin({
      mode: 'ISOLATION LEVEL READ COMMITTED READ WRITE',
      searchPath: keySchemas(tables),
    });
    const { stored, commitId } = await lockProgress(session, window, [...begin, durableCommit]);
    return { stored, commitId, already: decideMerge(window, stored) };
  }

  /** @param inOrder rows are written strictly step by step */
  async #merge(session: Session, placed: PlacedWindow, inOrder: boolean): Promise<Receipt> {
    const { failpoint } = this.#context;
    const { window } = placed;
    const { stored, commitId, already } = await this.#lock(session, placed);
    if (already) {
      await commit(session, stored!.fencingToken < window.fencingToken ? raiseToken(window) : null);
      return already;
    }
    await failpoint('postgres-sink-locked');
    const run = this.#run(session);
    const seen: Seen = { shapes: new Map(), notes: [] };
    try {
      for await (const ready of this.#readyTables(run, placed, placed.tables, seen))
        await this.#mergeTable(run, ready, inOrder);
      await failpoint('postgres-sink-staged');
      await run.batch.flush();
      await this.#sweep(run, placed);
    } finally {
      // After a failure a COPY may still be under way; its own error is not the news.
      await run.pipe.drain().catch(() => undefined);
    }
    const receipt: Receipt = {
      position: window.to,
      rows: run.rows,
      bytes: run.bytes,
      contentHash: run.contentHash,
      commitId,
      alreadyHeld: false,
    };
    await failpoint('postgres-sink-before-commit');
    try {
      await commit(session, saveProgress(window, receipt));
    } catch (error) {
      throw asCommitFailure(error, window.destination);
    }
    await failpoint('postgres-sink-committed');
    for (const [name, fingerprint] of seen.shapes) this.#known.set(name, fingerprint);
    for (const each of seen.notes) this.#noted.add(each);
    if (window.sweeps.length > 0) this.#noted.clear();
    return receipt;
  }

  #run(session: Session): MergeRun {
    return new MergeRun(session, this.#context.destination, {
      filled: this.#filled,
      newKeys: this.#newKeys,
    });
  }

  /** The tables one after the other, each brought to its shape when its turn comes. */
  async *#readyTables(
    run: MergeRun,
    { now }: PlacedWindow,
    tables: readonly MergeTable[],
    { shapes, notes }: Seen,
  ): AsyncGenerator<ReadyTable> {
    const { session } = run;
    for (const [i, table] of tables.entries()) {
      const name = quoteTable(table.shape);
      // All tables are looked at in one go; the later shapes of one that changed, when its earlier rows are in.
      const turn = shapes.has(name) ? [table.shape] : i === 0 ? firstShapes(tables) : [];
      if (turn.length > 0) {
        await run.batch.flush();
        await run.pipe.drain();
        await this.#ensureTables(session, turn, i === 0, now);
        for (const shape of turn) shapes.set(quoteTable(shape), shapeFingerprint(shape));
      }
      const snapshots = table.snapshots.filter(({ id }) => !this.#noted.has(`${name} ${id}`));
      if (snapshots.length > 0) {
        await run.batch.flush();
        await run.pipe.drain();
        if (notes.length === 0) await ensureNotes(session);
        await noteSnapshots(session, this.#context, table.shape, table.snapshots);
        for (const { id } of snapshots) notes.push(`${name} ${id}`);
      }
      run.tableNumber++;
      const facts = this.#facts.get(name)!;
      const placed = watchLabels(table, this.#labels);
      const shape = heldShape(table.shape, facts.texts);
      const watched = shape === table.shape ? placed : watchLabels({ ...table, shape }, this.#labels);
      yield { table: watched, placed, facts, house: this.#house(facts, now) };
    }
  }

  #house({ retired }: Pick<TableFacts, 'retired'>, now: string): HouseColumns {
    const { deletedAt } = this.#settings;
    return { retired, deletedAt: deletedAt === null ? null : quoteName(deletedAt), now };
  }

  async #mergeTable(
    run: MergeRun,
    { table, placed, house, facts }: ReadyTable,
    inOrder: boolean,
  ): Promise<void> {
    const { shape } = table;
    const binary = !facts.narrowed;
    const ordered = inOrder || facts.otherUnique || this.#ordered.has(quoteTable(shape));
    try {
      await (shape.keyColumns.length > 0
        ? mergeKeyed(run, table, { house, ordered, binary })
        : mergeKeyless(run, table, { house, binary }));
      const { historySuffix } = this.#settings;
      if (historySuffix !== null) await appendHistory(run, placed, historySuffix);
    } catch (error) {
      throw asRowFailure(error, this.#context.destination, shape);
    }
  }

  async #sweep(run: MergeRun, { sweeps, now }: PlacedWindow): Promise<void> {
    if (sweeps.length === 0) return;
    await run.pipe.drain();
    await ensureNotes(run.session);
    for (const sweep of sweeps) {
      const { deletedAt } = this.#house({ retired: false }, now);
      run.rows.deleted += await sweepTable(run.session, this.#context, sweep, { deletedAt, now });
    }
  }

  /** @param first the tables may be as they were left by the last merge */
  async #ensureTables(
    session: Session,
    shapes: readonly TableShape[],
    first: boolean,
    now: string,
  ): Promise<void> {
    const unseen = shapes.filter((shape) => !first || !this.#isKnown(shape));
    if (unseen.length === 0) return;
    const { placement, deletedAt, historySuffix } = this.#settings;
    const setup = {
      owner: this.#context,
      labels: this.#labels,
      placement,
      deletedAt,
      now,
      marks: this.#marks,
    };
    const facts = await ensureTables(session, unseen, setup);
    for (const [name, each] of facts) this.#facts.set(name, each);
    if (historySuffix !== null)
      await ensureHistories(session, unseen, historySuffix, this.#context, placement);
  }

  #isKnown(shape: TableShape): boolean {
    return this.#known.get(quoteTable(shape)) === shapeFingerprint(shape);
  }

  /**
   * The rows behind a refusal, in transactions that are rolled back.
   * @returns what to throw: the refusal itself where no row is found
   */
  async #refusedRows(
    session: Session,
    placed: PlacedWindow,
    refusal: RefusedStatement,
  ): Promise<TidemarkError> {
    const { table, atCommit } = refusal;
    const isNamed = ({ shape }: MergeTable) => table !== null && quoteTable(shape) === quoteTable(table);
    const named = placed.tables.filter(isNamed);
    const others = placed.tables.filter((each) => !isNamed(each));
    let rows: readonly RefusedRow[];
    if (atCommit && named.length > 0) {
      // Behind the other tables, so that what they bring for it is there; or else they took away what it needs.
      rows = await this.#search(session, placed, refusal, others, named);
      if (rows.length === 0) rows = await this.#search(session, placed, refusal, named, others);
    } else {
      // Nothing before the table was refused.
      const first = Math.max(placed.tables.findIndex(isNamed), 0);
      const [fine, asked] = [placed.tables.slice(0, first), placed.tables.slice(first)];
      rows = await this.#search(session, placed, refusal, fine, asked);
    }
    return rows.length === 0 ? refusal : new RefusedRows(rows, { cause: refusal });
  }

  async #search(
    session: Session,
    placed: PlacedWindow,
    refusal: RefusedStatement,
    fine: readonly MergeTable[],
    asked: readonly MergeTable[],
  ): Promise<readonly RefusedRow[]> {
    const search = new RefusalSearch(session, (table) => this.#settings.placement.sourceOf(table), refusal);
    await this.#lock(session, placed);
    const run = this.#run(session);
    const seen: Seen = { shapes: new Map(), notes: [] };
    let left = fine.length;
    for await (const ready of this.#readyTables(run, placed, [...fine, ...asked], seen)) {
      if (left-- > 0) {
        await this.#mergeTable(run, ready, true);
        await run.batch.flush();
        await run.pipe.drain();
      } else if (!search.full) await search.table(ready.table, ready.house);
    }
    await session.rollback();
    this.forget();
    return search.rows;
  }
}

/** @throws SessionError; of unknown outcome where the connection was lost */
async function commit(session: Session, statement: string | null): Promise<void> {
  const results = await session.run(...(statement === null ? [] : [statement]), 'COMMIT');
  // A COMMIT of a transaction that had failed is a ROLLBACK and no error.
  if (results.at(-1)!.command !== 'COMMIT')
    throw new TidemarkError('TM901', 'the destination answered COMMIT with ROLLBACK');
}
