/** One case: a place that nobody has seen, the source that is delivered to it, and the sinks that do it. */
import { mkdir, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { expect } from 'vitest';
import { TidemarkError } from '../../src/connector/failure.ts';
import type { Held, OptionValues, Receipt, Sink, SinkContext } from '../../src/connector/sink.ts';
import type { ErrorCode } from '../../src/platform/errors.ts';
import { expectSame, expectSameReadBack } from './expectations.ts';
import { Source } from './source.ts';
import type { Place, Subject, SubjectServer } from './subject.ts';
import { appendWindow, mergeWindow, names, type WindowPlan, WindowPlanner } from './windows.ts';
import type { Witness } from './witness.ts';

/** How long what passes by itself may take to pass. */
const patienceMs = 30_000;
const retryMs = 100;

export interface Stage {
  subject: Subject;
  server: SubjectServer;
  witness: Witness;
  /** For the sinks' temporary files. */
  folder: string;
}

export interface OpenOptions {
  options?: OptionValues;
  /** Called at every failpoint; what it throws ends the Window there. */
  failpoint?: (name: string) => Promise<void>;
}

export class Trial {
  readonly stage: Stage;
  readonly place: Place;
  readonly source = new Source();
  readonly #planner: WindowPlanner;
  readonly #writers: Writer[] = [];

  private constructor(stage: Stage, place: Place) {
    this.stage = stage;
    this.place = place;
    this.#planner = new WindowPlanner(stage.subject.kind.unit);
  }

  static async run(stage: Stage, work: (trial: Trial) => Promise<void>): Promise<void> {
    const trial = new Trial(stage, await stage.server.place());
    try {
      await work(trial);
    } finally {
      for (const writer of trial.#writers) await writer.close();
    }
  }

  get mode(): Subject['mode'] {
    return this.stage.subject.mode;
  }

  /** A worker with the next fencing token. */
  async open({ options = this.place.options, failpoint }: OpenOptions = {}): Promise<Writer> {
    const { subject, witness, folder } = this.stage;
    const token = BigInt(this.#writers.length + 1);
    const scratchDirectory = join(folder, `worker-${process.pid}`, `${token}`);
    await rm(scratchDirectory, { recursive: true, force: true });
    await mkdir(scratchDirectory, { recursive: true });
    const context: SinkContext = {
      ...names,
      scratchDirectory,
      log: (level, message, fields) => witness.log(level, message, fields),
      failpoint: async (name) => {
        witness.failpoints.add(name);
        await failpoint?.(name);
      },
    };
    witness.opened(subject.kind, options);
    const opening = subject.kind.open(context, options);
    opening.catch((error: unknown) => witness.caught(error));
    const writer = new Writer(await opening, token, witness);
    this.#writers.push(writer);
    return writer;
  }

  /** The Windows of what happened since the last cut: one for each Unit. */
  cut(): WindowPlan[] {
    return this.#planner.plan(this.source.cut());
  }

  /** For a source whose changes are all in one Unit. */
  cutOne(): WindowPlan {
    const plans = this.cut();
    expect(plans, 'Windows of one Unit').toHaveLength(1);
    return plans[0]!;
  }

  /** Cuts and writes. @returns what was written */
  async deliver(writer: Writer): Promise<WindowPlan[]> {
    const plans = this.cut();
    for (const plan of plans) await writer.write(plan);
    return plans;
  }

  /** A stranger sees the source as it was when the plan was cut; now, without one. */
  async expectSame(plan?: Pick<WindowPlan, 'expected'>): Promise<void> {
    await expectSame(this.stage.subject, this.place, plan?.expected ?? this.source.expected());
  }

  /** As expectSame, and the sink reads the same back. */
  async expectReadBack(writer: Writer): Promise<void> {
    await this.expectSame();
    await expectSameReadBack(this.stage.subject, writer.sink, this.source);
  }
}

/** Batches of rows as a case wants a sink to meet them. */
export type Prepare = <T>(
  batches: AsyncIterable<T[]>,
  of: 'states' | 'counts' | 'events',
) => AsyncIterable<T[]>;

/** An open sink with its fencing token, as one worker has it. */
export class Writer {
  readonly sink: Sink;
  readonly token: bigint;
  readonly #witness: Witness;
  #closed = false;

  constructor(sink: Sink, token: bigint, witness: Witness) {
    this.sink = sink;
    this.token = token;
    this.#witness = witness;
  }

  /** @param prepare what the case does to the Window's batches */
  async write(plan: WindowPlan, prepare?: Prepare): Promise<Receipt> {
    try {
      return await this.#write(plan, prepare);
    } catch (error) {
      this.#witness.caught(error);
      throw error;
    }
  }

  #write(plan: WindowPlan, prepare: Prepare = (batches) => batches): Promise<Receipt> {
    const { sink, token } = this;
    if (sink.mode === 'merge') {
      const window = mergeWindow(plan, token);
      for (const table of window.tables) {
        const { states, counts, events } = table;
        table.states = () => prepare(states(), 'states');
        table.counts = () => prepare(counts(), 'counts');
        table.events = () => prepare(events(), 'events');
      }
      return sink.mergeWindow(window);
    }
    const window = appendWindow(plan, token);
    for (const table of window.tables) {
      const { events } = table;
      table.events = () => prepare(events(), 'events');
    }
    return sink.mode === 'append' ? sink.appendWindow(window) : sink.sendWindow(window);
  }

  /** Null of sinks that cannot say. */
  async held(unit: string): Promise<Held | null> {
    if (this.sink.mode === 'send') return null;
    try {
      return await this.sink.held(unit);
    } catch (error) {
      this.#witness.caught(error);
      throw error;
    }
  }

  /** As the pipeline does: what may pass is tried again. */
  async writeUntilTaken(plan: WindowPlan): Promise<Receipt> {
    const deadline = Date.now() + patienceMs;
    for (;;) {
      try {
        await this.held(plan.unit);
        return await this.write(plan);
      } catch (error) {
        if (!(error instanceof TidemarkError) || error.code !== 'TM401' || Date.now() > deadline) throw error;
        await sleep(error.retryAfterMs ?? retryMs);
      }
    }
  }

  async close(): Promise<void> {
    if (this.#closed) return;
    this.#closed = true;
    await this.sink.close();
  }
}

/** @returns what the work failed with, which must be an error that an operator can act on */
export async function failure(work: Promise<unknown>): Promise<TidemarkError> {
  const outcome = await work.then(
    () => 'nothing',
    (error: unknown) => error,
  );
  expect(outcome).toBeInstanceOf(TidemarkError);
  const error = outcome as TidemarkError;
  expect(error.message).not.toBe('');
  expect(error.remedy).not.toBe('');
  return error;
}

export async function expectRefusal(work: Promise<unknown>, code: ErrorCode): Promise<TidemarkError> {
  const error = await failure(work);
  expect(error.code, `${error.message}: ${error.remedy}`).toBe(code);
  return error;
}
