/** The sink: one connection for merges, one more for each read-back. */
import { TidemarkError } from '../../../src/connector/failure.ts';
import type { TableShape } from '../../../src/connector/shape.ts';
import type {
  Held,
  MergeSink,
  MergeWindow,
  Position,
  Readable,
  Receipt,
  Row,
  SinkContext,
} from '../../../src/connector/sink.ts';
import { Session } from './client.ts';
import { asSinkFailure } from './failures.ts';
import type { PostgresSettings } from './options.ts';
import { readProgress } from './progress.ts';
import { readRows } from './read-back.ts';
import { WindowMerger } from './window-merger.ts';

export class PostgresSink implements MergeSink, Readable {
  readonly mode = 'merge';
  readonly #context: SinkContext;
  readonly #settings: PostgresSettings;
  readonly #merger: WindowMerger;
  #session: Session | null = null;
  #turn: Promise<unknown> = Promise.resolve();
  #closed = false;

  constructor(context: SinkContext, settings: PostgresSettings) {
    this.#context = context;
    this.#settings = settings;
    this.#merger = new WindowMerger(context, settings);
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
   * @throws TidemarkError TM401 to TM405, TM407; RefusedRows; errors of the Window's own row streams unchanged
   */
  mergeWindow(window: MergeWindow): Promise<Receipt> {
    return this.#exclusive((session) => this.#merger.merge(session, window));
  }

  async *readTable(shape: TableShape, at: Position, retired?: (rows: Row[]) => void): AsyncIterable<Row[]> {
    if (this.#closed) throw closed(this.#context);
    const unit = this.#unit('*');
    const placed = this.#settings.placement.place(shape);
    const open = () => Session.open(this.#settings, unit.destination);
    yield* readRows(open, unit, placed, at, retired ?? null);
  }

  async close(): Promise<void> {
    this.#closed = true;
    await this.#turn;
    await this.#session?.close();
    this.#session = null;
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
        this.#merger.forget();
        await this.#session?.rollback();
        throw asSinkFailure(error, this.#context.destination);
      }
    });
    this.#turn = result.catch(() => undefined);
    return result;
  }
}

function closed(context: SinkContext): TidemarkError {
  return new TidemarkError('TM901', `${context.destination}: the sink was closed`);
}
