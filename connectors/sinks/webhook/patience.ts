/**
 * A second try in place. An endpoint that fails one request in a hundred would otherwise fail every Window of many
 * requests, and each failure makes the pipeline wait longer before the next; one that is down should be reported at once.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { TidemarkError } from '../../../src/connector/failure.ts';

const pauseMs = 250;
/** Whoever asks for more is left to the pipeline, which shows it. */
const longestPauseMs = 5000;

export class Patience {
  #earned = false;

  /** The endpoint acknowledged something. */
  earn(): void {
    this.#earned = true;
  }

  /** Tries what passes by itself (TM401) once more, if something was acknowledged since the last time. */
  async try<T>(attempt: () => Promise<T>, stopped: () => boolean): Promise<T> {
    try {
      return await attempt();
    } catch (error) {
      if (!this.#earned || !(error instanceof TidemarkError) || error.code !== 'TM401') throw error;
      const wait = error.retryAfterMs ?? pauseMs;
      if (wait > longestPauseMs) throw error;
      this.#earned = false;
      await sleep(wait);
      if (stopped()) throw error;
      return attempt();
    }
  }
}
