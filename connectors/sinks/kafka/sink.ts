/** The sink: one transactional producer, and a Window at a time. */
import { setTimeout as sleep } from 'node:timers/promises';
import { asTidemarkError, TidemarkError } from '../../../src/connector/failure.ts';
import type { AppendSink, AppendWindow, Held, Receipt, SinkContext } from '../../../src/connector/sink.ts';
import { ControlRecords } from './control-records.ts';
import { Fenced, TooLarge } from './failures.ts';
import { decideAppend, refuseReplaced } from './progress.ts';
import { RegistryClient } from './registry-client.ts';
import { FormatCache } from './row-format.ts';
import { Session, type WrittenPartition } from './session.ts';
import type { KafkaSettings } from './settings.ts';
import { WindowWriter } from './window-writer.ts';

const takeOvers = 5;

export class KafkaSink implements AppendSink {
  readonly mode = 'append' as const;
  readonly #context: SinkContext;
  readonly #settings: KafkaSettings;
  readonly #registry: RegistryClient | null;
  readonly #formats: FormatCache;
  readonly #control: ControlRecords;
  #session: Session | null = null;
  /** What sessions before committed, and nobody saw. */
  #unseen: readonly WrittenPartition[] = [];
  #turn: Promise<unknown> = Promise.resolve();
  #closed = false;

  constructor(context: SinkContext, settings: KafkaSettings) {
    this.#context = context;
    this.#settings = settings;
    this.#registry = settings.registry && new RegistryClient(settings.registry);
    this.#formats = new FormatCache(settings.rows, this.#registry);
    this.#control = new ControlRecords(context, settings);
  }

  /** Asked by a new owner: it takes the transactional id, and whatever another writer had begun never was. */
  held(unit: string): Promise<Held | null> {
    this.#refuseUnit(unit);
    return this.#exclusive(() =>
      this.#owning(async () => {
        await this.#dropSession(false);
        const { state } = await this.#takeOver(null);
        const { position, sequence, fencingToken } = state.progress;
        return position === null ? null : { position, sequence, fencingToken };
      }),
    );
  }

  /**
   * All topics and the progress record in one transaction (window-writer.ts says when it is several). When the answer to
   * a commit is lost its outcome is unknown: TM401, and the retry finds the Window held or not.
   * @throws RefusedRows; TidemarkError; errors of the Window's own rows unchanged
   */
  appendWindow(window: AppendWindow): Promise<Receipt> {
    this.#refuseUnit(window.unit);
    return this.#exclusive(() => this.#owning(() => this.#append(window)));
  }

  async close(): Promise<void> {
    this.#closed = true;
    await this.#turn;
    await this.#dropSession(true);
    this.#registry?.close();
  }

  async #append(window: AppendWindow): Promise<Receipt> {
    const session = this.#session ?? (await this.#takeOver(window.fencingToken));
    const { state } = session;
    refuseReplaced(window, state);
    const already = decideAppend(window, state.progress);
    // Said before anything is written: an older owner that comes back reads it, and leaves the new one alone.
    if (state.progress.fencingToken < window.fencingToken) {
      await session.save({ ...state.progress, fencingToken: window.fencingToken });
      state.highestToken = window.fencingToken;
    }
    if (already) return already;
    await this.#context.failpoint('kafka-sink-taken-over');
    const writer = new WindowWriter(
      window,
      session,
      this.#context,
      this.#settings,
      this.#formats,
      this.#control,
    );
    return writer.write();
  }

  #refuseUnit(unit: string): void {
    if (unit !== '*')
      throw new TidemarkError('TM901', `the kafka sink has one Unit, and was asked for ${unit}`);
  }

  /**
   * A zombie may take the transactional id from its owner, before it reads whose it is. So whoever lost it takes it once
   * more and reads: the one with the smaller token goes then.
   */
  async #owning<T>(work: () => Promise<T>): Promise<T> {
    for (let attempt = 1; ; attempt += 1) {
      try {
        return await work();
      } catch (error) {
        await this.#dropSession(!isOutage(error));
        if (!(error instanceof Fenced)) throw outside(error);
        if (attempt === takeOvers) {
          const { destination } = this.#context;
          throw new TidemarkError(
            'TM403',
            `${destination}: another worker takes the transactional id again and again`,
            { cause: error },
          );
        }
        await sleep(Math.random() * 100 * attempt);
      }
    }
  }

  async #takeOver(fencingToken: bigint | null): Promise<Session> {
    this.#session = await Session.takeOver(this.#context, this.#settings, fencingToken, this.#unseen);
    this.#unseen = [];
    return this.#session;
  }

  async #dropSession(abort: boolean): Promise<void> {
    const session = this.#session;
    this.#session = null;
    if (session) this.#unseen = session.unseen;
    await session?.close(abort);
  }

  /** One thing at a time: there is one transactional id. */
  #exclusive<T>(work: () => Promise<T>): Promise<T> {
    const run = async () => {
      if (this.#closed) throw new TidemarkError('TM401', `${this.#context.destination}: the sink was closed`);
      return work();
    };
    const turn = this.#turn.then(run, run);
    this.#turn = turn.catch(() => {});
    return turn;
  }
}

/** There is nobody to abort at. */
function isOutage(error: unknown): boolean {
  return error instanceof Fenced || (error instanceof TidemarkError && error.code === 'TM401');
}

/** A request that is too large for a topic and holds several records: the limit was lowered, or could not be seen. */
function outside(error: unknown): unknown {
  if (!(error instanceof TooLarge)) return error;
  return new TidemarkError('TM303', 'the target refused a batch as too large', {
    remedy:
      'Raise max.message.bytes of the topics (kafka-configs.sh --alter --entity-type topics --add-config max.message.bytes=…), or grant DescribeConfigs on them, so that the sink sees the limit.',
    cause: asTidemarkError(error.cause, 'TM303'),
  });
}
