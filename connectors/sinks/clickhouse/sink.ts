/** The sink: Units side by side, the Windows of each in turn. */
import { randomBytes } from 'node:crypto';
import { TidemarkError } from '../../../src/connector/failure.ts';
import { type TableShape, tableName, unitName } from '../../../src/connector/shape.ts';
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
import { Server } from './client.ts';
import type { Maker } from './generation.ts';
import { ensureHistory, showHistory, writeHistory } from './history.ts';
import { mergeKeyed } from './merge-keyed.ts';
import { mergeKeyless } from './merge-keyless.ts';
import { MergeRun, type Session } from './merge-run.ts';
import { UnitNames } from './names.ts';
import type { ClickHouseSettings } from './options.ts';
import { decideMerge } from './progress.ts';
import { readRows } from './read-back.ts';
import { sweepTable } from './sweep.ts';
import { Unit } from './unit.ts';

export class ClickHouseSink implements MergeSink, Readable {
  readonly mode = 'merge';
  readonly #context: SinkContext;
  readonly #settings: ClickHouseSettings;
  readonly #server: Server;
  /** What this process knows of a Unit that it owns; forgotten at every failure. */
  readonly #sessions = new Map<string, Session>();
  readonly #turns = new Map<string, Promise<unknown>>();

  constructor(context: SinkContext, settings: ClickHouseSettings) {
    this.#context = context;
    this.#settings = settings;
    this.#server = new Server(settings, context.destination);
  }

  /** @throws TidemarkError TM401, TM402, TM404 */
  async held(unit: string): Promise<Held | null> {
    const at = this.#unit(unit);
    const visible = await at.visible();
    if (visible === null) return null;
    const { position, sequence, fencingToken } = visible.mark;
    const token = await at.token();
    return { position, sequence, fencingToken: token > BigInt(fencingToken) ? token : BigInt(fencingToken) };
  }

  /** @throws TidemarkError TM401 to TM405, TM407; errors of the Window's own row streams unchanged */
  mergeWindow(window: MergeWindow): Promise<Receipt> {
    const { unit } = window;
    const merge = () => this.#mergeInTurn(window);
    const turn = (this.#turns.get(unit) ?? Promise.resolve()).then(merge, merge);
    this.#turns.set(unit, turn);
    return turn;
  }

  readTable(shape: TableShape, at: Position, retired?: (rows: Row[]) => void): AsyncIterable<Row[]> {
    return readRows(this.#unit(unitName(shape)), shape, at, retired ?? null);
  }

  async close(): Promise<void> {
    await Promise.allSettled(this.#turns.values());
    await this.#server.close();
  }

  #unit(unit: string): Unit {
    const { sourceId, destination } = this.#context;
    return new Unit(
      this.#server,
      new UnitNames(sourceId, destination, unit),
      unit,
      this.#settings.lowCardinality,
    );
  }

  async #mergeInTurn(window: MergeWindow): Promise<Receipt> {
    const unit = this.#unit(window.unit);
    try {
      return await this.#merge(unit, window);
    } catch (error) {
      this.#sessions.delete(window.unit);
      // A newer owner may have dropped or changed what this one needed: that is the news then.
      await unit.checkToken(window.fencingToken).catch((fenced: unknown) => {
        if (fenced instanceof TidemarkError && fenced.code === 'TM403') throw fenced;
      });
      throw error;
    }
  }

  async #merge(unit: Unit, window: MergeWindow): Promise<Receipt> {
    const { failpoint } = this.#context;
    const session = await this.#session(unit, window.fencingToken);
    const already = decideMerge(window, session.visible?.mark ?? null);
    if (already) {
      await unit.checkToken(window.fencingToken);
      return already;
    }
    await failpoint('clickhouse-sink-begun');
    let numbers = 0;
    const maker: Maker = {
      unit,
      token: window.fencingToken,
      attempt: `${window.sequence}_${randomBytes(6).toString('hex')}`,
      blockBytes: this.#settings.blockBytes,
      next: () => numbers++,
    };
    session.stage?.reuse(maker);
    const run = new MergeRun(unit, this.#context, session, window, maker, this.#settings.history);
    try {
      return await this.#mergeTables(run, session, window);
    } finally {
      // After a failure a block may still be under way; its own error is not the news.
      await run.settle();
    }
  }

  async #mergeTables(run: MergeRun, session: Session, window: MergeWindow): Promise<Receipt> {
    const { failpoint, log } = this.#context;
    const { unit, maker } = run;
    const { history } = this.#settings;
    for (const table of window.tables) {
      if (unitName(table.shape) !== window.unit) {
        throw new TidemarkError('TM901', `${window.unit}: the Window holds ${tableName(table.shape)}`);
      }
      await run.begin(table.shape, table.truncated);
      await (table.shape.keyColumns.length > 0 ? mergeKeyed : mergeKeyless)(run, table);
    }
    for (const sweep of window.sweeps) {
      await run.beginSweep(sweep.shape);
      run.rows.deleted += await sweepTable(run, sweep);
    }
    let bytes = 0;
    if (history) {
      await ensureHistory(unit);
      bytes = await writeHistory(maker, window, window.tables);
    }
    const { visible: before } = session;
    const receipt: Receipt = {
      position: window.to,
      rows: run.rows,
      bytes: bytes + run.stage.bytes,
      contentHash: run.hash.hex,
      commitId: `${run.target.rows}/${window.sequence}`,
      alreadyHeld: false,
    };
    const visible = await run.commit(receipt, failpoint);
    session.visible = visible;
    await failpoint('clickhouse-sink-committed');
    if (history) await showHistory(unit, visible);
    if (visible.rows !== before?.rows) {
      log('info', before ? 'the table follows its source' : 'made a table', {
        table: tableName(visible.layout.shape),
      });
      if (before) await unit.drop(unit.names.view(window.fencingToken));
      await unit.dropOthers(window.fencingToken, visible.rows);
    }
    return receipt;
  }

  async #session(unit: Unit, token: bigint): Promise<Session> {
    const known = this.#sessions.get(unit.name);
    if (known?.token === token) return known;
    await unit.ensureDatabase();
    const generations = await unit.takeOver(token);
    const visible = await unit.visible();
    const session: Session = { token, visible, stage: null };
    if (this.#settings.history && visible) {
      await ensureHistory(unit);
      await showHistory(unit, visible);
    }
    // After the history's view: it may still name the one before.
    if (generations > (visible ? 1 : 0)) await unit.dropOthers(token, visible?.rows ?? null);
    this.#sessions.set(unit.name, session);
    return session;
  }
}
