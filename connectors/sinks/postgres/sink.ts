/** The sink: one connection for merges, one more for each read-back. */
import { TidemarkError } from '../../../src/connector/failure.ts';
import type { TableShape } from '../../../src/connector/shape.ts';
import type {
  Held,
  MergeSink,
  MergeTable,
  MergeWindow,
  Position,
  Readable,
  Receipt,
  Row,
  SinkContext,
} from '../../../src/connector/sink.ts';
import { durableCommit, Session } from './client.ts';
import { asSinkFailure } from './failures.ts';
import { addLabels, enumTypes, MissingLabels, watchLabels } from './labels.ts';
import { mergeKeyed } from './merge-keyed.ts';
import { mergeKeyless } from './merge-keyless.ts';
import { MergeRun } from './merge-run.ts';
import type { PostgresSettings } from './options.ts';
import { decideMerge, lockProgress, raiseToken, readProgress, saveProgress } from './progress.ts';
import { hasCanonicalText, quoteTable, typeSchema } from './quote.ts';
import { readRows } from './read-back.ts';
import { ensureNotes, noteSnapshots, sweepTable } from './sweep.ts';
import { ensureTables, heldShape, shapeFingerprint } from './tables.ts';

export class PostgresSink implements MergeSink, Readable {
  readonly mode = 'merge';
  readonly #context: SinkContext;
  readonly #settings: PostgresSettings;
  #session: Session | null = null;
  #turn: Promise<unknown> = Promise.resolve();
  #closed = false;
  /** Tables seen by a committed merge, by quoted name (`a.b` has two readings unquoted), with the fingerprint of the shape that was checked. */
  #known = new Map<string, string>();
  #filled = new Set<string>();
  readonly #heldAsText = new Map<string, ReadonlySet<string>>();
  /** Snapshots that the destination has notes of, by table and id. */
  #noted = new Set<string>();
  /** Labels that rows brought and no shape has, by quoted type. */
  readonly #labels = new Map<string, Set<string>>();

  constructor(context: SinkContext, settings: PostgresSettings) {
    this.#context = context;
    this.#settings = settings;
  }

  /** @throws TidemarkError TM401, TM402, TM404 */
  held(unit: string): Promise<Held | null> {
    return this.#exclusive(async (session) => {
      const stored = await readProgress(session, this.#unit(unit));
      return (
        stored && { position: stored.position, sequence: stored.sequence, fencingToken: stored.fencingToken }
      );
    });
  }

  /**
   * All tables and the progress row in one transaction. When the connection is lost during COMMIT its outcome is
   * unknown: TM401, and the retry finds the Window held or not.
   * @throws TidemarkError TM401 to TM405, TM407; errors of the Window's own row streams unchanged
   */
  mergeWindow(window: MergeWindow): Promise<Receipt> {
    return this.#exclusive(async (session) => {
      const unseen = window.tables.map(({ shape }) => shape).filter((shape) => !this.#isKnown(shape));
      for (let types = enumTypes(unseen); ; ) {
        for (const type of await addLabels(session, types))
          this.#context.log('info', 'added labels to an enum', { type });
        try {
          return await this.#merge(session, window);
        } catch (error) {
          if (!(error instanceof MissingLabels)) throw error;
          await session.rollback();
          const { type, labels } = error;
          const known = this.#labels.get(quoteTable(type)) ?? new Set();
          this.#labels.set(quoteTable(type), new Set([...known, ...labels]));
          // Their place among the others is not known: behind them.
          types = [{ ...type, labels: [...type.labels, ...known, ...labels] }];
        }
      }
    });
  }

  async *readTable(shape: TableShape, at: Position): AsyncIterable<Row[]> {
    if (this.#closed) throw closed(this.#context);
    const unit = this.#unit('*');
    yield* readRows(() => Session.open(this.#settings, unit.destination), unit, shape, at);
  }

  async close(): Promise<void> {
    this.#closed = true;
    await this.#turn;
    await this.#session?.close();
    this.#session = null;
  }

  async #merge(session: Session, window: MergeWindow): Promise<Receipt> {
    const { failpoint } = this.#context;
    const begin = session.begin({
      mode: 'ISOLATION LEVEL READ COMMITTED READ WRITE',
      searchPath: keySchemas(window.tables),
    });
    const { stored, commitId } = await lockProgress(session, window, [...begin, durableCommit]);
    const already = decideMerge(window, stored);
    if (already) {
      await commit(session, stored!.fencingToken < window.fencingToken ? raiseToken(window) : null);
      return already;
    }
    await failpoint('postgres-sink-locked');
    // The shape that each table has by now.
    const shapes = new Map<string, string>();
    const noted: string[] = [];
    const run = new MergeRun(session, window.destination, this.#filled);
    try {
      for (const [i, table] of window.tables.entries()) {
        const name = quoteTable(table.shape);
        // All tables are looked at in one go; the later shapes of one that changed, when its earlier rows are in.
        const turn = shapes.has(name) ? [table.shape] : i === 0 ? firstShapes(window.tables) : [];
        if (turn.length > 0) {
          await run.batch.flush();
          await run.pipe.drain();
          await this.#ensureTables(session, turn, i === 0);
          for (const shape of turn) shapes.set(quoteTable(shape), shapeFingerprint(shape));
        }
        const snapshots = table.snapshots.filter(({ id }) => !this.#noted.has(`${name} ${id}`));
        if (snapshots.length > 0) {
          await run.batch.flush();
          await run.pipe.drain();
          if (noted.length === 0) await ensureNotes(session);
          await noteSnapshots(session, this.#context, table.shape, table.snapshots);
          for (const { id } of snapshots) noted.push(`${name} ${id}`);
        }
        run.tableNumber++;
        await this.#mergeTable(run, watchLabels(this.#asHeld(table), this.#labels));
      }
      await failpoint('postgres-sink-staged');
      await run.batch.flush();
      if (window.sweeps.length > 0) {
        await run.pipe.drain();
        await ensureNotes(session);
        for (const sweep of window.sweeps)
          run.rows.deleted += await sweepTable(session, this.#context, sweep);
      }
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
    await commit(session, saveProgress(window, receipt));
    await failpoint('postgres-sink-committed');
    for (const [name, fingerprint] of shapes) this.#known.set(name, fingerprint);
    for (const each of noted) this.#noted.add(each);
    if (window.sweeps.length > 0) this.#noted.clear();
    return receipt;
  }

  async #mergeTable(run: MergeRun, table: MergeTable): Promise<void> {
    try {
      await (table.shape.keyColumns.length > 0 ? mergeKeyed(run, table) : mergeKeyless(run, table));
    } catch (error) {
      throw asSinkFailure(error, this.#context.destination, [table.shape]);
    }
  }

  /** @param first the tables may be as they were left by the last merge */
  async #ensureTables(session: Session, shapes: readonly TableShape[], first: boolean): Promise<void> {
    const unseen = shapes.filter((shape) => !first || !this.#isKnown(shape));
    if (unseen.length === 0) return;
    const held = await ensureTables(session, unseen, this.#context, this.#labels);
    for (const [name, columns] of held) this.#heldAsText.set(name, columns);
  }

  #asHeld(table: MergeTable): MergeTable {
    const shape = heldShape(table.shape, this.#heldAsText);
    return shape === table.shape ? table : { ...table, shape };
  }

  #isKnown(shape: TableShape): boolean {
    return this.#known.get(quoteTable(shape)) === shapeFingerprint(shape);
  }

  #unit(unit: string) {
    return { sourceId: this.#context.sourceId, destination: this.#context.destination, unit };
  }

  /** One operation at a time on the one connection, which is opened when there is none. */
  #exclusive<T>(work: (session: Session) => Promise<T>): Promise<T> {
    const result = this.#turn.then(async () => {
      if (this.#closed) throw closed(this.#context);
      try {
        if (!this.#session || this.#session.broken) {
          this.#session = await Session.open(this.#settings, this.#context.destination);
        }
        return await work(this.#session);
      } catch (error) {
        // What we believed about the tables may be why it failed.
        this.#known.clear();
        this.#filled.clear();
        this.#noted.clear();
        await this.#session?.rollback();
        throw asSinkFailure(error, this.#context.destination);
      }
    });
    this.#turn = result.catch(() => undefined);
    return result;
  }
}

/** @throws SessionError; of unknown outcome where the connection was lost */
async function commit(session: Session, statement: string | null): Promise<void> {
  const results = await session.run(...(statement === null ? [] : [statement]), 'COMMIT');
  // A COMMIT of a transaction that had failed is a ROLLBACK and no error.
  if (results.at(-1)!.command !== 'COMMIT')
    throw new TidemarkError('TM901', 'the destination answered COMMIT with ROLLBACK');
}

/** Of each table the shape that comes first. */
function firstShapes(tables: readonly MergeTable[]): TableShape[] {
  const first = new Map<string, TableShape>();
  for (const { shape } of tables) if (!first.has(quoteTable(shape))) first.set(quoteTable(shape), shape);
  return [...first.values()];
}

/** Schemas of key types that bring their own equality (citext): found by operator only through the search path. */
function keySchemas(tables: readonly MergeTable[]): string[] {
  const schemas = new Set<string>();
  for (const { shape } of tables) {
    for (const i of shape.keyColumns) {
      const column = shape.columns[i]!;
      const schema = column.enum || hasCanonicalText(column) ? null : typeSchema(column.base ?? column.type);
      if (schema !== null) schemas.add(schema);
    }
  }
  return [...schemas];
}

function closed(context: SinkContext): TidemarkError {
  return new TidemarkError('TM901', `${context.destination}: the sink was closed`);
}
