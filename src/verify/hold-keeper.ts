/** A hold on a destination for as long as a verify takes: taken, extended by a timer, always released. */
import { randomUUID } from 'node:crypto';
import type { Pool } from 'pg';
import type { Position } from '../connector/position.ts';
import { extendHold, type HoldName, releaseHold, requestHold, setTarget } from '../deliver/holds.ts';
import { TidemarkError } from '../platform/errors.ts';
import { errorFields, type Logger } from '../platform/log.ts';

/** A verify that died holds its destination this long at most. */
export const defaultHoldMs = 60_000;

export class HoldKeeper {
  readonly #pool: Pool;
  readonly #name: HoldName;
  readonly #timeToLiveMs: number;
  readonly #log: Logger;
  readonly #lost = new AbortController();
  readonly #timer: NodeJS.Timeout;
  #extending: Promise<void> = Promise.resolve();

  private constructor(pool: Pool, name: HoldName, timeToLiveMs: number, log: Logger) {
    this.#pool = pool;
    this.#name = name;
    this.#timeToLiveMs = timeToLiveMs;
    this.#log = log;
    this.#timer = setInterval(() => {
      this.#extending = this.#extending.then(() => this.#extendByTimer());
    }, timeToLiveMs / 4);
  }

  /**
   * When this returns no further Window of the destination is decided.
   * @throws TidemarkError TM408 when another verify holds it, TM409
   */
  static async take(
    pool: Pool,
    place: Omit<HoldName, 'holder'>,
    timeToLiveMs: number,
    log: Logger,
  ): Promise<HoldKeeper> {
    const name = { ...place, holder: `verify-${randomUUID()}` };
    await requestHold(pool, name, timeToLiveMs);
    return new HoldKeeper(pool, name, timeToLiveMs, log);
  }

  /** Aborted, with TM408 as the reason, when the hold expired: the destination may have moved on. */
  get lost(): AbortSignal {
    return this.#lost.signal;
  }

  /** @throws TidemarkError TM408, TM409 */
  async aim(target: Position): Promise<void> {
    await setTarget(this.#pool, this.#name, target);
  }

  /** Proves that the hold was in force until now: one that expired is never revived. @throws TidemarkError TM408, TM409 */
  async confirm(): Promise<void> {
    this.#lost.signal.throwIfAborted();
    await extendHold(this.#pool, this.#name, this.#timeToLiveMs);
  }

  /** Never throws: a hold that cannot be released expires by itself. */
  async release(): Promise<void> {
    clearInterval(this.#timer);
    await this.#extending;
    try {
      await releaseHold(this.#pool, this.#name);
    } catch (error) {
      this.#log.warn('the hold could not be released; it expires by itself', {
        ...errorFields(error),
        destination: this.#name.destination,
        expiresWithinMs: this.#timeToLiveMs,
      });
    }
  }

  async #extendByTimer(): Promise<void> {
    if (this.#lost.signal.aborted) return;
    try {
      await extendHold(this.#pool, this.#name, this.#timeToLiveMs);
    } catch (error) {
      // While the control database is away nobody can decide a Window either: the next turn shows what became of it.
      if (error instanceof TidemarkError && error.code === 'TM409') {
        this.#log.warn('the hold could not be extended yet', errorFields(error));
      } else this.#lost.abort(error);
    }
  }
}
